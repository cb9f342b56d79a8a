//! What a replica last said about itself and its models.

use std::sync::Arc;

use consort_protocol::ModelConfig;
use consort_protocol::model_config::SchedulingChoice;
use consort_repository::{ClassLabels, State, UNLOADED};
use consort_stage::Signature;

/// What a replica last said, or the last it said before it failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// How the replica is.
    pub(crate) health: Health,
    /// Its models, in its own order.
    pub(crate) models: Vec<Reported>,
}

/// How a replica is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    /// It has not answered yet.
    #[default]
    Connecting,
    /// It is ready.
    Ready,
    /// It is not ready because some model of its is not; the others can be called.
    Partial,
    /// It cannot be called, for this reason.
    Failed(String),
}

/// One version of a model, as its replica describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reported {
    pub(crate) name: Arc<str>,
    /// `None` for a model that was never loaded.
    pub(crate) version: Option<u64>,
    pub(crate) state: State,
    pub(crate) reason: String,
    /// Known when the version is ready.
    pub(crate) description: Option<Arc<Description>>,
}

/// The configuration of a model version and what follows from it.
#[derive(Debug, PartialEq)]
pub(crate) struct Description {
    pub(crate) config: Arc<ModelConfig>,
    pub(crate) signature: Arc<Signature>,
    /// What the elements of its outputs are called, where its folder lies here too.
    pub(crate) labels: Arc<ClassLabels>,
    /// Whether its server knows the version by its number, and not only as the one there is.
    pub(crate) is_versioned: bool,
}

impl Reported {
    /// One that is not available, nobody has said why.
    pub(crate) fn of(name: Arc<str>, version: Option<u64>) -> Self {
        let (state, reason) = (State::Unavailable, String::new());
        Self { name, version, state, reason, description: None }
    }
}

impl Description {
    /// Whether the model's requests belong to sequences.
    pub(crate) fn has_sequences(&self) -> bool {
        matches!(self.config.scheduling_choice, Some(SchedulingChoice::SequenceBatching(_)))
    }
}

impl Report {
    /// Whether the ready models of the replica can be called.
    pub(crate) fn is_callable(&self) -> bool {
        matches!(self.health, Health::Ready | Health::Partial)
    }

    /// Whether nothing is expected to change soon.
    pub(crate) fn is_settled(&self) -> bool {
        self.health == Health::Ready
            && self
                .models
                .iter()
                .all(|model| !matches!(model.state, State::Loading | State::Unloading))
    }

    /// The health of a replica that answers and has these models.
    ///
    /// One that is not ready although all its models are is going away and must be left alone.
    pub(crate) fn health_of(is_ready: bool, models: &[Reported]) -> Health {
        if is_ready {
            Health::Ready
        } else if models.iter().any(|model| !is_fine(model.state, &model.reason)) {
            Health::Partial
        } else {
            Health::Failed("server is not ready".into())
        }
    }

    /// Whether some version of a model is ready.
    pub(crate) fn has_ready(&self, name: &str) -> bool {
        self.models.iter().any(|model| &*model.name == name && model.state == State::Ready)
    }

    /// What was last known of a model version.
    pub(crate) fn find(&self, name: &str, version: Option<u64>) -> Option<&Reported> {
        self.models.iter().find(|model| &*model.name == name && model.version == version)
    }
}

/// Whether a model in this state is as somebody wants it to be.
pub(crate) fn is_fine(state: State, reason: &str) -> bool {
    match state {
        State::Ready | State::Unknown | State::Unloading => true,
        State::Unavailable => reason == UNLOADED,
        State::Loading => false,
    }
}

/// The state with this name on the wire, which `MLServer` writes as `State.READY`.
pub(crate) fn read_state(name: &str) -> State {
    let name = name.trim_start_matches("State.");
    [State::Ready, State::Unavailable, State::Loading, State::Unloading]
        .into_iter()
        .find(|state| state.name() == name)
        .unwrap_or(State::Unknown)
}
