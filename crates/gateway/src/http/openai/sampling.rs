//! How a text is to be continued: the fields that completions and chat completions share.

use serde_json::Value;

use super::error::Refusal;
use super::fields::{Fields, mismatch};
use super::inputs::{Input, Setting};
use super::prompt_log_probs;

/// How many choices one request may ask for, over all its prompts.
pub(super) const MOST_CHOICES: usize = 128;

/// How many stop words there may be, as at OpenAI.
const MOST_STOPS: usize = 4;

/// How many of the likeliest tokens may be told in the place of each, as in chats at OpenAI.
pub(super) const MOST_LOG_PROBS: i64 = 20;

/// The field of chats that says what form the answer is to have.
pub(super) const RESPONSE_FORMAT: &str = "response_format";

const MOST_TOKENS: i64 = i32::MAX as i64;

/// How a text is to be continued.
#[derive(Debug)]
pub(super) struct Sampling {
    /// How many choices there are for a prompt.
    pub(super) choices: usize,
    /// The words that end a text.
    pub(super) stop: Vec<String>,
    /// How many tokens there are at most, when the request says.
    pub(super) max_tokens: Option<i64>,
    /// The seed of the first choice; the others count up from it.
    pub(super) seed: Option<i64>,
    /// How many of the likeliest tokens are told in the place of each, when the tokens'
    /// log-probabilities are wanted.
    pub(super) log_probs: Option<usize>,
    /// The same of the tokens of the prompt, when anything of those is needed.
    pub(super) prompt_log_probs: Option<usize>,
    /// Whether the answer comes in pieces.
    pub(super) is_streaming: bool,
    /// Whether a stream ends with the usage.
    pub(super) includes_usage: bool,
    /// What the model is told beside these.
    pub(super) settings: Vec<Setting>,
}

impl Sampling {
    /// Reads the shared fields; what a model takes by the fields' own names stays for later.
    /// A text has so many tokens at least.
    pub(super) fn read(fields: &mut Fields, least: i64) -> Result<Self, Refusal> {
        let is_streaming = fields.flag("stream")?;
        let choices = fields.integer("n", 1..=MOST_CHOICES as i64)?.unwrap_or(1) as usize;
        Ok(Self {
            choices,
            stop: stop(fields)?,
            max_tokens: fields.integer("max_tokens", least..=MOST_TOKENS)?,
            seed: fields.integer("seed", i64::MIN..=i64::MAX)?,
            log_probs: None,
            prompt_log_probs: None,
            is_streaming,
            includes_usage: includes_usage(fields, is_streaming)?,
            settings: settings(fields)?,
        })
    }

    /// The settings that tell one choice of a prompt from the others.
    pub(super) fn of_choice(&self, choice: usize) -> impl Iterator<Item = Setting> {
        let seed = self.seed.map(|seed| seed.wrapping_add(choice as i64));
        let seed = seed.map(|seed| Setting::new("seed", "random_seed", Input::Integer(seed)));
        let alternatives = self.prompt_log_probs.filter(|_| self.asks_of_prompt(choice));
        let of_prompt = alternatives.map(|alternatives| {
            let count = Input::Integer(alternatives as i64);
            Setting::new(self.field_of_prompt(), prompt_log_probs::ASKED, count)
        });
        seed.into_iter().chain(of_prompt)
    }

    /// Whether this choice of a prompt is told of it, if any is: the first, and where nothing is
    /// added each, which would be nothing else.
    pub(super) fn asks_of_prompt(&self, choice: usize) -> bool {
        choice == 0 || self.max_tokens == Some(0)
    }

    /// The settings of every choice.
    pub(super) fn of_all(&self) -> impl Iterator<Item = Setting> {
        let tokens = self.max_tokens.map(Input::Integer);
        let tokens = tokens.map(|tokens| Setting::new("max_tokens", "max_tokens", tokens));
        let log_probs = self.log_probs.into_iter().flat_map(|alternatives| {
            let count = Input::Integer(alternatives as i64);
            let count = Setting::new("logprobs", "top_logprobs", count);
            let asked = Setting::new("logprobs", "return_log_probs", Input::Flag(true));
            [Some(asked), Some(count).filter(|_| alternatives > 0)].into_iter().flatten()
        });
        self.settings.iter().cloned().chain(tokens).chain(log_probs)
    }

