//! The backend `onnxruntime`: runs an ONNX model, one batch at a time.

use std::borrow::Cow;
use std::sync::Arc;

use consort_repository::{Backend, Instance, Kind};
use consort_stage::{Batch, BatchBackend, Error, Interrupt, Result, Tensor};
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};

use crate::agreement;
use crate::run_error::RunError;
use crate::termination::{Run, Running};
use crate::{session, signature, values};

/// How the repository finds this backend.
pub(crate) const KIND: Kind =
    Kind { check: session::check, signature: signature::read, ..Kind::new("onnxruntime", load) };

/// Gives memory back after each run, on the devices it names such as `cpu:0`.
const SHRINK: &str = "memory.enable_memory_arena_shrinkage";

/// One session and what it is asked for.
struct OnnxRuntime {
    session: Session,
    model: Arc<str>,
    outputs: Vec<Arc<str>>,
    shrink: Option<String>,
    /// Whether the instance chose how many threads a run has, and not the configuration.
    shares_threads: bool,
    running: Running,
}

fn load(instance: &Instance<'_>) -> Result<Backend> {
    let model = instance.model;
    let file = instance.version_folder.join(&model.file_name);
    let provider = session::provider(instance)?;
    let session = session::open(instance, provider, &file)?;
    let signature = model.backend_signature();
    agreement::check(&signature, &session)?;
    let outputs = &signature.outputs;
    Ok(Backend::Batch(Box::new(OnnxRuntime {
        session,
        model: Arc::clone(&model.name),
        outputs: outputs.iter().map(|spec| Arc::clone(&spec.name)).collect(),
        shrink: model.settings.get(SHRINK).map(str::to_owned),
        shares_threads: session::shares_threads(model, provider),
        running: Running::default(),
    })))
}

impl BatchBackend for OnnxRuntime {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        // First, so that an interrupt while the inputs are made is not lost.
        let run = self.begin(&batch)?;
        let inputs = batch
            .inputs
            .iter()
            .map(|tensor| Ok((Cow::Borrowed(&*tensor.name), values::input(tensor)?)))
            .collect::<Result<Vec<(Cow<'_, str>, SessionInputValue<'_>)>>>()?;
        let outputs = self
            .session
            .run_with_options(inputs, &*run)
            .map_err(|error| RunError::from(&error).within(&self.model))?;
        let names = self.outputs.iter().filter(|name| batch.wants(name));
        names
            .zip(outputs)
            .map(|(name, (_, value))| values::output(Arc::clone(name), value))
            .collect()
    }

    fn gains_from_threads(&self) -> bool {
        self.shares_threads
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let running = self.running.clone();
        Some(Arc::new(move || running.terminate()))
    }
}

impl OnnxRuntime {
    /// Fresh options for each run, so that an interrupt that comes late stops nothing.
    fn begin(&self, batch: &Batch) -> Result<Run> {
        let wanted = self.outputs.iter().filter(|name| batch.wants(name));
        let selected =
            wanted.fold(OutputSelector::no_default(), |selected, name| selected.with(&**name));
        let options = RunOptions::new().and_then(|mut options| {
            if let Some(devices) = &self.shrink {
                options.set(SHRINK, devices)?;
            }
            Ok(options.with_outputs(selected))
        });
        let options = options
            .map_err(|error| Error::internal(format!("a run cannot be prepared: {error}")))?;
        Ok(self.running.begin(options))
    }
}
