//! How many tokens there were, counted by the steps that made and read them.

use consort_stage::{DataType, Response, Signature, Tensor};
use serde_json::{Value, json};

/// The outputs that tell the tokens of a prompt, the best first.
const PROMPT: [&str; 3] = ["input_lengths", "attention_mask", "input_ids"];

/// The best output of a model that tells the tokens of a prompt.
pub(super) fn prompt_output(signature: &Signature) -> Option<&'static str> {
    PROMPT.into_iter().find(|name| signature.output(name).is_some())
}

/// The tokens of the prompts that `response` answers.
pub(super) fn prompt_tokens(response: &Response) -> Option<u64> {
    let tensor = PROMPT.into_iter().find_map(|name| response.output(name))?;
    if &*tensor.name == "input_ids" {
        return Some(tensor.len() as u64);
    }
    sum(tensor)
}

/// The output that tells how many of those were not computed again.
pub(super) const CACHED: &str = "cached_tokens";

/// The tokens of the prompt that were taken over from another request.
pub(super) fn cached_tokens(response: &Response) -> Option<u64> {
    sum(response.output(CACHED)?)
}

/// The tokens that `response` brings.
pub(super) fn completion_tokens(response: &Response) -> Option<u64> {
    response.output("output_ids").map(|tensor| tensor.len() as u64)
}

fn sum(tensor: &Tensor) -> Option<u64> {
    let total: i64 = match tensor.datatype {
        DataType::Int32 => tensor.to_slice::<i32>().ok()?.iter().copied().map(i64::from).sum(),
        DataType::Int64 => tensor.to_slice::<i64>().ok()?.iter().sum(),
        _ => return None,
    };
    u64::try_from(total).ok()
}

/// The tokens of a request, as far as its model tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// Those of the prompts.
    pub(super) prompt: Option<u64>,
    /// Those of the prompts that were not computed again.
    pub(super) cached: Option<u64>,
    /// Those that were generated.
    pub(super) completion: Option<u64>,
}

impl Usage {
    /// Of no prompt at all.
    pub(super) const NONE: Self = Self { prompt: Some(0), cached: Some(0), completion: Some(0) };

    /// Of a text that nothing is known of yet.
    pub(super) const UNKNOWN: Self = Self { prompt: None, cached: None, completion: None };

    /// Both together; what is not known of one is not known of both.
    pub(super) fn and(self, other: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
        Self {
            prompt: sum(self.prompt, other.prompt),
            cached: sum(self.cached, other.cached),
            completion: sum(self.completion, other.completion),
        }
    }

    /// OpenAI's object, or null when the model does not tell.
    pub(super) fn json(self) -> Value {
        let (Some(prompt), Some(completion)) = (self.prompt, self.completion) else {
            return Value::Null;
        };
        let mut usage = json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        });
        if let Some(cached) = self.cached {
            usage["prompt_tokens_details"] = json!({ "cached_tokens": cached });
        }
        usage
    }
}
