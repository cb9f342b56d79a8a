//! Bounds the requests that a server works on at once, and answers at once when it is full.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use consort_stage::{Code, Error};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use crate::{Edge, Refusable};

/// Refuses requests while as many as are allowed are in flight, each until its response body ends.
///
/// Questions about health are answered even then, so that a busy server is not taken for a broken
/// one and restarted. A gRPC stream counts as one request however many it carries.
#[derive(Clone, Debug)]
pub struct LoadShed {
    edge: Edge,
    limit: usize,
    slots: Arc<Semaphore>,
}

impl LoadShed {
    /// Lets `limit` requests in at once; every clone of the layer shares them.
    pub fn new(edge: Edge, limit: usize) -> Self {
        // More than a semaphore can count is no limit anyway.
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { edge, limit, slots: Arc::new(Semaphore::new(limit)) }
    }

    #[cfg(test)]
    fn in_flight(&self) -> usize {
        self.limit - self.slots.available_permits()
    }

    fn refusal<B>(&self) -> Response<Refusable<B>> {
        let message = format!("Exceeds maximum number of requests in flight ({})", self.limit);
        self.edge.refuse(&Error::new(Code::Overloaded, message))
    }
}

impl<S> Layer<S> for LoadShed {
    type Service = LoadShedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LoadShedService { inner, shed: self.clone() }
    }
}

/// Whether a request asks about health, over HTTP or gRPC.
fn is_probe(path: &str) -> bool {
    const INFERENCE: &str = "/inference.GRPCInferenceService/";
    let method = path.strip_prefix(INFERENCE);
    path.starts_with("/v2/health/")
        || path.starts_with("/grpc.health.v1.Health/")
        || (path.starts_with("/v2/models/") && path.ends_with("/ready"))
        || matches!(method, Some("ServerLive" | "ServerReady" | "ModelReady"))
}

/// A service behind [`LoadShed`].
#[derive(Clone, Debug)]
pub struct LoadShedService<S> {
    inner: S,
    shed: LoadShed,
}

impl<S, R, B> Service<Request<R>> for LoadShedService<S>
where
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<ShedBody<B>>;
    type Error = S::Error;
    type Future = ShedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let slot = Arc::clone(&self.shed.slots).try_acquire_owned().ok();
        let is_admitted = slot.is_some() || is_probe(request.uri().path());
        ShedFuture {
            inner: is_admitted.then(|| self.inner.call(request)),
            slot,
            refused_by: (!is_admitted).then(|| self.shed.clone()),
        }
    }
}

pin_project! {
    /// The response to come from behind [`LoadShed`].
    #[derive(Debug)]
    pub struct ShedFuture<F> {
        #[pin]
        inner: Option<F>,
        // None for a probe in a full server.
        slot: Option<OwnedSemaphorePermit>,
        // There exactly when `inner` is not.
        refused_by: Option<LoadShed>,
    }
}

impl<F, B, E> Future for ShedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ShedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match (this.inner.as_pin_mut(), this.refused_by) {
            (Some(inner), _) => ready!(inner.poll(context))?.map(Refusable::Service),
            (None, Some(shed)) => shed.refusal(),
            (None, None) => return Poll::Pending,
        };
        let slot = this.slot.take();
        Poll::Ready(Ok(response.map(|body| ShedBody { body, slot })))
    }
}

/// The response body from behind [`LoadShed`]; it holds the request's slot until it ends.
#[derive(Debug)]
pub struct ShedBody<B> {
    body: Refusable<B>,
    slot: Option<OwnedSemaphorePermit>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for ShedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.slot = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, Full};
    use tower::{ServiceExt, service_fn};

    use super::*;

    type Answer = Response<ShedBody<Full<Bytes>>>;

    /// Calls a service that answers at once.
    async fn call(shed: &LoadShed, path: &str) -> Answer {
        let inner = service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"answer"))))
        });
        let request = Request::builder().uri(path).body(()).unwrap();
        shed.layer(inner).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn sheds_load_when_every_slot_is_taken() {
        let shed = LoadShed::new(Edge::Http, 1);
        let first = call(&shed, "/v2/models/m/infer").await;
        assert_eq!(shed.in_flight(), 1);
        let second = call(&shed, "/v2/models/m/infer").await;
        assert_eq!(second.status(), 503);
        let body = second.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"error":"Exceeds maximum number of requests in flight (1)"}"#);
        drop(first);
        assert_eq!(shed.in_flight(), 0);
        assert_eq!(call(&shed, "/v2/models/m/infer").await.status(), 200);
    }

    #[tokio::test]
    async fn a_slot_is_held_until_the_body_ends() {
        let shed = LoadShed::new(Edge::Grpc, 1);
        let mut body = call(&shed, "/").await.into_body();
        assert!(body.frame().await.is_some());
        let refused = call(&shed, "/").await;
        assert_eq!(refused.headers()["grpc-status"], "14");
        assert!(body.frame().await.is_none());
        assert_eq!(shed.in_flight(), 0);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_frees_its_slot() {
        let shed = LoadShed::new(Edge::Http, 1);
        let inner = service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
        });
        let pending = shed.layer(inner).oneshot(Request::new(()));
        let mut pending = Box::pin(pending);
        assert!(futures::poll!(&mut pending).is_pending());
        assert_eq!(shed.in_flight(), 1);
        drop(pending);
        assert_eq!(shed.in_flight(), 0);
    }

    #[tokio::test]
    async fn questions_about_health_are_never_shed() {
        let shed = LoadShed::new(Edge::Http, 0);
        for path in [
            "/v2/health/ready",
            "/v2/models/m/versions/1/ready",
            "/grpc.health.v1.Health/Check",
            "/inference.GRPCInferenceService/ServerReady",
        ] {
            assert_eq!(call(&shed, path).await.status(), 200, "{path}");
        }
        for path in ["/", "/v2/models/ready/infer", "/inference.GRPCInferenceService/ModelInfer"] {
            assert_eq!(call(&shed, path).await.status(), 503, "{path}");
        }
    }
}
