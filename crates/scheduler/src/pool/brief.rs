//! Requests that are run where they are called, as their work is no longer than a change of thread.

use consort_stage::{BatchBackend, Request};

use crate::batching::{Manner, Rules};
use crate::{Counting, InlineStage};

/// What runs the brief requests of a model for their callers, however many there are at once.
pub(super) struct Brief {
    bytes: usize,
    pub(super) stage: InlineStage,
}

impl Brief {
    /// What `backend` has for them, where each request runs by itself and may overtake others.
    pub(super) fn of(
        backend: &dyn BatchBackend,
        rules: &Rules,
        counting: &Counting,
    ) -> Option<Self> {
        if rules.manner != Manner::Alone || rules.preserves_order {
            return None;
        }
        let brief = backend.brief()?;
        let stage = InlineStage::new(brief.backend, counting.clone());
        Some(Self { bytes: brief.bytes, stage })
    }

    /// Whether a request is brief.
    pub(super) fn takes(&self, request: &Request, rules: &Rules) -> bool {
        let bytes: usize = request.inputs.iter().map(|tensor| tensor.data.len()).sum();
        bytes <= self.bytes && rules.layout.rows(request) == 1
    }
}
