//! Reads a request for text: its prompt, how long and in what way to go on, and checks all of it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;

use consort_config::Priorities;
use consort_repository::KEEPS_STOP;
use consort_stage::{DataType, Error, Parameter, Request, Result, Tensor};

use super::adapters::{self, AdapterId};
use super::decoder::Token;
use super::fields::{Fields, integers, token, wrong};
use super::guidance::{GUIDE, Source, TYPE};
use super::prompt_scores::AskedOfPrompt;
use super::sampler::{Penalties, Sampling};
use super::stop::Words;
use super::word_list;

/// An input: its name, type and dimensions, and whether a request must have it.
pub(crate) type Input = (&'static str, DataType, &'static [i64], bool);

/// The inputs, named as in the `tensorrt_llm` model of NVIDIA's TensorRT-LLM ensembles.
pub(crate) const INPUTS: &[Input] = &[
    ("input_ids", DataType::Int32, &[-1], true),
    ("input_lengths", DataType::Int32, &[1], false),
    ("request_output_len", DataType::Int32, &[1], false),
    ("end_id", DataType::Int32, &[1], false),
    ("pad_id", DataType::Int32, &[1], false),
    ("stop_words_list", DataType::Int32, &[2, -1], false),
    ("bad_words_list", DataType::Int32, &[2, -1], false),
    ("beam_width", DataType::Int32, &[1], false),
    ("runtime_top_k", DataType::Int32, &[1], false),
    ("runtime_top_p", DataType::Fp32, &[1], false),
    ("min_p", DataType::Fp32, &[1], false),
    ("typical_p", DataType::Fp32, &[1], false),
    ("temperature", DataType::Fp32, &[1], false),
    ("len_penalty", DataType::Fp32, &[1], false),
    ("repetition_penalty", DataType::Fp32, &[1], false),
    ("presence_penalty", DataType::Fp32, &[1], false),
    ("frequency_penalty", DataType::Fp32, &[1], false),
    ("min_length", DataType::Int32, &[1], false),
    ("random_seed", DataType::Uint64, &[1], false),
    ("streaming", DataType::Bool, &[1], false),
    ("exclude_input_in_output", DataType::Bool, &[1], false),
    ("embedding_bias", DataType::Fp32, &[-1], false),
    ("logit_bias_ids", DataType::Int32, &[-1], false),
    ("logit_bias_weights", DataType::Fp32, &[-1], false),
    ("return_log_probs", DataType::Bool, &[1], false),
    ("top_logprobs", DataType::Int32, &[1], false),
    (PROMPT, DataType::Int32, &[1], false),
    (CONTEXT_LOGITS, DataType::Bool, &[1], false),
    (GENERATION_LOGITS, DataType::Bool, &[1], false),
    ("num_return_sequences", DataType::Int32, &[1], false),
    (adapters::INPUT, DataType::Bytes, &[1], false),
    (TYPE, DataType::Bytes, &[1], false),
    (GUIDE, DataType::Bytes, &[1], false),
];

/// The input that asks for the log-probabilities of the prompt, named as in vLLM and in the
/// sampling parameters of TensorRT-LLM.
const PROMPT: &str = "prompt_logprobs";
/// The inputs that ask for the logits behind each token, named as in TensorRT-LLM's ensembles.
const CONTEXT_LOGITS: &str = "return_context_logits";
const GENERATION_LOGITS: &str = "return_generation_logits";

/// How many of the likeliest tokens a request may want to know: as many as clients of
/// `OpenAI`'s protocol may ask for.
const MOST_ALTERNATIVES: i64 = 20;

/// How many texts a request may want: as many as clients of `OpenAI`'s protocol may ask for.
pub(super) const MOST_TEXTS: i64 = 128;

/// What every request to a model is held to.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// How many tokens a prompt and its continuation may have together.
    pub(crate) context: usize,
    /// How many tokens there are.
    pub(crate) vocabulary: usize,
    /// The tokens that end a text, unless the request names another.
    pub(crate) end_ids: Vec<Token>,
    /// How many tokens are generated when the request does not say.
    pub(crate) default_max_tokens: usize,
    /// Whether a request may have more than one response.
    pub(crate) is_decoupled: bool,
    /// How many bytes of logits a request may want.
    pub(crate) max_logits_bytes: usize,
    /// The names of the model's adapters.
    pub(crate) adapters: Vec<Arc<str>>,
    /// The levels that a request's priority may put it on; without any, all are equal.
    pub(crate) priorities: Option<Priorities>,
}

