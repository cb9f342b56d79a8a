//! Whether the server and its models are there and ready.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use consort_stage::Error;

use super::Front;
use super::error::Outcome;
use super::target::Target;

/// A process that answers is alive.
pub(super) async fn live() -> StatusCode {
    StatusCode::OK
}

/// Whether everything that should be served is served.
pub(super) async fn ready(State(front): State<Front>) -> StatusCode {
    if front.models.is_ready() { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

/// Whether one model answers requests.
pub(super) async fn model(State(front): State<Front>, target: Target) -> Outcome {
    match front.models.get(&target.name, target.version) {
        Ok(_) => Ok(StatusCode::OK.into_response()),
        Err(cause) => Err(Error::invalid("Model version not ready").with_source(cause).into()),
    }
}
