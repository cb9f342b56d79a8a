//! Enforces the time that a caller gives a request, from its arrival to the end of its response.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use consort_stage::Error;
use consort_telemetry::WorkSpan;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};
use tracing::Span;

use crate::{Edge, Refusable};

/// When a request must have been answered, in the request's extensions.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: std::time::Instant,
    is_the_services: Arc<AtomicBool>,
    /// The span of the request, once it is open.
    span: Arc<OnceLock<Span>>,
}

impl Deadline {
    /// A deadline that the layer watches until somebody takes it over.
    pub fn new(at: std::time::Instant) -> Self {
        Self { at, is_the_services: Arc::default(), span: Arc::default() }
    }

    /// When the time is over.
    pub fn at(&self) -> std::time::Instant {
        self.at
    }

    /// Notes that the work of this span ends at the deadline: the span says so when it is cut off
    /// there.
    pub(crate) fn concerns(&self, span: &Span) {
        if !span.is_disabled() {
            // The span is opened once.
            drop(self.span.set(span.clone()));
        }
    }

    /// Leaves the deadline to the service, which has its own way to say that the time is over.
    ///
    /// From here on the layer cuts nothing off: the service itself has to end the response, and
    /// what works on it, at the deadline.
    pub fn take_over(&self) {
        self.is_the_services.store(true, Ordering::Release);
    }
}

/// Fires at a deadline, unless the service has taken it over.
#[derive(Debug)]
struct Timer {
    // Boxed, so that the many requests without a deadline do not carry a timer's size.
    sleep: Pin<Box<Sleep>>,
    is_the_services: Arc<AtomicBool>,
    span: Arc<OnceLock<Span>>,
    /// Whether the response was there before.
    is_settled: bool,
}

impl Drop for Timer {
    fn drop(&mut self) {
        if !self.is_settled && !self.is_the_services.load(Ordering::Acquire) {
            // Says on the span that the work was cut off, if that was at the deadline.
            let ends_at = self.sleep.deadline().into_std();
            drop(WorkSpan::new(self.span.get().cloned(), Some(ends_at)));
        }
    }
}

impl Timer {
    fn new(ends_at: Instant, deadline: &Deadline) -> Self {
        Self {
            sleep: Box::pin(sleep_until(ends_at)),
            is_the_services: deadline.is_the_services.clone(),
            span: deadline.span.clone(),
            is_settled: false,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_the_services.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.sleep.as_mut().poll(context)
    }
}

/// Drops a request when the time that its caller gave it is over, and says so.
///
/// Dropping is what cancels: the work behind it stops wherever it is. A response that has begun is
/// cut off, over gRPC with the status that says why. Requests that name no time have none; a service
/// that can say more at the deadline [takes it over](Deadline::take_over).
#[derive(Clone, Copy, Debug)]
pub struct EnforceDeadline {
    edge: Edge,
}

impl EnforceDeadline {
    /// Reads time-outs and writes refusals as `edge` does.
    pub fn new(edge: Edge) -> Self {
        Self { edge }
    }
}

impl<S> Layer<S> for EnforceDeadline {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let edge = self.edge;
        DeadlineService { inner, edge }
    }
}

/// A service behind [`EnforceDeadline`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
    edge: Edge,
}

impl<S, R, B> Service<Request<R>> for DeadlineService<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<DeadlineBody<B>>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        let edge = self.edge;
        let budget = match edge.budget(request.headers()) {
            Ok(Some(Duration::ZERO)) => return DeadlineFuture::refused(edge, None),
            Ok(budget) => budget,
            Err(error) => return DeadlineFuture::refused(edge, Some(error)),
        };
        // A time too far away to be told is none.
        let ends_at = budget.and_then(|budget| Instant::now().checked_add(budget));
        let timer = ends_at.map(|ends_at| {
            let deadline = Deadline::new(ends_at.into_std());
            let timer = Timer::new(ends_at, &deadline);
            request.extensions_mut().insert(deadline);
            timer
        });
        DeadlineFuture { inner: Some(self.inner.call(request)), timer, edge, refusal: None }
    }
}

/// The response is there, and nothing is left to cut off.
fn settle(timer: Option<Timer>) {
    if let Some(mut timer) = timer {
        timer.is_settled = true;
    }
}

