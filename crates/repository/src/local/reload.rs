//! Carries out one change: loads beside what is served and exchanges it when ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_stage::{Error, Result};

use super::{Loaded, Local};
use crate::control::{Override, failed_to_poll, load_failed};
use crate::folder::{oddities, served_versions, versions_in};
use crate::instances::Running;
use crate::load::{Blueprint, Kept, Version, misconfigured};
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

/// What was loaded beside what is served.
struct Beside<'a> {
    blueprint: Blueprint<'a>,
    versions: Versions,
    from: Loaded,
}

/// What came of each version.
type Versions = Vec<(u64, Result<Version>)>;

impl Local {
    /// Does what is to be done; takes as long as loading does.
    pub(super) fn carry_out(&self, name: &Arc<str>, task: Task) -> Result<()> {
        match task {
            Task::LoadStated(stated) => self.load(name, &stated),
            Task::Load(given) => {
                let stated = Stated::find(&self.options.repositories, name, given.as_ref())?;
                if !self.is_ours(&stated) && !self.keeps(&stated) {
                    return Err(failed_to_poll(name));
                }
                match &stated.draft {
                    Err(problems) if stated.is_given() => {
                        Err(self.refuse_override(name, &stated, &misconfigured(problems)))
                    }
                    _ => self.load(name, &stated),
                }
            }
            Task::Follow => match Stated::find(&self.options.repositories, name, None) {
                Ok(stated) if self.is_ours(&stated) || self.keeps(&stated) => {
                    self.load(name, &stated)
                }
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

    /// A configuration of a caller's own that cannot be read changes nothing but what the index
    /// says of the model that is being served.
    fn refuse_override(&self, name: &Arc<str>, stated: &Stated, problems: &Error) -> Error {
        let reason = problems.message();
        tracing::error!(model = &**name, "failed to load: {reason}");
        let entry = self.snapshot.load().entry(name).cloned();
        if let Some(entry) = entry.filter(|entry| entry.ready().next().is_some()) {
            self.replace(name, &entry.with_note(reason.to_owned()));
        }
        stated.refusal(reason).logged()
    }

    /// Whether a model is served that has become somebody else's: whether anybody can load it is
    /// not known here, so it stays, with the reason why it is not what its files are now.
    fn keeps(&self, stated: &Stated) -> bool {
        let models = self.snapshot.load();
        let entry = models.entry(&stated.folder.name);
        !stated.is_ensemble() && entry.is_some_and(|entry| entry.newest_ready().is_some())
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
            Ok(Beside { blueprint, versions, mut from }) => {
                let regrouped = regrouped(&versions);
                let versions = regroup(name, versions, &mut from);
                let next = Entry::of_versions(versions).with_optional(stated.is_optional());
                let exchanged = self.exchange(name, kept, next, from);
                if exchanged.is_ok() {
                    settle(name, &blueprint, regrouped);
                }
                exchanged
            }
            Err(Refused { reason, error }) => {
                tracing::error!(model = &**name, "failed to load: {reason}");
                let failed = || Entry::of_model(State::Unavailable, reason.clone());
                let entry = kept.map(|entry| entry.with_note(reason.clone()));
                let entry = entry.unwrap_or_else(|| failed().with_optional(stated.is_optional()));
                self.replace(name, &entry);
                Err(error.logged())
            }
        }
    }

    /// Loads the versions that are not as they were, and keeps those that are.
    fn load_beside<'a>(
        &'a self,
        name: &Arc<str>,
        stated: &'a Stated,
        before: &[Arc<Served>],
    ) -> Result<Beside<'a>, Refused> {
        let refused = |error: Error| {
            let reason = error.message().to_owned();
            Refused { error: stated.refusal(&reason), reason }
        };
        let draft = stated.draft.as_ref();
        let draft = draft.map_err(|problems| refused(misconfigured(problems)))?;
        let present = versions_in(&stated.folder.path);
        let wanted = served_versions(&draft.version_policy(), &present);
        for oddity in oddities(&stated.folder, &draft.version_policy()) {
            tracing::warn!(model = &**name, "{oddity}");
        }
        if wanted.is_empty() {
            let error = no_version(&stated.folder, &present);
            return Err(Refused { reason: error.message().to_owned(), error });
        }
        let from = Loaded::of(stated, draft, &wanted);
        let kept = self.kept(name, &from, before);
        let blueprint = self.loader.complete(&stated.folder, draft.clone(), &wanted);
        let blueprint = blueprint.map_err(refused)?;
        let versions = blueprint.load(&wanted, &kept).map_err(refused)?;
        Ok(Beside { blueprint, versions, from })
    }

