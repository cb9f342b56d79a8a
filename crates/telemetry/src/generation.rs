//! What generating text costs in time and tokens, in the words of OpenTelemetry's conventions for
//! generative AI.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use opentelemetry::{Array, StringValue, Value};
use parking_lot::Mutex;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::histogram::{GENERATION_SECONDS, Histogram, TOKEN_COUNTS, TOKEN_SECONDS};
use crate::semconv::gen_ai;

/// Who generates, as the conventions ask for it.
const PROVIDER: &str = "consort";

/// What a model was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To answer the messages of a chat.
    Chat,
    /// To continue a text, or tokens.
    TextCompletion,
    /// To embed texts.
    Embeddings,
}

impl Operation {
    /// The value of `gen_ai.operation.name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }
}

/// Counts the requests of one kind to one model.
#[derive(Debug)]
pub struct GenerationMeter {
    /// By the kind of the failure; under the empty kind those that were answered.
    durations: Mutex<BTreeMap<&'static str, Arc<Histogram>>>,
    pub(crate) first_token: Histogram,
    pub(crate) per_token: Histogram,
    pub(crate) input_tokens: Histogram,
    pub(crate) output_tokens: Histogram,
}

impl Default for GenerationMeter {
    fn default() -> Self {
        Self {
            durations: Mutex::default(),
            first_token: Histogram::new(TOKEN_SECONDS),
            per_token: Histogram::new(TOKEN_SECONDS),
            input_tokens: Histogram::new(TOKEN_COUNTS),
            output_tokens: Histogram::new(TOKEN_COUNTS),
        }
    }
}

impl GenerationMeter {
    /// Begins to count a request; it counts as cancelled until it is said to have ended otherwise.
    pub fn begin(self: &Arc<Self>) -> Generating {
        Generating { meter: Arc::clone(self), begun_at: Instant::now(), failure: "cancelled" }
    }

    /// The durations by the kind of the failure.
    pub(crate) fn durations(&self) -> Vec<(&'static str, Arc<Histogram>)> {
        let durations = self.durations.lock();
        durations.iter().map(|(kind, histogram)| (*kind, Arc::clone(histogram))).collect()
    }

    fn duration(&self, failure: &'static str) -> Arc<Histogram> {
        let mut durations = self.durations.lock();
        let new = || Arc::new(Histogram::new(GENERATION_SECONDS));
        Arc::clone(durations.entry(failure).or_insert_with(new))
    }
}

/// One request on its way; dropping it counts it.
#[derive(Debug)]
pub struct Generating {
    meter: Arc<GenerationMeter>,
    begun_at: Instant,
    failure: &'static str,
}

impl Generating {
    /// The pace of one of its texts.
    pub fn pace(&self) -> Pace {
        Pace {
            meter: Arc::clone(&self.meter),
            begun_at: self.begun_at,
            first_at: None,
            last_at: self.begun_at,
            later: 0,
        }
    }

    /// Says that it was answered, over how many tokens, as far as the model tells.
    pub fn succeeded(&mut self, tokens: TokenCounts) {
        self.failure = "";
        if let Some(count) = tokens.input {
            self.meter.input_tokens.count_value(count);
        }
        if let Some(count) = tokens.output {
            self.meter.output_tokens.count_value(count);
        }
    }

    /// Says what kind of failure ended it.
    pub fn failed(&mut self, error_type: &'static str) {
        self.failure = error_type;
    }
}

impl Drop for Generating {
    fn drop(&mut self) {
        self.meter.duration(self.failure).observe(self.begun_at.elapsed());
    }
}

/// The tokens of a request, as far as its model tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Those of the prompts.
    pub input: Option<u64>,
    /// Those that were generated.
    pub output: Option<u64>,
}

/// How fast the tokens of one text come.
#[derive(Debug)]
pub struct Pace {
    meter: Arc<GenerationMeter>,
    begun_at: Instant,
    first_at: Option<Instant>,
    last_at: Instant,
    /// The tokens behind those of the first response.
    later: u64,
}

impl Pace {
    /// Notes a response of so many tokens, unless all of the text comes in this one: then nothing
    /// can be told of its pace.
    pub fn came(&mut self, tokens: u64, is_only: bool) {
        if tokens == 0 || is_only && self.first_at.is_none() {
            return;
        }
        let now = Instant::now();
        self.last_at = now;
        if self.first_at.is_some() {
            self.later += tokens;
        } else {
            self.first_at = Some(now);
            self.meter.first_token.observe(now - self.begun_at);
        }
    }

