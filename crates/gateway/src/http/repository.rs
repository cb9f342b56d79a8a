//! What is in the model repository, and the refusal to change it.

use axum::extract::{Request, State};
use consort_repository::{IndexEntry, State as ModelState};
use consort_stage::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{Failure, Outcome};
use super::{Front, body, json, reply};

/// What the index may be asked.
#[derive(Deserialize)]
struct Filter<'a> {
    #[serde(borrow)]
    ready: Option<&'a RawValue>,
}

/// One line of the index; a model that was never loaded has nothing but its name.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

/// Every known model and version, or those that are ready.
pub(super) async fn index(State(front): State<Front>, request: Request) -> Outcome {
    let body = body::read(request.into_body(), front.options.max_input_size).await?;
    let only_ready = only_ready(&body).map_err(Failure::of_the_caller)?;
    let entries = front.models.index();
    let lines = entries.iter().filter(|entry| !only_ready || entry.state == ModelState::Ready);
    Ok(reply::value(&lines.map(line).collect::<Vec<_>>()))
}

fn only_ready(body: &[u8]) -> Result<bool> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(false);
    }
    let filter: Filter<'_> = json::document(body)?;
    match filter.ready.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Error::invalid("Invalid value for 'ready': expected a boolean")),
    }
}

fn line(entry: &IndexEntry) -> Line<'_> {
    Line {
        name: &entry.name,
        version: entry.version.map(|version| version.to_string()),
        state: entry.state.name(),
        reason: &entry.reason,
    }
}

/// Loading and unloading: the repository is read when the server starts.
pub(super) async fn control() -> Failure {
    Error::unavailable("explicit model load / unload is not allowed if polling is enabled").into()
}

/// Any request that names one of several repositories.
pub(super) async fn named() -> Failure {
    Error::unsupported("'repository_name' specification is not supported").into()
}
