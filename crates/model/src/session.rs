//! Opens an ONNX Runtime session the way a model's configuration asks for.

use std::path::Path;

use consort_config::Model;
use consort_repository::Instance;
use consort_stage::{Code, Error, Result};
use ort::ErrorCode;
use ort::ep;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::provider::Provider;
use crate::runtime::Runtime;

/// Opens the model file of an instance.
pub(crate) fn open(instance: &Instance<'_>, file: &Path) -> Result<(Session, Provider)> {
    let runtime = Runtime::get()?;
    let provider = Provider::choose(instance.device, runtime)?;
    let model = instance.model;
    let builder = SessionBuilder::new(&runtime.environment).map_err(unexpected)?;
    let builder = with_threads(builder, model, instance)?;
    let builder = with_memory(builder, model)?;
    let mut builder =
        builder.with_optimization_level(optimization_level(model)?).map_err(unexpected)?;
    if let Some(dispatch) = provider.dispatch(model)? {
        builder = builder.with_execution_providers([dispatch]).map_err(|error| {
            Error::unavailable(format!("the CUDA provider does not start: {error}"))
        })?;
    }
    let session = commit(&mut builder, file)?;
    Ok((session, provider))
}

/// Opens a model file for its tensors alone: nothing is optimised, and it is never run.
pub(crate) fn open_unoptimised(file: &Path) -> Result<Session> {
    let mut builder = SessionBuilder::new(&Runtime::get()?.environment)
        .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::Disable)?))
        .and_then(|builder| Ok(builder.with_prepacking(false)?))
        .and_then(|builder| Ok(builder.with_intra_threads(1)?))
        .map_err(unexpected)?;
    commit(&mut builder, file)
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
        ErrorCode::NoSuchFile => Error::not_found(format!("model file `{name}` does not exist")),
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

fn with_threads(
    builder: SessionBuilder,
    model: &Model,
    instance: &Instance<'_>,
) -> Result<SessionBuilder> {
    let settings = &model.settings;
    let share = instance.threads.get();
    let intra: usize = settings.parse_or("intra_op_thread_count", share)?;
    let inter: usize = settings.parse_or("inter_op_thread_count", 0)?;
    let is_parallel = match settings.parse_or::<u8>("execution_mode", 0)? {
        0 => false,
        1 => true,
        other => {
            return Err(Error::invalid(format!(
                "parameter `execution_mode` must be 0 (sequential) or 1 (parallel), not {other}"
            )));
        }
    };
    // A thread that spins for work takes it from another session on the same core.
    let has_every_core =
        std::thread::available_parallelism().is_ok_and(|cores| share >= cores.get());
    let spins = settings.switch_or("session.intra_op.allow_spinning", has_every_core)?;
    builder
        .with_intra_threads(intra)
        .and_then(|builder| builder.with_inter_threads(inter))
        .and_then(|builder| builder.with_parallel_execution(is_parallel))
        .and_then(|builder| builder.with_intra_op_spinning(spins))
        .and_then(|builder| builder.with_inter_op_spinning(spins))
        // Between two runs every core is somebody else's.
        .and_then(|builder| builder.with_config_entry("session.force_spinning_stop", "1"))
        .map_err(unexpected)
}

fn with_memory(builder: SessionBuilder, model: &Model) -> Result<SessionBuilder> {
    let settings = &model.settings;
    let arena = ep::CPU::default()
        .with_arena_allocator(settings.switch_or("enable_mem_arena", true)?)
        .build();
    let pattern = settings.switch_or("enable_mem_pattern", true)?;
    let key = "session.use_device_allocator_for_initializers";
    let is_outside_arena = settings.switch_or(key, false)?;
    builder
        .with_execution_providers([arena])
        .and_then(|builder| builder.with_memory_pattern(pattern))
        .and_then(|builder| {
            builder.with_config_entry(key, if is_outside_arena { "1" } else { "0" })
        })
        .map_err(unexpected)
}

fn optimization_level(model: &Model) -> Result<GraphOptimizationLevel> {
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

fn unexpected<R>(error: ort::Error<R>) -> Error {
    Error::new(Code::Internal, format!("ONNX Runtime refused a session option: {error}"))
}
