//! Passes a load or an unload to every replica that knows the model.

use std::sync::Arc;

use consort_protocol::model_repository_parameter::ParameterChoice;
use consort_protocol::{
    ModelRepositoryParameter, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use consort_repository::{Action, Change, Override, failed_to_poll};
use consort_stage::{Code, Context, Error, Result};
use futures::future::join_all;
use tokio::sync::oneshot;

use crate::failure;
use crate::fleet::Shared;
use crate::plain::is_unknown_call;
use crate::probe::look_again;
use crate::replica::Replica;

impl Shared {
    /// Makes every replica that knows the model carry out `change`, and answers once all have and
    /// callers see it.
    pub(crate) async fn control(&self, change: Change) -> Result<()> {
        let _turn = self.turns.of(&change.model).await;
        let replicas = self.that_know(&change).await?;
        let outcomes = join_all(replicas.iter().map(|replica| ask_for(replica, &change))).await;
        let (mut done, mut answered, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for (replica, outcome) in replicas.into_iter().zip(outcomes) {
            // One that is not there cannot be asked either.
            if !matches!(&outcome, Err(error) if error.code() == Code::Unavailable) {
                answered.push(replica.clone());
            }
            match outcome {
                Ok(()) => done.push(replica),
                Err(error) => failures.push(error),
            }
        }
        // First, lest those that have done it look as if they had not. Those that could not say why
        // in their index.
        join_all(answered.iter().map(|replica| look_again(replica, &change.model))).await;
        if !done.is_empty() {
            self.wanted.remember(&change, &done);
        }
        self.publish().await;
        summary(&change, done.len(), &failures)
    }

    /// The replicas that list the model and can be called.
    async fn that_know(&self, change: &Change) -> Result<Vec<Arc<Replica>>> {
        let model = &change.model;
        let listing = || {
            let mut replicas = self.replicas.load().to_vec();
            replicas.retain(|replica| replica.report().models.iter().any(|row| row.name == *model));
            replicas
        };
        let mut replicas = listing();
        if replicas.is_empty() {
            // It may have been put into their repository a moment ago, or they list nothing at all.
            self.expect_loaded(change);
            let all = self.replicas.load_full();
            join_all(all.iter().map(|replica| look_again(replica, model))).await;
            replicas = listing();
        }
        if replicas.is_empty() {
            return match change.action {
                Action::Load(_) => {
                    self.expected.send_if_modified(|expected| expected.unload(model));
                    Err(failed_to_poll(model))
                }
                // What nobody has is not loaded.
                Action::Unload { .. } => Ok(replicas),
            };
        }
        replicas.retain(|replica| replica.report().is_callable());
        if replicas.is_empty() {
            let text = format!("no replica that has model '{model}' can be called now");
            return Err(Error::unavailable(text));
        }
        Ok(replicas)
    }

    /// Has replicas that do not list what they have asked for what somebody wants loaded.
    fn expect_loaded(&self, Change { model, action }: &Change) {
        if matches!(action, Action::Load(_)) {
            self.expected.send_if_modified(|expected| expected.load(model));
        }
    }

    /// Waits until what the replicas have said by now is what callers see.
    async fn publish(&self) {
        let (seen, is_seen) = oneshot::channel();
        if self.refresh.send(seen).await.is_ok() {
            // An error says that the fleet has ended, and nobody sees anything.
            let _ = is_seen.await;
        }
    }
}

/// Asks one replica to carry out a change, for as long as it takes.
pub(crate) async fn ask_for(replica: &Replica, change: &Change) -> Result<()> {
    let mut client = replica.client();
    let model_name = change.model.to_string();
    let repository_name = String::new();
    let answer = match &change.action {
        Action::Load(given) => {
            let parameters = given.iter().flat_map(parameters).collect();
            let request = RepositoryModelLoadRequest { repository_name, model_name, parameters };
            client.repository_model_load(request).await.map(drop)
        }
        Action::Unload { with_dependents } => {
            let choice = ParameterChoice::BoolParam(*with_dependents);
            let parameters = [parameter("unload_dependents".to_owned(), choice)].into();
            let request = RepositoryModelUnloadRequest { repository_name, model_name, parameters };
            client.repository_model_unload(request).await.map(drop)
        }
    };
    match answer {
        Err(status) if is_unknown_call(&status) && is_loaded(replica, change) => Ok(()),
        answer => {
            answer.map_err(|status| replica.locate(failure::of_call(&status, &Context::default())))
        }
    }
}

/// Whether a replica is as `change` would make it: one that cannot load models has those that it
/// has.
fn is_loaded(replica: &Replica, change: &Change) -> bool {
    change.action == Action::Load(None) && replica.report().has_ready(&change.model)
}

fn parameters(given: &Override) -> impl Iterator<Item = (String, ModelRepositoryParameter)> {
    let config = ParameterChoice::StringParam(given.config.clone());
    let files = given.files.iter().map(|(path, content)| {
        parameter(format!("file:{path}"), ParameterChoice::BytesParam(content.clone()))
    });
    files.chain([parameter("config".to_owned(), config)])
}

fn parameter(key: String, choice: ParameterChoice) -> (String, ModelRepositoryParameter) {
    (key, ModelRepositoryParameter { parameter_choice: Some(choice) })
}

/// One error for all replicas that failed, each named.
fn summary(change: &Change, done: usize, failures: &[Error]) -> Result<()> {
    let Some(first) = failures.first() else { return Ok(()) };
    let texts: Vec<&str> = failures.iter().map(Error::message).collect();
    let texts = texts.join("; ");
    let message = if done == 0 {
        texts
    } else {
        let (model, all) = (&change.model, done + failures.len());
        format!("{done} of {all} replicas have changed model '{model}', but {texts}")
    };
    Err(Error::new(first.code(), message))
}
