//! Carries out one change: loads beside what is served, exchanges it when ready, frees the old.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_stage::{Error, Result};

use super::{Loaded, Local};
use crate::control::{Override, failed_to_poll, load_failed};
use crate::folder::{served_versions, versions_in};
use crate::load::misconfigured;
use crate::models::{Served, State};
use crate::snapshot::Entry;
use crate::stated::{Stated, no_version};

/// What is to be done about a model.
pub(super) enum Task {
    /// Load it as it was found at the start.
    LoadStated(Box<Stated>),
    /// Load it as it is now, with what a caller gave in place of its files.
    Load(Option<Override>),
    /// Load it as it is now, or forget it if it has gone.
    Follow,
    /// Unload it and keep its name.
    Unload,
}

/// Why nothing was loaded.
struct Refused {
    /// For the index.
    reason: String,
    /// For the caller.
    error: Error,
}

/// What came of each version.
type Versions = Vec<(u64, Result<Arc<Served>>)>;

impl Local {
    /// Does what is to be done; takes as long as loading does.
    pub(super) fn carry_out(&self, name: &Arc<str>, task: Task) -> Result<()> {
        match task {
            Task::LoadStated(stated) => self.load(name, &stated),
            Task::Load(given) => {
                let stated = Stated::find(&self.options.repositories, name, given.as_ref())?;
                if !self.is_ours(&stated) {
                    return Err(failed_to_poll(name));
                }
                self.load(name, &stated)
            }
            Task::Follow => match Stated::find(&self.options.repositories, name, None) {
                Ok(stated) if self.is_ours(&stated) => self.load(name, &stated),
                Ok(_) | Err(_) => {
                    self.unload(name);
                    self.forget(name);
                    Ok(())
                }
            },
            Task::Unload => {
                self.unload(name);
                Ok(())
            }
        }
    }

    fn load(&self, name: &Arc<str>, stated: &Stated) -> Result<()> {
        let entry = self.snapshot.load().entry(name).cloned();
        let before: Vec<Arc<Served>> = entry.iter().flat_map(Entry::ready).cloned().collect();
        if before.is_empty() {
            let loading = Entry::of_model(State::Loading, "");
            self.replace(name, &loading.with_optional(stated.is_optional()));
        }
        let kept = entry.filter(|_| !before.is_empty());
        match self.load_beside(name, stated, &before) {
            Ok((versions, from)) => {
                let next = Entry::of_versions(versions).with_optional(stated.is_optional());
                self.exchange(name, kept, next, from)
            }
            Err(Refused { reason, error }) => {
                tracing::error!(model = &**name, "failed to load: {reason}");
                let failed = || Entry::of_model(State::Unavailable, reason.clone());
                let entry = kept.map(|entry| entry.with_note(reason.clone()));
                let entry = entry.unwrap_or_else(|| failed().with_optional(stated.is_optional()));
                self.replace(name, &entry);
                Err(error)
            }
        }
    }

    /// Loads the versions that are not as they were, and keeps those that are.
    fn load_beside(
        &self,
        name: &Arc<str>,
        stated: &Stated,
        before: &[Arc<Served>],
    ) -> Result<(Versions, Loaded), Refused> {
        let refused = |error: Error| {
            let reason = error.message().to_owned();
            Refused { error: stated.refusal(&reason), reason }
        };
        let draft = stated.draft.as_ref();
        let draft = draft.map_err(|problems| refused(misconfigured(problems)))?;
        let present = versions_in(&stated.folder.path);
        let wanted = served_versions(&draft.version_policy(), &present);
        if wanted.is_empty() {
            let error = no_version(&stated.folder, &present);
            return Err(Refused { reason: error.message().to_owned(), error });
        }
        let from = Loaded::of(stated, draft, &wanted);
        let kept = self.kept(name, &from, before);
        let versions = self.loader.load(&stated.folder, draft.clone(), &wanted, &kept);
        Ok((versions.map_err(refused)?, from))
    }

    /// The versions that would be loaded from the same as they were.
    fn kept(
        &self,
        name: &str,
        from: &Loaded,
        before: &[Arc<Served>],
    ) -> BTreeMap<u64, Arc<Served>> {
        let loaded = self.loaded.lock();
        let Some(loaded) = loaded.get(name) else { return BTreeMap::new() };
        let same = before.iter().filter(|served| loaded.is_same(from, served.version));
        same.map(|served| (served.version, served.clone())).collect()
    }

    /// Serves the new versions in place of the old ones, unless some of them could not be loaded
    /// and others are being served.
    fn exchange(
        &self,
        name: &Arc<str>,
        old: Option<Entry>,
        next: Entry,
        from: Loaded,
    ) -> Result<()> {
        let failures = next.failures();
        for (version, reason) in &failures {
            tracing::error!(model = &**name, version, "failed to load: {reason}");
        }
        let failed = (!failures.is_empty()).then(|| load_failed(name, &failures));
        let (shown, gone) = match (old, &failed) {
            (Some(old), Some(error)) => (old.with_note(error.message().to_owned()), next),
            (old, _) => {
                self.loaded.lock().insert(name.clone(), from);
                (next, old.unwrap_or_else(|| Entry::of_model(State::Unknown, "")))
            }
        };
        self.replace(name, &shown);
        self.forget_meters(name, gone.versions(), &shown);
        failed.map_or(Ok(()), Err)
    }

    /// Ends the service of a model; what is in flight is finished by whoever holds it.
    fn unload(&self, name: &Arc<str>) {
        let Some(entry) = self.snapshot.load().entry(name).cloned() else { return };
        if entry.is_unknown() {
            return;
        }
        let gone = entry.unloaded();
        self.replace(name, &gone);
        drop(self.loaded.lock().remove(name));
        self.forget_meters(name, entry.versions(), &gone);
        tracing::info!(model = &**name, "unloaded");
    }

    /// Forgets what was counted for versions that are served no longer.
    fn forget_meters(&self, name: &str, gone: Vec<u64>, entry: &Entry) {
        for version in gone {
            if entry.ready().all(|served| served.version != version) {
                self.loader.metrics.remove_meter(name, &version.to_string());
            }
        }
    }
}
