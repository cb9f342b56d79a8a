//! What a model was loaded from, to tell which of its versions a reload may keep.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use consort_config::Draft;
use consort_protocol::ModelConfig;

use crate::folder::version_number;
use crate::stamp::Stamp;
use crate::stand_in::StandIn;
use crate::stated::Stated;

/// What the versions of a model that are served were loaded from.
#[derive(Clone, Default)]
pub(super) struct Loaded {
    /// The configuration but for which versions it serves.
    config: ModelConfig,
    /// The files that all versions share.
    shared: Stamp,
    /// The files of each version.
    versions: BTreeMap<u64, Stamp>,
    /// Held because backends may read their files again.
    _files: Option<Arc<StandIn>>,
}

impl Loaded {
    /// What `versions` of a model are about to be loaded from.
    pub(super) fn of(stated: &Stated, draft: &Draft, versions: &[u64]) -> Self {
        let mut config = draft.config().clone();
        config.version_policy = None;
        let (shared, stamp_of): (_, Box<dyn Fn(u64) -> Stamp>) = match &stated.stand_in {
            Some(files) => (files.stamp(), Box::new(|_| Stamp::default())),
            None => {
                let folder = &stated.folder.path;
                let of_version =
                    |version: u64| Stamp::of_folder(&folder.join(version.to_string()), |_| false);
                (shared_by_versions(folder), Box::new(of_version))
            }
        };
        let versions = versions.iter().map(|version| (*version, stamp_of(*version))).collect();
        Self { config, shared, versions, _files: stated.stand_in.clone() }
    }

    /// Whether `version` would be the same if it were loaded from `next`.
    pub(super) fn is_same(&self, next: &Self, version: u64) -> bool {
        let stamp = self.versions.get(&version);
        self.config == next.config
            && self.shared == next.shared
            && stamp.is_some()
            && stamp == next.versions.get(&version)
    }
}

/// The stamp of a model's folder but for its versions and its configuration, which is compared by
/// what it says.
fn shared_by_versions(folder: &Path) -> Stamp {
    let is_config = |name: &str| name.starts_with("config.");
    Stamp::of_folder(folder, |name| is_config(name) || version_number(name).is_some())
}
