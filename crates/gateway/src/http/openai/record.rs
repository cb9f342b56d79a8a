//! What is told of a request to a model of text: its span's attributes, and metrics, in the words of
//! OpenTelemetry's conventions for generative AI.

use consort_telemetry::semconv::gen_ai;
use consort_telemetry::{
    Generating, GenerationRequest, Operation, Pace, TokenCounts, generation_asked, generation_ended,
};
use tracing::Span;

use super::caller::Caller;
use super::counts::Usage;
use super::inputs::{Input, Setting};
use super::sampling::{RESPONSE_FORMAT, Sampling};
use crate::http::Front;

/// The fields of a request that are numbers, and the attributes that they become.
const NUMBERS: [(&str, &str); 5] = [
    ("temperature", gen_ai::TEMPERATURE),
    ("top_p", gen_ai::TOP_P),
    ("top_k", gen_ai::TOP_K),
    ("frequency_penalty", gen_ai::FREQUENCY_PENALTY),
    ("presence_penalty", gen_ai::PRESENCE_PENALTY),
];

/// A request on its way, and what is known of its end.
pub(super) struct Record {
    generating: Generating,
    span: Span,
    reasons: Vec<&'static str>,
}

impl Record {
    /// Begins with what the request asks for.
    pub(super) fn begin(
        front: &Front,
        caller: &Caller,
        operation: Operation,
        sampling: Option<&Sampling>,
    ) -> Self {
        let model = &caller.model;
        if !caller.span.is_disabled() {
            let asked = sampling.map(asked).unwrap_or_default();
            let asked = GenerationRequest { response_id: &caller.id, ..asked };
            generation_asked(&caller.span, operation, model, &asked);
        }
        Self {
            generating: front.options.metrics.generation(operation, model).begin(),
            span: caller.span.clone(),
            reasons: Vec::new(),
        }
    }

    /// The pace of one of its texts.
    pub(super) fn pace(&self) -> Pace {
        self.generating.pace()
    }

    /// Notes why one of its texts ended.
    pub(super) fn text_ended(&mut self, reason: &'static str) {
        self.reasons.push(reason);
    }

    /// Notes that it was answered, over so many tokens.
    pub(super) fn answered(&mut self, usage: Usage) {
        let tokens = TokenCounts { input: usage.prompt, output: usage.completion };
        self.generating.succeeded(tokens);
        generation_ended(&self.span, tokens, &self.reasons);
    }

    /// Notes the kind of failure that ended it.
    pub(super) fn failed(&mut self, error_type: &'static str) {
        self.generating.failed(error_type);
    }
}

fn asked(sampling: &Sampling) -> GenerationRequest<'static> {
    let is_json = sampling.settings.iter().any(|setting| setting.field == RESPONSE_FORMAT);
    GenerationRequest {
        max_tokens: sampling.max_tokens,
        // As the conventions want it: only when it is not 1.
        choices: Some(sampling.choices as i64).filter(|choices| *choices != 1),
        seed: sampling.seed,
        numbers: sampling.settings.iter().filter_map(number).collect(),
        output_type: Some(if is_json { "json" } else { "text" }),
        response_id: "",
    }
}

fn number(setting: &Setting) -> Option<(&'static str, f64)> {
    let (_, name) = NUMBERS.into_iter().find(|(field, _)| *field == setting.field)?;
    let value = match setting.value {
        // A temperature of 0 is told to the model as a choice among one.
        Input::Integer(_) if setting.input != setting.field => 0.0,
        Input::Integer(value) => value as f64,
        Input::Number(value) => value,
        _ => return None,
    };
    Some((name, value))
}
