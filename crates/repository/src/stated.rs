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
                let first = models.get(&folder.name).map(|stated| stated.folder.clone());
                let stated = Self::read(folder, first.as_ref());
                models.insert(stated.folder.name.clone(), stated);
            }
        }
        Ok(models.into_values().collect())
    }

    /// The model `name`, with what a caller gave in place of its files.
    ///
    /// Errors when no repository has it and no files were given, and when the files that were given
    /// cannot be kept.
    pub fn find(repositories: &[PathBuf], name: &str, given: Option<&Override>) -> Result<Self> {
        let mut folders = repositories.iter().filter_map(|repository| model_in(repository, name));
        let Some(given) = given else {
            let folder = folders.next().ok_or_else(|| failed_to_poll(name))?;
            let second = folders.next();
            return Ok(match second {
                Some(second) => Self::read(second, Some(&folder)),
                None => Self::read(folder, None),
            });
        };
        let stand_in = StandIn::write(name, given)?.map(Arc::new);
        let folder = match &stand_in {
            Some(files) => ModelFolder { name: name.to_owned(), path: files.folder() },
            None => folders.next().ok_or_else(|| failed_to_poll(name))?,
        };
        let draft = Draft::from_json(name, &given.config, &folder.path);
        Ok(Self { folder, draft, stand_in, is_given: true })
    }

    /// The model in `folder`, of whose name there may be another before it.
    fn read(folder: ModelFolder, first: Option<&ModelFolder>) -> Self {
        let draft = match first {
            Some(first) => Err(duplicate(first, &folder).into()),
            None => consort_config::read(&folder.path),
        };
        Self { folder, draft, stand_in: None, is_given: false }
    }

    /// What a caller is told who wanted it loaded, when `reason` is why that cannot be.
    ///
    /// Triton has one text for every configuration of a caller's own that is no good; the index and
    /// the log say the rest.
    pub fn refusal(&self, reason: &str) -> Error {
        let name = &self.folder.name;
        if self.is_given {
            failed_to_poll(name).with_source(format!("invalid config override: {reason}"))
        } else {
            load_failed(name, &[(None, reason.to_owned())])
        }
    }

    /// Whether a caller gave the configuration, with or without files.
    pub fn is_given(&self) -> bool {
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

/// Whether a configuration that came with a request is an ensemble's; `None` where it cannot be
/// read.
pub fn is_ensemble(model: &str, given: &Override) -> Option<bool> {
    let nowhere = Path::new("");
    Draft::from_json(model, &given.config, nowhere).ok().map(|draft| draft.is_ensemble())
}

/// What is wrong when two repositories have a model of one name.
pub fn duplicate(first: &ModelFolder, second: &ModelFolder) -> Problem {
    let name = &first.name;
    let [first, second] =
        [first, second].map(|folder| folder.path.parent().unwrap_or(&folder.path));
    let (first, second) = told_apart(first, second);
    Problem {
        file: name.clone(),
        place: None,
        message: format!("model `{name}` appears in two repositories, `{first}` and `{second}`"),
        help: Some("rename one of them".into()),
    }
}

/// As much of the ends of two paths as tells them apart: callers need not know where they lie.
fn told_apart(first: &Path, second: &Path) -> (String, String) {
    let parts = |path: &Path| path.components().count();
    let end = |path: &Path, count: usize| {
        let skipped = parts(path).saturating_sub(count);
        path.components().skip(skipped).collect::<PathBuf>().display().to_string()
    };
    let longest = parts(first).max(parts(second)).max(1);
    let mut ends = (1..=longest).map(|count| (end(first, count), end(second, count)));
    ends.clone().find(|(first, second)| first != second).or(ends.next_back()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_repositories_are_called_by_what_tells_them_apart() {
        let folder = |path: &str| ModelFolder { name: "m".into(), path: path.into() };
        let said = |first: &str, second: &str| duplicate(&folder(first), &folder(second)).message;
        let message = said("/srv/one/m", "/srv/two/m");
        assert_eq!(message, "model `m` appears in two repositories, `one` and `two`");
        assert!(said("/a/models/m", "/b/models/m").ends_with("`a/models` and `b/models`"));
        assert!(said("/a/m", "/a/m").ends_with("`/a` and `/a`"));
    }
}
