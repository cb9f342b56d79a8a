//! The models of this process: loaded from their folders, listed and found by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arc_swap::ArcSwap;
use consort_config::{Draft, OPTIONAL, Problems};
use consort_protocol::ModelStatistics;
use consort_stage::{Error, Result};
use consort_telemetry::Metrics;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::folder::{ModelFolder, models_in};
use crate::load::{Loader, misconfigured};
use crate::models::{IndexEntry, Models, Served, State};
use crate::snapshot::{Entry, Snapshot};
use crate::statistics;

/// How many models are loaded at the same time, as Triton's `--model-load-thread-count`.
const LOAD_THREADS: usize = 4;

/// What becomes of models whose backend this process does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Another service serves them.
    Ignored,
    /// Nobody serves them, and the index says so.
    Reported,
}

/// The models that this process loads.
pub struct Local {
    snapshot: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

/// A model that waits to be loaded.
struct Waiting {
    folder: ModelFolder,
    draft: std::result::Result<Draft, Problems>,
}

impl Local {
    /// Lists the models of `repositories` that are not ensembles and loads them in the background.
    ///
    /// Errors only when a repository cannot be read; a model that cannot be loaded is listed with
    /// its reason and leaves the others serving.
    pub fn open(repositories: &[PathBuf], loader: &Loader, foreign: Foreign) -> Result<Arc<Self>> {
        let waiting = waiting(repositories, loader, foreign)?;
        let loading = waiting.iter().map(|model| {
            let entry = Entry::of_model(State::Loading, String::new());
            (Arc::from(model.folder.name.as_str()), entry)
        });
        let local = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(Snapshot::new(loading.collect(), optional(&waiting))),
            generation: watch::Sender::new(0),
            metrics: loader.metrics.clone(),
        });
        let queue = Arc::new(Mutex::new(waiting.into_iter()));
        for _ in 0..LOAD_THREADS {
            let (local, queue, loader) = (local.clone(), queue.clone(), loader.clone());
            thread::Builder::new()
                .name("load".into())
                .spawn(move || {
                    while let Some(model) = next(&queue) {
                        local.load(&loader, model);
                    }
                })
                .map_err(|error| Error::internal("cannot start a thread").with_source(error))?;
        }
        Ok(local)
    }

    fn load(&self, loader: &Loader, model: Waiting) {
        let name: Arc<str> = model.folder.name.as_str().into();
        let loaded = model
            .draft
            .map_err(|problems| misconfigured(&problems))
            .and_then(|draft| loader.load(&model.folder, draft));
        let entry = match loaded {
            Ok(loaded) => Entry::of_versions(loaded.versions),
            Err(error) => Entry::of_model(State::Unavailable, error.message().to_owned()),
        };
        for (version, reason) in entry.failures() {
            tracing::error!(model = &*name, version, "failed to load: {reason}");
        }
        self.replace(&name, &entry);
    }

    fn replace(&self, name: &Arc<str>, entry: &Entry) {
        self.snapshot.rcu(|snapshot| snapshot.with(name.clone(), entry.clone()));
        self.generation.send_modify(|generation| *generation += 1);
    }
}

impl Models for Local {
    fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        self.snapshot.load().get(name, version)
    }

    fn index(&self) -> Vec<IndexEntry> {
        self.snapshot.load().index()
    }

    fn is_ready(&self) -> bool {
        self.snapshot.load().is_ready()
    }

    fn statistics(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        let served = self.snapshot.load().select(name, version);
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let read = |served: &Arc<Served>| statistics::of(&metrics, served);
            Ok(served?.iter().map(read).collect())
        })
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

fn optional(waiting: &[Waiting]) -> BTreeSet<Arc<str>> {
    let is_optional = |model: &&Waiting| {
        let parameter = model.draft.as_ref().ok().and_then(|draft| draft.parameter(OPTIONAL));
        parameter == Some("true")
    };
    waiting.iter().filter(is_optional).map(|model| model.folder.name.as_str().into()).collect()
}

fn next(queue: &Mutex<std::vec::IntoIter<Waiting>>) -> Option<Waiting> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// The models to load; the same name in two repositories makes both unavailable, as in Triton.
fn waiting(repositories: &[PathBuf], loader: &Loader, foreign: Foreign) -> Result<Vec<Waiting>> {
    let mut models = BTreeMap::new();
    for folder in all_models(repositories)? {
        let draft = consort_config::read(&folder.path);
        let is_ours = match &draft {
            Ok(draft) if draft.is_ensemble() => false,
            Ok(draft) => foreign == Foreign::Reported || loader.kind(draft.backend()).is_some(),
            // Who would have served it cannot be told, so everybody says what is wrong.
            Err(_) => true,
        };
        if is_ours {
            let twice = models.contains_key(&folder.name);
            let draft = if twice { Err(duplicate(&folder)) } else { draft };
            models.insert(folder.name.clone(), Waiting { folder, draft });
        }
    }
    Ok(models.into_values().collect())
}

fn duplicate(folder: &ModelFolder) -> Problems {
    consort_config::Problem {
        file: folder.name.clone(),
        place: None,
        message: format!("model `{}` appears in two repositories", folder.name),
        help: Some("rename one of them".into()),
    }
    .into()
}

/// The ensembles of `repositories`, each with its configuration or what is wrong with it.
///
/// A configuration that cannot be read counts as an ensemble's only where it says so; the service
/// of its backend reports the others.
pub fn ensembles_in(
    repositories: &[PathBuf],
) -> Result<Vec<(ModelFolder, std::result::Result<Draft, Problems>)>> {
    let read = |folder: ModelFolder| {
        let draft = consort_config::read(&folder.path);
        (folder, draft)
    };
    let is_ensemble = |(_, draft): &(ModelFolder, std::result::Result<Draft, Problems>)| {
        draft.as_ref().is_ok_and(Draft::is_ensemble)
    };
    Ok(all_models(repositories)?.into_iter().map(read).filter(is_ensemble).collect())
}

fn all_models(repositories: &[PathBuf]) -> Result<Vec<ModelFolder>> {
    let mut folders = Vec::new();
    for repository in repositories {
        folders.extend(models_in(Path::new(repository))?);
    }
    Ok(folders)
}
