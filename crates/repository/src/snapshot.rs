//! Which models there are and in which state, at one moment; replaced as a whole, never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_stage::{Error, Result};

use crate::control::{UNLOADED, UNLOADING};
use crate::models::{IndexEntry, Served, State};

/// The models at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    models: BTreeMap<Arc<str>, Entry>,
}

/// One model: as a whole in some state, or with its versions.
#[derive(Clone)]
pub struct Entry {
    status: Status,
    /// Why the files as they are now are not what is served; empty when they are.
    note: String,
    /// Whether readiness does not wait for it.
    is_optional: bool,
    /// Whether it would be ready if all that it needs could be reached.
    is_away: bool,
}

#[derive(Clone)]
enum Status {
    /// No version has a state of its own.
    Model(State, String),
    /// Each version that was asked for.
    Versions(BTreeMap<u64, Result<Arc<Served>>>),
}

impl Entry {
    fn of(status: Status) -> Self {
        Self { status, note: String::new(), is_optional: false, is_away: false }
    }

    /// A model that as a whole is in `state` because of `reason`.
    pub fn of_model(state: State, reason: impl Into<String>) -> Self {
        Self::of(Status::Model(state, reason.into()))
    }

    /// A model with what came of each of its versions.
    pub fn of_versions(versions: impl IntoIterator<Item = (u64, Result<Arc<Served>>)>) -> Self {
        Self::of(Status::Versions(versions.into_iter().collect()))
    }

    /// The same model once somebody has unloaded it, while requests under way are finished.
    #[must_use]
    pub fn unloading(&self) -> Self {
        self.gone(|served| if served.is_ok() { UNLOADING } else { UNLOADED })
    }

    /// The same model once somebody has unloaded it.
    #[must_use]
    pub fn unloaded(&self) -> Self {
        self.gone(|_| UNLOADED)
    }

    fn gone(&self, reason: impl Fn(&Result<Arc<Served>>) -> &'static str) -> Self {
        let gone = |(version, served): (&u64, &Result<Arc<Served>>)| {
            (*version, Err(Error::unavailable(reason(served))))
        };
        let status = match &self.status {
            Status::Model(..) => Status::Model(State::Unavailable, UNLOADED.into()),
            Status::Versions(versions) => Status::Versions(versions.iter().map(gone).collect()),
        };
        Self::of(status).with_optional(self.is_optional)
    }

    /// The same, of a model that readiness does or does not wait for.
    #[must_use]
    pub fn with_optional(self, is_optional: bool) -> Self {
        Self { is_optional, ..self }
    }

    /// The same, still served although its files as they are now could not be loaded.
    #[must_use]
    pub fn with_note(self, note: String) -> Self {
        Self { note, ..self }
    }

    /// The same, which is or is not unavailable only because something that it needs is away or
    /// still comes: a later try may succeed.
    #[must_use]
    pub fn with_away(self, is_away: bool) -> Self {
        Self { is_away, ..self }
    }

    /// In which state it is and why, when it is unavailable only for that reason.
    pub fn away(&self) -> Option<(State, &str)> {
        if !self.is_away {
            return None;
        }
        match &self.status {
            Status::Model(state, reason) => Some((*state, reason)),
            Status::Versions(versions) => {
                let error = versions.values().find_map(|served| served.as_ref().err());
                Some((State::Unavailable, error.map_or("", Error::message)))
            }
        }
    }

    /// The reasons why the model or some of its versions are unavailable.
    pub fn failures(&self) -> Vec<(Option<u64>, String)> {
        match &self.status {
            Status::Model(State::Unavailable, reason) => vec![(None, reason.clone())],
            Status::Model(..) => Vec::new(),
            Status::Versions(versions) => versions
                .iter()
                .filter_map(|(version, served)| {
                    let error = served.as_ref().err()?;
                    Some((Some(*version), error.message().to_owned()))
                })
                .collect(),
        }
    }

    /// The versions that are ready, ascending.
    pub fn ready(&self) -> impl DoubleEndedIterator<Item = &Arc<Served>> {
        let versions = match &self.status {
            Status::Model(..) => None,
            Status::Versions(versions) => Some(versions),
        };
        versions.into_iter().flat_map(BTreeMap::values).filter_map(|served| served.as_ref().ok())
    }

    /// Every version that was asked for, ascending.
    pub fn versions(&self) -> Vec<u64> {
        match &self.status {
            Status::Model(..) => Vec::new(),
            Status::Versions(versions) => versions.keys().copied().collect(),
        }
    }

    /// Whether it was never loaded.
    pub fn is_unknown(&self) -> bool {
        matches!(self.status, Status::Model(State::Unknown, _))
    }

    /// Whether some version still finishes what is under way.
    pub(crate) fn is_unloading(&self) -> bool {
        let Status::Versions(versions) = &self.status else { return false };
        let errors = versions.values().filter_map(|served| served.as_ref().err());
        errors.into_iter().any(is_unloading)
    }

