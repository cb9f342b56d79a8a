//! A set without models, which notes what it is told; for tests.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use consort_protocol::ModelStatistics;
use consort_repository::{IndexEntry, Models, Served};
use consort_stage::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

/// No models; every one is away.
#[derive(Default)]
pub(crate) struct Nothing {
    pub(crate) expected: Mutex<BTreeSet<Arc<str>>>,
}

impl Models for Nothing {
    fn get(&self, _: &str, _: Option<u64>) -> Result<Arc<Served>> {
        Err(Error::not_found("nothing is there"))
    }

    fn away(&self, name: &str, _: Option<u64>) -> Option<String> {
        Some(format!("{name} is away"))
    }

    fn expect(&self, models: BTreeSet<Arc<str>>) {
        *self.expected.lock().unwrap() = models;
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
