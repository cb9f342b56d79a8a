//! A backend that is nothing that backends are unless they say otherwise.

use std::sync::Arc;

use consort_stage::{
    Batch, BatchBackend, Brief, Held, InlineBackend, Interrupt, Jobs, Result, StreamingBackend,
    Tensor,
};

/// Says of everything that a backend may leave at its default that it is not so, for tests of what
/// stands before a backend and passes on what it says.
pub struct Particular;

impl Particular {
    /// What it runs where it is called. Not passed on by what makes requests wait.
    pub const BRIEF_BYTES: usize = 7;

    /// Asserts that `backend`, which stands before one of these, is as particular.
    ///
    /// # Panics
    ///
    /// Where it does not pass something on.
    pub fn assert_batch(backend: &mut dyn BatchBackend) {
        assert!(backend.prepare().is_ok_and(|held| held.is_some()), "it prepares a run");
        assert!(!backend.keeps_requests_apart(), "it mixes requests");
        assert!(backend.gains_from_threads(), "it gains from threads");
        assert!(backend.interrupt().is_some(), "it can be interrupted");
    }

    /// Asserts the same of a streaming backend.
    ///
    /// # Panics
    ///
    /// Where it does not pass something on.
    pub fn assert_streaming(backend: &dyn StreamingBackend) {
        assert!(backend.gains_from_threads(), "it gains from threads");
        assert!(backend.interrupt().is_some(), "it can be interrupted");
    }
}

fn nothing() -> Interrupt {
    Arc::new(|| ())
}

impl BatchBackend for Particular {
    fn prepare(&mut self) -> Result<Option<Held>> {
        Ok(Some(Box::new(())))
    }

    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        Ok(batch.inputs)
    }

    fn keeps_requests_apart(&self) -> bool {
        false
    }

    fn gains_from_threads(&self) -> bool {
        true
    }

    fn brief(&self) -> Option<Brief> {
        Some(Brief { bytes: Self::BRIEF_BYTES, backend: Arc::new(Self) })
    }

    fn interrupt(&self) -> Option<Interrupt> {
        Some(nothing())
    }
}

impl InlineBackend for Particular {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        Ok(batch.inputs)
    }
}

impl StreamingBackend for Particular {
    fn run(&mut self, _: Jobs) {}

    fn gains_from_threads(&self) -> bool {
        true
    }

    fn interrupt(&self) -> Option<Interrupt> {
        Some(nothing())
    }
}
