//! Makes stated ensembles callable over the models that are there, inner ensembles first.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_config::{Model, Scheduling};
use consort_ensemble::{Defect, Ensemble, Nested, Plan, Spec, StepSpec, check, nesting};
use consort_repository::{Checked, Entry, Models, Served, State, statistics};
use consort_stage::Stage;
use consort_telemetry::Metrics;

use super::Stated;
use crate::ensemble_stage::EnsembleStage;
use crate::step_stage::StepStage;

/// Ensembles on their way from configuration to callable models.
pub(super) struct Assembly<'a> {
    stated: &'a BTreeMap<Arc<str>, Stated>,
    leaves: &'a dyn Models,
    metrics: &'a Arc<Metrics>,
    done: BTreeMap<Arc<str>, Entry>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(
        stated: &'a BTreeMap<Arc<str>, Stated>,
        leaves: &'a dyn Models,
        metrics: &'a Arc<Metrics>,
    ) -> Self {
        Self { stated, leaves, metrics, done: BTreeMap::new() }
    }

    /// Every ensemble, ready or with the reason why not.
    pub(super) fn all(mut self) -> BTreeMap<Arc<str>, Entry> {
        let mut specs = Vec::new();
        for (name, stated) in self.stated {
            match stated.model.as_ref().map(|model| &model.scheduling) {
                Ok(Scheduling::Ensemble(spec)) => specs.push(&**spec),
                Ok(_) => {
                    let reason = format!("'{name}' has no ensemble_scheduling");
                    self.done.insert(name.clone(), Entry::of_model(State::Unavailable, reason));
                }
                Err(problems) => {
                    let entry = Entry::of_model(State::Unavailable, problems.clone());
                    self.done.insert(name.clone(), entry);
                }
            }
        }
        for Nested { spec, cycle } in nesting(specs) {
            let Stated { model, version } = &self.stated[&spec.name];
            let built = match (model, cycle) {
                (Ok(model), None) => self.build(model, *version, spec),
                (Ok(_), Some(cycle)) => Err(Reason::failed(cycle)),
                (Err(problems), _) => Err(Reason::failed(problems.clone())),
            };
            let entry = match built {
                Ok(served) => Entry::of_versions(vec![(*version, Ok(served))]),
                Err(reason) => Entry::of_model(reason.state, reason.text),
            };
            self.done.insert(spec.name.clone(), entry);
        }
        self.done
    }

    fn build(&self, model: &Model, version: u64, spec: &Spec) -> Result<Served, Reason> {
        let models = self.find_models(spec)?;
        let lookup = |name: &str, version: Option<u64>| {
            let mut steps = spec.steps.iter().zip(&models);
            let step = steps.find(|(step, _)| *step.model == *name && step.version == version);
            step.map(|(_, served)| served.signature.clone())
        };
        let plan = check(spec, &lookup).map_err(|defects| Reason::defects(model, &defects))?;
        Ok(self.serve(model, version, plan, &models))
    }

    fn find_models(&self, spec: &Spec) -> Result<Vec<Arc<Served>>, Reason> {
        let find = |step: &StepSpec| self.find(&spec.name, &step.model, step.version);
        spec.steps.iter().map(find).collect()
    }

    fn find(
        &self,
        ensemble: &str,
        model: &Arc<str>,
        version: Option<u64>,
    ) -> Result<Arc<Served>, Reason> {
        let found = if let Some(entry) = self.done.get(model) {
            let reason = || entry.failures().into_iter().map(|(_, reason)| reason).next();
            entry.newest_ready().cloned().ok_or_else(|| reason().unwrap_or_default())
        } else {
            self.leaves.get(model, version).map_err(|error| error.message().to_owned())
        };
        found.map_err(|why| {
            let required = match version {
                Some(version) => format!("whose required version {version} is not loaded"),
                None => "which has no loaded version".to_owned(),
            };
            let loads = self.leaves.index().into_iter().any(|row| {
                row.name == *model && matches!(row.state, State::Loading)
            });
            Reason {
                state: if loads { State::Loading } else { State::Unavailable },
                text: format!(
                    "ensemble '{ensemble}' depends on '{model}' {required}. Model '{model}' loading \
                     failed with error: {why}"
                ),
            }
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
        let ensemble = Ensemble::new(Arc::new(plan), steps);
        let stage = EnsembleStage::new(ensemble, signature.clone(), meter.clone());
        let mut config = (*model.wire).clone();
        if signature.is_decoupled {
            config.model_transaction_policy.get_or_insert_default().decoupled = true;
        }
        Served {
            name: model.name.clone(),
            version,
            versions: vec![version],
            platform: "ensemble".into(),
            config: Arc::new(config),
            signature: signature.clone(),
            stage: Arc::new(Checked::new(model.name.clone(), signature, Arc::new(stage), meter)),
        }
    }
}

/// Why an ensemble is not ready.
struct Reason {
    state: State,
    text: String,
}

impl Reason {
    fn failed(text: String) -> Self {
        Self { state: State::Unavailable, text }
    }

    /// Defects of the graph, each with its place in the configuration's file.
    fn defects(model: &Model, defects: &[Defect]) -> Self {
        let problem = |defect: &Defect| model.problem(&defect.field, &defect.message);
        let lines: Vec<String> = defects.iter().map(|defect| problem(defect).to_string()).collect();
        Self::failed(lines.join("\n"))
    }
}
