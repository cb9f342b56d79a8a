//! Loads and unloads ensembles, and the models that they call along with them.

use std::sync::Arc;

use consort_repository::{
    Action, Change, Changes, Entry, Models, Override, Stated, is_ensemble, load_failed,
};
use consort_stage::{Error, Result};

use super::statement::Statement;
use super::{Catalog, Statements};

/// What the files of a model state, or what a caller gave in their place.
struct Found {
    stated: Stated,
    /// The same, if it is an ensemble's.
    ensemble: Statement,
}

impl Catalog {
    /// Carries out one change when its turn comes, whoever waits for it.
    pub(super) async fn carry_out(self: Arc<Self>, change: Change) -> Result<()> {
        let name = change.model.clone();
        let _turn = self.turns.of(&name).await;
        match &change.action {
            Action::Load(given) => match self.find(&name, given.clone()).await? {
                Some(found) if self.is_ensemble(&found.stated) => self.load(&name, found).await,
                found => self.load_leaf(change, found).await,
            },
            Action::Unload { with_dependents } => {
                if self.is_stated(&name) {
                    return self.unload(&name, *with_dependents).await;
                }
                self.unload_leaf(change).await
            }
        }
    }

    /// What is stated of a model now; `None` where that is for its service alone to know.
    ///
    /// All files are read here, on a thread where that holds up nobody.
    async fn find(&self, name: &Arc<str>, given: Option<Override>) -> Result<Option<Found>> {
        // What cannot be read is meant for the ensemble that there is.
        let is_ensemble = |given| is_ensemble(name, given).unwrap_or_else(|| self.is_stated(name));
        if given.as_ref().is_some_and(|given| !is_ensemble(given)) {
            return Ok(None);
        }
        let (repositories, name) = (self.options.repositories.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || {
            let found = Stated::find(&repositories, &name, given.as_ref());
            let read = |stated| Found { ensemble: Statement::served(&stated), stated };
            // A model of some service need not lie in the gateway's own repository.
            if given.is_some() { found.map(read).map(Some) } else { Ok(found.ok().map(read)) }
        });
        let cut_short = |_| Error::internal("reading the configuration was cut short");
        found.await.map_err(cut_short)?
    }

    /// What has been an ensemble is still one while its configuration cannot be read.
    fn is_ensemble(&self, stated: &Stated) -> bool {
        stated.is_ensemble() || stated.draft.is_err() && self.is_stated(&stated.folder.name)
    }

    /// Has a model that is no ensemble loaded by those who list it, and says why not if nobody does.
    async fn load_leaf(&self, change: Change, found: Option<Found>) -> Result<()> {
        let name = change.model.clone();
        let loaded = self.leaves.control(change).await;
        let is_nowhere = found.is_none();
        self.state(|Statements { ensembles, callable }| {
            if loaded.is_ok() {
                // It may have been an ensemble's name until now.
                ensembles.remove(&name);
            }
            if let Some(found) = found.filter(|_| !ensembles.contains_key(&name)) {
                callable.serve(&found.stated);
            }
        });
        let own = self.own.load();
        let may_tell_why = loaded.is_err() && !is_nowhere && !self.is_stated(&name);
        match own.entry(&name).filter(|_| may_tell_why) {
            Some(unlisted) => Err(load_failed(&name, &unlisted.failures())),
            None => loaded,
        }
    }

    async fn unload_leaf(&self, change: Change) -> Result<()> {
        let name = change.model.clone();
        let unloaded = self.leaves.control(change).await;
        self.state(|statements| statements.callable.unload(&name));
        unloaded
    }

    /// Serves an ensemble as it is stated now, with the models of its steps; one that is being
    /// served stays as it is when that fails.
    async fn load(&self, name: &Arc<str>, found: Found) -> Result<()> {
        let Found { stated, ensemble: statement } = found;
        if let Some(Err(problems)) = statement.wanted() {
            let refusal = stated.refusal(problems);
            // A configuration of a caller's own says nothing of an ensemble that nobody serves.
            if !stated.is_given() || self.own.load().get(name, None).is_ok() {
                self.restate(name, statement);
            }
            return Err(refusal);
        }
        let steps = self.load_steps(&statement, &mut vec![name.clone()]).await;
        let failures = self.restate(name, statement);
        if failures.is_empty() {
            return Ok(());
        }
        let missing = steps.err().map(|error| vec![(None, error.message().to_owned())]);
        Err(load_failed(name, &missing.unwrap_or(failures)))
    }

