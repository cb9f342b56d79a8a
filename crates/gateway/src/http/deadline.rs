//! Ends a stream of responses in time to say that its time is up.

use std::time::{Duration, Instant};

use consort_stage::{Error, Responses};
use futures::{StreamExt, stream};
use tokio::time::timeout_at;

/// How long before the deadline the stream ends.
///
/// At the deadline itself the layer around the front cuts the body off, and the client could not
/// tell that from the end of the answer.
const NOTICE: Duration = Duration::from_millis(10);

/// The same responses, ending with an error just before the deadline; the call is dropped there.
pub(super) fn limit(responses: Responses, deadline: Option<Instant>) -> Responses {
    let Some(deadline) = deadline else {
        return responses;
    };
    let ends_at = deadline.checked_sub(NOTICE).unwrap_or(deadline);
    Box::pin(stream::unfold(Some(responses), move |state| async move {
        let mut responses = state?;
        // A call that is always ready would never let the time-out come up.
        if Instant::now() < ends_at
            && let Ok(response) = timeout_at(ends_at.into(), responses.next()).await
        {
            return response.map(|response| (response, Some(responses)));
        }
        Some((Err(Error::deadline_exceeded()), None))
    }))
}
