//! The checked graph of an ensemble and its execution, without any IO.

mod spec;

pub use spec::{Edge, Spec, StepSpec};
