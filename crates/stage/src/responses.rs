//! The stream of responses that a call gives, and the short ways to make one.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};

use crate::{Error, Response, Result};

/// The answers to one request, in order; an error is the last item.
pub type Responses = Pin<Box<dyn Stream<Item = Result<Response>> + Send>>;

/// The responses of a call that answers once.
pub fn one(answer: impl Future<Output = Result<Response>> + Send + 'static) -> Responses {
    Box::pin(stream::once(answer))
}

/// The responses of a call that failed before it began.
pub fn fail(error: Error) -> Responses {
    Box::pin(stream::iter([Err(error)]))
}

/// The single response of a call to a model that is not decoupled.
///
/// The stream is read to its end, so that a remote call is not cut off before its trailers.
pub async fn collect_one(mut responses: Responses) -> Result<Response> {
    let mut first = None;
    let mut count = 0;
    while let Some(response) = responses.next().await {
        first.get_or_insert(response?);
        count += 1;
    }
    match first {
        Some(response) if count == 1 => Ok(response),
        _ => Err(Error::internal(format!("expected a single response, got {count}"))),
    }
}