impl Limits {
    /// How many requests the configuration lets wait.
    pub(crate) fn max_queue_size(&self) -> Option<NonZeroUsize> {
        self.priorities.as_ref().and_then(|levels| levels.default_policy.max_queue_size)
    }

    /// The level of priority that a request is on, 1 being served first.
    pub(crate) fn level(&self, request: &Request) -> u64 {
        let priority = request.parameters.get("priority").and_then(Parameter::as_u64);
        self.priorities.as_ref().map_or(0, |levels| levels.level(priority.unwrap_or(0)))
    }
}

/// A request for text, checked.
#[derive(Debug)]
pub(crate) struct Generation {
    /// The tokens to continue.
    pub(crate) prompt: Vec<Token>,
    /// How many texts to continue it with.
    pub(crate) texts: usize,
    /// How many tokens to generate at most, which fit the context behind the prompt; 0 only where
    /// something is wanted of the prompt.
    pub(crate) max_tokens: usize,
    /// How many tokens to generate before the text may end.
    pub(crate) min_tokens: usize,
    /// The tokens that end the text.
    pub(crate) end_ids: Vec<Token>,
    /// The words that end it, and those it must not have.
    pub(crate) words: Words,
    /// How each token is picked.
    pub(crate) sampling: Sampling,
    /// Of how many of the likeliest tokens the log-probabilities are wanted beside each token's own;
    /// `None` when none are.
    pub(crate) log_probs: Option<usize>,
    /// What is wanted of the prompt.
    pub(crate) of_prompt: AskedOfPrompt,
    /// Whether the logits that each token came from are wanted.
    pub(crate) wants_logits: bool,
    /// Whether each token has a response of its own.
    pub(crate) is_streaming: bool,
    /// Whether the prompt stays out of the first response.
    pub(crate) excludes_prompt: bool,
    /// The adapter that takes part.
    pub(crate) adapter: AdapterId,
    /// What the text must be.
    pub(crate) guide: Option<Source>,
}

impl Generation {
    /// Reads the request's tensors; an error knows which one is wrong.
    pub(crate) fn read(request: &Request, limits: &Limits) -> Result<Self> {
        let fields = Fields(request);
        fields.check_known()?;
        fields.check_one("beam_width", "beam search is not supported, only 1")?;
        let of_prompt = fields.of_prompt()?;
        // Nothing but the prompt may be of interest.
        let (least, what) = if of_prompt.is_any() { (0, "0 or more") } else { (1, "positive") };
        let asked = fields.integer("request_output_len", |value| value >= least, what)?;
        let prompt = fields.prompt(limits, asked == Some(0))?;
        let room = limits.context - prompt.len();
        let min_tokens = fields.integer("min_length", |value| value >= 0, "0 or more")?;
        let is_streaming = fields.flag("streaming")?.unwrap_or(false);
        if is_streaming && !limits.is_decoupled {
            let needed = "needs a model with `model_transaction_policy { decoupled: true }`";
            return Err(wrong("streaming", needed));
        }
        let generation = Self {
            texts: fields.texts(limits)?,
            max_tokens: asked.map_or(limits.default_max_tokens, |asked| asked as usize).min(room),
            min_tokens: min_tokens.unwrap_or(0) as usize,
            end_ids: fields.end_ids(limits)?,
            words: Words {
                stop: fields.words("stop_words_list", limits)?,
                keeps_stop: request.parameters.get(KEEPS_STOP) == Some(&Parameter::Bool(true)),
                bad: fields.words("bad_words_list", limits)?,
            },
            sampling: fields.sampling(limits)?,
            log_probs: fields.log_probs()?,
            of_prompt,
            wants_logits: fields.flag(GENERATION_LOGITS)?.unwrap_or(false),
            is_streaming,
            excludes_prompt: fields.flag("exclude_input_in_output")?.unwrap_or(true),
            adapter: fields
                .string(adapters::INPUT)?
                .map_or(Ok(None), |name| adapters::find(&limits.adapters, name))?,
            guide: Source::read(fields.string(TYPE)?, fields.string(GUIDE)?)?,
            prompt,
        };
        generation.check_logits(limits)?;
        Ok(generation)
    }

