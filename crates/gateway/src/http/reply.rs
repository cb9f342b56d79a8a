//! Responses with a body of JSON or of events.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Serialize;

use super::json_tensor::write;

/// Asks proxies that know it (nginx does) not to hold events back.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A response of Server-Sent Events, each sent as it comes.
pub(super) fn events(
    status: StatusCode,
    events: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (BUFFERING, "no"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (status, headers, Body::from_stream(events.map(Ok::<_, Infallible>))).into_response()
}

/// A response over JSON text.
pub(super) fn text(json: impl Into<Body>) -> Response {
    let mut response = Response::new(json.into());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A response over `value` as JSON.
pub(super) fn value(value: &impl Serialize) -> Response {
    let mut json = Vec::new();
    write(&mut json, value);
    text(json)
}
