//! What a backend gives Consort: its name, how it completes a configuration and how it loads.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use consort_config::{Device, Model};
use consort_stage::{BatchBackend, InlineBackend, Result, Signature, StreamingBackend};

/// The parameter in which a model tells the adapters that requests may choose by its input
/// `lora_name`, separated by commas.
pub const ADAPTERS: &str = "adapters";

/// The input by which a request says whether texts begin without the prompt, and the parameter in
/// which a model tells what they do where no request says; models of TensorRT-LLM have both, too.
pub const EXCLUDE_PROMPT: &str = "exclude_input_in_output";

/// The parameter by which whoever finds stop words in a text asks its model for the tokens of the one at
/// which it ends: the first may begin before the word.
pub const KEEPS_STOP: &str = "consort_keep_stop_word";

/// One kind of backend; each service lists its kinds in one visible place.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name under `backend:` in a configuration.
    pub name: &'static str,
    /// Refuses what a configuration says to this backend, such as a parameter, if loading would refuse
    /// it whatever lies in the files: for whoever does not load. `load` checks by itself.
    pub check: fn(&Model) -> Result<()>,
    /// Reads the tensors from the model file, to complete a configuration that leaves them out
    /// and to check one that names them. `None` where the file does not say.
    pub signature: fn(&ModelFile<'_>) -> Result<Option<Signature>>,
    /// Reads what callers may know of a version from its files, as parameters of the configuration
    /// that it is served with.
    pub tells: fn(&VersionFiles<'_>) -> Result<Told>,
    /// Loads one instance.
    pub load: fn(&Instance<'_>) -> Result<Backend>,
}

impl Kind {
    /// A kind whose configurations are checked as they are loaded, whose model files say nothing of
    /// tensors, and whose versions' files nothing for callers to know.
    pub const fn new(name: &'static str, load: fn(&Instance<'_>) -> Result<Backend>) -> Self {
        Self { name, check: |_| Ok(()), signature: |_| Ok(None), tells: |_| Ok(Vec::new()), load }
    }
}

/// Names and values of parameters.
pub type Told = Vec<(&'static str, String)>;

/// Where the files of a version of a model lie.
#[derive(Clone, Copy, Debug)]
pub struct VersionFiles<'a> {
    /// The model's folder, where files shared by all versions lie.
    pub model_folder: &'a Path,
    /// The version's folder.
    pub version_folder: &'a Path,
}

/// A model file on disk, before its configuration is complete.
#[derive(Clone, Copy, Debug)]
pub struct ModelFile<'a> {
    /// The model's folder.
    pub folder: &'a Path,
    /// The model file in the folder of the version that will be served.
    pub path: &'a Path,
}

/// Everything a backend may know to load one instance of a model.
#[derive(Clone, Copy, Debug)]
pub struct Instance<'a> {
    /// The checked configuration.
    pub model: &'a Model,
    /// The version.
    pub version: u64,
    /// The model's folder, where files shared by all versions lie.
    pub model_folder: &'a Path,
    /// The version's folder.
    pub version_folder: &'a Path,
    /// Where the instance runs.
    pub device: Device,
    /// Its share of the machine's cores, unless the configuration says otherwise.
    pub threads: NonZeroUsize,
}

/// A loaded instance.
pub enum Backend {
    /// Work about as long as parsing its tensors; runs where it is called, one for all callers.
    Inline(Arc<dyn InlineBackend>),
    /// A synchronous batch function on a thread of its own.
    Batch(Box<dyn BatchBackend>),
    /// A loop of its own that answers many times.
    Streaming(Box<dyn StreamingBackend>),
}

impl Backend {
    /// Whether an instance with more threads would answer sooner.
    pub(crate) fn gains_from_threads(&self) -> bool {
        match self {
            Self::Inline(_) => false,
            Self::Batch(backend) => backend.gains_from_threads(),
            Self::Streaming(backend) => backend.gains_from_threads(),
        }
    }
}
