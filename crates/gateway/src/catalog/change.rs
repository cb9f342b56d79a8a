//! Loads and unloads ensembles, and the models that they call along with them.

use std::sync::Arc;

use consort_repository::{
    Action, Change, Changes, Entry, Models, Override, Stated, is_ensemble, load_failed,
};
use consort_stage::{Error, Result};

use super::Catalog;
use super::statement::Statement;

impl Catalog {
    /// Carries out one change when its turn comes, whoever waits for it.
    pub(super) async fn carry_out(self: Arc<Self>, change: Change) -> Result<()> {
        let name = change.model.clone();
        let _turn = self.turns.of(&name).await;
        match &change.action {
            Action::Load(given) => {
                if let Some(stated) = self.find_ensemble(&name, given.clone()).await? {
                    return self.load(&name, stated).await;
                }
                self.leaves.control(change).await?;
                // It may have been an ensemble's name until now.
                self.state(|statements| drop(statements.remove(&name)));
                Ok(())
            }
            Action::Unload { with_dependents } => {
                if self.is_stated(&name) {
                    return self.unload(&name, *with_dependents).await;
                }
                let unloaded = self.leaves.control(change).await;
                self.assemble();
                unloaded
            }
        }
    }

    /// What is stated of an ensemble now; `None` for a model that is none.
    async fn find_ensemble(
        &self,
        name: &Arc<str>,
        given: Option<Override>,
    ) -> Result<Option<Stated>> {
        if given.as_ref().is_some_and(|given| !is_ensemble(name, given)) {
            return Ok(None);
        }
        let (repositories, name) = (self.options.repositories.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || {
            let found = Stated::find(&repositories, &name, given.as_ref());
            // A model of some service need not lie in the gateway's own repository.
            if given.is_some() { found.map(Some) } else { Ok(found.ok()) }
        });
        let cut_short = |_| Error::internal("reading the configuration was cut short");
        let found = found.await.map_err(cut_short)??;
        // What has been an ensemble is still one while its configuration cannot be read.
        let is_ensemble = |stated: &Stated| {
            stated.is_ensemble() || stated.draft.is_err() && self.is_stated(&stated.folder.name)
        };
        Ok(found.filter(is_ensemble))
    }

    /// Serves an ensemble as it is stated now, with the models of its steps; one that is being
    /// served stays as it is when that fails.
    async fn load(&self, name: &Arc<str>, stated: Stated) -> Result<()> {
        let statement = Statement::served(&stated);
        if let Some(Err(problems)) = statement.model() {
            let refusal = stated.refusal(problems);
            self.restate(name, statement);
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
            if let Some(stated) = self.find_ensemble(&step.model, None).await? {
                let inner = Statement::served(&stated);
                Box::pin(self.load_steps(&inner, within)).await?;
                self.restate(&step.model, inner);
            } else {
                let model = step.model.clone();
                let change = Change { model, action: Action::Load(None) };
                self.leaves.control(change).await?;
            }
        }
        Ok(())
    }

    /// Ends the service of an ensemble, and of what it calls if nothing else does.
    async fn unload(&self, name: &Arc<str>, with_dependents: bool) -> Result<()> {
        let mut called = Vec::new();
        self.state(|statements| {
            let Some(statement) = statements.get_mut(name) else { return };
            if let Some(spec) = statement.spec() {
                called.extend(spec.steps.iter().map(|step| step.model.clone()));
            }
            *statement = statement.unloaded();
            let others = statements.values().filter_map(Statement::spec);
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
                self.leaves.control(Change { model, action }).await?;
            }
        }
        self.assemble();
        Ok(())
    }

    /// Puts `next` in the place of what was stated of an ensemble and gives why it cannot be
    /// served; what is being served then stays in its place.
    fn restate(&self, name: &Arc<str>, next: Statement) -> Vec<(Option<u64>, String)> {
        let mut statements = self.statements.lock();
        let before = statements.insert(name.clone(), next);
        let entries = self.assembled(&statements);
        let mut failures = Vec::new();
        if entries.get(name).is_none_or(|entry| entry.newest_ready().is_none()) {
            failures.extend(entries.get(name).map(Entry::failures).unwrap_or_default());
            if failures.is_empty() {
                failures.push((None, "a model that it calls is being loaded".to_owned()));
            }
        }
        let is_serving = self.ensembles.load().get(name, None).is_ok();
        match before.filter(|_| is_serving && !failures.is_empty()) {
            None => self.publish(entries),
            Some(mut before) => {
                before.note = failures.iter().map(|(_, reason)| reason.as_str()).collect();
                statements.insert(name.clone(), before);
                self.publish(self.assembled(&statements));
            }
        }
        failures
    }

    /// Follows what has changed in the repositories.
    pub(super) async fn follow_files(&self, Changes { changed, gone }: Changes) {
        for name in changed {
            match self.find_ensemble(&name, None).await {
                Ok(Some(stated)) => drop(self.restate(&name, Statement::served(&stated))),
                Ok(None) | Err(_) => self.state(|statements| drop(statements.remove(&name))),
            }
        }
        self.state(|statements| statements.retain(|name, _| !gone.contains(name)));
    }
}
