//! Puts the messages of a call on its stream: those that are there at once, and what comes later
//! beside the answer.

use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use h2::SendStream;
use http_body_util::BodyExt;

use crate::connection::BoxError;

/// What a call has still to send. Dropping it resets the stream.
pub(crate) struct Rest(BoxFuture<'static, Result<(), BoxError>>);

impl Rest {
    /// Sends `chunk` and what follows it in `body`, as far as that is there; gives what is to come.
    pub(crate) async fn of(
        mut stream: SendStream<Bytes>,
        mut chunk: Bytes,
        mut body: tonic::body::Body,
    ) -> Result<Option<Self>, BoxError> {
        loop {
            let polled = {
                let next = pin!(next_chunk(&mut body));
                futures::poll!(next)
            };
            let next = match polled {
                Poll::Ready(next) => next?,
                Poll::Pending => {
                    // What is there does not wait for what is not.
                    let is_taken = stream.send_data(chunk, false).is_ok();
                    return Ok(is_taken.then(|| Self(Box::pin(follow(stream, body)))));
                }
            };
            let is_last = next.is_none();
            let chunk = mem::replace(&mut chunk, next.unwrap_or_default());
            // Why a stream takes no more is for its response to say.
            if stream.send_data(chunk, is_last).is_err() || is_last {
                return Ok(None);
            }
        }
    }

    /// Sends what has come; ready when nothing is left to send.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Pin::new(&mut self.0).poll_unpin(context)
    }
}

/// Sends the chunks of a body as they come, and its end.
async fn follow(
    mut stream: SendStream<Bytes>,
    mut body: tonic::body::Body,
) -> Result<(), BoxError> {
    while let Some(chunk) = next_chunk(&mut body).await? {
        if stream.send_data(chunk, false).is_err() {
            return Ok(());
        }
    }
    drop(stream.send_data(Bytes::new(), true));
    Ok(())
}

/// The next bytes of a body. Nothing is lost when it is dropped before it is ready.
pub(crate) async fn next_chunk(body: &mut tonic::body::Body) -> Result<Option<Bytes>, BoxError> {
    while let Some(frame) = body.frame().await {
        if let Ok(chunk) = frame?.into_data() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}
