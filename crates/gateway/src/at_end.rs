//! Tells once when the answer to a call is complete or has failed.

use std::task::{Poll, ready};

use consort_stage::{Enough, Error, Responses};
use futures::{StreamExt, stream};

/// The same responses; `act` is called when the last of them passes, or the error in its place, or
/// when a caller goes that has said that it has `enough`, and not at all when it goes without.
pub(crate) fn at_end(
    mut responses: Responses,
    enough: Option<Enough>,
    act: impl FnOnce(Result<(), &Error>) + Send + 'static,
) -> Responses {
    let mut end = End { act: Some(act), enough };
    Box::pin(stream::poll_fn(move |context| {
        // The whole of it belongs to the stream, and is dropped with it.
        let at_end = &mut end;
        let item = ready!(responses.poll_next_unpin(context));
        let end = match &item {
            Some(Ok(response)) if !response.is_last => None,
            Some(Err(error)) => Some(Err(error)),
            None | Some(Ok(_)) => Some(Ok(())),
        };
        if let Some(end) = end {
            at_end.comes(end);
        }
        Poll::Ready(item)
    }))
}

/// What is done when a call ends.
struct End<A: FnOnce(Result<(), &Error>)> {
    act: Option<A>,
    enough: Option<Enough>,
}

impl<A: FnOnce(Result<(), &Error>)> End<A> {
    fn comes(&mut self, end: Result<(), &Error>) {
        if let Some(act) = self.act.take() {
            act(end);
        }
    }
}

impl<A: FnOnce(Result<(), &Error>)> Drop for End<A> {
    fn drop(&mut self) {
        if self.enough.as_ref().is_some_and(Enough::is_said) {
            self.comes(Ok(()));
        }
    }
}
