//! Finds the addresses behind a stage's name and keeps up as they come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use async_stream::stream;
use futures::stream::BoxStream;
use tokio::net::lookup_host;
use tokio::time::{MissedTickBehavior, interval};

use crate::Target;

/// The addresses of a stage's replicas.
pub type Addresses = BTreeSet<SocketAddr>;

/// All addresses as they are now, or why they cannot be known now; then the last known ones hold.
pub type Found = Result<Addresses, String>;

/// A way to find the replicas of a stage.
pub trait Discovery: Send + 'static {
    /// What is found, at first and again whenever it changes, until the stream is dropped.
    fn watch(self: Box<Self>) -> BoxStream<'static, Found>;
}

/// Asks the system's resolver again and again; every address of the host is a replica.
#[derive(Clone, Debug)]
pub struct Dns {
    target: Target,
    every: Duration,
}

impl Dns {
    /// Asks for the addresses of `target` once in `every`.
    pub fn new(target: Target, every: Duration) -> Self {
        Self { target, every }
    }

    async fn resolve(&self) -> Found {
        let Target { host, port } = &self.target;
        match lookup_host((host.as_str(), *port)).await {
            Ok(addresses) => Ok(one_family(addresses)),
            Err(error) => Err(format!("cannot resolve `{host}`: {error}")),
        }
    }
}

/// A host with addresses of both families is reached by IPv4 alone, because it would otherwise
/// count as two replicas.
fn one_family(addresses: impl Iterator<Item = SocketAddr>) -> Addresses {
    let (v4, v6): (Addresses, Addresses) = addresses.partition(SocketAddr::is_ipv4);
    if v4.is_empty() { v6 } else { v4 }
}

impl Discovery for Dns {
    fn watch(self: Box<Self>) -> BoxStream<'static, Found> {
        Box::pin(stream! {
            let mut ticks = interval(self.every);
            // A slow resolver is asked less often instead of several times in a row.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = None;
            loop {
                ticks.tick().await;
                let found = self.resolve().await;
                if last.as_ref() != Some(&found) {
                    last = Some(found.clone());
                    yield found;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::time::timeout;

    use super::*;

    fn watch(target: &str) -> BoxStream<'static, Found> {
        let target = target.parse().unwrap();
        Box::new(Dns::new(target, Duration::from_millis(1))).watch()
    }

    #[tokio::test]
    async fn what_is_found_is_said_once() {
        let mut found = watch("127.0.0.1:8001");
        let first = found.next().await.unwrap().unwrap();
        assert_eq!(first, ["127.0.0.1:8001".parse().unwrap()].into());
        let again = timeout(Duration::from_millis(20), found.next()).await;
        assert!(again.is_err(), "nothing changed, yet it said {again:?}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_is_said_to_be_unknown() {
        let reason = watch("no-such-host.invalid:1").next().await;
        let reason = reason.unwrap().unwrap_err();
        assert!(reason.starts_with("cannot resolve `no-such-host.invalid`"), "{reason}");
    }

    #[test]
    fn a_host_of_both_families_counts_once() {
        let both = ["[::1]:1".parse().unwrap(), "127.0.0.1:1".parse().unwrap()];
        assert_eq!(one_family(both.into_iter()), [both[1]].into());
        assert_eq!(one_family(both[..1].iter().copied()), [both[0]].into());
    }
}
