//! Makes stated ensembles callable over the models that are there, inner ensembles first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consort_config::{Model, Scheduling};
use consort_ensemble::{Defect, Ensemble, Nested, Plan, Spec, StepSpec, check, nesting};
use consort_protocol::ModelConfig;
use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::model_ensembling::Step as WireStep;
use consort_repository::{
    Cached, Checked, ClassLabels, Entry, IndexEntry, Leaves, ResponseCache, Served, Snapshot,
    State, statistics,
};
use consort_stage::Stage;
use consort_telemetry::Metrics;

use super::reveal::reveal;
use super::served_config::{excludes_prompt, lists_plain_words, served_config};
use super::statement::{Statement, Wanted};
use crate::ensemble_stage::EnsembleStage;
use crate::step_stage::StepStage;
use crate::stop_words::{self, Texts};

/// What ensembles are made of.
pub(super) struct Parts<'a> {
    /// The models that somebody lists.
    pub(super) listed: &'a dyn Leaves,
    /// Those that nobody does, and the reason of each.
    pub(super) unlisted: Snapshot,
}

impl Parts<'_> {
    fn get(&self, model: &str, version: Option<u64>) -> consort_stage::Result<Arc<Served>> {
        match self.unlisted.entry(model) {
            Some(_) => self.unlisted.get(model, version),
            None => self.listed.get(model, version),
        }
    }

    fn is_loading(&self, model: &str) -> bool {
        let is_loading = |row: &IndexEntry| &*row.name == model && row.state == State::Loading;
        self.listed.index().iter().any(is_loading)
    }
}