    /// Whether nothing of it is served, comes or goes.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready().next().is_none() && !self.is_loading() && !self.is_unloading()
    }

    /// The newest version that is ready.
    pub fn newest_ready(&self) -> Option<&Arc<Served>> {
        self.ready().next_back()
    }

    /// Whether it is as somebody wants it to be: ready, or not loaded on purpose.
    fn is_fine(&self) -> bool {
        let is_fine = |error: &Error| error.message() == UNLOADED || is_unloading(error);
        match &self.status {
            Status::Model(State::Unknown, _) => true,
            Status::Model(_, reason) => reason == UNLOADED,
            Status::Versions(versions) => {
                versions.values().all(|served| served.as_ref().err().is_none_or(is_fine))
            }
        }
    }

    fn is_loading(&self) -> bool {
        matches!(self.status, Status::Model(State::Loading, _))
    }

    fn rows(&self, name: &Arc<str>) -> Vec<IndexEntry> {
        let row =
            |version, state, reason| IndexEntry { name: name.clone(), version, state, reason };
        match &self.status {
            Status::Model(state, reason) => vec![row(None, *state, reason.clone())],
            Status::Versions(versions) => versions
                .iter()
                .map(|(version, served)| match served {
                    Ok(_) => row(Some(*version), State::Ready, self.note.clone()),
                    Err(error) => {
                        let is_unloading = is_unloading(error);
                        let state =
                            if is_unloading { State::Unloading } else { State::Unavailable };
                        row(Some(*version), state, error.message().to_owned())
                    }
                })
                .collect(),
        }
    }
}

impl Snapshot {
    /// A snapshot of these models.
    pub fn new(models: BTreeMap<Arc<str>, Entry>) -> Self {
        Self { models }
    }

    /// The same with one model's entry replaced.
    #[must_use]
    pub fn with(&self, name: Arc<str>, entry: Entry) -> Self {
        let mut models = self.models.clone();
        models.insert(name, entry);
        Self { models }
    }

    /// The same without one model, of which nothing is known any more.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut models = self.models.clone();
        models.remove(name);
        Self { models }
    }

    /// The models that anything is known of.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.models.keys()
    }

    /// What is known of a model.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.models.get(name)
    }

    /// The model in this version or its newest ready one; the errors are Triton's.
    pub fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        let unknown =
            |what: &str| Error::not_found(format!("Request for unknown model: '{name}' {what}"));
        let entry = self.models.get(name).ok_or_else(|| unknown("is not found"))?;
        if let Some((_, reason)) = entry.away() {
            return Err(Error::unavailable(reason));
        }
        let Some(version) = version else {
            return entry
                .newest_ready()
                .cloned()
                .ok_or_else(|| unknown(&format!("has no available versions{}", why(entry))));
        };
        let found = match &entry.status {
            Status::Model(..) => None,
            Status::Versions(versions) => versions.get(&version),
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
        let chosen = self.models.iter().filter(|(model, _)| name.is_empty() || &***model == name);
        let ready: Vec<_> = chosen.flat_map(|(_, entry)| entry.ready().cloned()).collect();
        if ready.is_empty() && !name.is_empty() {
            return Err(Error::invalid(format!("requested model '{name}' is not available")));
        }
        let Some(version) = version.filter(|_| !name.is_empty()) else { return Ok(ready) };
        let one = ready.into_iter().find(|served| served.version == version);
        one.map(|served| vec![served]).ok_or_else(|| {
            let text = format!("requested model version is not available for model '{name}'");
            Error::invalid(text)
        })
    }

    /// A row for every version, or for the model where no version has a state.
    pub fn index(&self) -> Vec<IndexEntry> {
        self.models.iter().flat_map(|(name, entry)| entry.rows(name)).collect()
    }

    /// Whether every model is ready or was unloaded on purpose, but for optional ones that failed.
    pub fn is_ready(&self) -> bool {
        self.models
            .values()
            .all(|entry| entry.is_fine() || entry.is_optional && !entry.is_loading())
    }
}

fn is_unloading(error: &Error) -> bool {
    error.message() == UNLOADING
}

/// Why nothing of a model is served, for the end of a message.
fn why(entry: &Entry) -> String {
    let mut reasons = entry.failures().into_iter().map(|(_, reason)| reason);
    reasons.next().map_or_else(String::new, |reason| format!(" ({reason})"))
}

#[cfg(test)]
mod tests {
    use consort_stage::Code;

    use super::*;

    fn snapshot(entry: Entry) -> Snapshot {
        Snapshot::default().with("m".into(), entry)
    }

    #[test]
    fn what_waits_for_another_model_says_for_which() {
        let loading = Entry::of_model(State::Loading, "step 0 is being loaded").with_away(true);
        assert_eq!(loading.away(), Some((State::Loading, "step 0 is being loaded")));
        let error = snapshot(loading).get("m", None).err().unwrap();
        assert_eq!(error.message(), "step 0 is being loaded");
        assert_eq!(Entry::of_model(State::Unavailable, "broken").away(), None);
    }

    #[test]
    fn statistics_of_what_is_not_ready_are_refused_in_tritons_words() {
        let failed = (1, Err(Error::internal("broken")));
        let snapshot = snapshot(Entry::of_versions([failed]));
        for (name, version, text) in [
            ("m", None, "requested model 'm' is not available"),
            ("none", Some(1), "requested model 'none' is not available"),
        ] {
            let error = snapshot.select(name, version).err().unwrap();
            assert_eq!((error.code(), error.message()), (Code::InvalidInput, text));
        }
    }
}
