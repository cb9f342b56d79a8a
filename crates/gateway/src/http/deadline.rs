//! Ends a stream of responses at its deadline with an error that says so.

use consort_middleware::Deadline;
use consort_stage::{Error, Responses};
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

/// The same responses, ending with an error at the deadline; the call is dropped there.
///
/// The layer around the front would cut the body off at the deadline, and the client could not
/// tell that from the end of the answer: so it is taken over from the layer.
pub(super) fn limit(responses: Responses, deadline: Option<&Deadline>) -> Responses {
    let Some(deadline) = deadline else {
        return responses;
    };
    deadline.take_over();
    let ends_at = Instant::from_std(deadline.at());
    Box::pin(stream::unfold(Some(responses), move |state| async move {
        let mut responses = state?;
        // A call that is always ready would never let the time-out come up.
        if Instant::now() < ends_at
            && let Ok(response) = timeout_at(ends_at, responses.next()).await
        {
            return response.map(|response| (response, Some(responses)));
        }
        Some((Err(Error::deadline_exceeded()), None))
    }))
}
