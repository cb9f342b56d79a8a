//! The one place where a failed request is logged, once, whichever front it came through.

use consort_stage::{Context, Error};
use consort_telemetry::trace_id;

/// What a log line says beside the error itself, as far as it is known: what finds the request again.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// The model that the request names.
    pub model: Option<String>,
    /// The id that the caller gave the request.
    pub request_id: Option<String>,
    /// The trace that the request belongs to.
    pub trace_id: Option<String>,
}

impl Labels {
    /// The labels of a question about `model`.
    pub fn of_model(model: &str) -> Self {
        Self { model: Some(model.to_owned()), ..Self::default() }
    }

    /// The labels of a request to `model`; without a name or an id where they are empty.
    pub fn new(model: &str, request_id: &str, context: &Context) -> Self {
        let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            model: known(model),
            request_id: known(request_id),
            trace_id: trace_id(context.span.as_ref(), context.traceparent.as_deref()),
        }
    }
}

/// Logs a failure that no model has logged: loud when the server is at fault.
///
/// What a caller did wrong is its own business, and would drown the rest.
pub fn log_failure(error: &Error, is_the_callers_fault: bool, labels: &Labels) {
    if !error.is_logged() {
        write(error, is_the_callers_fault, labels);
    }
}

/// Logs a failure of `model` with what finds the request again, and marks it as logged.
pub(crate) fn log_once(error: Error, model: &str, request_id: &str, context: &Context) -> Error {
    if error.is_logged() {
        return error;
    }
    let labels = Labels::new(model, request_id, context);
    write(&error, !error.code().is_the_servers_fault(), &labels);
    error.logged()
}

fn write(error: &Error, is_the_callers_fault: bool, labels: &Labels) {
    let code = error.code().name();
    let source = std::error::Error::source(error).map(ToString::to_string);
    let Labels { model, request_id, trace_id } = labels;
    if is_the_callers_fault {
        tracing::debug!(code, model, request_id, trace_id, source, "{error}");
    } else {
        tracing::error!(code, model, request_id, trace_id, source, "{error}");
    }
}
