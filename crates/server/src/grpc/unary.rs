//! `ModelInfer`, read from the frames that it came in and answered with two: its message and its end.
//!
//! The gRPC library takes any call for a stream of messages either way, whose buffers, bodies and
//! boxes cost a short call as much again.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use consort_protocol::{ModelInferRequest, receive};
use consort_repository::Models;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tower::BoxError;

use super::infer::infer;

static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static OK: HeaderValue = HeaderValue::from_static("0");

/// Whether a call has its message as it is.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    headers.get(&GRPC_ENCODING).is_none_or(|encoding| encoding == "identity")
}

/// Answers a call whose message may have so many bytes.
pub(super) async fn answer<B>(
    models: &dyn Models,
    limit: usize,
    call: Request<B>,
) -> Response<Answer>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    let (head, body) = call.into_parts();
    let answered = async {
        let (body, _) = receive("request", body, limit).await?;
        let message = ModelInferRequest::from_body(body)?;
        infer(models, &head.headers, &head.extensions, message).await?.to_body()
    };
    match answered.await {
        Ok(message) => {
            let mut response = Response::new(Answer::Message(message));
            response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
            response
        }
        // A body without a message has its end in the head.
        Err(status) => status.into_http::<Body>().map(Answer::Routed),
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A message, which has not left.
    Message(Bytes),
    /// It has, and the end has not.
    End,
    /// Nothing is left.
    Nothing,
    /// What the gRPC library answers.
    Routed(Body),
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let (frame, rest) = match this {
            Self::Routed(body) => return Pin::new(body).poll_frame(context),
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::End),
            Self::End => {
                let mut end = HeaderMap::with_capacity(1);
                end.insert(&GRPC_STATUS, OK.clone());
                (Frame::trailers(end), Self::Nothing)
            }
            Self::Nothing => return Poll::Ready(None),
        };
        *this = rest;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Routed(body) => body.is_end_stream(),
            Self::Nothing => true,
            Self::Message(_) | Self::End => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Routed(body) => body.size_hint(),
            // As long as there is an end to come, a body is not all there.
            Self::Message(_) | Self::End | Self::Nothing => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};
    use tonic::Code;

    use crate::nothing::Nothing;

    use super::*;

    fn message(size: usize) -> ModelInferRequest {
        ModelInferRequest { id: "i".repeat(size), ..ModelInferRequest::default() }
    }

    /// The status of a call with this body, whose message may have 1,000 bytes.
    async fn refusal<B>(body: B) -> Status
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
    {
        let response = answer(&Nothing::default(), 1_000, Request::new(body)).await;
        assert!(response.body().is_end_stream());
        assert_eq!(response.body().size_hint().exact(), Some(0), "nothing is left to cut off");
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_and_why() {
        let small = message(900).to_body().unwrap();
        let halves = [small.slice(..500), small.slice(500..)];
        let halves = halves.map(|half| Ok::<_, Infallible>(Frame::data(half)));
        let halves = StreamBody::new(stream::iter(halves));
        assert_eq!(refusal(halves).await.code(), Code::NotFound, "no model is there");
        let large = refusal(Full::new(message(1_000).to_body().unwrap())).await;
        assert_eq!(large.code(), Code::OutOfRange);
        assert!(large.message().ends_with("and may have 1000"), "{large:?}");
        let short = refusal(Full::new(small.slice(..700))).await;
        assert_eq!(short.code(), Code::Internal);
        assert!(short.message().ends_with("and has 695"), "{short:?}");
        assert_eq!(refusal(Empty::<Bytes>::new()).await.code(), Code::Internal);
    }

    #[tokio::test]
    async fn an_answer_is_its_message_and_its_end() {
        let mut body = Answer::Message(Bytes::from_static(b"message"));
        assert!(!body.is_end_stream() && body.size_hint().exact().is_none());
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, "message");
        assert!(!body.is_end_stream());
        let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(end["grpc-status"], "0");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }
}
