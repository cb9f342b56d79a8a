//! Gives up on a call whose one message does not come, as the HTTP front does on slow bodies.

use bytes::Bytes;
use consort_middleware::{Halt, Paced, too_slow};
use consort_protocol::to_status;
use http::Request;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;
use tonic::Status;
use tower::BoxError;

/// The body of a call that is received while it comes fast enough.
pub(crate) type PacedCall<B> = MapErr<Paced<B>, fn(Halt<<B as Body>::Error>) -> Status>;

/// Has the message of a call come fast enough; a stream may be silent between its messages.
pub(crate) fn keep_pace<B>(call: Request<B>) -> Request<PacedCall<B>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let pace = if is_stream(call.uri().path()) { Paced::unhurried } else { Paced::new };
    call.map(|body| pace(body).map_err(status as fn(_) -> _))
}

/// Whether the caller may send any number of messages.
pub(super) fn is_stream(path: &str) -> bool {
    path == "/inference.GRPCInferenceService/ModelStreamInfer"
        || path.starts_with("/grpc.reflection.")
}

fn status<E: Into<BoxError>>(halt: Halt<E>) -> Status {
    match halt {
        Halt::TooSlow => to_status(&too_slow()),
        Halt::Broken(error) => Status::from_error(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use futures::{StreamExt, stream};
    use http::Response;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tokio::time::{Instant, sleep, timeout};
    use tonic::body::Body;
    use tower::{ServiceBuilder, ServiceExt};

    use super::*;
    use crate::grpc::methods;
    use crate::grpc::unary::Answer;
    use crate::nothing::Nothing;

    /// Calls `method` with a message of which a byte comes every second.
    async fn call(method: &str) -> Response<Answer> {
        let bytes = stream::repeat(()).then(|()| async {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0")))
        });
        // As long as its head says.
        let head = stream::iter([Ok(Frame::data(Bytes::from_static(b"\0\0\x01\0\0")))]);
        let body = Body::new(StreamBody::new(Box::pin(head.chain(bytes))));
        let call = Request::post(format!("/inference.GRPCInferenceService/{method}"));
        let call = call.header("content-type", "application/grpc").body(body).unwrap();
        let service = ServiceBuilder::new()
            .map_request(keep_pace)
            .service(methods(Arc::<Nothing>::default(), usize::MAX));
        service.oneshot(call).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_trickles_in_is_given_up() {
        let begun_at = Instant::now();
        let refused = call("ModelInfer").await;
        assert_eq!(begun_at.elapsed(), Duration::from_secs(30));
        assert_eq!(refused.headers()["grpc-status"], "4");
        let message = refused.headers()["grpc-message"].to_str().unwrap();
        assert!(message.starts_with("the%20request%20body%20came%20too%20slowly"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_waited_for() {
        let mut responses = call("ModelStreamInfer").await.into_body();
        let waited = timeout(Duration::from_hours(1), responses.frame()).await;
        assert!(waited.is_err(), "{waited:?}");
    }
}
