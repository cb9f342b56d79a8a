//! The one place where a failed request is logged, once, whichever front it came through.

use consort_stage::{Context, Error};
use consort_telemetry::trace_id;

/// Logs a failure that no model has logged: loud when the server is at fault.
///
/// What a caller did wrong is its own business, and would drown the rest.
pub fn log_failure(error: &Error, is_the_callers_fault: bool) {
    if !error.is_logged() {
        write(error, is_the_callers_fault, &Labels::default());
    }
}

/// Logs a failure of `model` with what finds the request again, and marks it as logged.
pub(crate) fn log_once(error: Error, model: &str, request_id: &str, context: &Context) -> Error {
    if error.is_logged() {
        return error;
    }
    let labels = Labels {
        model: Some(model),
        request_id: Some(request_id).filter(|id| !id.is_empty()),
        trace_id: trace_id(context.span.as_ref(), context.traceparent.as_deref()),
    };
    write(&error, !error.code().is_the_servers_fault(), &labels);
    error.logged()
}

/// What a log line says beside the error itself.
#[derive(Default)]
struct Labels<'a> {
    model: Option<&'a str>,
    request_id: Option<&'a str>,
    trace_id: Option<String>,
}

fn write(error: &Error, is_the_callers_fault: bool, labels: &Labels<'_>) {
    let code = error.code().name();
    let source = std::error::Error::source(error).map(ToString::to_string);
    let Labels { model, request_id, trace_id } = labels;
    if is_the_callers_fault {
        tracing::debug!(code, model, request_id, trace_id, source, "{error}");
    } else {
        tracing::error!(code, model, request_id, trace_id, source, "{error}");
    }
}
