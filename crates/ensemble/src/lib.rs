//! The checked graph of an ensemble and its execution, without any IO.
//!
//! A configuration is stated as a [`Spec`], [`check`]ed into a [`Plan`] or refused with every
//! [`Defect`] at once, and run by an [`Ensemble`], which is a stage like any model.

mod check;
mod defect;
mod edge;
mod ensemble;
mod nesting;
mod plan;
mod run;
mod spec;
mod store;

pub use check::{Lookup, check};
pub use defect::Defect;
pub use ensemble::Ensemble;
pub use nesting::{Nested, nesting};
pub use plan::{
    OutputGroup, Plan, PlannedInput, PlannedOutput, PlannedStep, PlannedTensor, Source, StepIndex,
    TensorIndex,
};
pub use spec::{Edge, Spec, StepSpec};
