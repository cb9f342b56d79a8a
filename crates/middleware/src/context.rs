//! What the layers found out about a request, in the words of a stage.

use std::sync::Arc;

use consort_stage::Context;
use consort_telemetry::Parent;
use http::Extensions;
use tracing::Span;

use crate::Deadline;

/// The context of a request that came through [`JoinTrace`](crate::JoinTrace) and
/// [`EnforceDeadline`](crate::EnforceDeadline); its span is for the server to open.
pub fn context(extensions: &Extensions) -> Context {
    let parent = extensions.get::<Parent>();
    Context {
        deadline: extensions.get::<Deadline>().map(Deadline::at),
        span: None,
        traceparent: parent.map(|parent| Arc::clone(&parent.traceparent)),
        tracestate: parent.and_then(|parent| parent.tracestate.clone()),
        spent: None,
        enough: None,
    }
}

/// The same for a request whose work belongs under `span`, which joins the caller's trace.
pub fn context_in(extensions: &Extensions, span: Span) -> Context {
    if let Some(deadline) = extensions.get::<Deadline>() {
        deadline.concerns(&span);
    }
    context_among(extensions, span)
}

/// The same for one of the requests that a call carries, each of which has a span and an end of its
/// own: whoever answers them says on the span when the call's time is over.
pub fn context_among(extensions: &Extensions, span: Span) -> Context {
    if let Some(parent) = extensions.get::<Parent>() {
        parent.adopt(&span);
    }
    Context { span: (!span.is_disabled()).then_some(span), ..context(extensions) }
}
