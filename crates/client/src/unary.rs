//! `ModelInfer`, put on a connection as the frames that it is: one message there, one message back.
//!
//! The gRPC library has a stream of messages for either way, whose bodies, buffers and boxes cost a
//! short call as much again.

use consort_protocol::{MESSAGE_LIMIT, ModelInferResponse, receive};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri, Version};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Code, Status};

use crate::connection::Connection;
use crate::outgoing::Outgoing;

static PATH: PathAndQuery = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
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
    if head.status != StatusCode::OK {
        // What is no gRPC server has no message either.
        return Err(not_grpc(head.status, &head.headers));
    }
    let (body, trailers) = receive("answer", body, MESSAGE_LIMIT).await?;
    succeeded(trailers.as_ref().unwrap_or(&head.headers))?;
    ModelInferResponse::from_body(body)
}

fn head(method: &Uri, outgoing: &Outgoing) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = method.clone();
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = outgoing.headers();
    head.headers_mut().insert(TE, TRAILERS.clone());
    head.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    head
}

/// Whether the end of an answer says that the call succeeded, else why not.
fn succeeded(end: &HeaderMap) -> Result<(), Status> {
    match end.get(&GRPC_STATUS) {
        Some(ended) if ended == "0" => Ok(()),
        Some(_) => Err(Status::from_header_map(end)
            .unwrap_or_else(|| Status::unknown("the answer's grpc-status cannot be read"))),
        None => Err(Status::unknown("the answer ended without a grpc-status")),
    }
}

/// Why a call failed that was answered with this status, which is none of gRPC's.
fn not_grpc(status: StatusCode, headers: &HeaderMap) -> Status {
    let named = Status::from_header_map(headers).filter(|named| named.code() != Code::Ok);
    let text = format!("the server answered HTTP {status}");
    named.unwrap_or_else(|| Status::new(code_of(status), text))
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
    fn a_call_ends_with_the_status_that_is_named() {
        assert!(succeeded(&headers(&[("grpc-status", "0")])).is_ok());
        let failed = headers(&[("grpc-status", "3"), ("grpc-message", "50%25 wrong")]);
        for status in [succeeded(&failed).unwrap_err(), not_grpc(StatusCode::BAD_GATEWAY, &failed)]
        {
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "50% wrong"));
        }
        let unnamed = succeeded(&headers(&[("x", "y")])).unwrap_err();
        assert_eq!(unnamed.code(), Code::Unknown);
        assert_eq!(unnamed.message(), "the answer ended without a grpc-status");
    }

    #[test]
    fn who_is_no_grpc_server_is_named_by_its_status() {
        let claims = headers(&[("grpc-status", "0")]);
        let status = |status| not_grpc(StatusCode::from_u16(status).unwrap(), &claims);
        assert_eq!(status(503).code(), Code::Unavailable);
        assert_eq!(status(404).code(), Code::Unimplemented);
        assert_eq!(status(404).message(), "the server answered HTTP 404 Not Found");
    }
}
