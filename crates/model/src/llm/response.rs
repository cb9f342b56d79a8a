//! Makes the responses of a sequence: new tokens, those before them, and how the text ended.

use std::sync::Arc;

use consort_stage::{DataType, Request, Response, Tensor};

use super::decoder::Token;
use super::log_probs::Spoken;
use super::prompt_scores::OfPrompt;
use super::raw_logits::RawRows;
use super::request::Generation;

/// An output: its name, type and dimensions.
pub(crate) type Output = (&'static str, DataType, &'static [i64]);

/// The outputs of a response.
pub(crate) const OUTPUTS: &[Output] = &[
    ("output_ids", DataType::Int32, &[-1]),
    ("context_ids", DataType::Int32, &[-1]),
    ("sequence_length", DataType::Int32, &[1]),
    ("is_final", DataType::Bool, &[1]),
    ("finish_reason", DataType::Bytes, &[1]),
    (CACHED, DataType::Int32, &[1]),
    ("sequence_index", DataType::Int32, &[1]),
    ("cum_log_probs", DataType::Fp32, &[1]),
    ("output_log_probs", DataType::Fp32, &[-1]),
    ("top_logprob_ids", DataType::Int32, &[-1, -1]),
    ("top_logprob_values", DataType::Fp32, &[-1, -1]),
    ("prompt_ids", DataType::Int32, &[-1]),
    ("prompt_log_probs", DataType::Fp32, &[-1]),
    ("prompt_top_logprob_ids", DataType::Int32, &[-1, -1]),
    ("prompt_top_logprob_values", DataType::Fp32, &[-1, -1]),
    ("context_logits", DataType::Fp32, &[-1, -1]),
    ("generation_logits", DataType::Fp32, &[-1, -1, -1]),
];

/// That which comes only to a request for several sequences: with one it is 0 and says nothing.
const INDEX: &str = "sequence_index";

/// That which comes only in the first response of a text: it is the same in all.
const CACHED: &str = "cached_tokens";

/// What a request must ask for to be given an output: an ensemble names all that its steps map,
/// whatever its caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// The log-probabilities of its tokens.
    LogProbs,
    /// Those of its prompt.
    PromptLogProbs,
    /// The logits behind each token of the prompt.
    ContextLogits,
    /// The logits that each token came from.
    GenerationLogits,
    /// Several sequences.
    Several,
}

impl Demand {
    /// What the output of this name takes; `None` for one that every request is given.
    fn of(output: &str) -> Option<Self> {
        Some(match output {
            "cum_log_probs" | "output_log_probs" | "top_logprob_ids" | "top_logprob_values" => {
                Self::LogProbs
            }
            "prompt_ids"
            | "prompt_log_probs"
            | "prompt_top_logprob_ids"
            | "prompt_top_logprob_values" => Self::PromptLogProbs,
            "context_logits" => Self::ContextLogits,
            "generation_logits" => Self::GenerationLogits,
            INDEX => Self::Several,
            _ => return None,
        })
    }

    /// Whether a request asks for it.
    fn is_made_by(self, generation: &Generation) -> bool {
        match self {
            Self::LogProbs => generation.log_probs.is_some(),
            Self::PromptLogProbs => generation.of_prompt.alternatives.is_some(),
            Self::ContextLogits => generation.of_prompt.logits,
            Self::GenerationLogits => generation.wants_logits,
            Self::Several => generation.texts > 1,
        }
    }

    /// Whether it is of the prompt, which is told once.
    fn is_of_prompt(self) -> bool {
        matches!(self, Self::PromptLogProbs | Self::ContextLogits)
    }
}

/// How many tokens before the new ones go with them: enough for a detokenizer that keeps nothing
/// to know how the new ones are spelled and spaced, of which a handful would mostly do.
const CONTEXT: usize = 32;

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// At an end token or a stop word.
    Stop,
    /// At the number of tokens that was asked for, or that the context has room for.
    Length,
}

impl Finish {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What one response has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// The prompt and everything generated, up to the end of the new tokens.
    pub(crate) text: &'a [Token],
    /// How many of them are new.
    pub(crate) new: usize,
    /// How many of them were generated.
    pub(crate) generated: usize,
    /// How many tokens of the prompt were not computed, because another's were the same.
    pub(crate) cached: usize,
    /// The log-probabilities of the new tokens that were generated.
    pub(crate) log_probs: Spoken<'a>,
    /// The logits that they came from.
    pub(crate) logits: RawRows<'a>,
    /// What is told of the prompt, in the first response of the first text.
    pub(crate) of_prompt: Option<OfPrompt<'a>>,
    /// Which of its caller's texts it is, from 0.
    pub(crate) index: usize,
    /// How the text ended, when this is its end.
    pub(crate) finish: Option<Finish>,
}

/// The outputs that a request wants, under their names.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    names: Arc<[Arc<str>]>,
    is_batching: bool,
}

