//! A model's configuration once it is read, completed and checked: types that cannot be wrong.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;

use consort_protocol::ModelConfig;
use consort_stage::{DataType, Error, Result, Signature, TensorSpec};

use crate::problem::{Place, Problem};
use crate::scheduling::{RaggedBatching, RateLimiter, Scheduling, Warmup};
use crate::source::{Source, entry};

/// A checked model configuration.
#[derive(Clone, Debug)]
pub struct Model {
    /// The model's name, which is also its folder's.
    pub name: Arc<str>,
    /// The backend that runs it; `ensemble` for an ensemble.
    pub backend: Arc<str>,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    /// Which of its version folders are served.
    pub versions: VersionPolicy,
    /// The name of the model file in a version folder.
    pub file_name: String,
    /// Where and how many times it runs; empty for an ensemble.
    pub instances: Vec<InstanceGroup>,
    /// How its requests reach its instances.
    pub scheduling: Scheduling,
    /// What it is told about requests of different shapes in one batch.
    pub ragged: RaggedBatching,
    /// The requests that run before it is called ready.
    pub warmup: Vec<Warmup>,
    /// Whether its responses are kept for equal requests (`response_cache`).
    pub caches_responses: bool,
    /// Its `parameters`.
    pub settings: Settings,
    /// The normalised configuration, as clients are shown it.
    pub wire: Arc<ModelConfig>,
    /// The file it was read from, to put later mistakes to their place.
    pub source: Arc<Source>,
}

impl Model {
    /// A model of `backend` that has one version and nothing configured, for tests and benchmarks.
    pub fn plain(backend: &str, signature: Signature) -> Self {
        Self {
            name: "sample".into(),
            backend: backend.into(),
            signature: Arc::new(signature),
            versions: VersionPolicy::All,
            file_name: String::new(),
            instances: Vec::new(),
            scheduling: Scheduling::Direct,
            ragged: RaggedBatching::default(),
            warmup: Vec::new(),
            caches_responses: false,
            settings: Settings::default(),
            wire: Arc::default(),
            source: Arc::default(),
        }
    }

    /// What its backend takes and gives: what callers see, and what they do not: the batch inputs,
    /// and the controls and states of sequences.
    pub fn backend_signature(&self) -> Arc<Signature> {
        let mut signature = (*self.signature).clone();
        signature.inputs.extend(self.ragged.made_inputs());
        let Scheduling::Sequence(batching) = &self.scheduling else {
            return Arc::new(signature);
        };
        signature.inputs.extend(batching.inputs());
        let (outputs, seen) = (batching.outputs(), &self.signature);
        signature.outputs.extend(outputs.filter(|spec| seen.output(&spec.name).is_none()));
        Arc::new(signature)
    }

    /// A plain model that batches up to 8, with these tensors and parameters.
    pub fn plain_batching(
        backend: &str,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        parameters: &[(&str, &str)],
    ) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let signature = Signature {
            max_batch_size: 8,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            is_decoupled: false,
        };
        let settings = Settings::new(parameters.iter().map(owned));
        Self { settings, ..Self::plain(backend, signature) }
    }

    /// Refuses a tensor of the model whose type is none of `types`, which its backend takes there.
    pub fn check_type(&self, tensor: &TensorSpec, types: &[DataType]) -> Result<()> {
        if types.contains(&tensor.datatype) {
            return Ok(());
        }
        let names: Vec<_> = types.iter().map(|datatype| datatype.config_name()).collect();
        Err(Error::invalid(format!(
            "tensor `{}` of model `{}` is {}, but backend `{}` takes {} there",
            tensor.name,
            self.name,
            tensor.datatype.config_name(),
            self.backend,
            names.join(" or ")
        )))
    }

    /// The place of a field such as `ensemble_scheduling.step[1].input_map` in the file.
    pub fn locate(&self, path: &str) -> Option<Place> {
        self.source.locate(path)
    }

    /// A problem at the place of the field `path`.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        self.source.problem(path, message)
    }
}

/// Which version folders are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The highest so many.
    Latest(NonZeroUsize),
    /// Every one.
    All,
    /// These alone.
    Specific(Vec<u64>),
}

/// Some instances of a model on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceGroup {
    /// The group's name.
    pub name: String,
    /// How many instances run on each device.
    pub count: NonZeroUsize,
    /// The devices; one set of `count` instances for each.
    pub devices: Vec<Device>,
    /// What each instance needs before it may run.
    pub rate_limiter: RateLimiter,
    /// Whether its instances are loaded but given no requests.
    pub is_passive: bool,
}

/// Where an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// `KIND_AUTO`: wherever the backend does best on this machine.
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA card with this index.
    Gpu(u32),
}

/// The parameter of any model by which readiness does not wait for it, such as one whose weights
/// are fetched apart.
pub const OPTIONAL: &str = "optional";

