//! What model repositories hold, as far as it can be told without serving it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use consort_config::{Draft, Model, Problems, Scheduling};
use consort_ensemble::{Plan, Spec};
use consort_repository::{Kind, ModelFolder, duplicate, models_in, versions_in};
use consort_stage::Signature;

use super::finding::{Finding, about};
use super::{ensembles, files};
use crate::serve;

/// What model repositories hold, and everything there is to say about it.
pub(crate) struct Inspection {
    /// The models by name.
    pub(crate) models: BTreeMap<String, Inspected>,
    /// What there is to say, by the models' names and in the order of their files.
    pub(crate) findings: Vec<Finding>,
}

/// One model.
pub(crate) struct Inspected {
    /// Where it lies.
    pub(crate) folder: PathBuf,
    /// The versions that would be served, ascending.
    pub(crate) versions: Vec<u64>,
    /// The checked configuration; `None` when it cannot be told because of a problem.
    pub(crate) model: Option<Model>,
    /// The checked graph of an ensemble.
    pub(crate) plan: Option<Plan>,
}

impl Inspection {
    /// Inspects these repositories as one; errors only when one of them cannot be read.
    ///
    /// With `loads`, models are loaded whole, however large they are.
    pub(crate) fn of(repositories: &[PathBuf], loads: bool) -> Result<Self> {
        let kinds = serve::kinds();
        let mut inspection = Self { models: BTreeMap::new(), findings: Vec::new() };
        for repository in repositories {
            for folder in models_in(repository).map_err(|error| anyhow!("{error}"))? {
                inspection.add(&kinds, loads, &folder);
            }
        }
        ensembles::check(&mut inspection);
        inspection.findings.sort_by(|left, right| left.order().cmp(&right.order()));
        Ok(inspection)
    }

    fn add(&mut self, kinds: &[Kind], loads: bool, folder: &ModelFolder) {
        let name = &folder.name;
        if let Some(first) = self.models.get(name).map(|first| first.folder.clone()) {
            let problem = duplicate(&ModelFolder { name: name.clone(), path: first }, folder);
            self.findings.push(Finding::problem(name, problem));
            return;
        }
        let inspected = match consort_config::read(&folder.path) {
            Ok(draft) if draft.is_ensemble() => self.add_ensemble(folder, draft),
            Ok(draft) => {
                let mut files = files::Files { kinds, loads, folder, findings: &mut self.findings };
                files.inspect(draft)
            }
            Err(problems) => {
                self.report(name, problems);
                let versions = versions_in(&folder.path);
                Inspected { folder: folder.path.clone(), versions, model: None, plan: None }
            }
        };
        self.models.insert(name.clone(), inspected);
    }

    fn add_ensemble(&mut self, folder: &ModelFolder, draft: Draft) -> Inspected {
        // Triton wants a version folder even for an ensemble; without one it counts as 1.
        let versions = versions_in(&folder.path).last().copied();
        if versions.is_none() {
            let message = "Triton would want an empty version folder such as `1/` here";
            self.findings.push(Finding::note(&folder.name, about(&folder.name, message)));
        }
        let versions = vec![versions.unwrap_or(1)];
        let model = draft.check().map_err(|problems| self.report(&folder.name, problems)).ok();
        Inspected { folder: folder.path.clone(), versions, model, plan: None }
    }

    fn report(&mut self, model: &str, problems: Problems) {
        let finding = |problem| Finding::problem(model, problem);
        self.findings.extend(problems.0.into_iter().map(finding));
    }

    /// What is wrong, without the notes.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.is_note)
    }
}

impl Inspected {
    /// The statement of an ensemble.
    pub(crate) fn spec(&self) -> Option<&Arc<Spec>> {
        match &self.model.as_ref()?.scheduling {
            Scheduling::Ensemble(spec) => Some(spec),
            _ => None,
        }
    }

    /// What the model takes and gives, when that can be told.
    pub(crate) fn signature(&self) -> Option<Arc<Signature>> {
        match (&self.plan, self.spec()) {
            (Some(plan), _) => Some(Arc::new(plan.signature.clone())),
            (None, Some(_)) => None,
            (None, None) => self.model.as_ref().map(|model| model.signature.clone()),
        }
    }
}