    /// Notes that the text is whole: the time that each token after the first took.
    pub fn ended(self) {
        let Some(first_at) = self.first_at else { return };
        if let Ok(tokens) = u32::try_from(self.later)
            && tokens > 0
        {
            self.meter.per_token.observe((self.last_at - first_at) / tokens);
        }
    }
}

/// What a request asks for, as far as it says.
#[derive(Clone, Debug, Default)]
pub struct GenerationRequest<'a> {
    /// The most tokens to generate.
    pub max_tokens: Option<i64>,
    /// How many texts there are to be.
    pub choices: Option<i64>,
    /// The seed.
    pub seed: Option<i64>,
    /// Numbers by the names of their attributes.
    pub numbers: Vec<(&'static str, f64)>,
    /// What the text is to be: `text` or `json`.
    pub output_type: Option<&'static str>,
    /// What the response is called.
    pub response_id: &'a str,
}

/// Notes on a request's span what is asked of a model.
pub fn generation_asked(
    span: &Span,
    operation: Operation,
    model: &str,
    asked: &GenerationRequest<'_>,
) {
    if span.is_disabled() {
        return;
    }
    let set = |key: &'static str, value: Value| span.set_attribute(key, value);
    set(gen_ai::OPERATION, operation.as_str().into());
    set(gen_ai::PROVIDER, PROVIDER.into());
    for key in [gen_ai::REQUEST_MODEL, gen_ai::RESPONSE_MODEL] {
        set(key, model.to_owned().into());
    }
    let whole = [
        (gen_ai::MAX_TOKENS, asked.max_tokens),
        (gen_ai::CHOICES, asked.choices),
        (gen_ai::SEED, asked.seed),
    ];
    for (key, value) in whole {
        if let Some(value) = value {
            set(key, value.into());
        }
    }
    for (key, value) in &asked.numbers {
        set(key, (*value).into());
    }
    if let Some(kind) = asked.output_type {
        set(gen_ai::OUTPUT_TYPE, kind.into());
    }
    if !asked.response_id.is_empty() {
        set(gen_ai::RESPONSE_ID, asked.response_id.to_owned().into());
    }
}

/// Notes on a request's span what came of it: its tokens, and why each text ended.
pub fn generation_ended(span: &Span, tokens: TokenCounts, reasons: &[&'static str]) {
    if span.is_disabled() {
        return;
    }
    for (key, count) in
        [(gen_ai::INPUT_TOKENS, tokens.input), (gen_ai::OUTPUT_TOKENS, tokens.output)]
    {
        if let Some(count) = count {
            span.set_attribute(key, i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    if !reasons.is_empty() {
        let reasons = reasons.iter().map(|reason| StringValue::from(*reason)).collect();
        span.set_attribute(gen_ai::FINISH_REASONS, Value::Array(Array::String(reasons)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_text_in_pieces_has_a_first_token_and_a_time_for_each_later_one() {
        let meter = Arc::new(GenerationMeter::default());
        let mut request = meter.begin();
        let mut pace = request.pace();
        pace.came(0, false);
        assert_eq!(meter.first_token.count(), 0);
        pace.came(3, false);
        std::thread::sleep(Duration::from_millis(20));
        pace.came(2, true);
        assert_eq!((meter.first_token.count(), meter.per_token.count()), (1, 0));
        pace.ended();
        assert_eq!(meter.per_token.count(), 1);
        let each = Duration::from_nanos(meter.per_token.sum());
        assert!(each >= Duration::from_millis(10) && each < Duration::from_secs(5), "{each:?}");
        request.succeeded(TokenCounts { input: Some(7), output: Some(5) });
        drop(request);
        assert_eq!((meter.input_tokens.sum(), meter.output_tokens.sum()), (7, 5));
        let [(kind, duration)] = &meter.durations()[..] else { panic!("one kind of end") };
        assert_eq!((*kind, duration.count()), ("", 1));
    }

    #[test]
    fn nothing_is_told_of_the_pace_of_a_text_that_comes_at_once() {
        let meter = Arc::new(GenerationMeter::default());
        let mut pace = meter.begin().pace();
        pace.came(9, true);
        pace.ended();
        assert_eq!((meter.first_token.count(), meter.per_token.count()), (0, 0));
    }

    #[test]
    fn a_request_that_nobody_ends_was_cancelled_and_a_failed_one_says_how() {
        let meter = Arc::new(GenerationMeter::default());
        drop(meter.begin());
        meter.begin().failed("overloaded");
        let ends = meter.durations();
        let ends: Vec<_> = ends.iter().map(|(kind, ends)| (*kind, ends.count())).collect();
        assert_eq!(ends, [("cancelled", 1), ("overloaded", 1)]);
        assert_eq!(meter.input_tokens.count(), 0);
    }
}