    /// The error when every token is impossible: whoever forbids some is to blame.
    pub(crate) fn no_token(&self) -> Error {
        let bad = (!self.words.bad.is_empty()).then_some("bad_words_list");
        match self.sampling.forbidding_input().or(bad) {
            Some(input) => {
                wrong(input, "leaves no token to pick: every other is forbidden or impossible")
            }
            None => Error::internal(
                "the model left no token to pick: every logit is infinite or not a number",
            ),
        }
    }

    /// Refuses more logits than may be kept for a request: all of the prompt, and those of the
    /// tokens that wait to be given out.
    fn check_logits(&self, limits: &Limits) -> Result<()> {
        let longest = if self.is_streaming { self.words.longest_wait() } else { usize::MAX };
        let waiting = longest.min(self.max_tokens);
        let of_prompt = if self.of_prompt.logits { self.prompt.len() } else { 0 };
        let generated = if self.wants_logits { waiting * self.texts } else { 0 };
        let row = limits.vocabulary.saturating_mul(size_of::<f32>());
        let (rows, most) = (of_prompt + generated, limits.max_logits_bytes);
        let bytes = rows.saturating_mul(row);
        if bytes <= most {
            return Ok(());
        }
        let input = if of_prompt >= generated { CONTEXT_LOGITS } else { GENERATION_LOGITS };
        Err(wrong(
            input,
            format!(
                "asks for the logits behind {rows} tokens, {bytes} bytes, more than the \
                 `max_logits_bytes` of {most}; ask for fewer tokens, or for log-probabilities"
            ),
        ))
    }
}

