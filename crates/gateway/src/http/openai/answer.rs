//! The JSON objects of completions and chat completions.

use std::time::SystemTime;

use consort_telemetry::Operation;
use serde_json::{Value, json};

use super::counts::Usage;
use super::log_probs::{self, Token};

/// Which of the two an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The continuation of a text.
    Completion,
    /// The next message of a chat.
    Chat,
}

impl Kind {
    /// What the model does for it.
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Completion => Operation::TextCompletion,
            Self::Chat => Operation::Chat,
        }
    }

    /// The field that its prompt is made of.
    pub(super) fn prompt(self) -> &'static str {
        match self {
            Self::Completion => "prompt",
            Self::Chat => "messages",
        }
    }
}

/// What all objects of one answer have in common.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// What it is the answer to.
    pub(super) kind: Kind,
    /// What it is called.
    pub(super) id: String,
    /// The model's name.
    pub(super) model: String,
    /// When it began, in seconds since 1970.
    pub(super) created: u64,
}

/// A choice that is whole.
pub(super) struct Whole {
    /// Its text.
    pub(super) text: String,
    /// Its tokens, where their probabilities are wanted.
    pub(super) log_probs: Option<Vec<Token>>,
    /// Why it ended.
    pub(super) finish: &'static str,
}

/// The seconds since 1970.
pub(super) fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs())
}

impl Answer {
    /// The whole answer.
    pub(super) fn whole(&self, choices: &[Whole], usage: Usage) -> Value {
        let choice = |(index, choice): (usize, &Whole)| {
            let (text, finish) = (&choice.text, choice.finish);
            let logprobs = self.log_probs(choice.log_probs.as_deref());
            match self.kind {
                Kind::Completion => json!({
                    "index": index,
                    "text": text,
                    "logprobs": logprobs,
                    "finish_reason": finish,
                }),
                Kind::Chat => json!({
                    "index": index,
                    "message": {"role": "assistant", "content": text, "refusal": null},
                    "logprobs": logprobs,
                    "finish_reason": finish,
                }),
            }
        };
        let choices: Vec<Value> = choices.iter().enumerate().map(choice).collect();
        let object = match self.kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion",
        };
        let mut answer = self.object(object, &choices);
        let usage = usage.json();
        if !usage.is_null() {
            answer["usage"] = usage;
        }
        answer
    }

    fn log_probs(&self, tokens: Option<&[Token]>) -> Value {
        tokens.map_or(Value::Null, |tokens| log_probs::json(self.kind, tokens))
    }

    /// The object of this kind with these choices.
    pub(super) fn object(&self, object: &str, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}
