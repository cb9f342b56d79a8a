//! Makes stated ensembles callable over the models that are there, inner ensembles first.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_config::{Model, Scheduling};
use consort_ensemble::{Defect, Ensemble, Plan, Spec, Step, check};
use consort_repository::{Checked, Entry, Models, Served, State};
use consort_telemetry::Metrics;

use super::Stated;
use crate::ensemble_stage::EnsembleStage;

/// Ensembles on their way from configuration to callable models.
pub(super) struct Assembly<'a> {
    stated: &'a BTreeMap<Arc<str>, Stated>,
    leaves: &'a dyn Models,
    metrics: &'a Arc<Metrics>,
    done: BTreeMap<Arc<str>, Entry>,
    /// The ensembles being assembled, outermost first: one that comes again is a cycle.
    path: Vec<Arc<str>>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(
        stated: &'a BTreeMap<Arc<str>, Stated>,
        leaves: &'a dyn Models,
        metrics: &'a Arc<Metrics>,
    ) -> Self {
        Self { stated, leaves, metrics, done: BTreeMap::new(), path: Vec::new() }
    }

    /// Every ensemble, ready or with the reason why not.
    pub(super) fn all(mut self) -> BTreeMap<Arc<str>, Entry> {
        for name in self.stated.keys() {
            self.assemble(name);
        }
        self.done
    }

    fn assemble(&mut self, name: &Arc<str>) {
        if self.done.contains_key(name) {
            return;
        }
        self.path.push(name.clone());
        let stated = &self.stated[name];
        let entry = match &stated.model {
            Err(problems) => Entry::of_model(State::Unavailable, problems.clone()),
            Ok(model) => match self.build(model, stated.version) {
                Ok(served) => Entry::of_versions(vec![(stated.version, Ok(served))]),
                Err(reason) => Entry::of_model(reason.state, reason.text),
            },
        };
        self.path.pop();
        self.done.insert(name.clone(), entry);
    }

    fn build(&mut self, model: &Model, version: u64) -> Result<Served, Reason> {
        let Scheduling::Ensemble(spec) = &model.scheduling else {
            return Err(Reason::failed(format!("'{}' has no ensemble_scheduling", model.name)));
        };
        let models = self.find_models(spec)?;
        let lookup = |name: &str, version: Option<u64>| {
            let mut steps = spec.steps.iter().zip(&models);
            let step = steps.find(|(step, _)| *step.model == *name && step.version == version);
            step.map(|(_, served)| served.signature.clone())
        };
        let plan = check(spec, &lookup).map_err(|defects| Reason::defects(model, &defects))?;
        Ok(self.serve(model, version, plan, &models))
    }

    fn find_models(&mut self, spec: &Spec) -> Result<Vec<Arc<Served>>, Reason> {
        let mut models = Vec::new();
        for step in &spec.steps {
            if self.path.contains(&step.model) {
                let path = self.path.join(" -> ");
                let text =
                    format!("circular dependency between ensembles: {path} -> {}", step.model);
                return Err(Reason::failed(text));
            }
            models.push(self.find(&spec.name, &step.model, step.version)?);
        }
        Ok(models)
    }

    fn find(
        &mut self,
        ensemble: &str,
        model: &Arc<str>,
        version: Option<u64>,
    ) -> Result<Arc<Served>, Reason> {
        let found = if self.stated.contains_key(model) {
            self.assemble(model);
            let entry = &self.done[model];
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
        let meter = self.metrics.meter(&model.name, &version.to_string());
        let signature = Arc::new(plan.signature.clone());
        let step = |(index, served): (usize, &Arc<Served>)| Step {
            stage: served.stage.clone(),
            meter: self.metrics.step(&model.name, &index.to_string(), &served.name),
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
