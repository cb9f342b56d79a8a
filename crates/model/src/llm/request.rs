//! Reads a request for text: its prompt, how long and in what way to go on, and checks all of it.

use std::hash::{BuildHasher, Hasher, RandomState};

use consort_config::Priorities;
use consort_stage::{DataType, Error, Parameter, Request, Result, Tensor};

use super::decoder::Token;
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
    ("temperature", DataType::Fp32, &[1], false),
    ("len_penalty", DataType::Fp32, &[1], false),
    ("repetition_penalty", DataType::Fp32, &[1], false),
    ("presence_penalty", DataType::Fp32, &[1], false),
    ("frequency_penalty", DataType::Fp32, &[1], false),
    ("min_length", DataType::Int32, &[1], false),
    ("random_seed", DataType::Uint64, &[1], false),
    ("streaming", DataType::Bool, &[1], false),
    ("exclude_input_in_output", DataType::Bool, &[1], false),
];

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
    /// The levels that a request's priority may put it on; without any, all are equal.
    pub(crate) priorities: Option<Priorities>,
}

impl Limits {
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
    /// How many tokens to generate at most, which fit the context behind the prompt.
    pub(crate) max_tokens: usize,
    /// How many tokens to generate before the text may end.
    pub(crate) min_tokens: usize,
    /// The tokens that end the text.
    pub(crate) end_ids: Vec<Token>,
    /// The words that end it, and those it must not have.
    pub(crate) words: Words,
    /// How each token is picked.
    pub(crate) sampling: Sampling,
    /// Whether each token has a response of its own.
    pub(crate) is_streaming: bool,
    /// Whether the prompt stays out of the first response.
    pub(crate) excludes_prompt: bool,
}

impl Generation {
    /// Reads the request's tensors; an error names the one that is wrong.
    pub(crate) fn read(request: &Request, limits: &Limits) -> Result<Self> {
        let fields = Fields(request);
        fields.check_known()?;
        fields.check_beam_width()?;
        let prompt = fields.prompt(limits)?;
        let room = limits.context - prompt.len();
        let asked = fields.integer("request_output_len", |value| value > 0, "positive")?;
        let min_tokens = fields.integer("min_length", |value| value >= 0, "0 or more")?;
        let is_streaming = fields.flag("streaming")?.unwrap_or(false);
        if is_streaming && !limits.is_decoupled {
            return Err(Error::invalid(
                "`streaming` needs a model with `model_transaction_policy { decoupled: true }`",
            ));
        }
        Ok(Self {
            max_tokens: asked.map_or(limits.default_max_tokens, |asked| asked as usize).min(room),
            min_tokens: min_tokens.unwrap_or(0) as usize,
            end_ids: fields.end_ids(limits)?,
            words: Words {
                stop: fields.words("stop_words_list", limits)?,
                bad: fields.words("bad_words_list", limits)?,
            },
            sampling: fields.sampling()?,
            is_streaming,
            excludes_prompt: fields.flag("exclude_input_in_output")?.unwrap_or(true),
            prompt,
        })
    }
}

/// The tensors of a request, by name.
struct Fields<'a>(&'a Request);

