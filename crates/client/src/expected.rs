//! The models that a service is asked for which does not list what it has.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The names of models that are called.
#[derive(Default, Debug)]
pub(crate) struct Expected {
    /// By steps of ensembles.
    called: BTreeSet<Arc<str>>,
    /// Because somebody asked for their loading, whatever calls them.
    loaded: BTreeSet<Arc<str>>,
}

impl Expected {
    /// All of them.
    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        self.called.union(&self.loaded).cloned().collect()
    }

    /// Whether `models` are others than those that steps have called until now, which they become.
    pub(crate) fn call(&mut self, models: BTreeSet<Arc<str>>) -> bool {
        let is_news = self.called != models;
        self.called = models;
        is_news
    }

    /// Whether `model` was not among those that are loaded, which it becomes.
    pub(crate) fn load(&mut self, model: &Arc<str>) -> bool {
        self.loaded.insert(model.clone())
    }

    /// Whether `model` was among those that are loaded, which it ceases to be.
    pub(crate) fn unload(&mut self, model: &str) -> bool {
        self.loaded.remove(model)
    }
}
