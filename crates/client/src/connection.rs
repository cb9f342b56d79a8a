//! The HTTP/2 connection to a replica: opened by the first call, and anew when it broke.
//!
//! A call puts its frames on the connection itself, and the connection's one task writes them. The
//! channel of the gRPC library hands each call on through two more tasks; with several threads
//! every handover may wake another one, which cost more than all the rest of a short call.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use consort_middleware::{Coalesced, LARGEST_FRAME};
use futures::FutureExt;
use futures::future::{BoxFuture, poll_fn};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{PingPong, Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower::Service;

use crate::outgoing::Outgoing;
use crate::put_off::{self, PutOff};
use crate::sending::{Rest, next_chunk};

/// A stream may bring this much that its caller has not read, so that a large tensor is not held
/// up by one round trip for each 64 KiB.
const STREAM_WINDOW: u32 = 4 << 20;

/// All streams together may bring this much. It is far more than a few streams, because a caller
/// that does not read must not stop the others.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// So many cancelled streams are remembered, so that what still comes for them is not taken for a
/// mistake of the server.
const CANCELLED_STREAMS: usize = 1024;

/// A host that does not answer a connection attempt for so long is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a connection is asked whether it is alive. The probes bring answers in between, so no
/// server sees too many pings without any.
const PING_EVERY: Duration = Duration::from_secs(10);

/// A connection that has not answered a ping for so long is dead, and its calls with it.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection to one address; its clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    /// The connection that was opened last, which may have broken since.
    opened: ArcSwapOption<SendRequest<Bytes>>,
    /// Held by who opens one, so that nobody else does meanwhile.
    opening: tokio::sync::Mutex<()>,
    /// Streams that have ended. Letting go of one wakes the connection's task; beside the task of
    /// the call that comes next, on another connection, that would wake a second thread. So they
    /// wait for the next call on this connection, which wakes it anyway.
    ended: Mutex<Vec<RecvStream>>,
    /// Told when an opened connection has ended.
    lost: Arc<Notify>,
}

impl Connection {
    /// A connection that the first call opens; `lost` is told whenever it has ended.
    pub(crate) fn lazy(address: SocketAddr, lost: Arc<Notify>) -> Self {
        Self(Arc::new(Shared {
            address,
            opened: ArcSwapOption::empty(),
            opening: tokio::sync::Mutex::default(),
            ended: Mutex::default(),
            lost,
        }))
    }

    /// What a request can be put on at once.
    async fn ready(&self) -> Result<SendRequest<Bytes>, BoxError> {
        if let Some(sender) = self.usable().await {
            return Ok(sender);
        }
        let _opening = self.0.opening.lock().await;
        // Whoever held the lock may have opened it meanwhile.
        if let Some(sender) = self.usable().await {
            return Ok(sender);
        }
        let sender = open(self.0.address, self.0.lost.clone()).await?;
        self.0.opened.store(Some(Arc::new(sender.clone())));
        Ok(sender.ready().await?)
    }

    /// The opened connection, once it takes another stream; `None` when it does not any more.
    async fn usable(&self) -> Option<SendRequest<Bytes>> {
        let opened = self.0.opened.load();
        let sender = SendRequest::clone(opened.as_deref()?);
        drop(opened);
        sender.ready().await.ok()
    }

    /// Makes a call of one message and waits for the answer to begin. Dropping the future resets
    /// the stream.
    pub(crate) async fn ask(
        &self,
        head: Request<()>,
        outgoing: &Outgoing,
    ) -> Result<Response<Answer>, BoxError> {
        let mut sender = self.ready().await?;
        // Encoded before anything is sent, so that head and body leave in one write.
        let body = outgoing.body()?;
        let (response, mut stream) = self.begin(&mut sender, head)?;
        outgoing.note_sent();
        // Why a stream takes no more is for its response to say.
        drop(stream.send_data(body, true));
        self.answer(response, None).await
    }

    async fn send(self, request: Request<tonic::body::Body>) -> Result<Response<Answer>, BoxError> {
        let mut sender = self.ready().await?;
        let (head, mut body) = request.into_parts();
        // Encoded before anything is sent, so that head and body leave in one write.
        let chunk = next_chunk(&mut body).await?.unwrap_or_default();
        let (response, stream) = self.begin(&mut sender, Request::from_parts(head, ()))?;
        let rest = Rest::of(stream, chunk, body).await?;
        self.answer(response, rest).await
    }

    /// Opens a stream, and lets go of those that have ended.
    fn begin(
        &self,
        sender: &mut SendRequest<Bytes>,
        head: Request<()>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let ended = mem::take(&mut *self.0.ended.lock());
        let begun = sender.send_request(head, false);
        drop(ended);
        begun
    }