    /// The versions that would be loaded from the same as they were.
    fn kept(&self, name: &str, from: &Loaded, before: &[Arc<Served>]) -> BTreeMap<u64, Kept> {
        let loaded = self.loaded.lock();
        let Some(loaded) = loaded.get(name) else { return BTreeMap::new() };
        let is_regrouped = loaded.is_regrouped(from);
        let same = before.iter().filter(|served| loaded.is_same(from, served.version));
        let kept = same.filter_map(|served| {
            let running = loaded.running.get(&served.version)?.clone();
            Some((served.version, Kept { served: served.clone(), running, is_regrouped }))
        });
        kept.collect()
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
                self.supersede(name, from);
                (next, old.unwrap_or_else(|| Entry::of_model(State::Unknown, "")))
            }
        };
        self.replace(name, &shown);
        if failed.is_none() {
            log_new(name, &shown, &gone);
        }
        self.forget_meters(name, gone.versions(), &shown);
        failed.map_or(Ok(()), |error| Err(error.logged()))
    }

    /// Notes what is served from now on; whoever unloads the model waits for what was served until
    /// now, too.
    fn supersede(&self, name: &Arc<str>, from: Loaded) {
        let mut loaded = self.loaded.lock();
        let before = loaded.remove(name).unwrap_or_default();
        self.leaving.add(name, before.pulses_beside(&from));
        loaded.insert(name.clone(), from);
    }

    /// Forgets what was counted for versions that are served no longer.
    pub(super) fn forget_meters(&self, name: &str, gone: Vec<u64>, entry: &Entry) {
        for version in gone {
            if entry.ready().all(|served| served.version != version) {
                self.loader.metrics.remove_meter(name, &version.to_string());
            }
        }
    }
}

/// Says which versions of `next` are others than those of `before`.
fn log_new(name: &Arc<str>, next: &Entry, before: &Entry) {
    for served in next.ready() {
        let same = before.ready().find(|old| old.version == served.version);
        let (model, version) = (&**name, served.version);
        match same {
            None => tracing::info!(model, version, "loaded"),
            Some(same) if !Arc::ptr_eq(&same.stage, &served.stage) => {
                tracing::info!(model, version, "reloaded");
            }
            Some(_) => tracing::debug!(model, version, "kept as it was"),
        }
    }
    for old in before.ready().filter(|old| next.ready().all(|new| new.version != old.version)) {
        tracing::info!(model = &**name, version = old.version, "unloaded");
    }
}

/// The versions for the index. Those that were kept and are to run on other instances do so from
/// now on, unless one of the others failed and nothing is exchanged.
fn regroup(
    name: &Arc<str>,
    versions: Versions,
    from: &mut Loaded,
) -> Vec<(u64, Result<Arc<Served>>)> {
    let is_whole = versions.iter().all(|(_, loaded)| loaded.is_ok());
    let each = |(number, loaded): (u64, Result<Version>)| {
        let served = loaded.and_then(|Version { served, running, regroup }| {
            if let Some(regroup) = regroup.filter(|_| is_whole) {
                let (before, now) = running.apply(regroup)?;
                let model = &**name;
                tracing::info!(model, version = number, before, now, "changed the instances");
            }
            from.running.insert(number, running);
            Ok(served)
        });
        (number, served)
    };
    versions.into_iter().map(each).collect()
}

/// The versions that are to run on other instances than before.
fn regrouped(versions: &Versions) -> Vec<(u64, Arc<Running>)> {
    let loaded =
        versions.iter().filter_map(|(number, loaded)| Some((*number, loaded.as_ref().ok()?)));
    let regrouped = loaded.filter(|(_, version)| version.regroup.is_some());
    regrouped.map(|(number, version)| (number, version.running.clone())).collect()
}

/// Gives the instances that were there before a change of their number their share of the cores.
fn settle(name: &str, blueprint: &Blueprint<'_>, regrouped: Vec<(u64, Arc<Running>)>) {
    for (version, running) in regrouped {
        match running.settle(blueprint.source(version)) {
            Ok(0) => {}
            Ok(opened) => {
                tracing::info!(
                    model = name,
                    version,
                    opened,
                    "opened instances anew for their share of the cores"
                );
            }
            // They serve on, slower or with more threads than there are cores.
            Err(error) => tracing::warn!(
                model = name,
                version,
                "instances keep the threads that they were opened with: {error}"
            ),
        }
    }
}
