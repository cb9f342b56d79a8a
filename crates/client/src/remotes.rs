//! The stages that ensembles and callers hold on to, kept from one merge to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_repository::{IndexEntry, Served};

use crate::merge::{Key, Merged};
use crate::remote::{Remote, RemoteStage};
use crate::report::Description;
use crate::snapshot::{Ready, Row};

/// The stage of every model version that is known.
#[derive(Default)]
pub(crate) struct Remotes {
    kept: BTreeMap<(Arc<str>, u64), Arc<Remote>>,
}

impl Remotes {
    /// The rows of the index with what serves them.
    pub(crate) fn rows(&mut self, merged: BTreeMap<Key, Merged>) -> BTreeMap<Arc<str>, Vec<Row>> {
        self.forget_missing(&merged);
        let versions = ready_versions(&merged);
        let mut models: BTreeMap<Arc<str>, Vec<Row>> = BTreeMap::new();
        for ((name, version), model) in merged {
            let ready = version.zip(model.ready).map(|(version, (description, replicas))| {
                let remote = self.keep(&name, version, &description);
                remote.set_replicas(replicas);
                let versions = versions.get(&name).cloned().unwrap_or_default();
                ready(version, versions, &description, remote)
            });
            let entry = IndexEntry {
                name: name.clone(),
                version,
                state: model.state,
                reason: model.reason,
            };
            models.entry(name).or_default().push(Row { entry, ready, is_away: model.is_away });
        }
        models
    }

    /// Takes the replicas from what is not ready, which may come back, and forgets what is gone.
    fn forget_missing(&mut self, merged: &BTreeMap<Key, Merged>) {
        self.kept.retain(|(name, version), remote| {
            let model = merged.get(&(name.clone(), Some(*version)));
            if model.is_none_or(|model| model.ready.is_none()) {
                remote.set_replicas(Vec::new());
            }
            model.is_some()
        });
    }

    /// The stage of a model version; a new one when its tensors are no longer the same.
    fn keep(&mut self, name: &Arc<str>, version: u64, description: &Description) -> Arc<Remote> {
        let new = || Arc::new(Remote::new(name.clone(), version, description));
        let remote = self.kept.entry((name.clone(), version)).or_insert_with(new);
        if !remote.is_like(description) {
            remote.set_replicas(Vec::new());
            *remote = new();
        }
        remote.clone()
    }
}

/// The versions of each model that are ready, in ascending order.
fn ready_versions(merged: &BTreeMap<Key, Merged>) -> BTreeMap<Arc<str>, Vec<u64>> {
    let mut versions: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
    for ((name, version), model) in merged {
        if model.ready.is_some() {
            versions.entry(name.clone()).or_default().extend(*version);
        }
    }
    versions
}

fn ready(
    version: u64,
    versions: Vec<u64>,
    description: &Description,
    remote: Arc<Remote>,
) -> Ready {
    let config = &description.config;
    let platform = if config.platform.is_empty() { &config.backend } else { &config.platform };
    let served = Served {
        name: remote.model().clone(),
        version,
        versions,
        platform: platform.clone(),
        config: config.clone(),
        signature: description.signature.clone(),
        labels: description.labels.clone(),
        stage: Arc::new(RemoteStage(remote.clone())),
        revealed: None,
    };
    Ready { served: Arc::new(served), remote }
}