pin_project! {
    /// The response to come from behind [`EnforceDeadline`].
    #[derive(Debug)]
    pub struct DeadlineFuture<F> {
        // None once it is refused or too late.
        #[pin]
        inner: Option<F>,
        timer: Option<Timer>,
        edge: Edge,
        // Why it is refused; None when it is too late.
        refusal: Option<Error>,
    }
}

impl<F> DeadlineFuture<F> {
    fn refused(edge: Edge, refusal: Option<Error>) -> Self {
        Self { inner: None, timer: None, edge, refusal }
    }
}

impl<F, B, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<DeadlineBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let edge = *this.edge;
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            if let Poll::Ready(response) = inner.poll(context) {
                let timer = this.timer.take();
                return Poll::Ready(Ok(response?.map(|body| DeadlineBody::new(body, timer, edge))));
            }
            match this.timer {
                Some(timer) => ready!(timer.poll(context)),
                None => return Poll::Pending,
            }
            this.inner.set(None);
        }
        let error = this.refusal.take();
        let error = error.unwrap_or_else(Error::deadline_exceeded);
        let response = edge.refuse(&error);
        Poll::Ready(Ok(response.map(|body| DeadlineBody::refused(body, edge))))
    }
}

/// The response body from behind [`EnforceDeadline`], which ends when the request's time is over.
#[derive(Debug)]
pub struct DeadlineBody<B> {
    /// None once it is cut off.
    body: Option<Refusable<B>>,
    timer: Option<Timer>,
    edge: Edge,
}

impl<B: Body> DeadlineBody<B> {
    fn new(body: B, timer: Option<Timer>, edge: Edge) -> Self {
        // A body whose size is known is all there; cutting it would only break the connection.
        let is_complete = body.size_hint().exact().is_some();
        let mut timer = timer;
        if is_complete {
            settle(timer.take());
        }
        Self { body: Some(Refusable::Service(body)), timer, edge }
    }

    fn refused(body: Refusable<B>, edge: Edge) -> Self {
        Self { body: Some(body), timer: None, edge }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for DeadlineBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        // The body comes first: what is ready at the deadline is still in time.
        let frame = Pin::new(&mut *body).poll_frame(context);
        if let Poll::Ready(frame) = frame {
            // Whoever has the last frame may ask for no more.
            let is_trailers = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
            if frame.is_none() || is_trailers || body.is_end_stream() {
                settle(this.timer.take());
            }
            return Poll::Ready(frame);
        }
        match &mut this.timer {
            Some(timer) => ready!(timer.poll(context)),
            None => return Poll::Pending,
        }
        this.timer = None;
        this.body = None;
        let trailers = this.edge.trailers(&Error::deadline_exceeded());
        Poll::Ready(trailers.map(Frame::trailers).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) if self.timer.is_none() => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, Full, StreamBody};
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::HTTP_TIMEOUT_HEADER;

    const TIMEOUT: Duration = Duration::from_millis(100);

    fn http_request(timeout: &str) -> Request<()> {
        let request = Request::builder().header(HTTP_TIMEOUT_HEADER, timeout);
        request.body(()).unwrap()
    }

    fn grpc_request(timeout: &str) -> Request<()> {
        let request = Request::builder().header("grpc-timeout", timeout);
        request.body(()).unwrap()
    }

