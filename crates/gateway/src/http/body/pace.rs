//! Receives a body piece by piece while it comes fast enough.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

/// How long the next piece of a body is waited for: a request has one of the server's places from
/// its head on, and who sends nothing must not keep it.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The bytes that must come in a second on the whole, after the first [`LONGEST_PAUSE`]: a modem
/// was faster, and who sends a byte now and then on purpose is not.
pub(super) const SLOWEST: u64 = 1024;

/// A body came too slowly.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slow;

/// A body with the time it began to come and what has come of it.
pub(super) struct Paced {
    pub(super) body: Body,
    begun_at: Instant,
    received: u64,
}

impl Paced {
    /// The body of a request whose head has just come.
    pub(super) fn new(body: Body) -> Self {
        Self { body, begun_at: Instant::now(), received: 0 }
    }

    /// The next piece, as the body gives it.
    pub(super) async fn frame(
        &mut self,
    ) -> Result<Option<Result<Frame<Bytes>, axum::Error>>, Slow> {
        let earned = Duration::from_secs(self.received / SLOWEST);
        let wanted_by =
            (Instant::now() + LONGEST_PAUSE).min(self.begun_at + LONGEST_PAUSE + earned);
        let frame = timeout_at(wanted_by, self.body.frame()).await.map_err(|_| Slow)?;
        if let Some(Ok(frame)) = &frame {
            self.received += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt, stream};
    use tokio::time::sleep;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Receives pieces of `size` bytes, one every `pause`; gives how many came before it was given
    /// up, and when that was, or nothing when all did.
    async fn receive(size: usize, pause: Duration, pieces: usize) -> Option<(u64, Duration)> {
        let begun_at = Instant::now();
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            sleep(pause).await;
            Ok::<_, Infallible>(Bytes::from(vec![0; size]))
        });
        let mut body = Paced::new(Body::from_stream(pieces));
        loop {
            match body.frame().await {
                Ok(None) => return None,
                Ok(Some(frame)) => drop(frame.unwrap()),
                Err(Slow) => return Some((body.received / size as u64, begun_at.elapsed())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_pauses_or_trickles_is_given_up_and_a_slow_one_is_received() {
        assert_eq!(receive(1 << 20, 31 * S, 2).await, Some((0, LONGEST_PAUSE)));
        assert_eq!(receive(1 << 20, 29 * S, 20).await, None);
        assert_eq!(receive(1, 7 * S, 20).await, Some((4, LONGEST_PAUSE)));
        assert_eq!(receive(1024, S, 200).await, None);
        // Half as fast as it must be: given up once what it lacks is the first pause's worth.
        let (received, after) = receive(1024, 2 * S, 200).await.unwrap();
        assert!((28..=30).contains(&received), "{received} after {after:?}");
    }
}