impl Fields<'_> {
    fn check_known(&self) -> Result<()> {
        let is_known = |tensor: &&Tensor| INPUTS.iter().any(|(name, ..)| *name == &*tensor.name);
        match self.0.inputs.iter().find(|tensor| !is_known(tensor)) {
            None => Ok(()),
            Some(tensor) => Err(Error::unsupported(format!(
                "input `{}` is not supported by the backend `onnxruntime_llm`",
                tensor.name
            ))
            .of_input(Some(&*tensor.name))),
        }
    }

    fn alternatives(&self, name: &str) -> Result<Option<usize>> {
        let is_valid = |value: i64| (0..=MOST_ALTERNATIVES).contains(&value);
        Ok(self.integer(name, is_valid, "0 to 20")?.map(|count| count as usize))
    }

    fn log_probs(&self) -> Result<Option<usize>> {
        let is_wanted = self.flag("return_log_probs")?.unwrap_or(false);
        let alternatives = self.alternatives("top_logprobs")?.filter(|count| *count > 0);
        Ok(alternatives.or(is_wanted.then_some(0)))
    }

    fn of_prompt(&self) -> Result<AskedOfPrompt> {
        Ok(AskedOfPrompt {
            alternatives: self.alternatives(PROMPT)?,
            logits: self.flag(CONTEXT_LOGITS)?.unwrap_or(false),
        })
    }

    /// The prompt, which may fill the context only where nothing is to follow it.
    fn prompt(&self, limits: &Limits, is_all: bool) -> Result<Vec<Token>> {
        let missing =
            || Error::invalid("missing required input `input_ids`").of_input(Some("input_ids"));
        let tensor = self.0.input("input_ids").ok_or_else(missing)?;
        if tensor.shape.iter().rev().skip(1).any(|dim| *dim != 1) {
            let shape = consort_stage::ShapeText(&tensor.shape);
            return Err(wrong("input_ids", format!("has shape {shape}; a request has one prompt")));
        }
        let mut ids = integers(tensor)?;
        let is_inside = |length: i64| (0..=ids.len() as i64).contains(&length);
        if let Some(length) = self.integer("input_lengths", is_inside, "within `input_ids`")? {
            ids.truncate(length as usize);
        }
        if ids.is_empty() {
            return Err(wrong("input_ids", "is empty; a prompt has at least one token"));
        }
        let (count, context) = (ids.len(), limits.context);
        if count + usize::from(!is_all) > context {
            let has = format!("has {count} tokens; the context of {context} must have room for");
            let what = if is_all { "them" } else { "one more" };
            return Err(wrong("input_ids", format!("{has} {what}")));
        }
        let ids = ids.into_iter();
        ids.map(|id| token("input_ids", id, limits.vocabulary)).collect()
    }

    fn texts(&self, limits: &Limits) -> Result<usize> {
        let is_valid = |value: i64| (1..=MOST_TEXTS).contains(&value);
        let texts = self.integer("num_return_sequences", is_valid, "1 to 128")?.unwrap_or(1);
        if texts > 1 && !limits.is_decoupled {
            return Err(wrong(
                "num_return_sequences",
                format!(
                    "is {texts}, and each sequence has responses of its own: that needs a model \
                     with `model_transaction_policy {{ decoupled: true }}`"
                ),
            ));
        }
        Ok(texts as usize)
    }

    fn end_ids(&self, limits: &Limits) -> Result<Vec<Token>> {
        match self.scalar("end_id", integers)? {
            None => Ok(limits.end_ids.clone()),
            // As in TensorRT-LLM: nothing but the length ends the text.
            Some(-1) => Ok(Vec::new()),
            Some(id) => Ok(vec![token("end_id", id, limits.vocabulary)?]),
        }
    }

    fn words(&self, name: &str, limits: &Limits) -> Result<Vec<Vec<Token>>> {
        let tensor = self.0.input(name);
        tensor.map_or(Ok(Vec::new()), |tensor| word_list::read(tensor, limits.vocabulary))
    }

    fn sampling(&self, limits: &Limits) -> Result<Sampling> {
        let top_k = self.integer("runtime_top_k", |value| value >= 0, "0 or more")?;
        let is_share = |value: f32| value > 0.0 && value <= 1.0;
        let top_p = self.float("runtime_top_p", is_share, "above 0 and at most 1")?;
        let temperature = self.float("temperature", |value| value >= 0.0, "0 or more")?;
        let min_p = self.float("min_p", |value| (0.0..=1.0).contains(&value), "0 to 1")?;
        let typical_p = self.float("typical_p", is_share, "above 0 and at most 1")?;
        let cuts = [top_p, min_p, typical_p];
        let is_greedy =
            temperature.is_none() && top_k.is_none() && cuts.iter().all(Option::is_none);
        let any = |name| self.float(name, |_| true, "a number");
        let repetition = self.float("repetition_penalty", |value| value > 0.0, "positive")?;
        let seed = self.scalar("random_seed", integers)?;
        Ok(Sampling {
            top_k: top_k.unwrap_or(0) as usize,
            top_p: top_p.unwrap_or(1.0),
            min_p: min_p.unwrap_or(0.0),
            typical_p: typical_p.unwrap_or(1.0),
            bias_input: bias_input(self.0),
            bias: self.bias(limits)?,
            temperature: temperature.unwrap_or(if is_greedy { 0.0 } else { 1.0 }),
            penalties: Penalties {
                repetition: repetition.unwrap_or(1.0),
                presence: any("presence_penalty")?.unwrap_or(0.0),
                frequency: any("frequency_penalty")?.unwrap_or(0.0),
            },
            seed: seed.map_or_else(any_seed, |seed| seed as u64),
        })
    }

    /// What is added to the logits: of every token in `embedding_bias`, of those in
    /// `logit_bias_ids` by name.
    fn bias(&self, limits: &Limits) -> Result<Arc<[(Token, f32)]>> {
        let every = self.floats("embedding_bias")?;
        if !every.is_empty() && every.len() != limits.vocabulary {
            let (count, vocabulary) = (every.len(), limits.vocabulary);
            return Err(wrong(
                "embedding_bias",
                format!("has {count} numbers; the model has {vocabulary} tokens"),
            ));
        }
        if !every.is_empty() && every.iter().all(|bias| *bias == f32::NEG_INFINITY) {
            return Err(wrong("embedding_bias", "forbids every token"));
        }
        let weights = self.floats("logit_bias_weights")?;
        let ids = self.0.input("logit_bias_ids").map_or(Ok(Vec::new()), integers)?;
        if ids.len() != weights.len() {
            return Err(wrong(
                "logit_bias_ids",
                format!(
                    "has {} tokens and `logit_bias_weights` {} numbers; each token has one",
                    ids.len(),
                    weights.len()
                ),
            ));
        }
        let mut bias: Vec<_> = (0..).zip(every).filter(|(_, bias)| *bias != 0.0).collect();
        for (id, weight) in ids.into_iter().zip(weights) {
            bias.push((token("logit_bias_ids", id, limits.vocabulary)?, weight));
        }
        Ok(bias.into())
    }
}

/// The input that a bias is said by: the one of every token where a request has both.
fn bias_input(request: &Request) -> &'static str {
    match request.input("embedding_bias") {
        Some(_) => "embedding_bias",
        None => "logit_bias_ids",
    }
}

/// A seed for a request that gives none.
fn any_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
