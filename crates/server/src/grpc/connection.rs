//! One connection of the gRPC front: how it is set up, and the calls on it until it ends.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use consort_middleware::{Coalesced, LARGEST_FRAME, Turns};
use futures::FutureExt;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::{BoxError, Service};

use super::at_once::AtOnce;
use super::looks::Looks;
use super::pace::is_stream;
use super::unary::is_plain;
use crate::http::{PING_EVERY, PING_LIMIT};

/// What a sender may have on its way without hearing from us: a large tensor is not held up by
/// the default of 64 KB.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The calls that a client may cancel in one burst; h2's default of 20 would end the connection
/// and every other call on it when an ensemble's client goes away with all it had under way.
const MAX_RESETS: usize = 4096;

/// Answers the calls on one connection; told to stop, those that have come.
pub(crate) async fn serve_connection<S, B>(
    stream: TcpStream,
    service: S,
    mut stopping: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (turns, looks) = (Turns::default(), Arc::<Looks>::default());
    let calls = AtOnce::new(turns.clone());
    let builder = builder(calls.clone());
    let stream = TokioIo::new(Coalesced::in_turns(stream, turns.clone()));
    let service = TowerToHyperService::new(service);
    let service = service_fn(move |call: Request<Incoming>| {
        // It is run right after this.
        if is_long(&call) {
            calls.next_is_long();
        }
        service.call(call)
    });
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut told_to_stop = pin!(stopping.wait_for(|stopping| *stopping).fuse());
    let ended = poll_fn(|context| {
        if told_to_stop.as_mut().poll(context).is_ready() {
            connection.as_mut().graceful_shutdown();
        }
        turns.begin();
        let polled = looks.poll(connection.as_mut(), context);
        if turns.take_wish() {
            // A task that wakes itself comes behind those that are ready to run.
            context.waker().wake_by_ref();
        }
        polled
    });
    // An error is the caller's: it went away, or what it sent is no HTTP/2.
    drop(ended.await);
}

/// Whether a call may keep whoever looks at it for long: one with many messages, or with one that
/// has to be inflated.
fn is_long(call: &Request<Incoming>) -> bool {
    is_stream(call.uri().path()) || !is_plain(call.headers())
}

fn builder(calls: AtOnce) -> Builder<AtOnce> {
    let mut builder = Builder::new(calls).http2_only();
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(LARGEST_FRAME)
        // Nobody who calls over gRPC asks for it.
        .auto_date_header(false)
        // How many there may be is for the front as a whole (`--max-in-flight`).
        .max_concurrent_streams(None)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS);
    builder
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::thread;
    use std::time::Duration;

    use http_body_util::Empty;
    use tokio::net::TcpListener;
    use tokio::runtime::Builder;
    use tokio::sync::mpsc;
    use tokio::task::{JoinHandle, try_id};
    use tokio::time::timeout;
    use tower::service_fn;

    use super::*;

    struct Dropped(mpsc::UnboundedSender<&'static str>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            // Nobody listens any more at the end of a test.
            let _ = self.0.send("dropped");
        }
    }

    /// Serves one connection whose calls say when they are begun and when they are dropped, and
    /// never end.
    async fn serve(listener: TcpListener, events: mpsc::UnboundedSender<&'static str>) {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |_: Request<Incoming>| {
            let dropped = Dropped(events.clone());
            async move {
                dropped.0.send("begun").unwrap();
                pending::<()>().await;
                drop(dropped);
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let (_stop, stopping) = watch::channel(false);
        serve_connection(stream, service, stopping).await;
    }

    /// A call on a connection of its own, and what drives that.
    async fn call(address: SocketAddr) -> (impl Sized, JoinHandle<()>) {
        let caller = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(caller).await.unwrap();
        let driving = tokio::spawn(connection.map(drop));
        let call = Request::post("http://a/").body(()).unwrap();
        (sender.send_request(call, true).unwrap(), driving)
    }

    #[tokio::test]
    async fn a_call_that_waits_is_dropped_with_its_caller() {
        for resets in [true, false] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (events, mut heard) = mpsc::unbounded_channel();
            tokio::spawn(serve(listener, events));
            let (call, driving) = call(address).await;
            assert_eq!(heard.recv().await, Some("begun"));
            if resets {
                drop(call);
            } else {
                driving.abort();
            }
            let next = timeout(Duration::from_secs(10), heard.recv()).await;
            assert_eq!(next.unwrap(), Some("dropped"), "resets: {resets}");
        }
    }

    #[tokio::test]
    async fn streams_and_compressed_calls_alone_are_tasks_from_the_beginning() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, mut heard) = mpsc::unbounded_channel();
        let service = service_fn(move |call: Request<Incoming>| {
            let begun = begun.clone();
            async move {
                begun.send((call.uri().path().to_owned(), try_id())).unwrap();
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (_stop, stopping) = watch::channel(false);
            serve_connection(stream, service, stopping).await;
        });
        let caller = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(caller).await.unwrap();
        tokio::spawn(connection);
        for (path, encoding, is_at_once) in [
            ("/short", "", true),
            ("/inference.GRPCInferenceService/ModelStreamInfer", "", false),
            ("/short", "", true),
            ("/compressed", "gzip", false),
            ("/short", "", true),
        ] {
            let call = Request::post(format!("http://a{path}"));
            let call =
                if encoding.is_empty() { call } else { call.header("grpc-encoding", encoding) };
            let sent = sender.send_request(call.body(()).unwrap(), true).unwrap();
            let (heard, task) = heard.recv().await.unwrap();
            assert_eq!(heard, path);
            assert_eq!(task == Some(serving.id()), is_at_once, "{path}");
            drop(sent);
        }
    }

    #[test]
    fn a_runtime_ends_although_calls_wait() {
        let runtime = || Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let (client, server) = (runtime().unwrap(), runtime().unwrap());
        let listener = server.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (events, mut heard) = mpsc::unbounded_channel();
        server.spawn(serve(listener, events));
        let _call = client.block_on(call(address));
        assert_eq!(heard.blocking_recv(), Some("begun"));
        let (ended, has_ended) = std::sync::mpsc::channel();
        thread::spawn(move || {
            drop(server);
            ended.send(()).unwrap();
        });
        assert_eq!(has_ended.recv_timeout(Duration::from_secs(10)), Ok(()));
    }
}
