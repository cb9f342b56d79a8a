//! A set without models, which notes what it is asked; for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use consort_protocol::ModelStatistics;
use consort_repository::{IndexEntry, Models, Served};
use consort_stage::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

/// No models.
#[derive(Default)]
pub(crate) struct Nothing {
    /// How often it was asked to look for models.
    pub(crate) looks: AtomicUsize,
}

impl Models for Nothing {
    fn get(&self, _: &str, _: Option<u64>) -> Result<Arc<Served>> {
        Err(Error::not_found("nothing is there"))
    }

    fn discover(&self) -> BoxFuture<'_, ()> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        async {}.boxed()
    }

    fn index(&self) -> Vec<IndexEntry> {
        Vec::new()
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn statistics(&self, _: &str, _: Option<u64>) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn generation(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}
