//! Joins a request to its caller's trace.

use std::task::{Context, Poll};

use http::Request;
use tower::{Layer, Service};

/// Puts the caller's trace context into the request's extensions, as a
/// [`Parent`](consort_telemetry::Parent), when its headers have one.
///
/// A request without costs one look-up of a header.
#[derive(Clone, Copy, Debug)]
pub struct JoinTrace;

impl<S> Layer<S> for JoinTrace {
    type Service = JoinTraceService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        JoinTraceService { inner }
    }
}

/// A service behind [`JoinTrace`].
#[derive(Clone, Debug)]
pub struct JoinTraceService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for JoinTraceService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(parent) = consort_telemetry::extract(request.headers()) {
            request.extensions_mut().insert(parent);
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::context;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    async fn joined(request: http::request::Builder) -> consort_stage::Context {
        let inner = service_fn(|request: Request<()>| async move {
            Ok::<_, Infallible>(context(request.extensions()))
        });
        let request = request.body(()).unwrap();
        JoinTrace.layer(inner).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn the_callers_trace_reaches_the_service() {
        let request = Request::builder().header("traceparent", CALLER);
        let context = joined(request.header("tracestate", "a=1")).await;
        assert_eq!(context.traceparent.as_deref(), Some(CALLER));
        assert_eq!(context.tracestate.as_deref(), Some("a=1"));
    }

    #[tokio::test]
    async fn a_request_without_a_trace_has_no_parent() {
        let context = joined(Request::builder().header("traceparent", "nonsense")).await;
        assert_eq!(context.traceparent, None);
        assert_eq!(context.deadline, None);
    }
}
