//! What the repositories say of their models now: each folder with its configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use consort_config::{Draft, OPTIONAL, Problem, Problems};
use consort_protocol::model_config::SchedulingChoice;
use consort_stage::{Error, Result};

use crate::control::{Override, failed_to_poll, load_failed};
use crate::folder::{ModelFolder, model_in, models_in};
use crate::stand_in::StandIn;

/// A model as its files state it, or as the caller does who gave something in their place.
pub struct Stated {
    /// The model's folder.
    pub folder: ModelFolder,
    /// Its configuration, or what is wrong with it.
    pub draft: std::result::Result<Draft, Problems>,
    /// The files that stand in for the folder's.
    pub(crate) stand_in: Option<Arc<StandIn>>,
    /// Whether a caller gave the configuration.
    is_given: bool,
}

impl Stated {
    /// Every model of `repositories`, in the order of their names.
    ///
    /// A name that is in two repositories stands for neither of them, as in Triton. Errors when a
    /// repository cannot be read.
    pub fn all(repositories: &[PathBuf]) -> Result<Vec<Self>> {
        let mut models: BTreeMap<String, Self> = BTreeMap::new();
        for repository in repositories {
            for folder in models_in(Path::new(repository))? {
                let twice = models.contains_key(&folder.name);
                let stated = Self::read(folder, twice);
                models.insert(stated.folder.name.clone(), stated);
            }
        }
        Ok(models.into_values().collect())
    }

    /// The model `name`, with what a caller gave in place of its files.
    ///
    /// Errors when no repository has it and no files were given, and when what was given cannot be
    /// used.
    pub fn find(repositories: &[PathBuf], name: &str, given: Option<&Override>) -> Result<Self> {
        let mut folders = repositories.iter().filter_map(|repository| model_in(repository, name));
        let Some(given) = given else {
            let folder = folders.next().ok_or_else(|| failed_to_poll(name))?;
            return Ok(Self::read(folder, folders.next().is_some()));
        };
        let stand_in = StandIn::write(name, given)?.map(Arc::new);
        let folder = match &stand_in {
            Some(files) => ModelFolder { name: name.to_owned(), path: files.folder() },
            None => folders.next().ok_or_else(|| failed_to_poll(name))?,
        };
        let draft = Draft::from_json(name, &given.config, &folder.path).map_err(|problems| {
            tracing::warn!(model = name, "Invalid config override: {problems}");
            failed_to_poll(name)
        })?;
        Ok(Self { folder, draft: Ok(draft), stand_in, is_given: true })
    }

    fn read(folder: ModelFolder, is_twice: bool) -> Self {
        let draft =
            if is_twice { Err(duplicate(&folder)) } else { consort_config::read(&folder.path) };
        Self { folder, draft, stand_in: None, is_given: false }
    }

    /// What a caller is told who wanted it loaded, when `reason` is why that cannot be.
    ///
    /// Triton has one text for every configuration of a caller's own that is no good, and the log
    /// says the rest.
    pub fn refusal(&self, reason: &str) -> Error {
        let name = &self.folder.name;
        if self.is_given {
            tracing::warn!(model = &**name, "Invalid config override: {reason}");
            failed_to_poll(name)
        } else {
            load_failed(name, &[(None, reason.to_owned())])
        }
    }

    /// Whether a caller gave the configuration, with or without files.
    pub(crate) fn is_given(&self) -> bool {
        self.is_given
    }

    /// Whether it is an ensemble; one whose configuration cannot be read does not count.
    pub fn is_ensemble(&self) -> bool {
        self.draft.as_ref().is_ok_and(Draft::is_ensemble)
    }

    /// The models that its steps call; none unless it is an ensemble.
    pub(crate) fn steps(&self) -> Vec<&str> {
        let config = self.draft.as_ref().map(Draft::config);
        match config.map(|config| &config.scheduling_choice) {
            Ok(Some(SchedulingChoice::EnsembleScheduling(ensemble))) => {
                ensemble.step.iter().map(|step| step.model_name.as_str()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether readiness does not wait for it.
    pub fn is_optional(&self) -> bool {
        self.draft.as_ref().is_ok_and(|draft| draft.parameter(OPTIONAL) == Some("true"))
    }
}

/// Whether a configuration that came with a request is an ensemble's.
pub fn is_ensemble(model: &str, given: &Override) -> bool {
    let nowhere = Path::new("");
    Draft::from_json(model, &given.config, nowhere).is_ok_and(|draft| draft.is_ensemble())
}

fn duplicate(folder: &ModelFolder) -> Problems {
    Problem {
        file: folder.name.clone(),
        place: None,
        message: format!("model `{}` appears in two repositories", folder.name),
        help: Some("rename one of them".into()),
    }
    .into()
}

/// Triton's error for a model without a version to serve, with the remedy.
pub(crate) fn no_version(folder: &ModelFolder, present: &[u64]) -> Error {
    let name = &folder.name;
    let remedy = if present.is_empty() {
        format!("put the model's files into a version folder such as `{name}/1/`")
    } else {
        format!("`version_policy` leaves out every version there is: {present:?}")
    };
    Error::internal(format!("failed to load '{name}', no version is available; {remedy}"))
}
