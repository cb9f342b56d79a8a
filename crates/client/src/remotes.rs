//! The stages that ensembles and callers hold on to, kept from one merge to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consort_repository::{IndexEntry, Served};

use crate::merge::{Key, Merged};
use crate::remote::{Newest, Remote, RemoteStage};
use crate::report::Description;
use crate::snapshot::{Ready, Row};

/// The stage of every model version that is known.
#[derive(Default)]
pub(crate) struct Remotes {
    kept: BTreeMap<(Arc<str>, u64), Arc<Remote>>,
    /// The newest ready version of each model.
    newest: BTreeMap<Arc<str>, Newest>,
}

impl Remotes {
    /// The rows of the index with what serves them.
    pub(crate) fn rows(&mut self, merged: BTreeMap<Key, Merged>) -> BTreeMap<Arc<str>, Vec<Row>> {
        let versions = ready_versions(&merged);
        let there: BTreeSet<Key> = merged.keys().cloned().collect();
        let mut models: BTreeMap<Arc<str>, Vec<Row>> = BTreeMap::new();
        for ((name, version), model) in merged {
            let ready = version.zip(model.ready).map(|(version, (description, replicas))| {
                let remote = self.keep(&name, version, &description);
                remote.set_replicas(replicas);
                let newest = self.newest.entry(name.clone()).or_default();
                // The last of them stays.
                newest.store(Some(remote.clone()));
                let versions = versions.get(&name).cloned().unwrap_or_default();
                ready(version, versions, &description, (remote, newest.clone()))
            });
            let entry = IndexEntry {
                name: name.clone(),
                version,
                state: model.state,
                reason: model.reason,
            };
            models.entry(name).or_default().push(Row { entry, ready, is_away: model.is_away });
        }
        // Last, so that who took a version for the newest finds what is the newest now.
        self.forget_missing(&versions, &there);
        models
    }

    /// Takes the replicas from what is not ready, which may come back, and forgets what is gone.
    fn forget_missing(&mut self, ready: &BTreeMap<Arc<str>, Vec<u64>>, there: &BTreeSet<Key>) {
        self.kept.retain(|(name, version), remote| {
            if ready.get(name).is_none_or(|ready| !ready.contains(version)) {
                remote.set_replicas(Vec::new());
            }
            there.contains(&(name.clone(), Some(*version)))
        });
        self.newest.retain(|name, _| ready.contains_key(name));
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
    (remote, newest): (Arc<Remote>, Newest),
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
        stage: Arc::new(RemoteStage::of_version(remote.clone())),
        revealed: None,
    };
    let newest =
        Served { stage: Arc::new(RemoteStage::newest(remote.clone(), newest)), ..served.clone() };
    Ready { served: Arc::new(served), newest: Arc::new(newest), remote }
}
