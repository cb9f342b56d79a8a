//! A body that is received for as long as it comes fast enough.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use consort_stage::{Code, Error};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long the next piece of a body is waited for: a request has one of the server's places from
/// its head on, and who sends nothing must not keep it.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The bytes that must come in a second on the whole, after the first [`LONGEST_PAUSE`]: a modem
/// was faster, and who sends a byte now and then on purpose is not.
pub const SLOWEST: u64 = 1024;

/// A body that ends with an error once it pauses for too long or has come too slowly on the whole.
///
/// One that comes at once costs nothing more: there is a timer once something is waited for.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    received: u64,
    is_hurried: bool,
    wait: Option<Wait>,
}

/// Why a paced body ended too early.
#[derive(Debug)]
pub enum Halt<E> {
    /// It came too slowly.
    TooSlow,
    /// What the body itself says.
    Broken(E),
}

/// The wait for the pieces of a body.
#[derive(Debug)]
struct Wait {
    begun_at: Instant,
    // Boxed, so that the many bodies that come at once do not carry a timer's size.
    timer: Pin<Box<Sleep>>,
    /// Whether the timer is set for the piece that comes next.
    is_set: bool,
}

impl<B> Paced<B> {
    /// The body of a request whose head has just come.
    pub fn new(body: B) -> Self {
        Self { body, received: 0, is_hurried: true, wait: None }
    }

    /// A body that may take any time, such as a stream of messages.
    pub fn unhurried(body: B) -> Self {
        Self { is_hurried: false, ..Self::new(body) }
    }
}

impl Wait {
    fn begin() -> Self {
        let begun_at = Instant::now();
        Self { begun_at, timer: Box::pin(sleep_until(begun_at)), is_set: false }
    }

    /// Ready when the next piece has not come in time, where so many bytes had come before.
    fn poll_over(&mut self, received: u64, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_set {
            let earned = Duration::from_secs(received / SLOWEST);
            let wanted_by = Instant::now().min(self.begun_at + earned) + LONGEST_PAUSE;
            self.timer.as_mut().reset(wanted_by);
            self.is_set = true;
        }
        self.timer.as_mut().poll(context)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = Halt<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        // The body comes first: what is there when the time is over is still in time.
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.received += data.map_or(0, Bytes::len) as u64;
            if let Some(wait) = &mut this.wait {
                wait.is_set = false;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Halt::Broken)));
        }
        if !this.is_hurried {
            return Poll::Pending;
        }
        let wait = this.wait.get_or_insert_with(Wait::begin);
        ready!(wait.poll_over(this.received, context));
        Poll::Ready(Some(Err(Halt::TooSlow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What the caller is told whose request is waited for no longer.
pub fn too_slow() -> Error {
    let text = format!(
        "the request body came too slowly: it must not pause for {} s, and come at {SLOWEST} bytes a \
         second at least",
        LONGEST_PAUSE.as_secs()
    );
    Error::new(Code::DeadlineExceeded, text)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::sleep;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Pieces of `size` bytes, one every `pause`.
    fn pieces(
        size: usize,
        pause: Duration,
        count: usize,
    ) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let pieces = stream::iter(0..count).then(move |_| async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; size])))
        });
        StreamBody::new(Box::pin(pieces))
    }

    /// Receives pieces of `size` bytes, one every `pause`; gives how many came before it was given
    /// up, and when that was, or nothing when all did.
    async fn receive(size: usize, pause: Duration, count: usize) -> Option<(u64, Duration)> {
        let begun_at = Instant::now();
        let mut body = Paced::new(pieces(size, pause, count));
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => drop(frame),
                Err(Halt::Broken(never)) => match never {},
                Err(Halt::TooSlow) => {
                    return Some((body.received / size as u64, begun_at.elapsed()));
                }
            }
        }
        None
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

    #[tokio::test]
    async fn a_body_that_comes_at_once_has_no_timer() {
        let mut body = Paced::new(pieces(1, Duration::ZERO, 3));
        while body.frame().await.is_some() {}
        assert_eq!(body.received, 3);
        assert!(body.wait.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unhurried_body_takes_its_time() {
        let body = Paced::unhurried(pieces(1, 3600 * S, 3));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 3);
    }
}
