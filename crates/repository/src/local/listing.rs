//! Which models of the repositories are this process's, and so are listed before anybody loads them.

use std::sync::Arc;

use super::{Foreign, Local};
use crate::control::failed_to_poll;
use crate::models::State;
use crate::snapshot::{Entry, Snapshot};
use crate::stated::Stated;
use crate::watching::{Changes, Watching};

impl Local {
    /// Lists the models that lie in the repositories now, for callers to load: those that have come
    /// or become this process's, and no longer those that have gone or become others'. What is
    /// loaded stays as it is.
    pub(super) fn list_anew(&self) {
        // Held until all is listed: a change is told once, and whoever asks meanwhile wants it, too.
        let mut listed = self.listed.lock();
        // A repository that cannot be read now says nothing of its models.
        let Some(Ok(changes)) = listed.as_mut().map(Watching::look) else { return };
        let Changes { changed, gone } = changes;
        for name in changed {
            let stated = Stated::find(&self.options.repositories, &name, None);
            if stated.is_ok_and(|stated| self.is_ours(&stated) && stated.draft.is_ok()) {
                self.list_unknown(&name);
            }
        }
        for name in gone {
            self.others.lock().remove(&*name);
            self.forget_if(&name, Entry::is_unknown);
        }
        self.forget_others();
    }

    /// Adds a model that nobody has loaded, unless somebody has begun to.
    fn list_unknown(&self, name: &Arc<str>) {
        let unknown = || Entry::of_model(State::Unknown, "");
        self.revise(|models| {
            models.entry(name).is_none().then(|| models.with(name.clone(), unknown()))
        });
    }

    /// Forgets the models that other services have the backend of now, once they are not at work.
    ///
    /// Whoever loads one asks all that list it, and this process could only refuse.
    fn forget_others(&self) {
        let models = self.snapshot.load();
        let is_idle = |name: &&Arc<str>| models.entry(name).is_some_and(Entry::is_idle);
        for name in models.names().filter(is_idle).filter(|name| self.is_others(name)) {
            self.forget_if(name, Entry::is_idle);
        }
    }

    /// Whether a model was seen to be other people's, and still is no ensemble's.
    fn is_others(&self, name: &str) -> bool {
        if !self.others.lock().contains(name) {
            return false;
        }
        let stated = Stated::find(&self.options.repositories, name, None);
        let is_model = |stated: &Stated| stated.draft.is_ok() && !stated.is_ensemble();
        stated.is_ok_and(|stated| is_model(&stated) && !self.is_ours(&stated))
    }

    /// Lists the models that are to be loaded at the start and are nowhere.
    pub(super) fn list_missing(&self, all: &[Stated]) {
        let is_missing = |name: &&str| all.iter().all(|stated| stated.folder.name != **name);
        if self.options.foreign == Foreign::Reported {
            for name in self.options.mode.named_at_start().filter(is_missing) {
                let error = failed_to_poll(name);
                tracing::error!(model = name, "{error}; it is in no model repository");
                let entry = Entry::of_model(State::Unavailable, error.message());
                self.replace(&name.into(), &entry);
            }
        }
    }

    /// Whether this process serves the model.
    pub(super) fn is_ours(&self, stated: &Stated) -> bool {
        let name = &stated.folder.name;
        let mut others = self.others.lock();
        // Who would have served it may not be told, so everybody says what is wrong.
        let Ok(draft) = &stated.draft else { return !others.contains(name) };
        let is_ours = !draft.is_ensemble()
            && (self.options.foreign == Foreign::Reported
                || self.loader.kind(draft.backend()).is_some());
        if is_ours {
            others.remove(name);
        } else if !stated.is_given() {
            // What a caller gives says nothing of a folder, which there need not be.
            others.insert(name.clone());
        }
        is_ours
    }

    /// Forgets a model whatever is known of it.
    pub(super) fn forget(&self, name: &str) {
        self.forget_if(name, |_| true);
    }

    /// Forgets a model if `is_over` what is known of it.
    fn forget_if(&self, name: &str, is_over: impl Fn(&Entry) -> bool) {
        self.revise(|models| {
            models.entry(name).is_some_and(&is_over).then(|| models.without(name))
        });
    }

    /// Puts what `next` makes of the models in their place, if it makes anything of them.
    fn revise(&self, next: impl Fn(&Snapshot) -> Option<Snapshot>) {
        let mut is_another = false;
        self.snapshot.rcu(|models| {
            let next = next(models);
            is_another = next.is_some();
            next.map_or_else(|| models.clone(), Arc::new)
        });
        if is_another {
            self.generation.send_modify(|generation| *generation += 1);
        }
    }
}
