//! The files of a model: whether they are there, and whether they are what its configuration says.

use std::path::PathBuf;

use consort_config::{Draft, Model, OPTIONAL, Place, Problem, Problems};
use consort_repository::{
    ClassLabels, Kind, Loader, ModelFile, ModelFolder, check_warm_up, oddities, served_versions,
    versions_in,
};
use consort_scheduler::Threads;
use consort_server::cores;
use consort_stage::{Code, Error};
use consort_telemetry::Metrics;

use super::finding::{Finding, about};
use super::inspection::Inspected;

/// What the files of one model are inspected with.
pub(super) struct Files<'a> {
    /// The backends there are.
    pub(super) kinds: &'a [Kind],
    /// Whether models are loaded whole, however large they are.
    pub(super) loads: bool,
    /// The model's folder.
    pub(super) folder: &'a ModelFolder,
    /// Where what is found goes.
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Files<'_> {
    /// Inspects the files of a model that is no ensemble, and checks its configuration with them.
    pub(super) fn inspect(&mut self, draft: Draft) -> Inspected {
        let present = versions_in(&self.folder.path);
        let versions = served_versions(&draft.version_policy(), &present);
        if versions.is_empty() {
            self.no_version(&present);
        }
        for oddity in oddities(self.folder, &draft.version_policy()) {
            let name = &self.folder.name;
            self.push(Finding::note(name, about(name, oddity)));
        }
        let is_optional = draft.parameter(OPTIONAL) == Some("true");
        let known = self.findings.len();
        let model = match self.kinds.iter().find(|kind| kind.name == draft.backend()) {
            Some(kind) => self.check_with(kind, &draft, &versions),
            None => self.check_foreign(draft, &versions),
        };
        if is_optional && model.is_some() {
            // Readiness does not wait for it, so that its files may come later.
            for finding in self.findings.split_off(known) {
                self.findings.push(finding.into_note());
            }
        }
        Inspected { folder: self.folder.path.clone(), versions, model, plan: None }
    }

    fn check_with(&mut self, kind: &Kind, draft: &Draft, versions: &[u64]) -> Option<Model> {
        let mut newest = None;
        for version in versions {
            newest = self.complete(kind, draft.clone(), *version);
        }
        if versions.is_empty() && draft.names_tensors() {
            newest = self.checked(draft.clone());
        }
        let model = newest?;
        if !is_heavy(kind) || self.loads {
            self.load(&model, versions);
        } else {
            self.check_unloaded(kind, &model);
        }
        Some(model)
    }

    /// Completes and compares the configuration with the model file of a version.
    fn complete(&mut self, kind: &Kind, mut draft: Draft, version: u64) -> Option<Model> {
        if is_heavy(kind) && self.is_missing(&draft, version) {
            return draft.names_tensors().then(|| self.checked(draft)).flatten();
        }
        let path = self.version_folder(version).join(draft.file_name());
        let file = ModelFile { folder: &self.folder.path, path: &path };
        match (kind.signature)(&file) {
            Ok(Some(signature)) => draft.complete(&signature),
            Ok(None) => {}
            Err(error) => {
                self.cannot_read(self.shown(&draft, version), &error);
                if !draft.names_tensors() {
                    return None;
                }
            }
        }
        self.checked(draft)
    }

    /// Reports a model file that does not exist. Only some backends have one in every version.
    fn is_missing(&mut self, draft: &Draft, version: u64) -> bool {
        let name = draft.file_name();
        let is_missing = !name.is_empty() && !self.version_folder(version).join(name).exists();
        if is_missing {
            let problem = about(self.shown(draft, version), "the model file does not exist");
            self.push(Finding::problem(&self.folder.name, problem));
        }
        is_missing
    }

    fn shown(&self, draft: &Draft, version: u64) -> String {
        format!("{}/{version}/{}", self.folder.name, draft.file_name())
    }

    /// A model file that cannot be read is a problem; a library that is missing is none of its.
    fn cannot_read(&mut self, shown: String, error: &Error) {
        let is_elsewhere = error.code() == Code::Unavailable;
        let problem = if is_elsewhere {
            about(shown, format!("not looked into: {}", error.message()))
        } else {
            about(shown, error.message())
        };
        let finding = Finding::problem(&self.folder.name, problem);
        self.push(if is_elsewhere { finding.into_note() } else { finding });
    }

    fn checked(&mut self, draft: Draft) -> Option<Model> {
        match draft.check() {
            Ok(model) => Some(model),
            Err(Problems(problems)) => {
                for problem in problems {
                    self.push(Finding::problem(&self.folder.name, problem));
                }
                None
            }
        }
    }

    /// Loads the versions as serving them would, with every instance and its warm-up.
    fn load(&mut self, model: &Model, versions: &[u64]) {
        let loader = Loader {
            kinds: self.kinds.into(),
            metrics: Metrics::new(),
            cores: cores(),
            cache: None,
            limiter: None,
            threads: Threads::default(),
        };
        match loader.try_out(self.folder, model.clone(), versions) {
            Ok(failures) => {
                for (_, error) in failures {
                    self.cannot_load(model, &error);
                }
            }
            Err(error) => self.cannot_load(model, &error),
        }
    }

    /// Checks what can be without loading the model file: what is said to the backend, labels and
    /// warm-up requests.
    fn check_unloaded(&mut self, kind: &Kind, model: &Model) {
        if let Err(error) = (kind.check)(model) {
            self.cannot_load(model, &error);
        }
        if let Err(error) = ClassLabels::read(&model.wire, &self.folder.path) {
            self.cannot_load(model, &error);
        }
        if let Err(error) = check_warm_up(model, &self.folder.path) {
            let problem = model.problem("model_warmup", error.message());
            self.push(Finding::problem(&self.folder.name, problem));
        }
    }

    /// Says why a model would not be served, once where several versions have it in common.
    fn cannot_load(&mut self, model: &Model, error: &Error) {
        let problem = placed(model.problem("", error.message()));
        self.push(Finding::problem(&self.folder.name, problem));
    }

    /// Checks what any server would of a model whose backend Consort does not have.
    fn check_foreign(&mut self, draft: Draft, versions: &[u64]) -> Option<Model> {
        let backends: Vec<&str> = self.kinds.iter().map(|kind| kind.name).collect();
        let message = format!(
            "backend `{}` is none of Consort's, which are {}; another server has to serve it",
            draft.backend(),
            backends.join(", ")
        );
        for version in versions {
            self.is_missing(&draft, *version);
        }
        if !draft.names_tensors() {
            let message =
                format!("{message}; its tensors are unknown, since it does not name them");
            self.push(Finding::note(&self.folder.name, about(&self.folder.name, message)));
            return None;
        }
        let model = self.checked(draft)?;
        self.push(Finding::note(&self.folder.name, model.problem("backend", message)));
        Some(model)
    }

    fn no_version(&mut self, present: &[u64]) {
        let name = &self.folder.name;
        let mut problem = about(name, "no version is available");
        problem.help = Some(if present.is_empty() {
            format!("put the model's files into a version folder such as `{name}/1/`")
        } else {
            format!("`version_policy` leaves out every version there is: {present:?}")
        });
        self.push(Finding::problem(name, problem));
    }

    /// What several versions have in common is said once.
    fn push(&mut self, finding: Finding) {
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn version_folder(&self, version: u64) -> PathBuf {
        self.folder.path.join(version.to_string())
    }
}

/// The problem at its place, where the message begins with it: backends say so of parameters.
fn placed(problem: Problem) -> Problem {
    let found = || {
        let rest = problem.message.strip_prefix(&*problem.file)?.strip_prefix(':')?;
        let mut parts = rest.splitn(3, ':');
        let (line, column) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((Place { line, column }, parts.next()?.trim_start().to_owned()))
    };
    match found() {
        Some((place, message)) => Problem { place: Some(place), message, ..problem },
        None => problem,
    }
}

/// Whether loading a model of this kind takes more than reading a small file.
fn is_heavy(kind: &Kind) -> bool {
    consort_model::ALL.iter().any(|heavy| heavy.name == kind.name)
}
