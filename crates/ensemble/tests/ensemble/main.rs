//! Ensembles as a caller sees them: what is refused, what is planned, and how it runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::needless_raw_string_hashes, reason = "expectations are written by a tool")]

mod graph;

mod accepted;
mod cancellation;
mod dataflow;
mod decoupled;
mod nesting;
mod random;
mod refused;
