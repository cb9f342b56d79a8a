//! Lets requests reach the instances of a version, by the stage that its configuration asks for.

use std::num::NonZeroUsize;
use std::sync::Arc;

use consort_config::{Device, Model, Scheduling};
use consort_scheduler::{
    Counting, DEFAULT_QUEUE_SIZE, InlineStage, PoolStage, Rules, StreamingStage,
};
use consort_stage::{BatchBackend, Result, Stage};

use crate::instances::{Instances, Life, Pool, Source, no_thread};
use crate::kind::Backend;
use crate::sequences;

/// Lets requests reach the active ones of `instances`, as parts of `life`, as the configuration
/// says; they are taken from there.
pub(super) fn start(
    source: Source<'_>,
    life: &Life,
    instances: &mut Instances,
    counting: Counting,
) -> Result<(Arc<dyn Stage>, Pool)> {
    let model = source.model;
    let threads = source.loader.threads.of(&model.name);
    let active = instances.take_active(life);
    if let Scheduling::Sequence(batching) = &model.scheduling {
        return sequences::start(model, batching, source.folder, (active, threads), counting);
    }
    let mut batch = Vec::new();
    let mut streaming = Vec::new();
    for instance in active {
        match instance {
            Backend::Inline(backend) => {
                warn_of_no_batches(model);
                return Ok((Arc::new(InlineStage::new(backend, counting)), Pool::Inline));
            }
            Backend::Batch(backend) => batch.push(backend),
            Backend::Streaming(backend) => streaming.push(backend),
        }
    }
    if streaming.is_empty() {
        let rules = rules(model, &batch, instances.share_cores().then_some(source.loader.cores))?;
        let wants_wide = instances.want_wide(source, rules.runs_at_once())?;
        let wide = wants_wide.then(|| source.open_wide()).transpose()?;
        let stage = PoolStage::start(threads, batch, rules, counting).map_err(no_thread)?;
        if let Some(Backend::Batch(wide)) = wide.map(|wide| life.with(wide)) {
            stage.add_wide(wide).map_err(no_thread)?;
        }
        let stage = Arc::new(stage);
        let pool = Pool::Batch(Arc::downgrade(&stage));
        return Ok((stage, pool));
    }
    let stage = StreamingStage::start(threads, streaming, queue_size(model), counting);
    let stage = Arc::new(stage.map_err(no_thread)?);
    let pool = Pool::Streaming(Arc::downgrade(&stage));
    Ok((stage, pool))
}

/// A backend without a queue gathers no batches, however well that is described.
fn warn_of_no_batches(model: &Model) {
    if matches!(model.scheduling, Scheduling::Dynamic(_)) {
        let backend = &model.backend;
        let message = format!(
            "`dynamic_batching` has no effect: backend `{backend}` runs each request where it is \
             called"
        );
        let problem = model.problem("dynamic_batching", message);
        tracing::warn!(model = &*model.name, "{problem}");
    }
}

/// How the requests of a model with these instances are batched, which share `cores`, if any.
fn rules(
    model: &Model,
    instances: &[Box<dyn BatchBackend>],
    cores: Option<NonZeroUsize>,
) -> Result<Rules> {
    let mut devices = model.instances.iter().flat_map(|group| &group.devices);
    // `KIND_AUTO` comes to the processor where a GPU is there but not what computes on it.
    let is_gpu = cores.is_none() && devices.any(|device| *device != Device::Cpu);
    let by_default = instances.iter().all(|instance| instance.keeps_requests_apart());
    let rules = Rules::of(model, is_gpu, by_default)?;
    Ok(cores.into_iter().fold(rules, Rules::on_cores))
}

fn queue_size(model: &Model) -> usize {
    let stated = match &model.scheduling {
        Scheduling::Dynamic(batching) => batching.priorities.default_policy.max_queue_size,
        _ => None,
    };
    stated.map_or(DEFAULT_QUEUE_SIZE, NonZeroUsize::get)
}
