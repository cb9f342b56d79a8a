//! Opens an ONNX Runtime session the way a model's configuration asks for.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use consort_config::Model;
use consort_repository::Instance;
use consort_stage::{Error, Result};
use ort::ErrorCode;
use ort::environment::Environment;
use ort::ep::CPU;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::provider::{Provider, check_accelerators};
use crate::runtime::Runtime;

/// The parameter that says how many threads a run has.
pub(crate) const THREADS: &str = "intra_op_thread_count";

const SPINNING: &str = "session.intra_op.allow_spinning";
const DEVICE_INITIALIZERS: &str = "session.use_device_allocator_for_initializers";

/// Where the weights lie that a model's bytes name as files beside it.
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Refuses what a configuration says of its sessions that would be wrong with any model file.
pub(crate) fn check(model: &Model) -> Result<()> {
    check_accelerators(model)?;
    Options::read(model, NonZeroUsize::MIN).map(drop)
}

/// What executes an instance's model.
pub(crate) fn provider(instance: &Instance<'_>) -> Result<Provider> {
    Provider::choose(instance.device, Runtime::get()?)
}

/// Opens the model file of an instance, for what [`provider`] chose.
pub(crate) fn open(instance: &Instance<'_>, provider: Provider, file: &Path) -> Result<Session> {
    commit(&mut builder(instance, provider, &[])?, file)
}

/// Opens a model that was read from a file of an instance and changed, with these options for its
/// provider where the configuration says nothing else.
pub(crate) fn open_changed(
    instance: &Instance<'_>,
    provider: Provider,
    (file, model): (&Path, &[u8]),
    defaults: &[(&str, &str)],
) -> Result<Session> {
    let folder = file.parent().unwrap_or(Path::new(".")).to_string_lossy();
    let builder = builder(instance, provider, defaults)?;
    let builder = builder.with_config_entry(WEIGHTS_FOLDER, &*folder);
    let mut builder = builder.map_err(|error| unexpected(&error.into()))?;
    builder.commit_from_memory(model).map_err(|error| refused(file, &error))
}

fn builder(
    instance: &Instance<'_>,
    provider: Provider,
    defaults: &[(&str, &str)],
) -> Result<SessionBuilder> {
    let environment = &Runtime::get()?.environment;
    let options = Options::read(instance.model, instance.threads)?;
    let builder = options.builder(environment).map_err(|error| unexpected(&error))?;
    let Some(dispatch) = provider.dispatch(instance.model, defaults)? else {
        return Ok(builder);
    };
    builder
        .with_execution_providers([dispatch])
        .map_err(|error| Error::unavailable(format!("the CUDA provider does not start: {error}")))
}

/// Whether a session of `model` runs on as many threads as its instance is given, and not on as
/// many as the configuration says.
pub(crate) fn shares_threads(model: &Model, provider: Provider) -> bool {
    provider == Provider::Cpu && model.settings.get(THREADS).is_none()
}

/// Opens a model file for its tensors alone: nothing is optimised, and it is never run.
pub(crate) fn open_unoptimised(file: &Path) -> Result<Session> {
    let runtime = Runtime::get()?;
    let builder = || -> ort::Result<SessionBuilder> {
        Ok(SessionBuilder::new(&runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::Disable)?
            .with_prepacking(false)?
            .with_intra_threads(1)?)
    };
    let mut builder = builder().map_err(|error| unexpected(&error))?;
    commit(&mut builder, file)
}

/// What a model's configuration says about its sessions.
struct Options {
    threads: Threads,
    memory: Memory,
    level: GraphOptimizationLevel,
}

struct Threads {
    intra: usize,
    inter: usize,
    is_parallel: bool,
    spins: bool,
}

struct Memory {
    has_arena: bool,
    has_pattern: bool,
    has_device_initializers: bool,
}