impl Outputs {
    /// The model's outputs; with a leading 1 in every shape when the model batches.
    pub(crate) fn new(names: impl Iterator<Item = Arc<str>>, is_batching: bool) -> Self {
        Self { names: names.collect(), is_batching }
    }

    /// Only those that the request wants.
    pub(crate) fn wanted_by(&self, request: &Request, generation: &Generation) -> Self {
        let is_named = |name: &Arc<str>| {
            let is_demanded = Demand::of(name).is_none_or(|demand| demand.is_made_by(generation));
            is_demanded && (request.outputs.is_empty() || request.outputs.contains(name))
        };
        Self { names: self.names.iter().filter(|name| is_named(name)).cloned().collect(), ..*self }
    }

    /// The response for a part of the text; that it is the last of its request is for others to
    /// say.
    pub(crate) fn response(&self, part: Part<'_>) -> Response {
        let is_first = part.generated <= part.new;
        let mut outputs = Vec::with_capacity(self.names.len());
        for name in &*self.names {
            if Demand::of(name).is_some_and(Demand::is_of_prompt) {
                outputs.extend(part.of_prompt.map(|prompt| self.output_of_prompt(name, prompt)));
            } else if is_first || &**name != CACHED {
                outputs.push(self.output(name, part));
            }
        }
        Response { outputs, ..Response::default() }
    }

    fn output_of_prompt(&self, name: &Arc<str>, prompt: OfPrompt<'_>) -> Tensor {
        let name = Arc::clone(name);
        match &*name {
            "prompt_ids" => self.tokens(name, prompt.tokens),
            "prompt_log_probs" => self.values(name, prompt.log_probs),
            "prompt_top_logprob_ids" => self.likeliest_ids(name, prompt.log_probs),
            "prompt_top_logprob_values" => self.likeliest_values(name, prompt.log_probs),
            _ => {
                let RawRows { vocabulary, values } = prompt.logits;
                let rows = values.len() / vocabulary.max(1);
                Tensor::from_vec(name, &self.shape(&[rows, vocabulary]), values.to_vec())
            }
        }
    }

    fn output(&self, name: &Arc<str>, part: Part<'_>) -> Tensor {
        let (before, new) = part.text.split_at(part.text.len() - part.new);
        let name = Arc::clone(name);
        let one = self.shape(&[1]);
        match &*name {
            "output_ids" => self.tokens(name, new),
            "context_ids" => self.tokens(name, &before[before.len().saturating_sub(CONTEXT)..]),
            "sequence_length" => Tensor::from_vec(name, &one, vec![part.generated as i32]),
            "is_final" => Tensor::from_bools(name, &one, &[part.finish.is_some()]),
            INDEX => Tensor::from_vec(name, &one, vec![part.index as i32]),
            CACHED => Tensor::from_vec(name, &one, vec![part.cached as i32]),
            "cum_log_probs" => Tensor::from_vec(name, &one, vec![part.log_probs.sum]),
            "output_log_probs" => self.values(name, part.log_probs),
            "top_logprob_ids" => self.likeliest_ids(name, part.log_probs),
            "top_logprob_values" => self.likeliest_values(name, part.log_probs),
            "generation_logits" => {
                let RawRows { vocabulary, values } = part.logits;
                // The first dimension is that of beams, of which there is one.
                let shape = [1, values.len() / vocabulary.max(1), vocabulary];
                Tensor::from_vec(name, &self.shape(&shape), values.to_vec())
            }
            // Empty until the last, so that what reads it finds it in every response.
            _ => Tensor::from_strings(name, &one, &[part.finish.map_or("", Finish::name)]),
        }
    }

    fn tokens(&self, name: Arc<str>, tokens: &[Token]) -> Tensor {
        let ids: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
        Tensor::from_vec(name, &self.shape(&[ids.len()]), ids)
    }

    fn values(&self, name: Arc<str>, log_probs: Spoken<'_>) -> Tensor {
        let values = log_probs.tokens.to_vec();
        Tensor::from_vec(name, &self.shape(&[values.len()]), values)
    }

    fn likeliest_ids(&self, name: Arc<str>, log_probs: Spoken<'_>) -> Tensor {
        let ids = log_probs.likeliest.iter().map(|(token, _)| *token as i32);
        Tensor::from_vec(name, &self.table(log_probs), ids.collect())
    }

    fn likeliest_values(&self, name: Arc<str>, log_probs: Spoken<'_>) -> Tensor {
        let values = log_probs.likeliest.iter().map(|(_, value)| *value);
        Tensor::from_vec(name, &self.table(log_probs), values.collect())
    }

    /// A row of alternatives for each token.
    fn table(&self, log_probs: Spoken<'_>) -> Vec<i64> {
        self.shape(&[log_probs.tokens.len(), log_probs.alternatives])
    }

    fn shape(&self, dims: &[usize]) -> Vec<i64> {
        let batch = self.is_batching.then_some(1);
        batch.into_iter().chain(dims.iter().map(|dim| *dim as i64)).collect()
    }
}
