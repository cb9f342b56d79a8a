//! Carries a trace from the caller into this process and on to the next, in W3C headers.
//!
//! A caller's trace is passed on as it came when this process records no span of its own.

use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of version 00: `00-`, trace, `-`, span, `-`, flags.
const TRACEPARENT_LENGTH: usize = 55;

/// The longest `tracestate` that is passed on, because the standard lets nobody rely on more.
const TRACESTATE_LIMIT: usize = 512;

/// The caller's trace context, as its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The header `traceparent`, known to be well formed.
    pub traceparent: Arc<str>,
    /// The header `tracestate`, as it came.
    pub tracestate: Option<Arc<str>>,
}

impl Parent {
    /// Puts `span` under the caller's span.
    ///
    /// Must come before anything is opened under `span`; nothing happens to a disabled one.
    pub fn adopt(&self, span: &Span) {
        if span.is_disabled() {
            return;
        }
        if let Some(parent) = self.span_context() {
            let parent = Context::new().with_remote_span_context(parent);
            // The error says that no layer records spans, and then there is nothing to do.
            let _ = span.set_parent(parent);
        }
    }

    fn span_context(&self) -> Option<SpanContext> {
        let fields = Fields::parse(&self.traceparent)?;
        let state = self.tracestate.as_deref().unwrap_or_default();
        Some(SpanContext::new(
            fields.trace,
            fields.span,
            fields.flags,
            true,
            // A state that breaks the rules is dropped alone; the trace itself goes on.
            TraceState::from_str(state).unwrap_or_default(),
        ))
    }
}

/// The caller's trace context, when its headers have one that is well formed.
pub fn extract(headers: &HeaderMap) -> Option<Parent> {
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    let traceparent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    Fields::parse(traceparent)?;
    Some(Parent { traceparent: traceparent.into(), tracestate: extract_state(headers) })
}

/// The `tracestate` headers as one list.
fn extract_state(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut state = String::new();
    for header in headers.get_all(&TRACESTATE) {
        let comma = if state.is_empty() { "" } else { "," };
        state.push_str(comma);
        state.push_str(header.to_str().ok()?);
    }
    (!state.is_empty() && state.len() <= TRACESTATE_LIMIT).then(|| state.into())
}

/// Writes the trace context for the next process: that of `span` when it is recorded, else what
/// the caller sent.
pub fn inject(
    span: Option<&Span>,
    traceparent: Option<&str>,
    tracestate: Option<&str>,
    headers: &mut HeaderMap,
) {
    if let Some(context) = span.and_then(recorded) {
        let state = context.trace_state().header();
        write(headers, &format_traceparent(&context), Some(&state));
    } else if let Some(traceparent) = traceparent {
        write(headers, traceparent, tracestate);
    }
}

fn write(headers: &mut HeaderMap, traceparent: &str, tracestate: Option<&str>) {
    let Ok(traceparent) = HeaderValue::from_str(traceparent) else {
        return;
    };
    headers.insert(&TRACEPARENT, traceparent);
    let state = tracestate.filter(|state| !state.is_empty());
    if let Some(Ok(state)) = state.map(HeaderValue::from_str) {
        headers.insert(&TRACESTATE, state);
    }
}

/// The id of the trace that a request belongs to, for its log lines: that of `span` when it is
/// recorded, else the caller's.
pub fn trace_id(span: Option<&Span>, traceparent: Option<&str>) -> Option<String> {
    let recorded = span.and_then(recorded).map(|context| context.trace_id());
    let trace = recorded.or_else(|| Some(Fields::parse(traceparent?)?.trace));
    trace.map(|trace| trace.to_string())
}

/// The context of a span that a layer records.
fn recorded(span: &Span) -> Option<SpanContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context().span().span_context().clone();
    context.is_valid().then_some(context)
}

fn format_traceparent(context: &SpanContext) -> String {
    let mut text = String::with_capacity(TRACEPARENT_LENGTH);
    // The flags this process does not know are not passed on.
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    write!(text, "00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
        .expect("writing to a string cannot fail");
    text
}

/// The fields of a `traceparent` header.
struct Fields {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

impl Fields {
    /// Reads version 00, and of later versions the part that version 00 has.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let version = hexadecimal(fields.next()?, 2)?;
        let trace = TraceId::from(hexadecimal(fields.next()?, 32)?);
        let span = SpanId::from(hexadecimal(fields.next()?, 16)? as u64);
        let flags = TraceFlags::new(hexadecimal(fields.next()?, 2)? as u8);
        let is_version_known = match version {
            0 => fields.next().is_none(),
            255 => false,
            _ => true,
        };
        let is_valid = trace != TraceId::INVALID && span != SpanId::INVALID;
        (is_version_known && is_valid).then_some(Self { trace, span, flags })
    }
}

/// A number of exactly so many lower-case hexadecimal digits.
fn hexadecimal(digits: &str, length: usize) -> Option<u128> {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != length || !digits.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_malformed_traceparent_is_no_parent() {
        for malformed in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            let headers = headers(&[("traceparent", malformed)]);
            assert_eq!(extract(&headers), None, "{malformed}");
        }
        let twice = headers(&[("traceparent", CALLER), ("traceparent", CALLER)]);
        assert_eq!(extract(&twice), None);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = format!("01{}-more", &CALLER[2..]);
        let headers = headers(&[("traceparent", &later)]);
        assert_eq!(&*extract(&headers).unwrap().traceparent, later);
    }

    #[test]
    fn states_are_joined_and_long_ones_dropped() {
        let two = [("traceparent", CALLER), ("tracestate", "a=1"), ("tracestate", "b=2")];
        let parent = extract(&headers(&two)).unwrap();
        assert_eq!(parent.tracestate.as_deref(), Some("a=1,b=2"));
        let long = "x".repeat(TRACESTATE_LIMIT + 1);
        let parent = extract(&headers(&[("traceparent", CALLER), ("tracestate", &long)])).unwrap();
        assert_eq!(parent.tracestate, None);
    }

    #[test]
    fn the_callers_trace_is_passed_on_as_it_came_when_nothing_is_recorded() {
        let mut written = HeaderMap::new();
        let disabled = Span::none();
        inject(Some(&disabled), Some(CALLER), Some("a=1"), &mut written);
        assert_eq!(written, headers(&[("traceparent", CALLER), ("tracestate", "a=1")]));
        let trace = trace_id(Some(&disabled), Some(CALLER));
        assert_eq!(trace.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    }

    #[test]
    fn nothing_is_written_without_a_trace() {
        let mut written = HeaderMap::new();
        inject(None, None, Some("a=1"), &mut written);
        inject(None, Some("with\nline break"), None, &mut written);
        assert!(written.is_empty());
        assert_eq!(trace_id(None, None), None);
        assert_eq!(trace_id(None, Some("nonsense")), None);
    }
}
