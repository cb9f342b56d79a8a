//! What a model was loaded from, to tell which of its versions a reload may keep.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use consort_config::Draft;
use consort_protocol::{ModelConfig, ModelInstanceGroup};

use crate::folder::version_number;
use crate::instances::{Pulse, Running};
use crate::stamp::Stamp;
use crate::stand_in::StandIn;
use crate::stated::Stated;

/// What the versions of a model that are served were loaded from.
#[derive(Clone, Default)]
pub(super) struct Loaded {
    /// The configuration but for which versions it serves and on which instances.
    config: ModelConfig,
    /// The instances that it asks for.
    groups: Vec<ModelInstanceGroup>,
    /// The files that all versions share.
    shared: Stamp,
    /// The files of each version.
    versions: BTreeMap<u64, Stamp>,
    /// The instances of each version that is served.
    pub(super) running: BTreeMap<u64, Arc<Running>>,
    /// Held because backends may read their files again.
    _files: Option<Arc<StandIn>>,
}

impl Loaded {
    /// What `versions` of a model are about to be loaded from.
    pub(super) fn of(stated: &Stated, draft: &Draft, versions: &[u64]) -> Self {
        let mut config = draft.config().clone();
        config.version_policy = None;
        let groups = std::mem::take(&mut config.instance_group);
        let given = stated.stand_in.as_ref().map(|files| files.stamp());
        let folder = &stated.folder.path;
        let shared = given.unwrap_or_else(|| shared_by_versions(folder));
        let stamp = |version: &u64| {
            // What came with a request has one stamp for all of it.
            let own = || Stamp::of_folder(&folder.join(version.to_string()), |_| false);
            (*version, given.map_or_else(own, |_| Stamp::default()))
        };
        let versions = versions.iter().map(stamp).collect();
        let (running, files) = (BTreeMap::new(), stated.stand_in.clone());
        Self { config, groups, shared, versions, running, _files: files }
    }

    /// Whether `version` would be the same if it were loaded from `next`, but for its instances.
    pub(super) fn is_same(&self, next: &Self, version: u64) -> bool {
        let stamp = self.versions.get(&version);
        self.config == next.config
            && self.shared == next.shared
            && stamp.is_some()
            && stamp == next.versions.get(&version)
    }

    /// What tells whether the versions are still in memory, once this is dropped.
    pub(super) fn pulses(&self) -> Vec<Pulse> {
        self.running.values().map(|running| running.pulse()).collect()
    }

    /// The same for those versions alone that `next` does not go on with.
    pub(super) fn pulses_beside(&self, next: &Self) -> Vec<Pulse> {
        let goes_on =
            |running: &Arc<Running>| next.running.values().any(|other| Arc::ptr_eq(running, other));
        let ended = self.running.values().filter(|running| !goes_on(running));
        ended.map(|running| running.pulse()).collect()
    }

    /// Whether `next` asks for other instances.
    pub(super) fn is_regrouped(&self, next: &Self) -> bool {
        self.groups != next.groups
    }
}

/// The stamp of a model's folder but for its versions and its configuration, which is compared by
/// what it says.
fn shared_by_versions(folder: &Path) -> Stamp {
    let is_config = |name: &str| name.starts_with("config.");
    Stamp::of_folder(folder, |name| is_config(name) || version_number(name).is_some())
}
