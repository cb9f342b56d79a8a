//! The backend `onnxruntime_llm`: generates text with an ONNX decoder, token by token.

mod choosing;
mod parameters;
mod placement;

use std::path::PathBuf;
use std::sync::Arc;

use consort_config::{Device, Model, Priorities, Scheduling};
use consort_repository::{
    ADAPTERS, Backend, EXCLUDE_PROMPT, Instance, Kind, ModelFile, Told, VersionFiles,
};
use consort_stage::{
    DataType, Error, Interrupt, Jobs, Result, Signature, StreamingBackend, TensorSpec,
};
use ort::session::Session;

use crate::llm::{
    Adapters, Config, Decoder, Engine, FinderSessions, GUIDE, Graph, Guidance, INPUTS, Limits,
    MOST_WAITING, OUTPUTS, Outputs, Piece, Runs, Steps, adapter_names,
};
use crate::provider::Provider;
use crate::session;
use parameters::Parameters;

/// How the repository finds this backend.
pub(crate) const KIND: Kind = Kind { name: "onnxruntime_llm", check, signature, tells, load };

/// The checkpoint's `config.json`, where a graph carries it.
const METADATA: &str = "config.json";

/// The parameter that names the tokenizer, and its file without one.
const TOKENIZER: &str = "tokenizer";
const TOKENIZER_FILE: &str = "tokenizer.json";
/// How many threads at most compute which tokens may come next in guided texts, each in a fraction
/// of a step.
const MOST_GUIDE_THREADS: usize = 4;

/// The loop and what it needs to start.
struct OnnxRuntimeLlm {
    engine: Engine,
    runs: Arc<Runs>,
    /// Whether the instance chose how many threads a run has, and not the configuration.
    shares_threads: bool,
}

impl StreamingBackend for OnnxRuntimeLlm {
    fn run(&mut self, mut jobs: Jobs) {
        self.engine.run(&mut jobs);
    }

    fn gains_from_threads(&self) -> bool {
        self.shares_threads
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let runs = Arc::clone(&self.runs);
        Some(Arc::new(move || runs.interrupt()))
    }
}

/// The tensors are those of the loop, whatever the graph's are.
#[expect(clippy::unnecessary_wraps, reason = "a backend that reads the file may fail")]
fn signature(_file: &ModelFile<'_>) -> Result<Option<Signature>> {
    let inputs = INPUTS.iter().map(|(name, datatype, dims, is_required)| TensorSpec {
        is_optional: !is_required,
        ..TensorSpec::new(name, *datatype, dims)
    });
    let outputs =
        OUTPUTS.iter().map(|(name, datatype, dims)| TensorSpec::new(name, *datatype, dims));
    Ok(Some(Signature {
        max_batch_size: 1,
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        is_decoupled: true,
    }))
}

/// What its texts begin with, and the names of its adapters, for those who offer them to callers.
fn tells(files: &VersionFiles<'_>) -> Result<Told> {
    let mut told = vec![(EXCLUDE_PROMPT, "true".to_owned())];
    let names = adapter_names(&[files.version_folder, files.model_folder])?;
    if !names.is_empty() {
        told.push((ADAPTERS, names.join(",")));
    }
    Ok(told)
}

/// Refuses what would be wrong with any graph.
fn check(model: &Model) -> Result<()> {
    check_tensors(&model.signature)?;
    session::check(model)?;
    Parameters::read(model).map(drop)
}

fn load(instance: &Instance<'_>) -> Result<Backend> {
    let model = instance.model;
    check_tensors(&model.signature)?;
    let opened = match open(instance)? {
        opened if opened.is_well_placed() => opened,
        _ if instance.device == Device::Auto => {
            open(&Instance { device: Device::Cpu, ..*instance })?
        }
        _ => return Err(no_kernel()),
    };
    let runs = Arc::new(Runs::new(adapters(instance, &opened)?)?);
    let limits =
        Limits { adapters: runs.adapters().names().cloned().collect(), ..limits(model, &opened)? };
    let tokenizer = tokenizer(instance)?;
    let shares_threads = session::shares_threads(model, opened.provider);
    let mut decoder = placement::decoder(instance, opened, (&limits, &runs))?;
    try_adapters(&mut *decoder, &runs)?;
    let threads = instance.threads.get().min(MOST_GUIDE_THREADS);
    let texts = decoder.slots() + MOST_WAITING;
    let guidance = Guidance::new((tokenizer, limits.vocabulary), (texts, threads));
    let names = model.signature.outputs.iter().map(|spec| Arc::clone(&spec.name));
    let outputs = Outputs::new(names, model.signature.is_batching());
    let engine = Engine::new(decoder, limits, outputs, (guidance, Arc::clone(&runs)))
        .named(Steps::of(model.name.clone(), instance.version));
    Ok(Backend::Streaming(Box::new(OnnxRuntimeLlm { engine, runs, shares_threads })))
}

