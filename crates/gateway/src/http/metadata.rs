//! What the server is and what its models take and give.

use std::sync::Arc;

use axum::extract::State;
use consort_protocol::{ModelMetadataResponse, ServerMetadataResponse, to_json};
use consort_repository::Served;
use consort_server::{EXTENSIONS, NAME, VERSION};

use super::error::{Failure, Outcome};
use super::target::Target;
use super::{Front, reply};

/// What the server is.
pub(super) async fn server() -> Outcome {
    let server = ServerMetadataResponse {
        name: NAME.to_owned(),
        version: VERSION.to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    };
    Ok(reply::value(&to_json(&server)?))
}

/// What a model takes and gives.
pub(super) async fn model(State(front): State<Front>, target: Target) -> Outcome {
    let served = find(&front, &target)?;
    let metadata = ModelMetadataResponse::of(
        &served.name,
        &served.versions,
        &served.platform,
        &served.signature,
    );
    Ok(reply::value(&to_json(&metadata)?))
}

/// A model's configuration, normalised.
pub(super) async fn config(State(front): State<Front>, target: Target) -> Outcome {
    let served = find(&front, &target)?;
    Ok(reply::value(&to_json(&*served.config)?))
}

/// The model that is asked about. The state of one that is not ready is said in the log where it
/// changes, not wherever somebody asks.
fn find(front: &Front, target: &Target) -> Result<Arc<Served>, Failure> {
    front.models.get(&target.name, target.version).map_err(Failure::of_the_caller)
}
