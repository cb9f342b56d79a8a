//! The adapters of models that continue text: which there are, and how requests name them.

use std::sync::Arc;

use consort_protocol::ModelConfig;
use consort_protocol::model_config::SchedulingChoice;
use consort_repository::{ADAPTERS, Models, Served, State};
use consort_stage::{Code, Error, Result};

use super::text_model::TextModel;

/// What stands between a model and its adapter where the adapter's name alone is not enough.
const SEPARATOR: char = ':';

/// A model as a request names it: as it is, or with one of its adapters.
#[derive(Clone)]
pub(super) struct Named {
    /// The model.
    pub(super) served: Arc<Served>,
    /// The adapter that takes part.
    pub(super) adapter: Option<Arc<str>>,
}

impl Named {
    /// A model as it is.
    pub(super) fn plain(served: &Arc<Served>) -> Self {
        Self { served: served.clone(), adapter: None }
    }

    /// The name by its model and its adapter, which is nobody else's.
    fn whole_name(&self) -> String {
        let model = &self.served.name;
        match &self.adapter {
            Some(adapter) => format!("{model}{SEPARATOR}{adapter}"),
            None => model.to_string(),
        }
    }
}

/// Every model that is ready, in the order of their names.
pub(super) fn ready(models: &dyn Models) -> Vec<Arc<Served>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for row in models.index() {
        if row.state == State::Ready && names.last() != Some(&row.name) {
            names.push(row.name);
        }
    }
    names.iter().filter_map(|name| models.get(name, None).ok()).collect()
}

/// Every adapter of these models, each with the name that is listed: its own where no model and no
/// other adapter has it.
pub(super) fn listed(models: &dyn Models, ready: &[Arc<Served>]) -> Vec<(String, Named)> {
    let all: Vec<Named> = ready.iter().flat_map(|served| of(models, served)).collect();
    let name = |named: &Named| {
        let adapter = named.adapter.as_deref().unwrap_or_default();
        let is_same = |other: &&Named| other.adapter == named.adapter;
        let is_alone = all.iter().filter(is_same).count() == 1;
        if is_alone && is_unknown(models, adapter) {
            adapter.to_owned()
        } else {
            named.whole_name()
        }
    };
    all.iter().map(|named| (name(named), named.clone())).collect()
}

/// What a request means by `name`: a model, `model:adapter`, or the adapter of one model alone.
pub(super) fn find(models: &dyn Models, name: &str) -> Result<Named> {
    let unknown = match models.get(name, None) {
        Ok(served) => return Ok(Named::plain(&served)),
        Err(error) if error.code() == Code::NotFound => error,
        Err(error) => return Err(error),
    };
    if let Some((model, adapter)) = name.split_once(SEPARATOR) {
        match models.get(model, None) {
            Ok(served) => return adapted(models, &served, adapter),
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut found = ready(models).iter().flat_map(|served| of(models, served)).collect::<Vec<_>>();
    found.retain(|named| named.adapter.as_deref() == Some(name));
    match &found[..] {
        [] => Err(unknown),
        [named] => Ok(named.clone()),
        several => {
            let names = several.iter().map(|named| format!("`{}`", named.whole_name()));
            let names = names.collect::<Vec<_>>().join(", ");
            Err(Error::invalid(format!("`{name}` is an adapter of several models: say {names}")))
        }
    }
}

/// A model with one of its adapters.
fn adapted(models: &dyn Models, served: &Arc<Served>, adapter: &str) -> Result<Named> {
    let all = of(models, served);
    let known = |named: &Named| format!("`{}`", named.adapter.as_deref().unwrap_or_default());
    let found = all.iter().find(|named| named.adapter.as_deref() == Some(adapter));
    found.cloned().ok_or_else(|| {
        let known: Vec<_> = all.iter().map(known).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let model = &served.name;
        Error::not_found(format!("model `{model}` has no adapter `{adapter}`; it has {known}"))
    })
}

/// A model with each of its adapters, if requests may choose one.
fn of(models: &dyn Models, served: &Arc<Served>) -> Vec<Named> {
    if !TextModel::of(served).is_some_and(|model| model.takes_adapters()) {
        return Vec::new();
    }
    let names = told(models, &served.config).unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let named = |name| Named { served: served.clone(), adapter: Some(Arc::from(name)) };
    names.map(named).collect()
}

/// What a model, or the first step of an ensemble that has any, tells of its adapters.
fn told(models: &dyn Models, config: &ModelConfig) -> Option<String> {
    if let Some(parameter) = config.parameters.get(ADAPTERS) {
        return Some(parameter.string_value.clone());
    }
    let Some(SchedulingChoice::EnsembleScheduling(ensemble)) = &config.scheduling_choice else {
        return None;
    };
    let mut steps = ensemble.step.iter();
    steps.find_map(|step| told(models, &models.get(&step.model_name, None).ok()?.config))
}

fn is_unknown(models: &dyn Models, name: &str) -> bool {
    models.get(name, None).is_err_and(|error| error.code() == Code::NotFound)
}
