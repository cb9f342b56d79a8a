//! The models of the gateway's repositories that are no ensembles, for as long as no service lists
//! them: what a single process says of a model whose backend it does not have, a gateway says too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consort_repository::{
    ControlMode, Entry, Foreign, Leaves, State, Stated, UNLOADED, failed_to_poll,
};

/// The models that are stated and may be called, whoever serves them.
pub(super) struct Callable {
    foreign: Foreign,
    models: BTreeMap<Arc<str>, Model>,
}

/// A model that is no ensemble.
struct Model {
    wish: Wish,
    backend: String,
    is_optional: bool,
}

#[derive(Clone, Copy)]
enum Wish {
    /// Nobody has asked for it yet.
    Unknown,
    /// Somebody has unloaded it.
    Unloaded,
    /// It is to be served.
    Served,
    /// It was named to be served from the start, and no repository has it.
    Missing,
}

impl Callable {
    /// The models among `all` that are no ensembles, to be served if `mode` says so; none where
    /// they are others' business.
    pub(super) fn among(all: &[Stated], mode: &ControlMode, foreign: Foreign) -> Self {
        let mut callable = Self { foreign, models: BTreeMap::new() };
        let is_stated = |name: &str| all.iter().any(|stated| stated.folder.name == name);
        for name in mode.named_at_start().filter(|name| !is_stated(name)) {
            callable.miss(name);
        }
        for stated in all {
            let is_wanted = mode.loads_at_start(&stated.folder.name);
            callable.state(stated, if is_wanted { Wish::Served } else { Wish::Unknown });
        }
        callable
    }

    /// Notes what `stated` says of a model that is to be served now.
    pub(super) fn serve(&mut self, stated: &Stated) {
        self.state(stated, Wish::Served);
    }

    fn miss(&mut self, name: &str) {
        if self.foreign == Foreign::Reported {
            let model = Model { wish: Wish::Missing, backend: String::new(), is_optional: false };
            self.models.insert(name.into(), model);
        }
    }

    fn state(&mut self, stated: &Stated, wish: Wish) {
        let name = stated.folder.name.as_str();
        match &stated.draft {
            Ok(draft) if !draft.is_ensemble() && self.foreign == Foreign::Reported => {
                let backend = draft.backend().to_owned();
                let model = Model { wish, backend, is_optional: stated.is_optional() };
                self.models.insert(name.into(), model);
            }
            // Every service lists one whose configuration cannot be read.
            Ok(_) | Err(_) => self.forget(name),
        }
    }

    /// Notes that somebody has unloaded a model.
    pub(super) fn unload(&mut self, name: &str) {
        if let Some(model) = self.models.get_mut(name)
            && matches!(model.wish, Wish::Served | Wish::Missing)
        {
            model.wish = Wish::Unloaded;
        }
    }

    /// Forgets a model that is an ensemble now, or that has gone.
    pub(super) fn forget(&mut self, name: &str) {
        self.models.remove(name);
    }

    /// Those that are to be served, whoever has them.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Arc<str>> {
        let is_wanted = |model: &Model| matches!(model.wish, Wish::Served | Wish::Missing);
        self.models.iter().filter(move |(_, model)| is_wanted(model)).map(|(name, _)| name)
    }

    /// Those that nobody among `leaves` lists, each with the reason.
    ///
    /// None of them while some service has not said which models it has: it may be theirs.
    pub(super) fn unlisted(&self, leaves: &dyn Leaves) -> BTreeMap<Arc<str>, Entry> {
        if self.models.is_empty() {
            return BTreeMap::new();
        }
        let listed: BTreeSet<_> = leaves.index().into_iter().map(|row| row.name).collect();
        let is_unlisted =
            |name: &Arc<str>| !listed.contains(name) && leaves.away(name, None).is_none();
        let unlisted = self.models.iter().filter(|(name, _)| is_unlisted(name));
        unlisted.map(|(name, model)| (name.clone(), model.entry(name))).collect()
    }
}

impl Model {
    fn entry(&self, name: &str) -> Entry {
        let entry = match self.wish {
            Wish::Unknown => Entry::of_model(State::Unknown, ""),
            Wish::Unloaded => Entry::of_model(State::Unavailable, UNLOADED),
            Wish::Missing => {
                Entry::of_model(State::Unavailable, failed_to_poll(name).message().to_owned())
            }
            Wish::Served => {
                let backend = &self.backend;
                let reason = format!(
                    "no service lists model `{name}`: backend `{backend}` is not one of theirs, or \
                     they read other model repositories"
                );
                Entry::of_model(State::Unavailable, reason)
            }
        };
        entry.with_optional(self.is_optional)
    }
}
