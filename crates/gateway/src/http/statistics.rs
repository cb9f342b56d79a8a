//! What the models have done so far, in numbers.

use axum::extract::State;
use consort_protocol::{ModelStatisticsResponse, to_json};

use super::error::Outcome;
use super::target::Target;
use super::{Front, reply};

/// The statistics of every model.
pub(super) async fn all(State(front): State<Front>) -> Outcome {
    statistics(&front, "", None).await
}

/// The statistics of a version of a model, or of all of its versions.
pub(super) async fn of_model(State(front): State<Front>, target: Target) -> Outcome {
    statistics(&front, &target.name, target.version).await
}

async fn statistics(front: &Front, name: &str, version: Option<u64>) -> Outcome {
    let model_stats = front.models.statistics(name, version).await?;
    let statistics = ModelStatisticsResponse { model_stats };
    Ok(reply::value(&to_json(&statistics)?))
}
