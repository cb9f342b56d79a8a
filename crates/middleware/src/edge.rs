//! The protocol of a server where it concerns every request: its time-out and its refusals.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use consort_stage::{Code, Error, Result};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use crate::Refusable;

/// The header in which an HTTP caller says how many milliseconds it will wait.
pub const HTTP_TIMEOUT_HEADER: &str = "consort-timeout-ms";

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static HTTP_TIMEOUT: HeaderName = HeaderName::from_static(HTTP_TIMEOUT_HEADER);
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The protocol that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// HTTP with JSON errors: `{"error":"…"}`.
    Http,
    /// gRPC with statuses.
    Grpc,
}

impl Edge {
    /// How long the caller will wait, when it says so.
    ///
    /// A `grpc-timeout` that is malformed is passed over, as gRPC servers do; a
    /// [`consort-timeout-ms`](HTTP_TIMEOUT_HEADER) that is malformed is the caller's error, since
    /// nobody sends it by accident.
    pub(crate) fn budget(self, headers: &HeaderMap) -> Result<Option<Duration>> {
        match self {
            Self::Grpc => Ok(headers.get(&GRPC_TIMEOUT).and_then(parse_grpc_timeout)),
            Self::Http => match headers.get(&HTTP_TIMEOUT) {
                Some(value) => parse_milliseconds(value).map(Some),
                None => Ok(None),
            },
        }
    }

    /// The whole response that tells the caller of an error.
    pub fn refuse<B>(self, error: &Error) -> Response<Refusable<B>> {
        match self {
            Self::Http => refuse_http(error),
            Self::Grpc => {
                let mut response = Response::new(Refusable::Refused(None));
                // A response without a message carries its trailers as headers.
                *response.headers_mut() = grpc_trailers(error);
                let content_type = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                response
            }
        }
    }

    /// The trailers that end a body which has begun, where the protocol has a way to say why.
    pub(crate) fn trailers(self, error: &Error) -> Option<HeaderMap> {
        (self == Self::Grpc).then(|| grpc_trailers(error))
    }
}

fn refuse_http<B>(error: &Error) -> Response<Refusable<B>> {
    let (_, status) = error.code().statuses();
    let text = json!({ "error": error.message() }).to_string();
    let mut response = Response::new(Refusable::Refused(Some(Bytes::from(text))));
    *response.status_mut() =
        StatusCode::from_u16(status).expect("the table of codes holds HTTP statuses");
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn grpc_trailers(error: &Error) -> HeaderMap {
    let (status, _) = error.code().statuses();
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert(&GRPC_STATUS, HeaderValue::from(status));
    let message = HeaderValue::from_str(&percent_encode(error.message()))
        .expect("a percent-encoded text is printable");
    trailers.insert(&GRPC_MESSAGE, message);
    if let Some(code) = error.code().beside_status() {
        trailers.insert(Code::METADATA, HeaderValue::from_static(code));
    }
    trailers
}

/// Encodes what gRPC does not let stand in a status message.
fn percent_encode(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail"),
        }
    }
    encoded
}

/// Reads one to eight digits and a unit, as gRPC defines it.
fn parse_grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) {
        return None;
    }
    let amount = parse_digits(digits)?;
    Some(match unit {
        b'H' => Duration::from_hours(amount),
        b'M' => Duration::from_mins(amount),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

fn parse_milliseconds(value: &HeaderValue) -> Result<Duration> {
    let milliseconds = parse_digits(value.as_bytes());
    milliseconds.map(Duration::from_millis).ok_or_else(|| {
        Error::invalid(format!(
            "header `{HTTP_TIMEOUT_HEADER}` must be a whole number of milliseconds"
        ))
    })
}

/// A number of digits alone: no sign, no space.
fn parse_digits(digits: &[u8]) -> Option<u64> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let digits = is_number.then(|| str::from_utf8(digits).ok())??;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};

    use super::*;

    fn budget(edge: Edge, header: &'static str, value: &str) -> Result<Option<Duration>> {
        let mut headers = HeaderMap::new();
        headers.insert(header, value.parse().unwrap());
        edge.budget(&headers)
    }

    #[test]
    fn every_unit_of_a_grpc_timeout_is_understood() {
        for (text, expected) in [
            ("2H", Duration::from_hours(2)),
            ("3M", Duration::from_mins(3)),
            ("4S", Duration::from_secs(4)),
            ("5m", Duration::from_millis(5)),
            ("6u", Duration::from_micros(6)),
            ("7n", Duration::from_nanos(7)),
            ("99999999H", Duration::from_hours(99_999_999)),
        ] {
            let budget = budget(Edge::Grpc, "grpc-timeout", text);
            assert_eq!(budget.unwrap(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_malformed_grpc_timeout_is_passed_over() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", " 1S", "1 S", "100000000n"] {
            let budget = budget(Edge::Grpc, "grpc-timeout", text);
            assert_eq!(budget.unwrap(), None, "{text}");
        }
    }

    #[test]
    fn a_malformed_http_timeout_is_the_callers_error() {
        let read = |text| budget(Edge::Http, HTTP_TIMEOUT_HEADER, text);
        assert_eq!(read("250").unwrap(), Some(Duration::from_millis(250)));
        for text in ["", "1.5", "-1", "1s", "99999999999999999999"] {
            assert_eq!(read(text).unwrap_err().code(), Code::InvalidInput, "{text}");
        }
    }

    #[tokio::test]
    async fn an_http_refusal_is_json() {
        let error = Error::unavailable("a \"quoted\" reason");
        let response = Edge::Http.refuse::<Empty<Bytes>>(&error);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"error":"a \"quoted\" reason"}"#);
    }

    #[tokio::test]
    async fn a_grpc_refusal_is_headers_alone() {
        let error = Error::unavailable("50 % of\nΩ");
        let response = Edge::Grpc.refuse::<Empty<Bytes>>(&error);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "50 %25 of%0A%CE%A9");
        assert!(!response.headers().contains_key(Code::METADATA));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.is_empty());
        let full = Edge::Grpc.refuse::<Empty<Bytes>>(&Error::new(Code::Overloaded, "full"));
        assert_eq!(full.headers()["grpc-status"], "14");
        assert_eq!(full.headers()[Code::METADATA], "overloaded");
    }
}
