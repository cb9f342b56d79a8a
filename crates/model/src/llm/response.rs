//! Makes the responses of a sequence: new tokens, those before them, and how the text ended.

use std::sync::Arc;

use consort_stage::{DataType, Request, Response, Tensor};

use super::decoder::Token;
use super::log_probs::Spoken;
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
];

/// That which comes only to a request for several sequences: with one it is 0 and says nothing.
const INDEX: &str = "sequence_index";

/// That which comes only in the first response of a text: it is the same in all.
const CACHED: &str = "cached_tokens";

/// Those that come only to a request that asks for log-probabilities: an ensemble names all that
/// its steps map, whatever its caller asks for.
const ON_DEMAND: [&str; 4] =
    ["cum_log_probs", "output_log_probs", "top_logprob_ids", "top_logprob_values"];

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
        let wants_log_probs = generation.wants_any_log_probs();
        let is_named = |name: &Arc<str>| {
            // An ensemble names it whatever its caller asks for.
            if &**name == INDEX && generation.texts == 1 {
                return false;
            }
            let is_on_demand = ON_DEMAND.contains(&&**name) && !wants_log_probs;
            (request.outputs.is_empty() || request.outputs.contains(name)) && !is_on_demand
        };
        Self { names: self.names.iter().filter(|name| is_named(name)).cloned().collect(), ..*self }
    }

    /// The response for a part of the text; that it is the last of its request is for others to
    /// say.
    pub(crate) fn response(&self, part: Part<'_>) -> Response {
        let is_first = part.generated <= part.new;
        let names = self.names.iter().filter(|name| is_first || &***name != CACHED);
        let outputs = names.map(|name| self.output(name, part));
        Response { outputs: outputs.collect(), ..Response::default() }
    }

    fn output(&self, name: &Arc<str>, part: Part<'_>) -> Tensor {
        let (before, new) = part.text.split_at(part.text.len() - part.new);
        let name = Arc::clone(name);
        let one = self.shape(1);
        match &*name {
            "output_ids" => self.tokens(name, new),
            "context_ids" => self.tokens(name, &before[before.len().saturating_sub(CONTEXT)..]),
            "sequence_length" => Tensor::from_vec(name, &one, vec![part.generated as i32]),
            "is_final" => Tensor::from_bools(name, &one, &[part.finish.is_some()]),
            INDEX => Tensor::from_vec(name, &one, vec![part.index as i32]),
            CACHED => Tensor::from_vec(name, &one, vec![part.cached as i32]),
            "cum_log_probs" => Tensor::from_vec(name, &one, vec![part.log_probs.sum]),
            "output_log_probs" => {
                let values = part.log_probs.tokens.to_vec();
                Tensor::from_vec(name, &self.shape(values.len()), values)
            }
            "top_logprob_ids" => {
                let ids = part.log_probs.likeliest.iter().map(|(token, _)| *token as i32);
                Tensor::from_vec(name, &self.table(part.log_probs), ids.collect())
            }
            "top_logprob_values" => {
                let values = part.log_probs.likeliest.iter().map(|(_, value)| *value);
                Tensor::from_vec(name, &self.table(part.log_probs), values.collect())
            }
            // Empty until the last, so that what reads it finds it in every response.
            _ => Tensor::from_strings(name, &one, &[part.finish.map_or("", Finish::name)]),
        }
    }

    fn tokens(&self, name: Arc<str>, tokens: &[Token]) -> Tensor {
        let ids: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
        Tensor::from_vec(name, &self.shape(ids.len()), ids)
    }

    /// A row of alternatives for each token.
    fn table(&self, log_probs: Spoken<'_>) -> Vec<i64> {
        let mut shape = self.shape(log_probs.tokens.len());
        shape.push(log_probs.alternatives as i64);
        shape
    }

    fn shape(&self, length: usize) -> Vec<i64> {
        let batch = self.is_batching.then_some(1);
        batch.into_iter().chain([length as i64]).collect()
    }
}