impl Options {
    /// Reads it for an instance whose share of the cores is so many threads.
    fn read(model: &Model, share: NonZeroUsize) -> Result<Self> {
        let settings = &model.settings;
        let share = share.get();
        // A thread that spins for work takes it from another session on the same core.
        let has_every_core = thread::available_parallelism().is_ok_and(|all| share >= all.get());
        Ok(Self {
            threads: Threads {
                intra: settings.parse_or(THREADS, share)?,
                inter: settings.parse_or("inter_op_thread_count", 0)?,
                is_parallel: is_parallel(model)?,
                spins: settings.switch_or(SPINNING, has_every_core)?,
            },
            memory: Memory {
                has_arena: settings.switch_or("enable_mem_arena", true)?,
                has_pattern: settings.switch_or("enable_mem_pattern", true)?,
                has_device_initializers: settings.switch_or(DEVICE_INITIALIZERS, false)?,
            },
            level: level(model)?,
        })
    }

    fn builder(&self, environment: &Environment) -> ort::Result<SessionBuilder> {
        let Self { threads, memory, level } = self;
        let builder = SessionBuilder::new(environment)?
            .with_intra_threads(threads.intra)?
            .with_inter_threads(threads.inter)?
            .with_parallel_execution(threads.is_parallel)?
            .with_intra_op_spinning(threads.spins)?
            .with_inter_op_spinning(threads.spins)?
            // Between two runs every core is somebody else's.
            .with_config_entry("session.force_spinning_stop", "1")?
            .with_execution_providers([CPU::default()
                .with_arena_allocator(memory.has_arena)
                .build()])?
            .with_memory_pattern(memory.has_pattern)?
            .with_optimization_level(*level)?;
        if memory.has_device_initializers {
            return Ok(builder.with_device_allocated_initializers()?);
        }
        Ok(builder)
    }
}

fn is_parallel(model: &Model) -> Result<bool> {
    match model.settings.parse_or::<u8>("execution_mode", 0)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::invalid(format!(
            "parameter `execution_mode` must be 0 (sequential) or 1 (parallel), not {other}"
        ))),
    }
}

fn level(model: &Model) -> Result<GraphOptimizationLevel> {
    let optimization = model.wire.optimization.as_ref();
    let graph = optimization.and_then(|section| section.graph.as_ref());
    match graph.map_or(0, |graph| graph.level) {
        0 => Ok(GraphOptimizationLevel::All),
        -1 => Ok(GraphOptimizationLevel::Level1),
        1 => Ok(GraphOptimizationLevel::Level2),
        2 => Ok(GraphOptimizationLevel::Disable),
        other => Err(Error::invalid(format!(
            "`optimization.graph.level` must be -1 (basic), 1 (extended) or 2 (none), not {other}"
        ))),
    }
}

fn commit(builder: &mut SessionBuilder, file: &Path) -> Result<Session> {
    builder.commit_from_file(file).map_err(|error| refused(file, &error))
}

/// What a person reads about a file that ONNX Runtime does not take.
fn refused(file: &Path, error: &ort::Error) -> Error {
    let name = place(file);
    // ONNX Runtime repeats the whole path, which says where on the host the repository lies.
    let reason = error.message().replace(&*file.to_string_lossy(), &name);
    match error.code() {
        ErrorCode::NoSuchFile => Error::not_found(format!(
            "model file `{name}` does not exist; put it there, or name the one that there is with \
             `default_model_filename`"
        )),
        ErrorCode::InvalidProtobuf | ErrorCode::NoModel => {
            Error::invalid(format!("model file `{name}` is not an ONNX model: {reason}"))
        }
        _ => Error::invalid(format!("model file `{name}` cannot be loaded: {reason}")),
    }
}

/// The file as the repository names it: model, version, file.
pub(crate) fn place(file: &Path) -> String {
    let parts: Vec<_> = file.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts[parts.len().saturating_sub(3)..].join("/")
}

fn unexpected(error: &ort::Error) -> Error {
    Error::internal(format!("ONNX Runtime refused a session option: {error}"))
}
