//! Watches a front's new connections, so that its port is closed only once none is on its way.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long no connection must have come before the port is closed: long enough for a caller that
/// has connected to send what it wants, and for a balancer's last choice to arrive.
const QUIET: Duration = Duration::from_millis(100);

/// How long connections are waited for at most, when callers never stop to come.
const LONGEST: Duration = Duration::from_secs(2);

/// The connections that a front has accepted.
///
/// The kernel resets those that wait to be accepted when a port is closed, and a caller cannot tell
/// whether its request was done. So a front that is told to stop accepts and answers for a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals(Arc<AtomicU64>);

impl Arrivals {
    /// Counts one connection.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Waits until the front is `told` to stop, and then until no connection comes any more.
    pub(crate) async fn quiet_after(self, told: impl Future<Output = ()>) {
        told.await;
        let told_at = Instant::now();
        let mut seen = self.0.load(Relaxed);
        while told_at.elapsed() < LONGEST {
            sleep(QUIET).await;
            let now = self.0.load(Relaxed);
            if now == seen {
                return;
            }
            seen = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_port_is_closed_once_nobody_comes_and_at_the_latest_after_a_while() {
        let arrivals = Arrivals::default();
        let begun_at = Instant::now();
        arrivals.clone().quiet_after(ready(())).await;
        assert_eq!(begun_at.elapsed(), QUIET);
        let coming = tokio::spawn({
            let arrivals = arrivals.clone();
            async move {
                loop {
                    arrivals.note();
                    sleep(QUIET / 2).await;
                }
            }
        });
        let begun_at = Instant::now();
        arrivals.quiet_after(ready(())).await;
        assert_eq!(begun_at.elapsed(), LONGEST);
        coming.abort();
    }
}
