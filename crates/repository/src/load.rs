//! Loads one model: reads its configuration, completes and checks it, and starts its instances.

mod start;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use consort_config::{Draft, Model, Problems};
use consort_protocol::{ModelConfig, ModelParameter};
use consort_scheduler::{Counting, Limiter, Threads};
use consort_stage::{Error, Result, Stage};
use consort_telemetry::{Meter, Metrics};

use crate::cached::Cached;
use crate::checked::Checked;
use crate::class_labels::ClassLabels;
use crate::folder::ModelFolder;
use crate::instances::{Instances, Life, Regroup, Running, Source};
use crate::kind::{Kind, ModelFile, VersionFiles};
use crate::models::Served;
use crate::response_cache::ResponseCache;
use crate::statistics;
use crate::warmup::warn_of_skipped;
use start::start;

/// What loading needs beside the folder.
#[derive(Clone)]
pub struct Loader {
    /// The backends of this process.
    pub kinds: Arc<[Kind]>,
    /// Where the models' statistics are kept.
    pub metrics: Arc<Metrics>,
    /// The cores that the instances of a model share.
    pub cores: NonZeroUsize,
    /// Where responses are kept, when they are.
    pub cache: Option<Arc<ResponseCache>>,
    /// What the instances of all models share, when they wait for it.
    pub limiter: Option<Arc<Limiter>>,
    /// The threads that the instances run on.
    pub threads: Threads,
}

/// A version that was served before and whose files are the same.
#[derive(Clone)]
pub(crate) struct Kept {
    /// The version.
    pub(crate) served: Arc<Served>,
    /// Its instances.
    pub(crate) running: Arc<Running>,
    /// Whether other instances are asked for than before.
    pub(crate) is_regrouped: bool,
}

/// A version that can be served.
pub(crate) struct Version {
    /// The version.
    pub(crate) served: Arc<Served>,
    /// Its instances.
    pub(crate) running: Arc<Running>,
    /// What is to be done to its instances when it is served.
    pub(crate) regroup: Option<Regroup>,
}

/// A model whose configuration is complete, for its versions to be loaded.
pub(crate) struct Blueprint<'a> {
    loader: &'a Loader,
    kind: &'a Kind,
    folder: &'a Path,
    model: Model,
}

/// A version before it is known which others there are.
struct Loaded {
    served: Served,
    running: Arc<Running>,
    regroup: Option<Regroup>,
}

impl Loader {
    /// The kind of backend with this name.
    pub(crate) fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }

    /// The model in `folder`, whose configuration is completed from the newest of `versions`: the
    /// ones to serve, ascending and at least one.
    ///
    /// Errors when the configuration is no good for any of them.
    pub(crate) fn complete<'a>(
        &'a self,
        folder: &'a ModelFolder,
        draft: Draft,
        versions: &[u64],
    ) -> Result<Blueprint<'a>> {
        let kind = self.kind(draft.backend()).ok_or_else(|| no_such_backend(&draft, self))?;
        let newest = versions.last().copied().unwrap_or_default();
        let model = complete(kind, folder, draft, newest)?;
        Ok(Blueprint { loader: self, kind, folder: &folder.path, model })
    }

    /// Loads versions of a model as serving them would, warm-up included, lets go of them and gives
    /// what keeps each of them from being served.
    ///
    /// Errors when what is said of the model is no good for any of them.
    pub fn try_out(
        &self,
        folder: &ModelFolder,
        model: Model,
        versions: &[u64],
    ) -> Result<Vec<(u64, Error)>> {
        let Some(kind) = self.kind(&model.backend) else { return Ok(Vec::new()) };
        let blueprint = Blueprint { loader: self, kind, folder: &folder.path, model };
        let loaded = blueprint.load(versions, &BTreeMap::new())?;
        let failed = |(version, loaded): (u64, Result<Version>)| Some((version, loaded.err()?));
        let failures = loaded.into_iter().filter_map(failed).collect();
        self.threads.join();
        Ok(failures)
    }

    /// The version as it was served, with what its instances lack or have too many.
    fn keep(&self, source: Source<'_>, kept: &Kept) -> Result<Loaded> {
        let regroup = if kept.is_regrouped {
            match kept.running.prepare(source)? {
                Some(regroup) => Some(regroup),
                None => return self.load_version(source),
            }
        } else {
            None
        };
        let served = Served { config: told(source)?, ..(*kept.served).clone() };
        Ok(Loaded { served, running: kept.running.clone(), regroup })
    }

    fn load_version(&self, source: Source<'_>) -> Result<Loaded> {
        let Source { model, version, .. } = source;
        let started_at = Instant::now();
        let options = statistics::options(model);
        let meter = self.metrics.declare(&model.name, &version.to_string(), options);
        let counting = Counting {
            model: model.name.clone(),
            version,
            meter: meter.clone(),
            is_batching: model.signature.is_batching(),
        };
        warn_of_skipped(model);
        let mut instances = Instances::load(source)?;
        let life = Life::default();
        let (stage, pool) = start(source, &life, &mut instances, counting)?;
        let running = Arc::new(Running::new(pool, instances, meter.clone(), life));
        let stage = self.cached(model, stage, &meter);
        let checked =
            Checked::new(model.name.clone(), model.signature.clone(), stage, meter.clone())
                .with_generations(&self.metrics);
        meter.loaded(started_at.elapsed());
        let served = Served {
            name: model.name.clone(),
            version,
            versions: Vec::new(),
            platform: platform(model),
            config: told(source)?,
            signature: model.signature.clone(),
            labels: Arc::default(),
            stage: Arc::new(checked),
            revealed: None,
        };
        Ok(Loaded { served, running, regroup: None })
    }

    /// `stage` behind the response cache, when the model asks for it and there is one.
    fn cached(&self, model: &Model, stage: Arc<dyn Stage>, meter: &Arc<Meter>) -> Arc<dyn Stage> {
        match &self.cache {
            Some(cache) if model.caches_responses => {
                Arc::new(Cached::new(stage, cache.clone(), meter.clone()))
            }
            None if model.caches_responses => {
                tracing::warn!(
                    model = &*model.name,
                    "`response_cache` has no effect without `--cache-config local,size=BYTES`"
                );
                stage
            }
            _ => stage,
        }
    }
}

