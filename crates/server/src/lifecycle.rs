//! The models of a server together with whether the server still wants to be called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use consort_protocol::ModelStatistics;
use consort_repository::{IndexEntry, Models, Served};
use consort_stage::Result;
use futures::future::BoxFuture;
use tokio::sync::watch;

/// The models of a server; not ready once the server is draining, whatever the models say.
pub struct Lifecycle {
    models: Arc<dyn Models>,
    is_draining: AtomicBool,
}

impl Lifecycle {
    /// A server over `models` that is not draining.
    pub fn new(models: Arc<dyn Models>) -> Arc<Self> {
        Arc::new(Self { models, is_draining: AtomicBool::new(false) })
    }

    /// From now on the server says that it is not ready; calls are still answered.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
    }
}

impl Models for Lifecycle {
    fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        self.models.get(name, version)
    }

    fn index(&self) -> Vec<IndexEntry> {
        self.models.index()
    }

    fn is_ready(&self) -> bool {
        !self.is_draining.load(Ordering::Acquire) && self.models.is_ready()
    }

    fn statistics(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        self.models.statistics(name, version)
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.models.generation()
    }
}
