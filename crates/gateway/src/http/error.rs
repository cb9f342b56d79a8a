//! Turns an error into an HTTP response: the only place that does, and where errors are logged.

use axum::http::header::HeaderName;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use consort_repository::{Labels, log_failure};
use consort_stage::Error;
use consort_telemetry::failed;
use tracing::Span;

use super::reply;

/// What a handler gives.
pub(super) type Outcome = Result<Response, Failure>;

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Failure {
    error: Error,
    status: StatusCode,
    header: Option<(HeaderName, &'static str)>,
    is_the_callers_fault: bool,
    // Boxed, so that errors do not widen results.
    labels: Box<Labels>,
}

impl Failure {
    /// What is wrong with the request itself, whatever the error's code.
    ///
    /// Triton calls JSON that can not be read an internal error; no operator need look into it.
    pub(super) fn of_the_caller(error: Error) -> Self {
        Self { is_the_callers_fault: true, ..Self::from(error) }
    }

    /// What failed.
    pub(super) fn error(&self) -> &Error {
        &self.error
    }

    /// The status that its response has.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The same failure with this status, where HTTP has one that says more than its code's.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same failure with one more header in its response.
    pub(super) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The same failure of the request that its caller calls `id`.
    pub(super) fn of_request(mut self, id: &str) -> Self {
        self.labels.request_id = Some(id.to_owned()).filter(|id| !id.is_empty());
        self
    }

    /// The same failure, noted on the request's span and labelled for the log.
    pub(super) fn noted_on(mut self, span: &Span, labels: Labels) -> Self {
        failed(span, self.error.code().name(), self.error.message());
        let request_id = self.labels.request_id.or(labels.request_id);
        self.labels = Box::new(Labels { request_id, ..labels });
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let is_the_callers_fault = !error.code().is_the_servers_fault();
        let status = status(&error);
        Self { error, status, header: None, is_the_callers_fault, labels: Box::default() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        log_failure(&self.error, self.is_the_callers_fault, &self.labels);
        let mut response = json_error(self.status, self.error.message());
        if let Some((name, value)) = self.header {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The status and the body of an error inside a stream, which is logged like any other.
pub(super) fn in_stream(error: &Error, span: &Span, labels: &Labels) -> (StatusCode, String) {
    failed(span, error.code().name(), error.message());
    log_failure(error, !error.code().is_the_servers_fault(), labels);
    (status(error), body(error.message()))
}

/// The status that an error has over HTTP as a rule.
fn status(error: &Error) -> StatusCode {
    let (_, status) = error.code().statuses();
    StatusCode::from_u16(status).expect("the table of codes holds HTTP statuses")
}

fn body(message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(r#"{{"error":{message}}}"#)
}

/// The answer to a path that is no route.
pub(super) fn not_found() -> Failure {
    Error::not_found("Not Found").into()
}

/// The answer to a route asked with the wrong verb.
pub(super) fn method_not_allowed() -> Response {
    json_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

fn json_error(status: StatusCode, message: &str) -> Response {
    let mut response = reply::text(body(message));
    *response.status_mut() = status;
    response
}