    /// The field that asks for what is needed of the prompt's tokens.
    pub(super) fn field_of_prompt(&self) -> &'static str {
        if self.log_probs.is_some() { "logprobs" } else { "echo" }
    }
}

/// The limit under chat's newer name, which counts when both are given.
pub(super) fn max_completion_tokens(
    fields: &mut Fields,
    sampling: &mut Sampling,
) -> Result<(), Refusal> {
    let limit = fields.integer("max_completion_tokens", 1..=MOST_TOKENS)?;
    sampling.max_tokens = limit.or(sampling.max_tokens);
    Ok(())
}

fn settings(fields: &mut Fields) -> Result<Vec<Setting>, Refusal> {
    let mut settings = Vec::new();
    match fields.number("temperature", 0.0..=2.0)? {
        // The likeliest token, said in a way that every model understands.
        Some(0.0) => settings.push(Setting::new("temperature", "top_k", Input::Integer(1))),
        Some(value) => {
            settings.push(Setting::new("temperature", "temperature", Input::Number(value)));
        }
        None => {}
    }
    if let Some(value) = fields.number("top_p", 0.0..=1.0)? {
        // No share at all is the likeliest token alone; models want a share above 0.
        let share = value.max(f64::from(f32::MIN_POSITIVE));
        settings.push(Setting::new("top_p", "top_p", Input::Number(share)));
    }
    for name in ["presence_penalty", "frequency_penalty"] {
        let penalty = fields.number(name, -2.0..=2.0)?.filter(|penalty| *penalty != 0.0);
        settings.extend(penalty.map(|value| Setting::new(name, name, Input::Number(value))));
    }
    settings.extend(logit_bias(fields)?);
    Ok(settings)
}

/// What is added to the logits of some tokens: an object of numbers by the tokens' ids.
fn logit_bias(fields: &mut Fields) -> Result<Vec<Setting>, Refusal> {
    let name = "logit_bias";
    let biases = match fields.take(name) {
        None => return Ok(Vec::new()),
        Some(Value::Object(biases)) if biases.is_empty() => return Ok(Vec::new()),
        Some(Value::Object(biases)) => biases,
        Some(other) => return Err(mismatch(name, "an object of numbers by token ids", &other)),
    };
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    for (id, weight) in biases {
        let (id, weight) = (id.parse().ok(), weight.as_f64());
        let within = |weight: &f64| (-100.0..=100.0).contains(weight);
        let (Some(id), Some(weight)) = (id, weight.filter(within)) else {
            let text = "`logit_bias` must have numbers from -100 to 100 by the ids of tokens";
            return Err(Refusal::of(name, text));
        };
        ids.push(id);
        weights.push(weight);
    }
    let set = |input, value| Setting::new(name, input, value);
    Ok(vec![
        set("logit_bias_ids", Input::Integers(ids)),
        set("logit_bias_weights", Input::Numbers(weights)),
    ])
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let wanted = "a string or a list of strings";
    let words = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|word| match word {
                Value::String(word) => Ok(word),
                other => Err(mismatch("stop", wanted, &other)),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(mismatch("stop", wanted, &other)),
    };
    if words.len() > MOST_STOPS {
        let text = format!("`stop` has {} words; there may be {MOST_STOPS}", words.len());
        return Err(Refusal::of("stop", text));
    }
    if words.iter().any(String::is_empty) {
        return Err(Refusal::of("stop", "`stop` has an empty word"));
    }
    Ok(words)
}

fn includes_usage(fields: &mut Fields, is_streaming: bool) -> Result<bool, Refusal> {
    let Some(options) = fields.take("stream_options") else { return Ok(false) };
    let Value::Object(mut options) = options else {
        return Err(mismatch("stream_options", "an object", &options));
    };
    if !is_streaming {
        let text = "`stream_options` is for requests with `stream` set to true";
        return Err(Refusal::of("stream_options", text));
    }
    // Padding against an eavesdropper who measures the pieces: it says nothing.
    options.remove("include_obfuscation");
    let name = "stream_options.include_usage";
    let includes = match options.remove("include_usage") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => flag,
        Some(other) => return Err(mismatch(name, "true or false", &other)),
    };
    match options.keys().next() {
        None => Ok(includes),
        Some(key) => Err(super::fields::unrecognized(&format!("stream_options.{key}"))),
    }
}