/// Ensembles on their way from configuration to callable models.
pub(super) struct Assembly<'a> {
    stated: &'a BTreeMap<Arc<str>, Statement>,
    parts: Parts<'a>,
    metrics: &'a Arc<Metrics>,
    cache: Option<&'a Arc<ResponseCache>>,
    done: BTreeMap<Arc<str>, Entry>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(
        stated: &'a BTreeMap<Arc<str>, Statement>,
        parts: Parts<'a>,
        metrics: &'a Arc<Metrics>,
        cache: Option<&'a Arc<ResponseCache>>,
    ) -> Self {
        Self { stated, parts, metrics, cache, done: BTreeMap::new() }
    }

    /// Every ensemble, ready or with the reason why not.
    pub(super) fn all(mut self) -> BTreeMap<Arc<str>, Entry> {
        let mut specs = Vec::new();
        for (name, statement) in self.stated {
            let Some(wanted) = statement.wanted() else {
                self.done.insert(name.clone(), statement.entry());
                continue;
            };
            let problem = match wanted.as_ref().map(|wanted| &wanted.model.scheduling) {
                Ok(Scheduling::Ensemble(spec)) => {
                    specs.push(&**spec);
                    continue;
                }
                Ok(_) => format!("'{name}' has no ensemble_scheduling"),
                Err(problems) => problems.clone(),
            };
            let entry = Entry::of_model(State::Unavailable, problem);
            self.done.insert(name.clone(), entry.with_optional(statement.is_optional));
        }
        for Nested { spec, cycle } in nesting(specs) {
            let statement = &self.stated[&spec.name];
            let version = statement.version;
            let built = match (statement.wanted(), cycle) {
                (Some(Ok(wanted)), None) => self.build(wanted, version, spec),
                (Some(Err(problems)), _) => Err(Reason::failed(problems.clone())),
                (_, cycle) => Err(Reason::failed(cycle.unwrap_or_default())),
            };
            let entry = match built {
                Ok(served) => Entry::of_versions([(version, Ok(Arc::new(served)))]),
                Err(reason) => Entry::of_model(reason.state, reason.text).with_away(reason.is_away),
            };
            let entry = entry.with_optional(statement.is_optional);
            self.done.insert(spec.name.clone(), entry.with_note(statement.note.clone()));
        }
        self.done
    }

    fn build(&self, wanted: &Wanted, version: u64, spec: &Spec) -> Result<Served, Reason> {
        let model = &wanted.model;
        let models = self.find_models(spec)?;
        let plan = plan_of(spec, &models).map_err(|defects| Reason::defects(model, &defects))?;
        if model.caches_responses && plan.signature.is_decoupled {
            return Err(Reason::failed(never_cached(model)));
        }
        let mut labels = wanted.labels.clone();
        inherit_labels(&mut labels, model, &models);
        let mut served = self.serve(model, version, plan, &models);
        served.labels = labels.into();
        let inner = |step: Arc<Served>| step.revealed.clone().unwrap_or(step);
        let models: Vec<_> = models.into_iter().map(inner).collect();
        let signatures: Vec<_> = models.iter().map(|step| step.signature.clone()).collect();
        // What more it could give is no reason not to serve it.
        let revealed = plan_of(&reveal(spec, &signatures), &models);
        let revealed = revealed.map(|plan| Arc::new(self.serve(model, version, plan, &models)));
        served.revealed = revealed.ok();
        Ok(served)
    }

    fn find_models(&self, spec: &Spec) -> Result<Vec<Arc<Served>>, Reason> {
        let find = |(index, step)| self.find(&spec.name, index, step);
        spec.steps.iter().enumerate().map(find).collect()
    }

    fn find(
        &self,
        ensemble: &str,
        index: usize,
        StepSpec { model, version, .. }: &StepSpec,
    ) -> Result<Arc<Served>, Reason> {
        let (found, away) = if let Some(entry) = self.done.get(model) {
            let reason = || entry.failures().into_iter().map(|(_, reason)| reason).next();
            let found = entry.newest_ready().cloned();
            let away = entry.away().map(|(state, reason)| (state, reason.to_owned()));
            (found.ok_or_else(|| reason().unwrap_or_default()), away)
        } else {
            let found = self.parts.get(model, *version);
            let away = if found.is_err() { self.parts.listed.away(model, *version) } else { None };
            let away = away.map(|reason| (State::Unavailable, reason));
            (found.map_err(|error| error.message().to_owned()), away)
        };
        found.map_err(|why| {
            let place = format!("in ensemble '{ensemble}', step {index} (model '{model}'): ");
            if let Some((state, away)) = away {
                return Reason::away(state, format!("{place}{away}"));
            }
            if self.parts.is_loading(model) {
                return Reason::away(State::Loading, format!("{place}it is being loaded"));
            }
            let required = match version {
                Some(version) => format!("whose required version {version} is not loaded"),
                None => "which has no loaded version".to_owned(),
            };
            let why = if why.is_empty() { "nobody has loaded it" } else { &why };
            Reason::failed(format!(
                "ensemble '{ensemble}' depends on '{model}' {required}. Model '{model}' loading \
                 failed with error: {why}"
            ))
        })
    }

    fn serve(&self, model: &Model, version: u64, plan: Plan, models: &[Arc<Served>]) -> Served {
        let options = statistics::options(model);
        let meter = self.metrics.declare(&model.name, &version.to_string(), options);
        let signature = Arc::new(plan.signature.clone());
        let step = |(index, served): (usize, &Arc<Served>)| {
            let meter = self.metrics.step(&model.name, &index.to_string(), &served.name);
            Arc::new(StepStage::new(served.stage.clone(), meter)) as Arc<dyn Stage>
        };
        let steps = models.iter().enumerate().map(step).collect();
        let ensemble = Arc::new(Ensemble::new(Arc::new(plan), steps));
        let steps = || models.iter().map(|served| &*served.config);
        let config = served_config(&model.wire, &signature, steps());
        let texts = Texts {
            exclude_prompts: excludes_prompt(&config),
            have_every_word: lists_plain_words(steps()),
        };
        let ensemble = stop_words::ended(ensemble, &signature, texts);
        let stage = EnsembleStage::new(ensemble, signature.clone(), meter.clone());
        let stage: Arc<dyn Stage> = match self.cache.filter(|_| model.caches_responses) {
            Some(cache) => Arc::new(Cached::new(Arc::new(stage), cache.clone(), meter.clone())),
            None => Arc::new(stage),
        };
        Served {
            name: model.name.clone(),
            version,
            versions: vec![version],
            platform: "ensemble".into(),
            config: Arc::new(config),
            signature: signature.clone(),
            labels: Arc::default(),
            stage: Arc::new(Checked::new(model.name.clone(), signature, stage, meter)),
            revealed: None,
        }
    }
}

