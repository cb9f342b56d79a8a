//! What is wrong with an ensemble, with the place in its configuration.

use std::fmt;

use crate::spec::Edge;

/// One mistake in an ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// The field at fault, as a path such as `ensemble_scheduling.step[1].input_map["x"]`.
    pub field: String,
    /// What is wrong and, where it helps, what would be right.
    pub message: String,
    /// The models that are not there, when that is the mistake.
    pub missing: Vec<String>,
}

impl Defect {
    /// A mistake in the ensemble as a whole.
    pub(crate) fn of_ensemble(message: String) -> Self {
        Self { field: "ensemble_scheduling".into(), message, missing: Vec::new() }
    }

    /// A mistake in `field` of a step.
    pub(crate) fn of_step(step: usize, field: &str, message: String) -> Self {
        Self {
            field: format!("ensemble_scheduling.step[{step}].{field}"),
            message,
            missing: Vec::new(),
        }
    }

    /// A mistake in one entry of a step's `map`.
    pub(crate) fn of_edge(step: usize, map: &str, edge: &Edge, message: String) -> Self {
        Self::of_step(step, &format!("{map}[\"{}\"]", edge.model_tensor), message)
    }

    /// A mistake in the ensemble's own `input` or `output`.
    pub(crate) fn of_tensor(list: &str, index: usize, message: String) -> Self {
        Self { field: format!("{list}[{index}]"), message, missing: Vec::new() }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}
