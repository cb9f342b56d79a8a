//! Which models there are and in which state, at one moment; replaced as a whole, never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consort_stage::{Error, Result};

use crate::models::{IndexEntry, Served, State};

/// The models at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    models: BTreeMap<Arc<str>, Entry>,
    /// The models that readiness does not wait for.
    optional: Arc<BTreeSet<Arc<str>>>,
}

/// One model: as a whole in some state, or with its versions.
#[derive(Clone)]
pub enum Entry {
    /// No version has a state of its own.
    Model(State, String),
    /// Each version that was asked for.
    Versions(BTreeMap<u64, Result<Arc<Served>>>),
}

impl Entry {
    /// A model that as a whole is in `state` because of `reason`.
    pub fn of_model(state: State, reason: String) -> Self {
        Self::Model(state, reason)
    }

    /// A model with what came of each of its versions.
    pub fn of_versions(versions: Vec<(u64, Result<Served>)>) -> Self {
        let versions = versions.into_iter();
        Self::Versions(versions.map(|(version, served)| (version, served.map(Arc::new))).collect())
    }

    /// The reasons why the model or some of its versions are unavailable.
    pub fn failures(&self) -> Vec<(Option<u64>, String)> {
        match self {
            Self::Model(State::Unavailable, reason) => vec![(None, reason.clone())],
            Self::Model(..) => Vec::new(),
            Self::Versions(versions) => versions
                .iter()
                .filter_map(|(version, served)| {
                    let error = served.as_ref().err()?;
                    Some((Some(*version), error.message().to_owned()))
                })
                .collect(),
        }
    }

    /// The newest version that is ready.
    pub fn newest_ready(&self) -> Option<&Arc<Served>> {
        match self {
            Self::Model(..) => None,
            Self::Versions(versions) => {
                versions.values().rev().find_map(|served| served.as_ref().ok())
            }
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::Model(..) => false,
            Self::Versions(versions) => versions.values().all(Result::is_ok),
        }
    }

    fn rows(&self, name: &Arc<str>) -> Vec<IndexEntry> {
        let row =
            |version, state, reason| IndexEntry { name: name.clone(), version, state, reason };
        match self {
            Self::Model(state, reason) => vec![row(None, *state, reason.clone())],
            Self::Versions(versions) => versions
                .iter()
                .map(|(version, served)| match served {
                    Ok(_) => row(Some(*version), State::Ready, String::new()),
                    Err(error) => {
                        row(Some(*version), State::Unavailable, error.message().to_owned())
                    }
                })
                .collect(),
        }
    }
}

impl Snapshot {
    /// A snapshot of these models; readiness does not wait for those that are `optional`.
    pub fn new(models: BTreeMap<Arc<str>, Entry>, optional: BTreeSet<Arc<str>>) -> Self {
        Self { models, optional: Arc::new(optional) }
    }

    /// The same with one model's entry replaced.
    #[must_use]
    pub fn with(&self, name: Arc<str>, entry: Entry) -> Self {
        let mut models = self.models.clone();
        models.insert(name, entry);
        Self { models, optional: self.optional.clone() }
    }

    /// The model in this version or its newest ready one; the errors are Triton's.
    pub fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        let unknown =
            |what: &str| Error::not_found(format!("Request for unknown model: '{name}' {what}"));
        let entry = self.models.get(name).ok_or_else(|| unknown("is not found"))?;
        let Some(version) = version else {
            return entry
                .newest_ready()
                .cloned()
                .ok_or_else(|| unknown(&format!("has no available versions{}", why(entry))));
        };
        let found = match entry {
            Entry::Model(..) => None,
            Entry::Versions(versions) => versions.get(&version),
        };
        match found {
            Some(Ok(served)) => Ok(served.clone()),
            Some(Err(error)) => Err(Error::unavailable(format!(
                "'{name}' version {version} is not at ready state: {}",
                error.message()
            ))),
            None => Err(unknown(&format!("version {version} is not found"))),
        }
    }

    /// The ready versions of a model, one of them, or everything that is ready (empty name).
    pub fn select(&self, name: &str, version: Option<u64>) -> Result<Vec<Arc<Served>>> {
        if version.is_some() {
            return Ok(vec![self.get(name, version)?]);
        }
        let chosen = self.models.iter().filter(|(model, _)| name.is_empty() || &***model == name);
        let ready = chosen.flat_map(|(_, entry)| match entry {
            Entry::Model(..) => Vec::new(),
            Entry::Versions(versions) => {
                versions.values().filter_map(|served| served.as_ref().ok().cloned()).collect()
            }
        });
        let ready: Vec<_> = ready.collect();
        if ready.is_empty() && !name.is_empty() {
            return Err(Error::invalid(format!("requested model '{name}' is not available")));
        }
        Ok(ready)
    }

    /// A row for every version, or for the model where no version has a state.
    pub fn index(&self) -> Vec<IndexEntry> {
        self.models.iter().flat_map(|(name, entry)| entry.rows(name)).collect()
    }

    /// Whether every model is ready, but for optional ones that have failed.
    pub fn is_ready(&self) -> bool {
        let may_fail = |name| self.optional.contains(name);
        self.models.iter().all(|(name, entry)| {
            entry.is_ready() || may_fail(name) && !matches!(entry, Entry::Model(State::Loading, _))
        })
    }
}

/// Why nothing of a model is served, for the end of a message.
fn why(entry: &Entry) -> String {
    let mut reasons = entry.failures().into_iter().map(|(_, reason)| reason);
    reasons.next().map_or_else(String::new, |reason| format!(" ({reason})"))
}
