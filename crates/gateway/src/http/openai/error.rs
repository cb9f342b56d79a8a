//! Says what went wrong in the shape that OpenAI's clients read.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use consort_repository::Labels;
use consort_stage::{Code, Error};
use serde_json::{Value, json};
use tracing::Span;

use super::inputs::Setting;
use crate::http::error::{self, Failure};
use crate::text_tensors::TEXT_INPUT;

/// The inputs that a prompt becomes, of ensembles and of the models of tokens in them.
const PROMPT: [&str; 3] = [TEXT_INPUT, "prompt_token_ids", "input_ids"];

/// An error on its way to a client of OpenAI's API.
#[derive(Debug)]
pub(super) struct Refusal {
    failure: Failure,
    /// The field that is wrong.
    param: Option<String>,
}

impl Refusal {
    /// The request is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Error::invalid(message).into()
    }

    /// The request is wrong in this field.
    pub(super) fn of(param: &str, message: impl Into<String>) -> Self {
        Self::invalid(message).about(param)
    }

    /// The same refusal, about this field.
    pub(super) fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// The same refusal, about the field whose input it names, which may be that of the prompt.
    pub(super) fn traced_to(self, settings: &[Setting], prompt: &str) -> Self {
        let error = self.failure.error();
        let is_of_a_field = matches!(error.code(), Code::InvalidInput | Code::Unsupported);
        if self.param.is_some() || !is_of_a_field {
            return self;
        }
        let names = |input: &str| {
            error.input() == Some(input) || error.message().contains(&format!("`{input}`"))
        };
        let set = settings.iter().find(|setting| names(&setting.input));
        let set = set.map(|setting| setting.field.clone());
        let of_prompt = || PROMPT.into_iter().any(names).then(|| prompt.to_owned());
        match set.or_else(of_prompt) {
            Some(field) => self.about(&field),
            None => self,
        }
    }

    /// The kind of the failure.
    pub(super) fn kind(&self) -> &'static str {
        self.failure.error().code().name()
    }

    /// The same refusal, noted on the request's span and labelled for the log.
    pub(super) fn noted_on(mut self, span: &Span, labels: Labels) -> Self {
        self.failure = self.failure.noted_on(span, labels);
        self
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, param: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = self.failure.error();
        let status = status(error, self.failure.status());
        let json = body(error, status, self.param.as_deref());
        let mut response = self.failure.into_response();
        *response.status_mut() = status;
        *response.body_mut() = Body::from(json.to_string());
        response
    }
}

/// The body of an error inside a stream, which is logged like any other.
pub(super) fn in_stream(error: &Error, span: &Span, labels: &Labels) -> Value {
    // The shape of its text is another here.
    let (usual, _) = error::in_stream(error, span, labels);
    body(error, status(error, usual), None)
}

fn body(error: &Error, status: StatusCode, param: Option<&str>) -> Value {
    let is_server_error = status.is_server_error();
    let code = match error.code() {
        Code::NotFound => Some("model_not_found"),
        code if is_server_error => Some(code.name()),
        _ => None,
    };
    json!({"error": {
        "message": error.message(),
        "type": if is_server_error { "server_error" } else { "invalid_request_error" },
        "param": param,
        "code": code,
    }})
}

/// OpenAI's clients try again after any status from 500; what is not offered never will be.
fn status(error: &Error, usual: StatusCode) -> StatusCode {
    match error.code() {
        Code::Unsupported => StatusCode::BAD_REQUEST,
        _ => usual,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(refusal: &Refusal, expected: &Expect) {
        let error = refusal.failure.error();
        let status = status(error, refusal.failure.status());
        let json = body(error, status, refusal.param.as_deref());
        expected.assert_eq(&format!("{} {json}", status.as_u16()));
    }

    #[test]
    fn an_error_has_the_shape_and_the_status_that_clients_map_to_their_exceptions() {
        check(
            &Refusal::of("n", "`n` must be positive"),
            &expect![[
                r#"400 {"error":{"message":"`n` must be positive","type":"invalid_request_error","param":"n","code":null}}"#
            ]],
        );
        check(
            &Refusal::from(Error::not_found("no such model")).about("model"),
            &expect![[
                r#"404 {"error":{"message":"no such model","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
            ]],
        );
        check(
            &Error::unsupported("no beams").into(),
            &expect![[
                r#"400 {"error":{"message":"no beams","type":"invalid_request_error","param":null,"code":null}}"#
            ]],
        );
        check(
            &Error::deadline_exceeded().into(),
            &expect![[
                r#"504 {"error":{"message":"request deadline exceeded","type":"server_error","param":null,"code":"deadline_exceeded"}}"#
            ]],
        );
    }
}
