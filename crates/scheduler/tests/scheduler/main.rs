//! Requests on their way to a backend: queued, run, answered, cancelled, and never lost.

mod inline;
mod pool;
mod stage;
mod streaming;
mod stress;
