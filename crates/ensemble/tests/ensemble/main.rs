//! Ensembles as a caller sees them: what is refused, what is planned, and how it runs.

mod graph;

mod accepted;
mod cancellation;
mod dataflow;
mod decoupled;
mod random;
mod refused;
