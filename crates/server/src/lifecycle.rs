//! The models of a server together with whether the server still wants to be called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use consort_protocol::ModelStatistics;
use consort_repository::{Change, IndexEntry, Models, Served, State};
use consort_stage::{Error, Result};
use futures::future::BoxFuture;
use tokio::sync::watch;

/// The models of a server; not ready once the server is draining, whatever the models say.
pub struct Lifecycle {
    models: Arc<dyn Models>,
    is_draining: AtomicBool,
    is_strict: AtomicBool,
    is_open: watch::Sender<bool>,
}

impl Lifecycle {
    /// A server over `models` that is not draining and is ready when all of them are.
    pub fn new(models: Arc<dyn Models>) -> Arc<Self> {
        let (is_draining, is_strict) = (AtomicBool::new(false), AtomicBool::new(true));
        Arc::new(Self { models, is_draining, is_strict, is_open: watch::Sender::new(false) })
    }

    /// Why models are not ready, if a model that must be is not; whatever the server makes of it.
    pub(crate) fn failures(&self) -> Vec<String> {
        if self.models.is_ready() {
            return Vec::new();
        }
        let troubles = self.models.index().into_iter().filter(IndexEntry::is_trouble);
        troubles.map(|row| format!("model `{}`: {}", row.name, row.reason)).collect()
    }

    /// From now on one ready model is enough for the server to be ready, once none is loading.
    pub fn relax(&self) {
        self.is_strict.store(false, Ordering::Release);
    }

    fn is_partly_ready(&self) -> bool {
        let states: Vec<State> = self.models.index().iter().map(|entry| entry.state).collect();
        states.contains(&State::Ready) && !states.contains(&State::Loading)
    }

    /// From now on the fronts listen.
    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Waits until the fronts listen.
    pub async fn opened(&self) {
        // The sender lives as long as this does.
        let _ = self.is_open.subscribe().wait_for(|is_open| *is_open).await;
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

    fn discover(&self) -> BoxFuture<'_, ()> {
        self.models.discover()
    }

    fn index(&self) -> Vec<IndexEntry> {
        self.models.index()
    }

    fn is_ready(&self) -> bool {
        let is_enough = || !self.is_strict.load(Ordering::Acquire) && self.is_partly_ready();
        !self.is_draining.load(Ordering::Acquire) && (self.models.is_ready() || is_enough())
    }

    fn statistics(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        self.models.statistics(name, version)
    }

    fn control(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        if self.is_draining.load(Ordering::Acquire) {
            return Box::pin(async { Err(Error::unavailable("Server not ready")) });
        }
        self.models.control(change)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.models.close()
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.models.generation()
    }
}

#[cfg(test)]
mod tests {
    use consort_repository::not_explicit;

    use super::*;
    use crate::nothing::Nothing;

    #[tokio::test]
    async fn what_the_models_are_asked_passes_through_until_the_server_drains() {
        let models = Arc::<Nothing>::default();
        let lifecycle = Lifecycle::new(models.clone());
        lifecycle.discover().await;
        assert_eq!(models.looks.load(Ordering::Relaxed), 1);
        let change = || Change::unload("m", false).unwrap();
        let refused = lifecycle.control(change()).await.unwrap_err();
        assert_eq!(refused.message(), not_explicit().message());
        assert!(lifecycle.is_ready());
        lifecycle.drain();
        assert!(!lifecycle.is_ready());
        let refused = lifecycle.control(change()).await.unwrap_err();
        assert_eq!(refused.message(), "Server not ready");
    }
}