/// A session, and what it was found to be.
struct Opened {
    session: Session,
    provider: Provider,
    parameters: Parameters,
    config: Config,
    graph: Graph,
    /// Whether the provider captures steps, to launch them as one.
    captures: bool,
    /// Those that find tokens where the logits lie.
    finders: Option<FinderSessions>,
    /// Whether rows of a cache that grows may be padded.
    pads: bool,
    /// Puts the rows of a cache that grows together where they lie.
    joiner: Option<Session>,
}

impl Opened {
    /// Whether the operators that share the cache's buffers run where the buffers lie.
    ///
    /// Elsewhere they would be given copies, and write into those.
    fn is_well_placed(&self) -> bool {
        self.provider == Provider::Cpu || !self.graph.shares_fp32_buffer()
    }
}

fn open(instance: &Instance<'_>) -> Result<Opened> {
    let file = instance.version_folder.join(&instance.model.file_name);
    let provider = session::provider(instance)?;
    let parameters = Parameters::read(instance.model)?;
    let beside = Config::read(&[instance.version_folder, instance.model_folder])?;
    let is_described = beside.is_some();
    let mut config = beside.unwrap_or_default();
    let shares_buffer = parameters.shares_buffer.unwrap_or(config.shares_buffer);
    config.shares_buffer = shares_buffer;
    let place = (provider, &*file);
    let mut choosing = choosing::open(instance, place, &config, &parameters)?;
    let (session, captures) = match choosing.session.take() {
        Some(opened) => opened,
        None => (session::open(instance, provider, &file)?, false),
    };
    if !is_described {
        config = Config { shares_buffer, ..carried_config(&session)? };
    }
    let graph = Graph::read(&session, &config)?;
    let finders = choosing::finders(instance, place, &graph)?;
    let pads = choosing.pads(&file, &graph);
    let joiner = if pads { choosing::joiner(instance, place, &graph)? } else { None };
    Ok(Opened { session, provider, parameters, config, graph, captures, finders, pads, joiner })
}

fn no_kernel() -> Error {
    Error::unsupported(
        "`instance_group` asks for a GPU, where `GroupQueryAttention` computes in FP16 and BF16 \
         only, and the cache of this graph is FP32; export the model in FP16, or use \
         `kind: KIND_CPU`",
    )
}

/// What the graph itself carries of its checkpoint's configuration.
fn carried_config(session: &Session) -> Result<Config> {
    let metadata = session.metadata().ok().and_then(|data| data.custom(METADATA));
    metadata.map_or_else(|| Ok(Config::default()), |text| Config::of_metadata(&text))
}

/// The adapters in the version's folder and the model's.
fn adapters(instance: &Instance<'_>, opened: &Opened) -> Result<Adapters> {
    let card = match opened.provider {
        Provider::Cpu => None,
        card @ Provider::Cuda(_) => Some(card.allocator(&opened.session).map_err(|error| {
            Error::internal(format!("the adapters cannot be kept on the card: {error}"))
        })?),
    };
    Adapters::load(&[instance.version_folder, instance.model_folder], card.as_ref())
}

/// Computes a token with each adapter, so that one that does not fit the graph is found now.
fn try_adapters(decoder: &mut dyn Decoder, runs: &Runs) -> Result<()> {
    for (index, name) in runs.adapters().names().enumerate() {
        runs.begin(Some(index), std::iter::empty());
        let tried = decoder.begin(0, &[0], Some(index));
        let piece = Piece { tokens: &[0], wants: None, tells_each: false };
        let tried = tried.and_then(|_| decoder.prefill(0, piece));
        runs.end();
        decoder.release(0);
        tried.map_err(|error| {
            Error::invalid(format!(
                "adapter `{name}` does not fit the graph, which must have its weights as optional \
                 inputs: {}",
                error.message()
            ))
        })?;
    }
    Ok(())
}

