//! An ensemble as its configuration states it, before anything is checked.

use std::sync::Arc;

use consort_stage::Signature;

/// An ensemble as its configuration states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The ensemble's name.
    pub name: Arc<str>,
    /// What the ensemble takes and gives. Whether it is decoupled follows from its steps.
    pub signature: Signature,
    /// The steps, in the configuration's order.
    pub steps: Vec<StepSpec>,
    /// How many iterations of a streaming step may wait for the steps behind it; 0 for the default.
    pub max_inflight_requests: u32,
}

/// One step: a model and how its tensors are connected to the ensemble's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSpec {
    /// The model that the step calls.
    pub model: Arc<str>,
    /// The version it calls; `None` for the latest.
    pub version: Option<u64>,
    /// For each input of the model, the ensemble tensor it is given.
    pub inputs: Vec<Edge>,
    /// For each output of the model that is used, the ensemble tensor it becomes.
    pub outputs: Vec<Edge>,
}

/// One entry of an `input_map` or `output_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The tensor's name in the model (the map's key).
    pub model_tensor: Arc<str>,
    /// The tensor's name in the ensemble (the map's value).
    pub ensemble_tensor: Arc<str>,
}