impl Fields<'_> {
    fn check_known(&self) -> Result<()> {
        let is_known = |tensor: &&Tensor| INPUTS.iter().any(|(name, ..)| *name == &*tensor.name);
        match self.0.inputs.iter().find(|tensor| !is_known(tensor)) {
            None => Ok(()),
            Some(tensor) => Err(Error::unsupported(format!(
                "input `{}` is not supported by the backend `onnxruntime_llm`",
                tensor.name
            ))),
        }
    }

    fn check_beam_width(&self) -> Result<()> {
        match self.integer("beam_width", |value| value > 0, "positive")? {
            None | Some(1) => Ok(()),
            Some(width) => Err(Error::unsupported(format!(
                "`beam_width` is {width}; beam search is not supported, only 1"
            ))),
        }
    }

    fn prompt(&self, limits: &Limits) -> Result<Vec<Token>> {
        let tensor = self
            .0
            .input("input_ids")
            .ok_or_else(|| Error::invalid("missing required input `input_ids`"))?;
        if tensor.shape.iter().rev().skip(1).any(|dim| *dim != 1) {
            return Err(Error::invalid(format!(
                "`input_ids` has shape {}; a request has one prompt",
                consort_stage::ShapeText(&tensor.shape)
            )));
        }
        let mut ids = integers(tensor)?;
        let is_inside = |length: i64| (0..=ids.len() as i64).contains(&length);
        if let Some(length) = self.integer("input_lengths", is_inside, "within `input_ids`")? {
            ids.truncate(length as usize);
        }
        if ids.is_empty() {
            return Err(Error::invalid("`input_ids` is empty; a prompt has at least one token"));
        }
        if ids.len() >= limits.context {
            return Err(Error::invalid(format!(
                "`input_ids` has {} tokens; the context of {} must have room for one more",
                ids.len(),
                limits.context
            )));
        }
        let ids = ids.into_iter();
        ids.map(|id| token("input_ids", id, limits.vocabulary)).collect()
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

    fn sampling(&self) -> Result<Sampling> {
        let top_k = self.integer("runtime_top_k", |value| value >= 0, "0 or more")?;
        let is_share = |value: f32| value > 0.0 && value <= 1.0;
        let top_p = self.float("runtime_top_p", is_share, "above 0 and at most 1")?;
        let temperature = self.float("temperature", |value| value >= 0.0, "0 or more")?;
        let is_greedy = temperature.is_none() && top_k.is_none() && top_p.is_none();
        let any = |name| self.float(name, |_| true, "a number");
        let repetition = self.float("repetition_penalty", |value| value > 0.0, "positive")?;
        let seed = self.scalar("random_seed", integers)?;
        Ok(Sampling {
            top_k: top_k.unwrap_or(0) as usize,
            top_p: top_p.unwrap_or(1.0),
            temperature: temperature.unwrap_or(if is_greedy { 0.0 } else { 1.0 }),
            penalties: Penalties {
                repetition: repetition.unwrap_or(1.0),
                presence: any("presence_penalty")?.unwrap_or(0.0),
                frequency: any("frequency_penalty")?.unwrap_or(0.0),
            },
            seed: seed.map_or_else(any_seed, |seed| seed as u64),
        })
    }

    fn integer(
        &self,
        name: &str,
        is_valid: impl Fn(i64) -> bool,
        wanted: &str,
    ) -> Result<Option<i64>> {
        self.valid(name, integers, is_valid, wanted)
    }

    fn float(
        &self,
        name: &str,
        is_valid: impl Fn(f32) -> bool,
        wanted: &str,
    ) -> Result<Option<f32>> {
        let is_valid = |value: f32| value.is_finite() && is_valid(value);
        self.valid(name, |tensor| Ok(tensor.to_slice::<f32>()?.into_owned()), is_valid, wanted)
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.scalar(name, Tensor::to_bools)
    }

    fn valid<T: Copy + std::fmt::Display>(
        &self,
        name: &str,
        read: impl Fn(&Tensor) -> Result<Vec<T>>,
        is_valid: impl Fn(T) -> bool,
        wanted: &str,
    ) -> Result<Option<T>> {
        match self.scalar(name, read)? {
            Some(value) if !is_valid(value) => {
                Err(Error::invalid(format!("`{name}` must be {wanted}, not {value}")))
            }
            value => Ok(value),
        }
    }

    /// The one element of a tensor of whatever shape; `None` when the request does not have it.
    fn scalar<T: Copy>(
        &self,
        name: &str,
        read: impl Fn(&Tensor) -> Result<Vec<T>>,
    ) -> Result<Option<T>> {
        let Some(tensor) = self.0.input(name) else {
            return Ok(None);
        };
        match read(tensor)?.as_slice() {
            [value] => Ok(Some(*value)),
            values => {
                Err(Error::invalid(format!("`{name}` must be one value, not {}", values.len())))
            }
        }
    }
}

/// The elements of a tensor of whole numbers, whichever their size.
pub(super) fn integers(tensor: &Tensor) -> Result<Vec<i64>> {
    fn widen<T: consort_stage::Element>(
        tensor: &Tensor,
        widen: impl Fn(T) -> i64,
    ) -> Result<Vec<i64>> {
        Ok(tensor.to_slice::<T>()?.iter().copied().map(widen).collect())
    }
    match tensor.datatype {
        DataType::Int32 => widen::<i32>(tensor, i64::from),
        DataType::Uint32 => widen::<u32>(tensor, i64::from),
        DataType::Int64 => widen::<i64>(tensor, |value| value),
        // A seed's bits are what counts; anything else this large is out of range below zero, too.
        DataType::Uint64 => widen::<u64>(tensor, |value| value as i64),
        other => Err(Error::invalid(format!("`{}` is {other}, not a whole number", tensor.name))),
    }
}

/// The token with this number.
pub(super) fn token(field: &str, id: i64, vocabulary: usize) -> Result<Token> {
    Token::try_from(id).ok().filter(|id| (*id as usize) < vocabulary).ok_or_else(|| {
        Error::invalid(format!(
            "`{field}` has token {id}; the model's tokens are 0 to {}",
            vocabulary - 1
        ))
    })
}

/// A seed for a request that gives none.
fn any_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