/// The parameter of any model that switches the batching of its requests on or off.
pub const BATCHING: &str = "batching";

/// The parameter of any model that limits the padded tokens of a batch which nobody has tuned.
pub const MAX_BATCH_TOKENS: &str = "max_batch_tokens";

/// The parameter of any model that names the input by which it tells padding from content.
pub const PADDING_MASK: &str = "padding_mask";

/// The parameter of any model that switches on or off that a lone request runs on every core.
pub const WIDE_INSTANCE: &str = "wide_instance";

/// The parameters that every backend leaves to others.
const OF_ANY_MODEL: [&str; 5] = [OPTIONAL, BATCHING, MAX_BATCH_TOKENS, PADDING_MASK, WIDE_INSTANCE];

/// The `parameters` of a model: strings by key, read as what the backend wants them to be.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    entries: BTreeMap<String, String>,
    /// Where they were read, to put a mistake to its place.
    source: Option<Arc<Source>>,
}

impl Settings {
    /// Settings with these entries.
    pub fn new(entries: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { entries: entries.into_iter().collect(), source: None }
    }

    /// The same settings, which were read from `source`.
    #[must_use]
    pub(crate) fn read_from(self, source: &Arc<Source>) -> Self {
        Self { source: Some(source.clone()), ..self }
    }

    /// The error that the entry under `key` is wrong, with its place in the file.
    pub fn wrong(&self, key: &str, message: impl Into<String>) -> Error {
        let message = message.into();
        let problem = self.source.as_ref().filter(|source| !source.file().is_empty());
        let problem = problem.map(|source| source.problem(&entry("parameters", key), &*message));
        Error::invalid(problem.map_or(message, |problem| problem.to_string()))
    }

    /// The text under `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    /// The value under `key` read as `T`, or `default` when it is absent.
    pub fn parse_or<T: Setting>(&self, key: &str, default: T) -> Result<T> {
        let Some(text) = self.get(key) else {
            return Ok(default);
        };
        text.trim().parse().map_err(|_| {
            self.wrong(key, format!("parameter `{key}` must be {}, not `{text}`", T::IN_WORDS))
        })
    }

    /// The switch under `key`: `true`, `1`, `yes`, `on` or their opposites.
    pub fn switch_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(text) = self.get(key) else {
            return Ok(default);
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => {
                let message = format!("parameter `{key}` must be `true` or `false`, not `{text}`");
                Err(self.wrong(key, message))
            }
        }
    }

    /// Refuses keys outside `known`, so that a misspelt one is not silently ignored.
    ///
    /// Backends whose parameters Triton's users set freely do not call this.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        let is_known = |key: &&String| [&OF_ANY_MODEL[..], known].concat().contains(&key.as_str());
        match self.entries.keys().find(|key| !is_known(key)) {
            None => Ok(()),
            Some(key) => {
                let known = known.join(", ");
                Err(self.wrong(key, format!("unknown parameter `{key}`; known here: {known}")))
            }
        }
    }
}

/// What a parameter may hold.
pub trait Setting: FromStr {
    /// What a person calls it.
    const IN_WORDS: &'static str;
}

macro_rules! settings {
    ($($type:ty)*, $words:literal) => {
        $(impl Setting for $type {
            const IN_WORDS: &'static str = $words;
        })*
    };
}

settings!(NonZeroUsize, "a whole number above 0");
settings!(usize u64 u32 u8, "a whole number that is not negative");
settings!(i64, "a whole number");
settings!(f64, "a number");

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::Draft;

    #[test]
    fn a_parameter_that_is_wrong_is_said_so_in_words_and_at_its_place() {
        let text = "backend: \"identity\"\nparameters {\n  key: \"size\" value { string_value: \"1GB\" }\n}";
        let draft = Draft::parse("m", "config.pbtxt", text).unwrap();
        let settings = Settings::new([("size".to_owned(), "1GB".to_owned())])
            .read_from(&Arc::new(draft.report.source));
        let message = |error: Error| error.message().to_owned();
        let said = message(settings.parse_or::<usize>("size", 1).unwrap_err());
        let place = said.strip_suffix(
            ": parameter `size` must be a whole number that is not negative, not `1GB`",
        );
        assert!(place.is_some_and(|place| place.starts_with("m/config.pbtxt:")), "{said}");
        for (said, wanted) in [
            (settings.parse_or("size", NonZeroUsize::MIN).map(drop), "a whole number above 0"),
            (settings.parse_or("size", 0_i64).map(drop), "a whole number, not"),
            (settings.parse_or("size", 0_f64).map(drop), "a number, not"),
            (settings.switch_or("size", true).map(drop), "`true` or `false`"),
            (settings.only(&["other"]), "unknown parameter `size`"),
        ] {
            let said = message(said.unwrap_err());
            assert!(said.contains(wanted) && said.starts_with("m/config.pbtxt:"), "{said}");
        }
    }
}