    /// Waits for the answer to begin, and sends meanwhile what comes to be sent.
    async fn answer(
        &self,
        mut response: ResponseFuture,
        mut rest: Option<Rest>,
    ) -> Result<Response<Answer>, BoxError> {
        let mut put_off = PutOff::default();
        let response = poll_fn(|context| {
            send_more(&mut rest, context);
            response.poll_unpin(&mut put_off.context(context))
        });
        let response = response.await?;
        let shared = self.0.clone();
        let has_ended = false;
        Ok(response.map(|body| Answer { body: Some(body), has_ended, rest, shared, put_off }))
    }
}

/// Sends what has come to be sent.
fn send_more(rest: &mut Option<Rest>, context: &mut Context<'_>) {
    // Why it ends is for the response to say.
    if rest.as_mut().is_some_and(|rest| rest.poll(context).is_ready()) {
        *rest = None;
    }
}

impl Service<Request<tonic::body::Body>> for Connection {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    /// Sends a request; messages that are not there yet are sent while it is answered.
    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

async fn open(address: SocketAddr, lost: Arc<Notify>) -> Result<SendRequest<Bytes>, BoxError> {
    let opening = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let handshake = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_reset_streams(CANCELLED_STREAMS)
            // Otherwise a burst of cancelled calls would end the connection and all other calls.
            .max_local_error_reset_streams(None)
            .max_frame_size(LARGEST_FRAME)
            .enable_push(false)
            .handshake(Coalesced::new(stream));
        Ok::<_, BoxError>(handshake.await?)
    };
    let opened = timeout(CONNECT_TIMEOUT, opening).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no connection in {CONNECT_TIMEOUT:?}"))
    })?;
    let (sender, mut connection) = opened?;
    let pings = connection.ping_pong();
    tokio::spawn(async move {
        // Ends when the connection has broken or, without any call left, nobody has a sender.
        let ended = poll_fn(|context| put_off::polling(|| connection.poll_unpin(context)));
        tokio::select! {
            biased;
            ended = ended => drop(ended),
            () = answered_no_ping(pings) => tracing::warn!(%address, "the connection is dead"),
        }
        lost.notify_one();
    });
    Ok(sender)
}

/// Returns when a ping has not been answered in time.
async fn answered_no_ping(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(PING_EVERY).await;
        match timeout(PING_TIMEOUT, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection itself knows why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// The body of a response, as it comes.
pub(crate) struct Answer {
    /// There until this is dropped.
    body: Option<RecvStream>,
    has_ended: bool,
    /// What the request has still to say.
    rest: Option<Rest>,
    shared: Arc<Shared>,
    put_off: PutOff,
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Dropped before its end, the stream is reset at once.
        let ended = self.body.take().filter(|_| self.has_ended);
        self.shared.ended.lock().extend(ended);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        send_more(&mut this.rest, context);
        let Some(stream) = &mut this.body else {
            return Poll::Ready(None);
        };
        let context = &mut this.put_off.context(context);
        match ready!(stream.poll_data(context)) {
            Some(Ok(chunk)) => {
                // The reader has it now, so the server may send as much again.
                let released = stream.flow_control().release_capacity(chunk.len());
                Poll::Ready(Some(released.map(|()| Frame::data(chunk))))
            }
            // A server may end so what it needs no more of; the rest has been said before.
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(stream.poll_trailers(context));
                this.has_ended |= matches!(trailers, Ok(Some(_)));
                Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(RecvStream::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use consort_protocol::ModelInferRequest;
    use consort_stage::Context;
    use http::HeaderMap;
    use http_body_util::BodyExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every call on one connection in these pieces.
    async fn server(pieces: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = h2::server::handshake(stream).await.unwrap();
            while let Some(call) = server.accept().await {
                let (_, mut respond) = call.unwrap();
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                for piece in pieces {
                    body.send_data(Bytes::from_static(piece), false).unwrap();
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                body.send_trailers(trailers).unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_is_read_whole_and_its_stream_let_go_with_the_next_call() {
        let pieces: &[&[u8]] = &[b"in ", b"three ", b"pieces"];
        for expected in [pieces, &pieces[..1], &[]] {
            let connection = Connection::lazy(server(expected).await, Arc::default());
            for _ in 0..2 {
                let head = Request::post("http://a/").body(()).unwrap();
                let outgoing = Outgoing::new(ModelInferRequest::default(), Context::default());
                let answer = connection.ask(head, &outgoing).await.unwrap();
                let whole = answer.into_body().collect().await.unwrap();
                assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
                assert_eq!(whole.to_bytes(), expected.concat());
                assert!(!outgoing.is_unsent());
                assert_eq!(connection.0.ended.lock().len(), 1);
            }
        }
    }
}
