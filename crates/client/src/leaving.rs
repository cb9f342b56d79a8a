//! Lets a service hear that its caller has enough, before the call ends.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use consort_stage::{Enough, Response, Responses, Result};
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long a service may take to end a call whose caller has enough; then it is cancelled there.
const PATIENCE: Duration = Duration::from_secs(2);

/// The responses of a far call whose caller may have enough before the end.
///
/// Dropping a call resets its stream, which the service could only take for a caller that has
/// gone. One that has enough goes at once, too, but leaves the call behind until the service has
/// ended it: a stream hears the word ([`Outgoing`](crate::outgoing::Outgoing)), and a call that is
/// answered once is let finish.
pub(crate) struct Leaving {
    /// `None` once it has ended.
    responses: Option<Responses>,
    enough: Enough,
    has_begun: bool,
}

impl Leaving {
    /// The same responses.
    pub(crate) fn new(responses: Responses, enough: Enough) -> Self {
        Self { responses: Some(responses), enough, has_begun: false }
    }
}

impl Stream for Leaving {
    type Item = Result<Response>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.has_begun = true;
        let Some(responses) = &mut self.responses else { return Poll::Ready(None) };
        let item = responses.poll_next_unpin(context);
        if matches!(item, Poll::Ready(None | Some(Err(_)))) {
            self.responses = None;
        }
        item
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(responses) = self.responses.take() else { return };
        if !self.has_begun || !self.enough.is_said() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let rest = responses.for_each(|_| std::future::ready(()));
            runtime.spawn(timeout(PATIENCE, rest));
        }
    }
}
