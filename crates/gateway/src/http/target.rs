//! Which model, in which version, a path names.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use consort_protocol::parse_version;
use consort_repository::Served;
use consort_stage::{Error, Result};
use consort_telemetry::semconv::attribute;
use consort_telemetry::{Protocol, request_span, version_chosen};
use tracing::Span;

use super::error::Failure;

/// The model and version in a request's path, names unquoted.
#[derive(Debug)]
pub(super) struct Target {
    /// The model's name.
    pub(super) name: String,
    /// The version; `None` asks for the latest.
    pub(super) version: Option<u64>,
}

impl Target {
    /// The span of a request to it; who reads the request's id records it.
    pub(super) fn span(&self) -> Span {
        let version = self.version.map(|version| version.to_string());
        request_span(Protocol::Http, &self.name, &version.unwrap_or_default(), "")
    }
}

/// Notes on the span of a request which model answers it, and what its caller calls it.
pub(super) fn identify(span: &Span, target: &Target, served: &Served, id: &str) {
    if target.version.is_none() {
        version_chosen(span, served.version);
    }
    if !id.is_empty() {
        span.record(attribute::REQUEST_ID, id);
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let segments = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|cause| Error::invalid("the path is not UTF-8").with_source(cause))?;
        let mut target = Self { name: String::new(), version: None };
        for (key, value) in &segments {
            match key {
                "model" => value.clone_into(&mut target.name),
                "version" => target.version = read_version(value)?,
                _ => {}
            }
        }
        Ok(target)
    }
}

/// Triton's routes know versions of digits only; anything else names no route.
fn read_version(text: &str) -> Result<Option<u64>> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        parse_version(text)
    } else {
        Err(Error::not_found("Not Found"))
    }
}
