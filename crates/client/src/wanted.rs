//! What callers have loaded and unloaded, so that every replica can be brought to the same set.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_repository::{Action, Change, State};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::replica::Replica;
use crate::report::Reported;

/// The last change to each model that some replica has carried out.
#[derive(Default)]
pub(crate) struct Wanted {
    changes: Mutex<BTreeMap<Arc<str>, Numbered>>,
    changed: watch::Sender<u64>,
}

/// A change with a number that no other change has.
#[derive(Clone)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) change: Change,
}

impl Wanted {
    /// Remembers a change that `done` have carried out.
    pub(crate) fn remember(&self, change: &Change, done: &[Arc<Replica>]) {
        let mut changes = self.changes.lock();
        let number = *self.changed.borrow() + 1;
        for replica in done {
            replica.has_done(&change.model, number);
        }
        changes.insert(change.model.clone(), Numbered { number, change: change.clone() });
        drop(changes);
        self.changed.send_replace(number);
    }

    /// The changes that a replica has still to carry out, as far as it knows the models.
    ///
    /// A replica that has done so is left alone, whatever others tell it later.
    pub(crate) fn due(&self, replica: &Replica) -> Vec<Numbered> {
        let changes = self.changes.lock();
        let report = replica.report();
        if !report.is_callable() {
            return Vec::new();
        }
        let is_due = |wanted: &&Numbered| {
            let model = &wanted.change.model;
            let rows: Vec<&Reported> =
                report.models.iter().filter(|row| row.name == *model).collect();
            // A model that was loaded here and is unknown now says that the replica is another.
            let is_fresh = rows.iter().any(|row| row.state == State::Unknown);
            let is_loaded = matches!(wanted.change.action, Action::Load(_));
            let is_done = replica.done(model) == Some(wanted.number) && !(is_fresh && is_loaded);
            if rows.is_empty() || is_done || rows.iter().any(|row| row.state == State::Loading) {
                return false;
            }
            let is_so = is_so(&wanted.change.action, &rows);
            if is_so {
                replica.has_done(model, wanted.number);
            }
            !is_so
        };
        changes.values().filter(is_due).cloned().collect()
    }

    /// Counts up with every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Whether a model that is listed with these rows is what `action` would make of it.
fn is_so(action: &Action, rows: &[&Reported]) -> bool {
    let is_ready = rows.iter().any(|row| row.state == State::Ready);
    match action {
        Action::Load(given) => given.is_none() && is_ready,
        Action::Unload { .. } => !is_ready,
    }
}
