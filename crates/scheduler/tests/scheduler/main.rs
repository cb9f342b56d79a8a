//! Requests on their way to a backend: queued, run, answered, cancelled, and never lost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batching;
mod inline;
mod pool;
mod regroup;
mod sequence;
mod stage;
mod streaming;
mod stress;
