//! The HTTP front: Triton's routes over any set of models.

mod body;
mod compression;
mod deadline;
mod error;
mod generate;
mod health;
mod infer;
mod json;
mod json_tensor;
mod metadata;
mod offload;
mod openai;
mod parameters;
mod refused;
mod reply;
mod repository;
mod statistics;
mod target;
#[cfg(test)]
mod tests;
mod welcome;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use consort_repository::Models;
use consort_telemetry::Metrics;

/// What a person can set about the HTTP front.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model that `/generate` and `/generate_stream` at the top level call.
    pub generate_model: String,
    /// The largest request body in bytes, before and after decompression.
    pub max_input_size: usize,
    /// The model repositories, in which the templates of chats lie.
    pub model_repositories: Vec<PathBuf>,
    /// Where it is counted what is asked of models of text.
    pub metrics: Arc<Metrics>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            generate_model: "generate".to_owned(),
            // Triton's default, so that a client tuned for it meets the same limit.
            max_input_size: 64 << 20,
            model_repositories: Vec::new(),
            metrics: Metrics::new(),
        }
    }
}

/// What every handler works on.
#[derive(Clone)]
struct Front {
    models: Arc<dyn Models>,
    options: Arc<Options>,
    templates: Arc<openai::Templates>,
}

/// The HTTP front over `models`.
pub fn router(models: Arc<dyn Models>, options: Options) -> Router {
    let templates = openai::Templates::new(options.model_repositories.clone());
    let front = Front { models, options: Arc::new(options), templates: Arc::new(templates) };
    Router::new()
        .merge(about_the_server())
        .merge(about_models())
        .merge(inference())
        .merge(openai::routes())
        .merge(repository_control())
        .merge(not_offered())
        .fallback(unrouted)
        .method_not_allowed_fallback(wrong_verb)
        .with_state(front)
}

/// The answer to a path that is no route, in the shape of the API that it is under.
async fn unrouted(method: Method, uri: Uri) -> Response {
    if openai::is_under(uri.path()) {
        return openai::no_route(&method, &uri, StatusCode::NOT_FOUND);
    }
    error::not_found().into_response()
}

/// The answer to a route asked with the wrong verb, likewise.
async fn wrong_verb(method: Method, uri: Uri) -> Response {
    if openai::is_under(uri.path()) {
        return openai::no_route(&method, &uri, StatusCode::METHOD_NOT_ALLOWED);
    }
    error::method_not_allowed()
}

fn about_the_server() -> Router<Front> {
    Router::new()
        .route("/", get(welcome::page))
        .route("/v2", get(metadata::server))
        .route("/v2/health/live", get(health::live))
        .route("/v2/health/ready", get(health::ready))
}

fn about_models() -> Router<Front> {
    Router::new()
        .route("/v2/models/stats", get(statistics::all))
        .merge(of_model("", || get(metadata::model)))
        .merge(of_model("/ready", || get(health::model)))
        .merge(of_model("/config", || get(metadata::config)))
        .merge(of_model("/stats", || get(statistics::of_model)))
}

fn inference() -> Router<Front> {
    Router::new()
        .route("/generate", post(generate::default_model))
        .route("/generate_stream", post(generate::default_model_stream))
        .merge(of_model("/infer", || post(infer::infer)))
        .merge(of_model("/generate", || post(generate::generate)))
        .merge(of_model("/generate_stream", || post(generate::generate_stream)))
}

fn repository_control() -> Router<Front> {
    Router::new()
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .route("/v2/repository/{repository}/index", post(repository::named))
        .route("/v2/repository/{repository}/models/{model}/load", post(repository::named))
        .route("/v2/repository/{repository}/models/{model}/unload", post(repository::named))
}

fn not_offered() -> Router<Front> {
    let tracing = || get(refused::tracing).post(refused::tracing);
    Router::new()
        .route("/v2/trace/setting", tracing())
        .route("/v2/models/{model}/trace/setting", tracing())
        .route("/v2/logging", get(refused::logging).post(refused::logging))
        .route("/v2/systemsharedmemory/{*rest}", any(refused::memory))
        .route("/v2/cudasharedmemory/{*rest}", any(refused::memory))
}

/// Routes the same handler for a model's latest version and for a version of it.
fn of_model(action: &str, handler: fn() -> MethodRouter<Front>) -> Router<Front> {
    Router::new()
        .route(&format!("/v2/models/{{model}}{action}"), handler())
        .route(&format!("/v2/models/{{model}}/versions/{{version}}{action}"), handler())
}
