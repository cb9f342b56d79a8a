//! The connections that a front accepts, each set up so that answers leave at once and a caller that
//! is gone is noticed.

use std::future::{Future, ready};
use std::io::{Error, ErrorKind};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::server::TcpIncoming;

use crate::arrivals::Arrivals;

/// How long a connection may be silent before it is asked whether anybody is there, and how often it
/// is then asked: a machine that vanished without a word is found out after two minutes, where the
/// kernel's own two hours would keep its connections and the work it waits for.
const SILENCE: Duration = Duration::from_mins(1);
const ASK_EVERY: Duration = Duration::from_secs(15);
const ASK_TIMES: u32 = 4;

/// How long nothing is accepted once the process has no descriptor left for a connection.
const BREATH: Duration = Duration::from_secs(1);

/// Hands every connection to a task of its own, `serve`, until told to stop and all have ended.
pub(crate) async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    until: impl Future<Output = ()> + Send + 'static,
    serve: impl Fn(TcpStream, watch::Receiver<bool>) -> F,
) {
    let (stop, stopping) = watch::channel(false);
    let arrivals = Arrivals::default();
    let connections = incoming(listener, arrivals.clone());
    let serving = connections.for_each(|stream| {
        tokio::spawn(serve(stream, stopping.clone()));
        ready(())
    });
    // Whichever is over, the port is closed with the connections that were to come.
    tokio::select! {
        () = serving => {}
        () = arrivals.quiet_after(until) => {}
    }
    let _ = stop.send(true);
    drop(stopping);
    // Each connection has a receiver until it ends.
    stop.closed().await;
}

/// The connections at `listener`, each counted among `arrivals`; it never ends.
fn incoming(listener: TcpListener, arrivals: Arrivals) -> impl Stream<Item = TcpStream> + Send {
    let incoming = TcpIncoming::from(listener)
        // A streamed response goes out in several small writes; each would wait for the caller's
        // delayed acknowledgement, 40 ms.
        .with_nodelay(Some(true))
        .with_keepalive(Some(SILENCE))
        .with_keepalive_interval(Some(ASK_EVERY))
        .with_keepalive_retries(Some(ASK_TIMES));
    incoming.filter_map(move |accepted| {
        let arrivals = arrivals.clone();
        async move {
            match accepted {
                Ok(stream) => {
                    arrivals.note();
                    Some(stream)
                }
                Err(error) => {
                    pause_after(&error).await;
                    None
                }
            }
        }
    })
}

/// Waits where the next connection would fare no better.
async fn pause_after(error: &Error) {
    let gone = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset, ErrorKind::Interrupted];
    if !gone.contains(&error.kind()) {
        tracing::warn!("no connection can be accepted: {error}");
        sleep(BREATH).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::pin::pin;

    use super::*;

    /// Which timer the kernel has running for the connection from `local` to `peer`.
    fn timer(local: SocketAddr, peer: SocketAddr) -> Option<String> {
        let port = |address: SocketAddr| format!(":{:04X}", address.port());
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_it = fields[1].ends_with(&port(local)) && fields[2].ends_with(&port(peer));
            is_it.then(|| fields[5].to_owned())
        })
    }

    #[tokio::test]
    async fn the_kernel_watches_over_every_connection() {
        const KEEPALIVE: &str = "02:";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = pin!(incoming(listener, Arrivals::default()));
        let caller = TcpStream::connect(address).await.unwrap();
        let accepted = incoming.next().await.unwrap();
        assert!(accepted.nodelay().unwrap());
        let timer = timer(address, caller.local_addr().unwrap()).unwrap();
        assert!(timer.starts_with(KEEPALIVE), "{timer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_left_costs_no_time_and_a_lack_of_descriptors_a_little() {
        let begun_at = tokio::time::Instant::now();
        pause_after(&ErrorKind::ConnectionAborted.into()).await;
        assert_eq!(begun_at.elapsed(), Duration::ZERO);
        pause_after(&Error::from_raw_os_error(24)).await;
        assert_eq!(begun_at.elapsed(), BREATH);
    }
}
