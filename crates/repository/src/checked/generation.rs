//! Counts the tokens of a request to a model that continues tokens, whatever asks it.

use std::sync::Arc;

use consort_stage::{DataType, Request, Response, Signature, Tensor};
use consort_telemetry::{
    Generating, GenerationMeter, GenerationRequest, Operation, Pace, TokenCounts, generation_asked,
    generation_ended,
};
use tracing::Span;

/// The tensors that make a model one, named as in TensorRT-LLM's ensembles.
const TOKENS_IN: &str = "input_ids";
const LENGTH_IN: &str = "input_lengths";
const TOKENS_OUT: &str = "output_ids";
const REASON: &str = "finish_reason";

/// Whether a model of this signature continues tokens.
pub(crate) fn continues_tokens(signature: &Signature) -> bool {
    let is_ids = |datatype| matches!(datatype, DataType::Int32 | DataType::Int64);
    let is_input = signature.input(TOKENS_IN).is_some_and(|spec| is_ids(spec.datatype));
    is_input && signature.output(TOKENS_OUT).is_some_and(|spec| is_ids(spec.datatype))
}

/// A request to such a model, and what is known of its end.
pub(super) struct Generation {
    generating: Generating,
    pace: Option<Pace>,
    tokens: TokenCounts,
    reason: Option<&'static str>,
    span: Option<Span>,
}

impl Generation {
    /// Begins to count a request.
    pub(super) fn begin(meter: &Arc<GenerationMeter>, model: &str, request: &Request) -> Self {
        let span = request.context.span.clone().filter(|span| !span.is_disabled());
        if let Some(span) = &span {
            let asked = GenerationRequest {
                max_tokens: request.input("request_output_len").and_then(first),
                ..GenerationRequest::default()
            };
            generation_asked(span, Operation::TextCompletion, model, &asked);
        }
        let length = request.input(LENGTH_IN).and_then(first);
        let length = length.and_then(|length| u64::try_from(length).ok());
        let input = length.or_else(|| Some(request.input(TOKENS_IN)?.len() as u64));
        let generating = meter.begin();
        Self {
            pace: Some(generating.pace()),
            generating,
            tokens: TokenCounts { input, output: None },
            reason: None,
            span,
        }
    }

    /// Notes a response.
    pub(super) fn came(&mut self, response: &Response) {
        let Some(tokens) = response.output(TOKENS_OUT).map(|tokens| tokens.len() as u64) else {
            return;
        };
        *self.tokens.output.get_or_insert(0) += tokens;
        if let Some(pace) = &mut self.pace {
            pace.came(tokens, response.is_last);
        }
        if response.is_last {
            let reason = response.output(REASON).and_then(|reason| reason.to_strings().ok());
            self.reason = match reason.as_deref() {
                Some([b"stop"]) => Some("stop"),
                Some([b"length"]) => Some("length"),
                _ => None,
            };
        }
    }

    /// Notes that it was answered, in full or as far as its caller wanted it.
    pub(super) fn answered(&mut self, is_cut: bool) {
        if is_cut {
            self.reason.get_or_insert("stop");
        }
        self.generating.succeeded(self.tokens);
        if let Some(pace) = self.pace.take() {
            pace.ended();
        }
        if let Some(span) = &self.span {
            generation_ended(span, self.tokens, self.reason.as_slice());
        }
    }

    /// Notes the kind of failure that ended it.
    pub(super) fn failed(&mut self, error_type: &'static str) {
        self.generating.failed(error_type);
    }
}

/// The first of a tensor's whole numbers.
fn first(tensor: &Tensor) -> Option<i64> {
    match tensor.datatype {
        DataType::Int32 => tensor.to_slice::<i32>().ok()?.first().copied().map(i64::from),
        DataType::Uint32 => tensor.to_slice::<u32>().ok()?.first().copied().map(i64::from),
        _ => tensor.to_slice::<i64>().ok()?.first().copied(),
    }
}
