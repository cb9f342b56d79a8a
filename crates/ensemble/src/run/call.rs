//! One call of a step's model that is under way.

use consort_stage::Responses;
use consort_telemetry::WorkSpan;

use crate::plan::StepIndex;
use crate::store::Iteration;

/// One call of a step's model.
pub(super) struct Call {
    pub(super) step: StepIndex,
    pub(super) iteration: Iteration,
    /// How many responses have come.
    pub(super) answers: u32,
    /// Whether no later iteration of this step will come.
    pub(super) is_last: bool,
    pub(super) responses: Responses,
    /// Its span; the call is cut off by dropping it.
    pub(super) span: WorkSpan,
}
