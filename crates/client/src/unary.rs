//! `ModelInfer`, put on a connection as the frames that it is: one message there, one message back.
//!
//! The gRPC library has a stream of messages for either way, whose bodies, buffers and boxes cost a
//! short call as much again.

use consort_protocol::ModelInferResponse;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri, Version};
use tonic::{Code, Status};

use crate::connection::{Connection, Whole};
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
    let asked = connection.ask(head(method, outgoing), outgoing).await;
    let whole = asked.map_err(Status::from_error)?;
    succeeded(&whole)?;
    ModelInferResponse::from_body(whole.body)
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
fn succeeded(whole: &Whole) -> Result<(), Status> {
    let end: &HeaderMap = whole.trailers.as_ref().unwrap_or(&whole.headers);
    match end.get(&GRPC_STATUS) {
        Some(status) if status == "0" => Ok(()),
        Some(_) => Err(Status::from_header_map(end)
            .unwrap_or_else(|| Status::unknown("the answer's grpc-status cannot be read"))),
        None if whole.status == StatusCode::OK => {
            Err(Status::unknown("the answer ended without a grpc-status"))
        }
        None => {
            let text = format!("the server answered HTTP {}", whole.status);
            Err(Status::new(code_of(whole.status), text))
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
    use bytes::Bytes;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    fn whole(status: u16, head: HeaderMap, trailers: Option<HeaderMap>) -> Whole {
        let status = StatusCode::from_u16(status).unwrap();
        Whole { status, headers: head, body: Bytes::new(), trailers }
    }

    #[test]
    fn a_call_ends_with_the_status_of_its_trailers_or_of_a_head_without_body() {
        let failed = headers(&[("grpc-status", "3"), ("grpc-message", "50%25 wrong")]);
        let none = HeaderMap::new();
        assert!(succeeded(&whole(200, none, Some(headers(&[("grpc-status", "0")])))).is_ok());
        for ended in
            [whole(200, failed.clone(), None), whole(200, HeaderMap::new(), Some(failed.clone()))]
        {
            let status = succeeded(&ended).unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "50% wrong"));
        }
    }

    #[test]
    fn an_end_without_a_status_is_named() {
        let ended = |status| succeeded(&whole(status, HeaderMap::new(), None)).unwrap_err();
        assert_eq!(ended(200).code(), Code::Unknown);
        assert_eq!(ended(200).message(), "the answer ended without a grpc-status");
        assert_eq!(ended(503).code(), Code::Unavailable);
        assert_eq!(ended(404).code(), Code::Unimplemented);
        assert_eq!(ended(404).message(), "the server answered HTTP 404 Not Found");
        let trailers = Some(headers(&[("x", "y")]));
        let status = succeeded(&whole(200, HeaderMap::new(), trailers)).unwrap_err();
        assert_eq!(status.code(), Code::Unknown);
    }
}
