//! `ModelInfer`, put on a connection as the frames that it is: one message there, one message back.
//!
//! The gRPC library has a stream of messages for either way, whose bodies, buffers and boxes cost a
//! short call as much again.

use consort_protocol::{MESSAGE_LIMIT, ModelInferResponse, body_len};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tonic::{Code, Status};

use crate::connection::{BoxError, Connection};
use crate::outgoing::Outgoing;

static PATH: PathAndQuery = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
static GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
static TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Where the method is at `origin`.
pub(crate) fn method(origin: Uri) -> Uri {
    let mut parts = origin.into_parts();
    parts.path_and_query = Some(PATH.clone());
    Uri::from_parts(parts).expect("an origin with a path is a URI")
}

/// Calls `method` at the other end of the connection. Dropping the future resets the stream.
pub(crate) async fn infer(
    connection: &Connection,
    method: &Uri,
    outgoing: &Outgoing,
) -> Result<ModelInferResponse, Status> {
    let answer = connection.ask(head(method, outgoing), outgoing).await;
    let (head, body) = answer.map_err(Status::from_error)?.into_parts();
    let whole = Limited::new(body, body_len(MESSAGE_LIMIT)).collect().await.map_err(broken)?;
    succeeded(head.status, &head.headers, whole.trailers())?;
    ModelInferResponse::from_body(whole.to_bytes())
}

/// Why an answer has no end.
fn broken(error: BoxError) -> Status {
    if error.is::<LengthLimitError>() {
        return Status::out_of_range(format!("the answer has more than {MESSAGE_LIMIT} bytes"));
    }
    Status::from_error(error)
}

fn head(method: &Uri, outgoing: &Outgoing) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = method.clone();
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = outgoing.headers();
    head.headers_mut().insert(TE, TRAILERS.clone());
    head.headers_mut().insert(CONTENT_TYPE, GRPC.clone());
    head
}

/// Whether an answer says that the call succeeded, else why not.
fn succeeded(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
) -> Result<(), Status> {
    let end = trailers.unwrap_or(headers);
    match end.get(&GRPC_STATUS) {
        Some(ended) if ended == "0" => Ok(()),
        Some(_) => Err(Status::from_header_map(end)
            .unwrap_or_else(|| Status::unknown("the answer's grpc-status cannot be read"))),
        None if status == StatusCode::OK => {
            Err(Status::unknown("the answer ended without a grpc-status"))
        }
        None => {
            let text = format!("the server answered HTTP {status}");
            Err(Status::new(code_of(status), text))
        }
    }
}

/// The code for what is no gRPC server,
/// [as gRPC has it](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn a_call_ends_with_the_status_of_its_trailers_or_of_a_head_without_body() {
        let failed = headers(&[("grpc-status", "3"), ("grpc-message", "50%25 wrong")]);
        let none = HeaderMap::new();
        let done = headers(&[("grpc-status", "0")]);
        assert!(succeeded(StatusCode::OK, &none, Some(&done)).is_ok());
        for (head, trailers) in [(&failed, None), (&none, Some(&failed))] {
            let status = succeeded(StatusCode::OK, head, trailers).unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "50% wrong"));
        }
    }

    #[test]
    fn an_end_without_a_status_is_named() {
        let none = HeaderMap::new();
        let ended = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            succeeded(status, &none, None).unwrap_err()
        };
        assert_eq!(ended(200).code(), Code::Unknown);
        assert_eq!(ended(200).message(), "the answer ended without a grpc-status");
        assert_eq!(ended(503).code(), Code::Unavailable);
        assert_eq!(ended(404).code(), Code::Unimplemented);
        assert_eq!(ended(404).message(), "the server answered HTTP 404 Not Found");
        let trailers = headers(&[("x", "y")]);
        let status = succeeded(StatusCode::OK, &none, Some(&trailers)).unwrap_err();
        assert_eq!(status.code(), Code::Unknown);
    }
}
