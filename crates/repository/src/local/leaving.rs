//! Ends the service of models, and tells when nothing of them is at work any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Local;
use super::loaded::Loaded;
use crate::instances::Pulse;

/// How long an unload waits for the instances before it says that some are still at work: those
/// that have nothing to do are gone in a fraction of it.
const FAREWELL: Duration = Duration::from_millis(50);

/// How often it is looked whether the last request of an unloaded model is answered.
const GLANCE: Duration = Duration::from_millis(20);

/// What tells of each model whether versions that are served no longer are gone: unloaded ones, and
/// those that a reload has put others in the place of.
#[derive(Default)]
pub(super) struct Leaving(Mutex<BTreeMap<Arc<str>, Remains>>);

/// What is left of a model.
#[derive(Default)]
struct Remains {
    pulses: Vec<Pulse>,
    /// Whether somebody waits for its end already.
    is_watched: bool,
}

impl Leaving {
    /// Adds versions of a model that are served no longer, beside what there still is of others.
    pub(super) fn add(&self, name: &Arc<str>, pulses: Vec<Pulse>) {
        let mut models = self.0.lock();
        let remains = models.entry(name.clone()).or_default();
        // A model may be reloaded again and again and nobody ever ask what became of it.
        remains.pulses.retain(|pulse| !pulse.is_over());
        remains.pulses.extend(pulses);
    }

    /// Whether the caller is to wait for the end of a model, because nobody does so far.
    fn begin_watch(&self, name: &Arc<str>) -> bool {
        let mut models = self.0.lock();
        let remains = models.entry(name.clone()).or_default();
        !std::mem::replace(&mut remains.is_watched, true)
    }

    /// The models of which something may be left.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.0.lock().keys().cloned().collect()
    }

    /// Whether it is to be seen yet whether something is left of a model.
    fn has(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }

    /// Whether nothing is left of a model, however often it was unloaded or reloaded.
    fn is_gone(&self, name: &str) -> bool {
        let mut models = self.0.lock();
        let Some(remains) = models.get_mut(name) else { return true };
        remains.pulses.retain(|pulse| !pulse.is_over());
        let is_gone = remains.pulses.is_empty();
        if is_gone {
            models.remove(name);
        }
        is_gone
    }
}

impl Local {
    /// Ends the service of a model; what is in flight is finished by whoever holds it.
    pub(super) fn unload(&self, name: &Arc<str>) {
        let Some(entry) = self.snapshot.load().entry(name).cloned() else { return };
        if entry.is_unknown() {
            return;
        }
        let loaded = self.loaded.lock().remove(name);
        let pulses = loaded.as_ref().map(Loaded::pulses).unwrap_or_default();
        // Before it is listed so, lest it is taken for one that has gone.
        self.leaving.add(name, pulses);
        drop(loaded);
        let leaving = entry.unloading();
        self.replace(name, &leaving);
        self.forget_meters(name, entry.versions(), &leaving);
        drop(entry);
        let until = Instant::now() + FAREWELL;
        while !self.leaving.is_gone(name) {
            if Instant::now() >= until {
                tracing::info!(model = &**name, "unloading: requests under way are being finished");
                if self.leaving.begin_watch(name) {
                    self.watch_unload(name.clone());
                }
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.end_unload(name);
    }

    /// Notes that a model is unloaded as soon as the last of what it has under way is over.
    fn watch_unload(&self, name: Arc<str>) {
        let local = self.me.clone();
        self.runtime.spawn(async move {
            while let Some(local) = local.upgrade() {
                if local.leaving.is_gone(&name) {
                    return local.end_unload(&name);
                }
                drop(local);
                tokio::time::sleep(GLANCE).await;
            }
        });
    }

    /// Waits until nothing is left of a model that was unloaded.
    pub(super) async fn gone(&self, name: &Arc<str>) {
        while !self.leaving.is_gone(name) {
            tokio::time::sleep(GLANCE).await;
        }
        self.end_unload(name);
    }

    /// Lists a model as unloaded, unless it has been loaded again meanwhile or is listed so.
    fn end_unload(&self, name: &Arc<str>) {
        let mut has_ended = false;
        self.snapshot.rcu(|snapshot| {
            let entry = snapshot.entry(name).filter(|entry| entry.is_unloading());
            // Somebody may have unloaded it again a moment ago.
            let entry = entry.filter(|_| !self.leaving.has(name));
            has_ended = entry.is_some();
            match entry {
                Some(entry) => Arc::new(snapshot.with(name.clone(), entry.unloaded())),
                None => snapshot.clone(),
            }
        });
        if has_ended {
            self.generation.send_modify(|generation| *generation += 1);
            tracing::info!(model = &**name, "unloaded");
        }
    }
}