    /// Loads the models that an ensemble calls and that are not there; `within` are the ensembles
    /// on the way to it.
    async fn load_steps(&self, statement: &Statement, within: &mut Vec<Arc<str>>) -> Result<()> {
        let steps = statement.spec().map(|spec| spec.steps.as_slice()).unwrap_or_default();
        for step in steps {
            let is_there = Models::get(self, &step.model, step.version).is_ok();
            if is_there || within.contains(&step.model) {
                continue;
            }
            within.push(step.model.clone());
            match self.find(&step.model, None).await? {
                Some(Found { stated, ensemble }) if self.is_ensemble(&stated) => {
                    Box::pin(self.load_steps(&ensemble, within)).await?;
                    self.restate(&step.model, ensemble);
                }
                found => {
                    let model = step.model.clone();
                    let change = Change { model, action: Action::Load(None) };
                    self.load_leaf(change, found).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends the service of an ensemble, and of what it calls if nothing else does.
    async fn unload(&self, name: &Arc<str>, with_dependents: bool) -> Result<()> {
        let mut called = Vec::new();
        self.state(|Statements { ensembles, .. }| {
            let Some(statement) = ensembles.get_mut(name) else { return };
            if let Some(spec) = statement.spec() {
                called.extend(spec.steps.iter().map(|step| step.model.clone()));
            }
            *statement = statement.unloaded();
            let others = ensembles.values().filter_map(Statement::spec);
            let others: Vec<_> = others.flat_map(|spec| &spec.steps).collect();
            called.retain(|model| others.iter().all(|step| step.model != *model));
        });
        called.sort_unstable();
        called.dedup();
        for model in called.into_iter().filter(|_| with_dependents) {
            if self.is_stated(&model) {
                Box::pin(self.unload(&model, true)).await?;
            } else {
                let action = Action::Unload { with_dependents };
                self.unload_leaf(Change { model, action }).await?;
            }
        }
        Ok(())
    }

    /// Puts `next` in the place of what was stated of an ensemble and gives why it cannot be
    /// served; what is being served then stays in its place.
    fn restate(&self, name: &Arc<str>, next: Statement) -> Vec<(Option<u64>, String)> {
        let mut statements = self.statements.lock();
        statements.callable.forget(name);
        let before = statements.ensembles.insert(name.clone(), next);
        let entries = self.assembled(&statements);
        let mut failures = Vec::new();
        if entries.get(name).is_none_or(|entry| entry.newest_ready().is_none()) {
            failures.extend(entries.get(name).map(Entry::failures).unwrap_or_default());
            if failures.is_empty() {
                failures.push((None, "a model that it calls is being loaded".to_owned()));
            }
        }
        let is_serving = self.own.load().get(name, None).is_ok();
        match before.filter(|_| is_serving && !failures.is_empty()) {
            None => self.publish(entries),
            Some(mut before) => {
                before.note = failures.iter().map(|(_, reason)| reason.as_str()).collect();
                statements.ensembles.insert(name.clone(), before);
                self.publish(self.assembled(&statements));
            }
        }
        failures
    }

    /// Follows what has changed in the repositories.
    pub(super) async fn follow_files(&self, Changes { changed, gone }: Changes) {
        for name in changed {
            match self.find(&name, None).await {
                Ok(Some(Found { stated, ensemble })) if self.is_ensemble(&stated) => {
                    self.restate(&name, ensemble);
                }
                Ok(Some(Found { stated, .. })) => {
                    self.state(|Statements { ensembles, callable }| {
                        ensembles.remove(&name);
                        callable.serve(&stated);
                    });
                }
                Ok(None) | Err(_) => self.forget(&name),
            }
        }
        for name in gone {
            self.forget(&name);
        }
    }

    fn forget(&self, name: &str) {
        self.state(|Statements { ensembles, callable }| {
            ensembles.remove(name);
            callable.forget(name);
        });
    }
}
