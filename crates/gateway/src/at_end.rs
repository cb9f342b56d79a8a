//! Tells once when the answer to a call is complete or has failed.

use std::task::{Poll, ready};

use consort_stage::{Error, Responses};
use futures::{StreamExt, stream};

/// The same responses; `act` is called when the last of them passes, or the error in its place,
/// and not at all when the caller goes away first.
pub(crate) fn at_end(
    mut responses: Responses,
    act: impl FnOnce(Result<(), &Error>) + Send + 'static,
) -> Responses {
    let mut act = Some(act);
    Box::pin(stream::poll_fn(move |context| {
        let item = ready!(responses.poll_next_unpin(context));
        let end = match &item {
            Some(Ok(response)) if !response.is_last => None,
            Some(Err(error)) => Some(Err(error)),
            None | Some(Ok(_)) => Some(Ok(())),
        };
        if let Some(end) = end
            && let Some(act) = act.take()
        {
            act(end);
        }
        Poll::Ready(item)
    }))
}
