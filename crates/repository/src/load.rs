//! Loads one model: reads its configuration, completes and checks it, and starts its instances.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use consort_config::{Device, Draft, InstanceGroup, Model, Problems, Scheduling};
use consort_scheduler::{
    Counting, DEFAULT_QUEUE_SIZE, InlineStage, PoolStage, Rules, StreamingStage,
};
use consort_stage::{BatchBackend, Error, Result, Stage};
use consort_telemetry::Metrics;

use crate::checked::Checked;
use crate::folder::ModelFolder;
use crate::kind::{Backend, Instance, Kind, ModelFile};
use crate::models::Served;

use crate::statistics;
use crate::warmup::WarmUp;

/// What loading needs beside the folder.
#[derive(Clone)]
pub struct Loader {
    /// The backends of this process.
    pub kinds: Arc<[Kind]>,
    /// Where the models' statistics are kept.
    pub metrics: Arc<Metrics>,
    /// The cores that the instances of a model share.
    pub cores: NonZeroUsize,
}

impl Loader {
    /// The kind of backend with this name.
    pub(crate) fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }

    /// Loads the versions of a model that are not `kept` from the time before, and gives what came
    /// of each.
    ///
    /// `versions` are the ones to serve, ascending and at least one. Errors when the configuration
    /// is no good for any of them.
    pub(crate) fn load(
        &self,
        folder: &ModelFolder,
        draft: Draft,
        versions: &[u64],
        kept: &BTreeMap<u64, Arc<Served>>,
    ) -> Result<Vec<(u64, Result<Arc<Served>>)>> {
        let kind = self.kind(draft.backend()).ok_or_else(|| no_such_backend(&draft, self))?;
        let newest = versions.last().copied().unwrap_or_default();
        let model = complete(kind, folder, draft, newest)?;
        let load = |&version: &u64| {
            let served = match kept.get(&version) {
                Some(same) => Ok(Served { config: model.wire.clone(), ..(**same).clone() }),
                None => self.load_version(kind, folder, &model, version),
            };
            (version, served)
        };
        let loaded: Vec<_> = versions.iter().map(load).collect();
        let is_ready =
            |(version, served): &(u64, Result<Served>)| served.is_ok().then_some(*version);
        let ready: Vec<u64> = loaded.iter().filter_map(is_ready).collect();
        let complete = |served: Served| Arc::new(Served { versions: ready.clone(), ..served });
        Ok(loaded.into_iter().map(|(version, served)| (version, served.map(complete))).collect())
    }

    fn load_version(
        &self,
        kind: &Kind,
        folder: &ModelFolder,
        model: &Model,
        version: u64,
    ) -> Result<Served> {
        let started_at = Instant::now();
        let options = statistics::options(model);
        let meter = self.metrics.declare(&model.name, &version.to_string(), options);
        let counting = Counting {
            model: model.name.clone(),
            version,
            meter: meter.clone(),
            is_batching: model.signature.is_batching(),
        };
        let instances = self.load_instances(kind, folder, model, version)?;
        let stage = start(model, instances, counting)?;
        let checked =
            Checked::new(model.name.clone(), model.signature.clone(), stage, meter.clone());
        meter.loaded(started_at.elapsed());
        Ok(Served {
            name: model.name.clone(),
            version,
            versions: Vec::new(),
            platform: platform(model),
            config: model.wire.clone(),
            signature: model.signature.clone(),
            stage: Arc::new(checked),
            revealed: None,
        })
    }

    fn load_instances(
        &self,
        kind: &Kind,
        folder: &ModelFolder,
        model: &Model,
        version: u64,
    ) -> Result<Vec<Backend>> {
        let version_folder = folder.path.join(version.to_string());
        let warm_up = WarmUp::prepare(model, &folder.path)?;
        let devices = devices(&model.instances);
        let threads = NonZeroUsize::new(self.cores.get() / devices.len().max(1));
        let mut instances = Vec::new();
        for device in devices {
            let mut backend = (kind.load)(&Instance {
                model,
                version,
                model_folder: &folder.path,
                version_folder: &version_folder,
                device,
                threads: threads.unwrap_or(NonZeroUsize::MIN),
            })?;
            warm_up.run(&mut backend)?;
            let serves_everybody = matches!(backend, Backend::Inline(_));
            instances.push(backend);
            if serves_everybody {
                break;
            }
        }
        Ok(instances)
    }
}

/// The device of each instance.
fn devices(groups: &[InstanceGroup]) -> Vec<Device> {
    let each = |group: &InstanceGroup| {
        let devices = group.devices.clone();
        devices
            .into_iter()
            .flat_map(|device| std::iter::repeat_n(device, group.count.get()))
            .collect::<Vec<_>>()
    };
    groups.iter().flat_map(each).collect()
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

fn start(model: &Model, instances: Vec<Backend>, counting: Counting) -> Result<Arc<dyn Stage>> {
    let mut batch = Vec::new();
    let mut streaming = Vec::new();
    for instance in instances {
        match instance {
            Backend::Inline(backend) => return Ok(Arc::new(InlineStage::new(backend, counting))),
            Backend::Batch(backend) => batch.push(backend),
            Backend::Streaming(backend) => streaming.push(backend),
        }
    }
    let no_thread = |error| Error::internal("cannot start a thread").with_source(error);
    if streaming.is_empty() {
        let rules = rules(model, &batch)?;
        let pool = PoolStage::start(&model.name, batch, rules, counting);
        return Ok(Arc::new(pool.map_err(no_thread)?));
    }
    let stage = StreamingStage::start(&model.name, streaming, queue_size(model), counting);
    Ok(Arc::new(stage.map_err(no_thread)?))
}

/// How the requests of a model with these instances are batched.
fn rules(model: &Model, instances: &[Box<dyn BatchBackend>]) -> Result<Rules> {
    let devices = devices(&model.instances);
    let is_gpu = devices.iter().any(|device| *device != Device::Cpu);
    Rules::of(model, is_gpu, instances.iter().all(|instance| instance.keeps_requests_apart()))
}

fn queue_size(model: &Model) -> usize {
    let stated = match &model.scheduling {
        Scheduling::Dynamic(batching) => batching.priorities.default_policy.max_queue_size,
        _ => None,
    };
    stated.map_or(DEFAULT_QUEUE_SIZE, NonZeroUsize::get)
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