/// Forgets what was counted for ensembles, and steps of them, that are served no longer.
pub(super) fn forget_meters(metrics: &Metrics, before: &[Arc<Served>], now: &[Arc<Served>]) {
    let key = |served: &Served| (served.name.clone(), served.version);
    let counted: BTreeSet<_> = now.iter().map(|served| key(served)).collect();
    let steps: BTreeSet<_> = now.iter().flat_map(|served| steps_of(served)).collect();
    for served in before {
        if !counted.contains(&key(served)) {
            metrics.remove_meter(&served.name, &served.version.to_string());
        }
        for step in steps_of(served).filter(|step| !steps.contains(step)) {
            let (ensemble, index, model) = step;
            metrics.remove_step(&ensemble, &index.to_string(), &model);
        }
    }
}

/// The steps of an ensemble, each with the ensemble, its place and the model it calls.
fn steps_of(served: &Served) -> impl Iterator<Item = (Arc<str>, usize, String)> {
    let name =
        |(index, step): (usize, &WireStep)| (served.name.clone(), index, step.model_name.clone());
    wire_steps(&served.config).iter().enumerate().map(name)
}

fn wire_steps(config: &ModelConfig) -> &[WireStep] {
    match &config.scheduling_choice {
        Some(SchedulingChoice::EnsembleScheduling(ensemble)) => &ensemble.step,
        _ => &[],
    }
}

/// Gives the outputs of an ensemble that have no labels those of the steps that they come from.
fn inherit_labels(labels: &mut ClassLabels, ensemble: &Model, steps: &[Arc<Served>]) {
    for (step, served) in wire_steps(&ensemble.wire).iter().zip(steps) {
        for (theirs, output) in &step.output_map {
            labels.inherit(output, &served.labels, theirs);
        }
    }
}

/// What is wrong with an ensemble that answers many times and wants its answers kept.
fn never_cached(model: &Model) -> String {
    let message = format!(
        "Response Cache does not currently support model {} with 'decoupled' transaction policy. \
         Please disable the response cache.",
        model.name
    );
    model.problem("response_cache", message).to_string()
}

/// The plan of an ensemble whose steps call `models`.
fn plan_of(spec: &Spec, models: &[Arc<Served>]) -> Result<Plan, Vec<Defect>> {
    let lookup = |name: &str, version: Option<u64>| {
        let mut steps = spec.steps.iter().zip(models);
        let step = steps.find(|(step, _)| *step.model == *name && step.version == version);
        step.map(|(_, served)| served.signature.clone())
    };
    check(spec, &lookup)
}

/// Why an ensemble is not ready.
struct Reason {
    state: State,
    text: String,
    /// Whether it would be ready if all models of its steps could be reached.
    is_away: bool,
}

impl Reason {
    fn failed(text: String) -> Self {
        Self { state: State::Unavailable, text, is_away: false }
    }

    fn away(state: State, text: String) -> Self {
        Self { state, text, is_away: true }
    }

    /// Defects of the graph, each with its place in the configuration's file.
    fn defects(model: &Model, defects: &[Defect]) -> Self {
        let problem = |defect: &Defect| model.problem(&defect.field, &defect.message);
        let lines: Vec<String> = defects.iter().map(|defect| problem(defect).to_string()).collect();
        Self::failed(lines.join("\n"))
    }
}
