//! Turns what went wrong on the way to a replica into an error that names service and cause.

use std::error::Error as _;

use consort_protocol::from_status;
use consort_stage::{Code, Context, Error};
use tonic::Status;

/// The error of a call that ended with `status`.
///
/// A server's own status keeps its code. What this side found out by itself, such as a connection
/// that broke, is `Unavailable`; but once the deadline has passed, that is the reason.
pub(crate) fn of_call(status: &Status, context: &Context) -> Error {
    let error = from_status(status);
    let gave_up = is_local(status)
        || matches!(error.code(), Code::Cancelled | Code::Unavailable | Code::DeadlineExceeded);
    if gave_up && context.is_expired() {
        return Error::deadline_exceeded();
    }
    if is_local(status) {
        return Error::unavailable(reason(status));
    }
    error
}

/// In a few words, why a replica gave `status`.
pub(crate) fn reason(status: &Status) -> String {
    let Some(mut cause) = status.source() else {
        return status.message().to_owned();
    };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.to_string() {
        text if text.is_empty() => status.message().to_owned(),
        text => text,
    }
}

/// Whether this side made the status up because the transport failed.
pub(crate) fn is_local(status: &Status) -> bool {
    status.source().is_some()
}