impl Blueprint<'_> {
    /// Loads the versions of a model that are not `kept` from the time before, and the instances
    /// that those lack, and gives what came of each.
    ///
    /// Errors when what is said of the model is no good for any of them.
    pub(crate) fn load(
        &self,
        versions: &[u64],
        kept: &BTreeMap<u64, Kept>,
    ) -> Result<Vec<(u64, Result<Version>)>> {
        let labels = Arc::new(ClassLabels::read(&self.model.wire, self.folder)?);
        let load = |&version: &u64| {
            let source = self.source(version);
            let loaded = match kept.get(&version) {
                Some(kept) => self.loader.keep(source, kept),
                None => self.loader.load_version(source),
            };
            (version, loaded)
        };
        let loaded: Vec<_> = versions.iter().map(load).collect();
        let is_ready =
            |(version, loaded): &(u64, Result<Loaded>)| loaded.is_ok().then_some(*version);
        let ready: Vec<u64> = loaded.iter().filter_map(is_ready).collect();
        let complete = |Loaded { served, running, regroup }| {
            let (versions, labels) = (ready.clone(), labels.clone());
            let served = Arc::new(Served { versions, labels, ..served });
            Version { served, running, regroup }
        };
        Ok(loaded.into_iter().map(|(version, loaded)| (version, loaded.map(complete))).collect())
    }

    /// What the instances of a version are loaded from.
    pub(crate) fn source(&self, version: u64) -> Source<'_> {
        let Self { loader, kind, folder, model } = self;
        Source { loader, kind, folder, model, version }
    }
}

fn complete(kind: &Kind, folder: &ModelFolder, mut draft: Draft, version: u64) -> Result<Model> {
    if !draft.names_tensors() {
        let path = folder.path.join(version.to_string()).join(draft.file_name());
        let file = ModelFile { folder: &folder.path, path: &path };
        if let Some(signature) = (kind.signature)(&file)? {
            draft.complete(&signature);
        }
    }
    draft.check().map_err(|problems| misconfigured(&problems))
}

/// The configuration that a version is served with: its own, and what its backend tells of its files.
fn told(source: Source<'_>) -> Result<Arc<ModelConfig>> {
    let version_folder = &source.folder.join(source.version.to_string());
    let files = VersionFiles { model_folder: source.folder, version_folder };
    let mut config = source.model.wire.clone();
    for (key, string_value) in (source.kind.tells)(&files)? {
        let parameter = ModelParameter { string_value };
        Arc::make_mut(&mut config).parameters.insert(key.to_owned(), parameter);
    }
    Ok(config)
}

fn platform(model: &Model) -> String {
    let wire = &model.wire;
    if wire.platform.is_empty() { wire.backend.clone() } else { wire.platform.clone() }
}

/// A configuration's problems as the reason why a model is not served.
pub(crate) fn misconfigured(problems: &Problems) -> Error {
    Error::invalid(problems.to_string())
}

fn no_such_backend(draft: &Draft, loader: &Loader) -> Error {
    let known: Vec<&str> = loader.kinds.iter().map(|kind| kind.name).collect();
    Error::unsupported(format!(
        "backend `{}` of model `{}` is not one of this service's: {}",
        draft.backend(),
        draft.name(),
        known.join(", ")
    ))
}
