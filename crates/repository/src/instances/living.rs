//! Backends that tell whether they are still there: requests under way keep theirs.

use std::sync::{Arc, Weak};

use consort_stage::{
    Batch, BatchBackend, Brief, Held, InlineBackend, Interrupt, Jobs, Result, StreamingBackend,
    Tensor,
};

use crate::kind::Backend;

/// What every backend of a version holds for as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Life(Arc<()>);

/// Tells whether any backend of a version is still there.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Weak<()>);

/// A backend that holds on to the life of its version; freed before it lets go.
struct Living<B> {
    backend: B,
    life: Arc<()>,
}

impl Life {
    /// The same backend, part of this life.
    pub(crate) fn with(&self, backend: Backend) -> Backend {
        let life = self.0.clone();
        match backend {
            Backend::Inline(backend) => Backend::Inline(Arc::new(Living { backend, life })),
            Backend::Batch(backend) => Backend::Batch(Box::new(Living { backend, life })),
            Backend::Streaming(backend) => Backend::Streaming(Box::new(Living { backend, life })),
        }
    }

    /// What tells whether it has ended, once this is dropped too.
    pub(crate) fn pulse(&self) -> Pulse {
        Pulse(Arc::downgrade(&self.0))
    }
}

impl Pulse {
    /// Whether nothing of the version is left in memory.
    pub(crate) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl InlineBackend for Living<Arc<dyn InlineBackend>> {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        self.backend.run(batch)
    }
}

impl BatchBackend for Living<Box<dyn BatchBackend>> {
    fn prepare(&mut self) -> Result<Option<Held>> {
        self.backend.prepare()
    }

    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        self.backend.run(batch)
    }

    fn gains_from_threads(&self) -> bool {
        self.backend.gains_from_threads()
    }

    fn keeps_requests_apart(&self) -> bool {
        self.backend.keeps_requests_apart()
    }

    fn brief(&self) -> Option<Brief> {
        let Brief { bytes, backend } = self.backend.brief()?;
        let backend = Arc::new(Living { backend, life: self.life.clone() });
        Some(Brief { bytes, backend })
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.backend.interrupt()
    }
}

impl StreamingBackend for Living<Box<dyn StreamingBackend>> {
    fn run(&mut self, jobs: Jobs) {
        self.backend.run(jobs);
    }

    fn gains_from_threads(&self) -> bool {
        self.backend.gains_from_threads()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.backend.interrupt()
    }
}

#[cfg(test)]
mod tests {
    use consort_testkit::Particular;

    use super::*;

    #[test]
    fn a_backend_stays_what_it_is_while_its_life_is_watched() {
        let life = Life::default();
        let Backend::Batch(mut batch) = life.with(Backend::Batch(Box::new(Particular))) else {
            panic!("it is a batch backend");
        };
        Particular::assert_batch(&mut *batch);
        let brief = batch.brief().expect("it has something for brief requests");
        assert_eq!(brief.bytes, Particular::BRIEF_BYTES);
        let streaming = life.with(Backend::Streaming(Box::new(Particular)));
        let Backend::Streaming(streaming) = streaming else { panic!("it is a streaming backend") };
        Particular::assert_streaming(&*streaming);
        let pulse = life.pulse();
        drop((life, batch));
        assert!(!pulse.is_over());
        drop(streaming);
        assert!(!pulse.is_over());
        drop(brief);
        assert!(pulse.is_over());
    }
}
