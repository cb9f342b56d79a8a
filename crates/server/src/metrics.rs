//! The port of metrics and health, which every program has.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use consort_repository::Models;
use consort_telemetry::{CONTENT_TYPE, Metrics};

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    models: Arc<dyn Models>,
}

/// The routes of the metrics port; as with Triton, any other path is answered with an empty 200.
pub(crate) fn router(metrics: Arc<Metrics>, models: Arc<dyn Models>) -> Router {
    Router::new()
        .route("/metrics", get(show))
        .route("/v2/health/live", get(StatusCode::OK))
        .route("/v2/health/ready", get(ready))
        .fallback(get(StatusCode::OK))
        .with_state(Shared { metrics, models })
}

async fn show(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shared.metrics.encode()).into_response()
}

async fn ready(State(shared): State<Shared>) -> StatusCode {
    if shared.models.is_ready() { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}
