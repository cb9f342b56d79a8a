//! Responses with a JSON body.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Serialize;

use super::json_tensor::write;

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
