//! Opens the spans of a request: what each is called, what it says and what it belongs under.
//!
//! Without an exporter every span is disabled where it would be opened and costs a load and a
//! branch; its arguments are then not even formatted.

use opentelemetry::trace::{Status, TraceContextExt};
use tracing::Span;
use tracing::field::display;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::semconv::attribute;
use crate::semconv::span::{BATCH, COMPUTE, FIRST_RESPONSE, QUEUE, REQUEST, STEP, TARGET};

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As JSON or binary tensors over HTTP.
    Http,
    /// Over gRPC.
    Grpc,
}

impl Protocol {
    /// The value of the attribute `network.protocol.name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// The span of a request that came in, from its reception to its last response.
///
/// An empty version or request id is left out. The caller's context is joined with
/// [`Parent::adopt`](crate::Parent::adopt) before anything opens a span below this one.
pub fn request_span(protocol: Protocol, model: &str, version: &str, request_id: &str) -> Span {
    info_span!(
        target: TARGET,
        parent: None,
        REQUEST,
        otel.name = format_args!("{REQUEST} {model}"),
        otel.kind = "server",
        { attribute::PROTOCOL } = protocol.as_str(),
        { attribute::MODEL_NAME } = model,
        { attribute::MODEL_VERSION } = (!version.is_empty()).then_some(version),
        { attribute::REQUEST_ID } = (!request_id.is_empty()).then_some(request_id),
    )
}

/// The span of one step of an ensemble, from its call to its last response.
pub fn step_span(parent: Option<&Span>, ensemble: &str, step: &str, model: &str) -> Span {
    info_span!(
        target: TARGET,
        parent: parent.and_then(Span::id),
        STEP,
        otel.name = format_args!("{STEP} {model}"),
        { attribute::ENSEMBLE } = ensemble,
        { attribute::STEP } = step,
        { attribute::MODEL_NAME } = model,
    )
}

/// The span of a request's wait for an instance.
pub fn queue_span(parent: Option<&Span>, model: &str, version: u64) -> Span {
    info_span!(
        target: TARGET,
        parent: parent.and_then(Span::id),
        QUEUE,
        { attribute::MODEL_NAME } = model,
        { attribute::MODEL_VERSION } = display(version),
    )
}

/// The span of one execution that several requests share; it belongs under none of them and is
/// [linked](link) with each.
pub fn batch_span(model: &str, version: &str, requests: u64, inferences: u64) -> Span {
    info_span!(
        target: TARGET,
        parent: None,
        BATCH,
        otel.name = format_args!("{BATCH} {model}"),
        { attribute::MODEL_NAME } = model,
        { attribute::MODEL_VERSION } = version,
        { attribute::REQUESTS } = requests,
        { attribute::INFERENCES } = inferences,
    )
}

/// The span of inference itself, under a request that runs alone or under a batch.
pub fn compute_span(parent: Option<&Span>, model: &str, version: u64) -> Span {
    info_span!(
        target: TARGET,
        parent: parent.and_then(Span::id),
        COMPUTE,
        { attribute::MODEL_NAME } = model,
        { attribute::MODEL_VERSION } = display(version),
    )
}

/// Notes on the span of a request that named no version which one answers it.
pub fn version_chosen(span: &Span, version: u64) {
    if !span.is_disabled() {
        span.record(attribute::MODEL_VERSION, display(version));
    }
}

/// Links two spans both ways, such as a batch and a request that rode in it.
pub fn link(one: &Span, other: &Span) {
    if one.is_disabled() || other.is_disabled() {
        return;
    }
    one.add_link(other.context().span().span_context().clone());
    other.add_link(one.context().span().span_context().clone());
}

/// Links a span to another that knows nothing of it.
pub fn link_to(one: &Span, other: &Span) {
    if !one.is_disabled() && !other.is_disabled() {
        one.add_link(other.context().span().span_context().clone());
    }
}

/// Whether a span goes to a collector: it is enabled, and its trace is one of those sampled.
pub fn is_recorded(span: &Span) -> bool {
    !span.is_disabled() && span.context().span().span_context().is_sampled()
}

/// Notes on the request's span that its first response is on its way.
pub fn first_response(span: &Span) {
    if !span.is_disabled() {
        span.add_event(FIRST_RESPONSE, Vec::new());
    }
}

/// Notes on a span that its work failed: the kind of the failure and what the caller is told.
pub fn failed(span: &Span, error_type: &'static str, message: &str) {
    if !span.is_disabled() {
        span.set_attribute(attribute::ERROR_TYPE, error_type);
        span.set_status(Status::error(message.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use http::HeaderMap;
    use opentelemetry::trace::SpanKind;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::semconv::gen_ai;
    use crate::{
        GenerationRequest, Operation, TokenCounts, WorkSpan, extract, generation_asked,
        generation_ended, inject, trace_id,
    };

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const CALLERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[derive(Clone, Debug, Default)]
    struct Collected(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Collected {
        async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().append(&mut batch);
            Ok(())
        }
    }

    /// The spans that end while `act` runs, in the order they end.
    fn record(act: impl FnOnce()) -> Vec<SpanData> {
        let collected = Collected::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(collected.clone()).build();
        let layer = crate::logging::trace_layer(&provider);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, act);
        let spans = collected.0.lock();
        spans.clone()
    }

    fn attribute(span: &SpanData, name: &str) -> Option<String> {
        let attributes = &span.attributes;
        let found = attributes.iter().find(|pair| pair.key.as_str() == name);
        found.map(|pair| pair.value.to_string())
    }

    #[test]
    fn the_spans_of_a_request_form_a_tree_in_the_callers_trace() {
        let spans = record(|| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", CALLER.parse().unwrap());
            headers.insert("tracestate", "a=1".parse().unwrap());
            let request = request_span(Protocol::Http, "generate", "", "r1");
            extract(&headers).unwrap().adopt(&request);
            first_response(&request);
            let step = step_span(Some(&request), "generate", "0", "tokenizer");
            version_chosen(&request, 3);
            let queue = queue_span(Some(&step), "tokenizer", 7);
            assert_eq!(trace_id(Some(&queue), None).as_deref(), Some(CALLERS_TRACE));
            drop((queue, step, request));
        });
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["queue", "step tokenizer", "infer generate"]);
        let [queue, step, request] = &spans[..] else { panic!("three spans") };
        assert_eq!(queue.parent_span_id, step.span_context.span_id());
        assert_eq!(step.parent_span_id, request.span_context.span_id());
        assert_eq!(request.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(request.span_context.trace_state().header(), "a=1");
        assert_eq!(request.span_kind, SpanKind::Server);
        assert_eq!(request.events.events[0].name, FIRST_RESPONSE);
        assert_eq!(attribute(request, attribute::MODEL_VERSION).as_deref(), Some("3"));
        assert_eq!(attribute(queue, attribute::MODEL_VERSION).as_deref(), Some("7"));
        assert_eq!(attribute(step, attribute::MODEL_VERSION), None);
        let id = attribute(request, attribute::REQUEST_ID);
        assert_eq!(id.as_deref(), Some("r1"));
        let protocol = attribute(request, attribute::PROTOCOL);
        assert_eq!(protocol.as_deref(), Some("http"));
    }

    #[test]
    fn a_batch_and_its_requests_are_linked_both_ways() {
        let spans = record(|| {
            let requests = [
                request_span(Protocol::Grpc, "m", "1", "a"),
                request_span(Protocol::Grpc, "m", "1", "b"),
            ];
            let batch = batch_span("m", "1", 2, 5);
            for request in &requests {
                link(&batch, request);
            }
            drop(compute_span(Some(&batch), "m", 1));
            drop((batch, requests));
        });
        let [compute, batch, first, second] = &spans[..] else { panic!("four spans") };
        assert_eq!(compute.parent_span_id, batch.span_context.span_id());
        let linked: Vec<_> = batch.links.iter().map(|link| &link.span_context).collect();
        assert_eq!(linked, [&first.span_context, &second.span_context]);
        assert_eq!(first.links[0].span_context, batch.span_context);
        assert_eq!(second.links.len(), 1);
        let inferences = attribute(batch, attribute::INFERENCES);
        assert_eq!(inferences.as_deref(), Some("5"));
    }

    #[test]
    fn a_span_can_name_another_that_knows_nothing_of_it() {
        let spans = record(|| {
            let request = request_span(Protocol::Grpc, "m", "1", "a");
            let batch = batch_span("m", "1", 1, 1);
            assert!(is_recorded(&request) && !is_recorded(&Span::none()));
            link_to(&batch, &request);
            drop((batch, request));
        });
        let [batch, request] = &spans[..] else { panic!("two spans") };
        assert_eq!(batch.links[0].span_context, request.span_context);
        assert!(request.links.is_empty());
    }

    #[test]
    fn what_was_asked_and_what_came_of_it_is_on_the_span() {
        let spans = record(|| {
            let request = request_span(Protocol::Http, "m", "", "");
            let asked = GenerationRequest {
                max_tokens: Some(9),
                numbers: vec![(gen_ai::TEMPERATURE, 0.5)],
                output_type: Some("text"),
                ..GenerationRequest::default()
            };
            generation_asked(&request, Operation::Chat, "m", &asked);
            let tokens = TokenCounts { input: Some(3), output: None };
            generation_ended(&request, tokens, &["stop", "length"]);
        });
        for (name, value) in [
            (gen_ai::OPERATION, Some("chat")),
            (gen_ai::REQUEST_MODEL, Some("m")),
            (gen_ai::MAX_TOKENS, Some("9")),
            (gen_ai::TEMPERATURE, Some("0.5")),
            (gen_ai::SEED, None),
            (gen_ai::OUTPUT_TYPE, Some("text")),
            (gen_ai::INPUT_TOKENS, Some("3")),
            (gen_ai::OUTPUT_TOKENS, None),
            (gen_ai::FINISH_REASONS, Some(r#"["stop","length"]"#)),
        ] {
            assert_eq!(attribute(&spans[0], name).as_deref(), value, "{name}");
        }
    }

    #[test]
    fn the_recorded_span_is_the_parent_of_what_the_next_process_does() {
        let mut headers = HeaderMap::new();
        let spans = record(|| {
            let request = request_span(Protocol::Grpc, "m", "1", "");
            inject(Some(&request), Some(CALLER), Some("a=1"), &mut headers);
        });
        let context = &spans[0].span_context;
        let expected = format!("00-{}-{}-01", context.trace_id(), context.span_id());
        assert_eq!(headers["traceparent"], expected);
        assert!(!headers.contains_key("tracestate"));
    }

    #[test]
    fn work_that_is_cut_off_has_failed_when_its_time_is_over() {
        let now = Instant::now();
        let spans = record(|| {
            let work = |ends_at| {
                let span = request_span(Protocol::Grpc, "m", "1", "");
                WorkSpan::new(Some(span), ends_at)
            };
            drop(work(Some(now)));
            drop(work(Some(now + Duration::from_hours(1))));
            drop(work(None));
            work(Some(now)).done();
            work(None).failed("internal", "broken");
        });
        let kinds: Vec<_> =
            spans.iter().map(|span| attribute(span, attribute::ERROR_TYPE)).collect();
        let kinds: Vec<_> = kinds.iter().map(Option::as_deref).collect();
        assert_eq!(kinds, [Some("deadline_exceeded"), None, None, None, Some("internal")]);
        assert_eq!(spans[0].status, Status::error("request deadline exceeded"));
    }

    #[test]
    fn a_failure_is_noted_on_its_span() {
        let spans = record(|| {
            let request = request_span(Protocol::Grpc, "m", "1", "");
            failed(&request, "not_found", "no such model");
        });
        assert_eq!(spans[0].status, Status::error("no such model"));
        let kind = attribute(&spans[0], attribute::ERROR_TYPE);
        assert_eq!(kind.as_deref(), Some("not_found"));
    }
}
