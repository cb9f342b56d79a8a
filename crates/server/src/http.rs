//! The connections of an HTTP front: who may keep one for how long, and how they end when it stops.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tower::ServiceExt;

use crate::incoming::accept;

/// How long a connection may be without a request whose head is whole: longer than the minute for
/// which callers and balancers keep one open between two requests, so that it is they who close it.
const LONGEST_SILENCE: Duration = Duration::from_secs(75);

/// How often the other end of an HTTP/2 connection is asked whether it is there, and how long it has
/// for the answer: one that hangs is noticed, which TCP alone does not see. Balancers end connections
/// that are silent for a minute, and this keeps them.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);
pub(crate) const PING_LIMIT: Duration = Duration::from_secs(20);

/// Serves `router` until it is told to stop and requests in progress are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    until: impl Future<Output = ()> + Send + 'static,
) {
    accept(listener, until, |stream, stopping| serve_connection(stream, router.clone(), stopping))
        .await;
}

/// Answers the requests on one connection for as long as it may stay.
async fn serve_connection(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    let has_asked = Arc::new(AtomicBool::new(false));
    let asks = has_asked.clone();
    let service = router.map_request(move |request: Request<_>| {
        asks.store(true, Relaxed);
        request.map(Body::new)
    });
    let builder = builder();
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let must_end = async {
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => {}
            () = silent(&has_asked) => {}
        }
    };
    tokio::select! {
        // An error is the caller's: it went away, or what it sent is no HTTP.
        _ = connection.as_mut() => return,
        () = must_end => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Ends when a new connection has been without its first request for too long.
///
/// Before it has said which HTTP it speaks nothing else looks at the time.
async fn silent(has_asked: &AtomicBool) {
    sleep(LONGEST_SILENCE).await;
    if has_asked.load(Relaxed) {
        pending::<()>().await;
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(LONGEST_SILENCE);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_LIMIT);
    builder
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::ready;
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A front whose answer takes `took`, and its address.
    async fn front(
        took: Duration,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> (JoinHandle<()>, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = move || async move {
            sleep(took).await;
            "answer"
        };
        let router = Router::new().route("/", get(answer));
        (tokio::spawn(serve(listener, router, until)), address)
    }

    /// Sends `asked` and gives what comes until the front closes the connection, and after how long.
    async fn wait_for_end(address: SocketAddr, asked: &[u8]) -> (String, Duration) {
        let begun_at = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(asked).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer, begun_at.elapsed())
    }

    /// Opens a connection of HTTP/2, sends nothing more, and gives the time until it is closed.
    pub(crate) async fn hang(address: SocketAddr) -> Duration {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let begun_at = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        // That it is reset is as good: what the server sent last was not read.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        begun_at.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_whole_request_is_closed_after_a_while() {
        let (_serving, address) = front(Duration::ZERO, pending()).await;
        // Nothing, what may yet be either HTTP, and half a head.
        for asked in [&b""[..], b"P", b"PRI * HT", b"GET / HTTP/1.1\r\nhost:"] {
            let (answer, after) = wait_for_end(address, asked).await;
            let name = String::from_utf8_lossy(asked);
            assert_eq!(answer, "", "{name}");
            assert!((LONGEST_SILENCE..2 * LONGEST_SILENCE).contains(&after), "{name}: {after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_of_http2_that_does_not_say_that_it_is_there_is_left() {
        let (_serving, address) = front(Duration::ZERO, pending()).await;
        let after = hang(address).await;
        assert!((PING_EVERY + PING_LIMIT..LONGEST_SILENCE).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_with_a_request_is_kept_for_the_answer_and_as_long_for_the_next() {
        let took = 3 * LONGEST_SILENCE;
        let (_serving, address) = front(took, pending()).await;
        let (answer, after) = wait_for_end(address, ASKED).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("answer"), "{answer}");
        assert!(after >= took + LONGEST_SILENCE, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_front_that_stops_answers_what_it_has_begun_and_ends_with_it() {
        let took = Duration::from_secs(5);
        let (serving, address) = front(took, sleep(Duration::from_secs(1))).await;
        let idle = tokio::spawn(wait_for_end(address, b""));
        let (answer, after) = wait_for_end(address, ASKED).await;
        assert!(answer.ends_with("answer"), "{answer}");
        assert!((took..2 * took).contains(&after), "{after:?}");
        serving.await.unwrap();
        assert!(idle.await.unwrap().1 < took, "the idle one is closed at once");
        let (serving, _) = front(took, ready(())).await;
        serving.await.unwrap();
    }
}
