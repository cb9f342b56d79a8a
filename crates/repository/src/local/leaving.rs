//! The models that were unloaded and of which something is still at work.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::instances::Pulse;

/// What tells of each model that was unloaded whether it is gone.
#[derive(Default)]
pub(super) struct Leaving(Mutex<BTreeMap<Arc<str>, Vec<Pulse>>>);

impl Leaving {
    /// Adds what is left of a model, beside what there still is of it from an unload before; gives
    /// whether there is, so that somebody waits for its end already.
    pub(super) fn add(&self, name: &Arc<str>, pulses: Vec<Pulse>) -> bool {
        let mut models = self.0.lock();
        let was_leaving = models.contains_key(name);
        models.entry(name.clone()).or_default().extend(pulses);
        was_leaving
    }

    /// Whether nothing is left of a model, however often it was unloaded.
    pub(super) fn is_gone(&self, name: &str) -> bool {
        let mut models = self.0.lock();
        let Some(pulses) = models.get_mut(name) else { return true };
        pulses.retain(|pulse| !pulse.is_over());
        let is_gone = pulses.is_empty();
        if is_gone {
            models.remove(name);
        }
        is_gone
    }
}