/// The tokenizer that keeps texts within bounds, or why there is none: a model without one generates
/// all the same, but one whose configuration names a file has it.
fn tokenizer(instance: &Instance<'_>) -> Result<Result<PathBuf>> {
    let tokenizer = instance.find_beside(TOKENIZER, TOKENIZER_FILE);
    if instance.model.settings.get(TOKENIZER).is_some() {
        tokenizer.as_ref().map_err(Error::clone)?;
    }
    Ok(tokenizer.map_err(|error| {
        Error::unsupported(format!("`{GUIDE}` needs the model's tokenizer: {}", error.message()))
    }))
}

/// Refuses tensors that the loop neither takes nor gives, or not in that type: every request with
/// one would fail. An input that may be left out is not missed.
fn check_tensors(signature: &Signature) -> Result<()> {
    for spec in &signature.inputs {
        let Some((_, own, ..)) = INPUTS.iter().find(|(name, ..)| *name == &*spec.name) else {
            if spec.is_optional {
                // TensorRT-LLM's configurations have many; who sends one is told.
                continue;
            }
            let known: Vec<_> = INPUTS.iter().map(|(name, ..)| format!("`{name}`")).collect();
            return Err(unknown_tensor("takes", &spec.name, &known));
        };
        // Whole numbers are read in whichever size they come.
        if spec.datatype != *own && !(is_whole(spec.datatype) && is_whole(*own)) {
            return Err(wrong_type("takes", spec, *own));
        }
    }
    for spec in &signature.outputs {
        let Some((_, own, _)) = OUTPUTS.iter().find(|(name, ..)| *name == &*spec.name) else {
            let known: Vec<_> = OUTPUTS.iter().map(|(name, ..)| format!("`{name}`")).collect();
            return Err(unknown_tensor("gives", &spec.name, &known));
        };
        if spec.datatype != *own {
            return Err(wrong_type("gives", spec, *own));
        }
    }
    Ok(())
}

fn is_whole(datatype: DataType) -> bool {
    use DataType::{Int32, Int64, Uint32, Uint64};
    matches!(datatype, Int32 | Int64 | Uint32 | Uint64)
}

fn wrong_type(verb: &str, spec: &TensorSpec, own: DataType) -> Error {
    Error::invalid(format!(
        "the backend `onnxruntime_llm` {verb} `{}` as {own}, not as {}",
        spec.name, spec.datatype
    ))
}

fn unknown_tensor(verb: &str, name: &str, known: &[String]) -> Error {
    Error::invalid(format!(
        "the backend `onnxruntime_llm` {verb} no `{name}`; it {verb} {}",
        known.join(", ")
    ))
}

fn limits(model: &Model, opened: &Opened) -> Result<Limits> {
    let Opened { config, graph, parameters, .. } = opened;
    let unknown = |what: &str, remedy: &str| {
        Error::invalid(format!(
            "the {what} of `{}` is not known: neither `genai_config.json` nor `config.json` lies \
             beside its graph; {remedy}",
            model.name
        ))
    };
    let context = match parameters.context {
        Some(asked) => {
            let asked = asked.get();
            if let Some(context) = config.context.filter(|context| asked > *context) {
                return Err(Error::invalid(format!(
                    "parameter `max_sequence_length` is {asked}, more than the context of {context} \
                     that the model has"
                )));
            }
            asked
        }
        None => config
            .context
            .ok_or_else(|| unknown("context length", "add one, or set `max_sequence_length`"))?,
    };
    let vocabulary =
        graph.vocabulary.or(config.vocabulary).ok_or_else(|| unknown("vocabulary", "add one"))?;
    let end_ids = match parameters.end_id {
        Some(id) => vec![end_id(id, vocabulary)?],
        None => config.end_ids.clone(),
    };
    Ok(Limits {
        context,
        vocabulary,
        end_ids,
        default_max_tokens: parameters.default_max_tokens.get(),
        is_decoupled: model.signature.is_decoupled,
        max_logits_bytes: parameters.max_logits_bytes,
        adapters: Vec::new(),
        priorities: priorities(&model.scheduling),
    })
}

/// The token that ends a text, as the configuration says it.
fn end_id(id: u32, vocabulary: usize) -> Result<u32> {
    if id as usize >= vocabulary {
        let last = vocabulary.saturating_sub(1);
        return Err(Error::invalid(format!(
            "parameter `end_id` is {id}; the model's tokens are 0 to {last}"
        )));
    }
    Ok(id)
}

/// The levels of priority that a configuration has.
fn priorities(scheduling: &Scheduling) -> Option<Priorities> {
    match scheduling {
        Scheduling::Dynamic(batching) => Some(batching.priorities.clone()),
        _ => None,
    }
}