    async fn text<B: Body<Data = Bytes, Error = Infallible>>(body: B) -> String {
        let bytes = body.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.into()).unwrap()
    }

    /// Calls a service that answers after `delay`, and tells whether it was dropped before.
    async fn call(
        edge: Edge,
        request: Request<()>,
        delay: Duration,
    ) -> Response<DeadlineBody<Full<Bytes>>> {
        let inner = service_fn(move |_| async move {
            tokio::time::sleep(delay).await;
            Ok::<_, Infallible>(Response::new(Full::from("answer")))
        });
        let service = EnforceDeadline::new(edge).layer(inner);
        service.oneshot(request).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_is_given() {
        let response = call(Edge::Http, http_request("100"), TIMEOUT / 2).await;
        assert_eq!(response.status(), 200);
        tokio::time::sleep(TIMEOUT).await;
        assert_eq!(text(response.into_body()).await, "answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_time_waits() {
        let response = call(Edge::Http, Request::new(()), Duration::from_hours(1)).await;
        assert_eq!(response.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_replaced_by_an_error_on_time() {
        let started_at = Instant::now();
        let response = call(Edge::Http, http_request("100"), TIMEOUT * 2).await;
        assert_eq!(response.status(), 504);
        let body = text(response.into_body()).await;
        assert_eq!(body, r#"{"error":"request deadline exceeded"}"#);
        let response = call(Edge::Grpc, grpc_request("100m"), TIMEOUT * 2).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        let waited = started_at.elapsed();
        assert!(waited >= TIMEOUT * 2 && waited < TIMEOUT * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_at_all_never_reaches_the_service() {
        let inner = service_fn(|_: Request<()>| async {
            panic!("must not be called");
            #[expect(unreachable_code, reason = "it gives the service its type")]
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let service = EnforceDeadline::new(Edge::Grpc).layer(inner);
        let response = service.oneshot(grpc_request("0n")).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4");
    }

    #[tokio::test(start_paused = true)]
    async fn a_malformed_time_is_refused_over_http() {
        let response = call(Edge::Http, http_request("soon"), TIMEOUT).await;
        assert_eq!(response.status(), 400);
        assert!(text(response.into_body()).await.contains(HTTP_TIMEOUT_HEADER));
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_knows_the_deadline() {
        let inner = service_fn(|request: Request<()>| async move {
            let left = crate::context(request.extensions()).deadline;
            let left = left.map(|deadline| Instant::from_std(deadline) - Instant::now());
            let text = format!("{left:?}");
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
        });
        let service = EnforceDeadline::new(Edge::Grpc).layer(inner);
        let response = service.oneshot(grpc_request("100m")).await.unwrap();
        assert_eq!(text(response.into_body()).await, "Some(100ms)");
    }

    /// Reads a response that gives a part every 40 ms without end; gives what was read, its
    /// trailers and the references that are left to what the stream owns.
    async fn read_stream(edge: Edge, request: Request<()>) -> (usize, Option<String>, usize) {
        let owned = Arc::new(());
        let held = Arc::clone(&owned);
        let inner = service_fn(move |_: Request<()>| {
            let parts = stream::repeat(Arc::clone(&held)).then(async |_held| {
                tokio::time::sleep(Duration::from_millis(40)).await;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b".")))
            });
            std::future::ready(Ok::<_, Infallible>(Response::new(StreamBody::new(Box::pin(parts)))))
        });
        let service = EnforceDeadline::new(edge).layer(inner);
        let mut body = service.oneshot(request).await.unwrap().into_body();
        let mut parts = 0;
        let mut status = None;
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_trailers() {
                Ok(trailers) => status = Some(trailers["grpc-status"].to_str().unwrap().into()),
                Err(_) => parts += 1,
            }
        }
        assert!(body.is_end_stream());
        (parts, status, Arc::strong_count(&owned))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_cut_off_at_the_deadline_and_dropped() {
        let (parts, status, references) = read_stream(Edge::Grpc, grpc_request("100m")).await;
        assert_eq!((parts, status.as_deref(), references), (2, Some("4"), 1));
        let (parts, status, references) = read_stream(Edge::Http, http_request("100")).await;
        assert_eq!((parts, status, references), (2, None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_the_service_took_over_is_left_to_it() {
        let started_at = Instant::now();
        let inner = service_fn(|request: Request<()>| async move {
            let deadline = request.extensions().get::<Deadline>().unwrap().clone();
            deadline.take_over();
            // Later than the layer would wait, to tell the two apart.
            let ends_at = Instant::from_std(deadline.at()) + TIMEOUT;
            let last_words = stream::once(async move {
                tokio::time::sleep_until(ends_at).await;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"time is up")))
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(Box::pin(last_words))))
        });
        let service = EnforceDeadline::new(Edge::Http).layer(inner);
        let response = service.oneshot(http_request("100")).await.unwrap();
        assert_eq!(text(response.into_body()).await, "time is up");
        assert_eq!(started_at.elapsed(), TIMEOUT * 2);
    }
}
