//! A prompt of a completion: a text, or the tokens that one would become.

use serde_json::Value;

use super::error::Refusal;
use super::fields::{Fields, mismatch};

/// What a model is to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    /// A text, which the model's own steps tokenize.
    Text(String),
    /// The ids of tokens, taken as they are.
    Tokens(Vec<i64>),
}

/// What a prompt, and a list of them, may be.
const WANTED: &str = "a string, token ids or a list of either";

impl Prompt {
    /// The prompts of a request.
    pub(super) fn read(fields: &mut Fields) -> Result<Vec<Self>, Refusal> {
        let list = match fields.require("prompt")? {
            Value::String(prompt) => return Ok(vec![Self::Text(prompt)]),
            Value::Array(list) => list,
            other => return Err(mismatch("prompt", WANTED, &other)),
        };
        if list.is_empty() {
            return Err(Refusal::of("prompt", "`prompt` is an empty list"));
        }
        if list.iter().all(Value::is_number) {
            return Ok(vec![Self::of_tokens(&list)?]);
        }
        let prompt = |prompt| match prompt {
            Value::String(prompt) => Ok(Self::Text(prompt)),
            Value::Array(tokens) => Self::of_tokens(&tokens),
            other => Err(mismatch("prompt", WANTED, &other)),
        };
        list.into_iter().map(prompt).collect()
    }

    fn of_tokens(list: &[Value]) -> Result<Self, Refusal> {
        if list.is_empty() {
            return Err(Refusal::of("prompt", "`prompt` has an empty list of token ids"));
        }
        let token = |value: &Value| {
            let id = value.as_i64().filter(|id| (0..=i64::from(i32::MAX)).contains(id));
            id.ok_or_else(|| {
                Refusal::of("prompt", format!("`prompt` has {value}, which is no token id"))
            })
        };
        list.iter().map(token).collect::<Result<_, _>>().map(Self::Tokens)
    }
}
