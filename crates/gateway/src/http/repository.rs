//! What is in the model repository, and the calls that load and unload models.

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_repository::{Change, IndexEntry, State as ModelState};
use consort_stage::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{Failure, Outcome};
use super::offload::offload;
use super::target::Target;
use super::{Front, body, json, reply};

/// What the index may be asked.
#[derive(Deserialize)]
struct Filter<'a> {
    #[serde(borrow)]
    ready: Option<&'a RawValue>,
}

/// What a load or an unload may be given.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
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
    front.models.discover().await;
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

/// Loads a model, or loads it anew, and answers once it is ready.
pub(super) async fn load(State(front): State<Front>, target: Target, request: Request) -> Outcome {
    let body = body::read(request.into_body(), front.options.max_input_size).await?;
    let change = offload(body.len(), move || read_load(&target.name, &body)).await;
    front.models.control(change.map_err(Failure::of_the_caller)?).await?;
    Ok(Response::default())
}

/// Unloads a model; what is in flight is still answered.
pub(super) async fn unload(
    State(front): State<Front>,
    target: Target,
    request: Request,
) -> Outcome {
    let body = body::read(request.into_body(), front.options.max_input_size).await?;
    let change = read_unload(&target.name, &body).map_err(Failure::of_the_caller)?;
    front.models.control(change).await?;
    Ok(Response::default())
}

fn read_load(model: &str, body: &[u8]) -> Result<Change> {
    let (mut config, mut files) = (None, Vec::new());
    for (key, value) in parameters(body)? {
        if let Some(path) = key.strip_prefix("file:") {
            let text = json::text(&key, value)?;
            let content = STANDARD.decode(text.as_bytes()).map_err(|_| {
                Error::internal(format!("Unable to parse '{key}': the content is not base64"))
            })?;
            files.push((path.to_owned(), content.into()));
        } else if key == "config" {
            config = Some(json::text(&key, value)?.into_owned());
        } else {
            return Err(Error::internal("unexpected error on creating Triton parameter"));
        }
    }
    files.sort();
    Change::load(model, config, files)
}

fn read_unload(model: &str, body: &[u8]) -> Result<Change> {
    let parameters = parameters(body)?;
    let wanted = parameters.iter().find(|(key, _)| key == "unload_dependents");
    let wanted = wanted.map_or(Ok(false), |(key, value)| json::boolean(key, value))?;
    Change::unload(model, wanted)
}

/// The parameters of a body, which may be empty.
fn parameters(body: &[u8]) -> Result<Vec<json::Member<'_>>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let asked: Asked<'_> = json::document(body)?;
    json::members("parameters", asked.parameters)
}

/// Any request that names one of several repositories.
pub(super) async fn named() -> Failure {
    Error::unsupported("'repository_name' specification is not supported").into()
}
