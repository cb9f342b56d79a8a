//! The ensembles of a repository over the models they are made of, near or far.
//!
//! The plans are made anew whenever the models change, so that an ensemble is ready exactly while
//! everything it calls is.

mod assemble;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use consort_config::{Model, OPTIONAL};
use consort_protocol::ModelStatistics;
use consort_repository::{
    IndexEntry, Models, Served, Snapshot, State, ensembles_in, statistics, versions_in,
};
use consort_stage::Result;
use consort_telemetry::Metrics;
use futures::future::BoxFuture;
use tokio::sync::watch;

use assemble::Assembly;

/// The models of a gateway: ensembles, and what they are made of.
pub struct Catalog {
    leaves: Arc<dyn Models>,
    stated: BTreeMap<Arc<str>, Stated>,
    optional: BTreeSet<Arc<str>>,
    metrics: Arc<Metrics>,
    ensembles: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
}

/// An ensemble as its configuration states it, or what is wrong with that.
struct Stated {
    model: std::result::Result<Model, String>,
    version: u64,
}

impl Catalog {
    /// The ensembles of `repositories` over `leaves`; follows the leaves as they come and go.
    ///
    /// Must be called in a runtime. Errors only when a repository cannot be read.
    pub fn open(
        repositories: &[PathBuf],
        leaves: Arc<dyn Models>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let mut stated = BTreeMap::new();
        let mut optional = BTreeSet::new();
        for (folder, draft) in ensembles_in(repositories)? {
            let name: Arc<str> = folder.name.as_str().into();
            // Triton wants a version folder even for an ensemble; without one it counts as 1.
            let version = versions_in(&folder.path).last().copied().unwrap_or(1);
            if draft.as_ref().is_ok_and(|draft| draft.parameter(OPTIONAL) == Some("true")) {
                optional.insert(name.clone());
            }
            let model = draft.and_then(consort_config::Draft::check);
            let model = model.map_err(|problems| problems.to_string());
            stated.insert(name, Stated { model, version });
        }
        let catalog = Arc::new(Self {
            leaves,
            stated,
            optional,
            metrics,
            ensembles: ArcSwap::default(),
            generation: watch::Sender::new(0),
        });
        catalog.assemble();
        tokio::spawn(follow(Arc::downgrade(&catalog), catalog.leaves.generation()));
        Ok(catalog)
    }

    /// Makes the plans anew over the models as they are now.
    fn assemble(&self) {
        let entries = Assembly::new(&self.stated, &*self.leaves, &self.metrics).all();
        let before = self.ensembles.load();
        let snapshot = Snapshot::new(entries, self.optional.clone());
        for row in snapshot.index() {
            if row.state == State::Unavailable && !before.index().contains(&row) {
                tracing::warn!(ensemble = &*row.name, "not ready: {}", row.reason);
            }
        }
        self.ensembles.store(Arc::new(snapshot));
        self.generation.send_modify(|generation| *generation += 1);
    }
}

/// Assembles the ensembles again whenever the models change, for as long as the catalog lives.
async fn follow(catalog: std::sync::Weak<Catalog>, mut generation: watch::Receiver<u64>) {
    // What changed between the first assembly and now is not missed.
    generation.mark_changed();
    while generation.changed().await.is_ok() {
        let Some(catalog) = catalog.upgrade() else { return };
        catalog.assemble();
    }
}

impl Models for Catalog {
    fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        if self.stated.contains_key(name) {
            return self.ensembles.load().get(name, version);
        }
        self.leaves.get(name, version)
    }

    fn index(&self) -> Vec<IndexEntry> {
        let mut rows = self.leaves.index();
        rows.retain(|row| !self.stated.contains_key(&row.name));
        rows.extend(self.ensembles.load().index());
        rows.sort_by(|left, right| (&left.name, left.version).cmp(&(&right.name, right.version)));
        rows
    }

    fn is_ready(&self) -> bool {
        self.leaves.is_ready() && self.ensembles.load().is_ready()
    }

    fn statistics(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let ensembles = self.ensembles.load().select(&name, version);
            let read = |served: &Arc<Served>| statistics::of(&self.metrics, served);
            if self.stated.contains_key(name.as_str()) {
                return Ok(ensembles?.iter().map(read).collect());
            }
            let mut all = self.leaves.statistics(&name, version).await?;
            if name.is_empty() {
                all.extend(ensembles?.iter().map(read));
            }
            Ok(all)
        })
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
