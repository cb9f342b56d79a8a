//! One instance as the core of the sequence batcher sees it.

use consort_stage::CorrelationId;

/// Which sequence has which slot of an instance, and what runs there.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) slots: Vec<Option<CorrelationId>>,
    pub(super) running: Vec<Option<CorrelationId>>,
    pub(super) stay: Stay,
}

/// Whether an instance is there, and for how long: Serving → Retiring → Gone, or Serving → Gone when
/// the model goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// It takes new sequences.
    Serving,
    /// It goes when the sequences that it has are over.
    Retiring,
    /// It has gone, and another may have its place.
    Gone,
}

impl Lane {
    /// An instance without a sequence.
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: vec![None; slots], running: Vec::new(), stay: Stay::Serving }
    }

    /// How many slots are taken.
    pub(super) fn taken(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Whether it is to go and has nothing left to stay for.
    pub(super) fn may_go(&self) -> bool {
        self.stay == Stay::Retiring && self.taken() == 0
    }
}
