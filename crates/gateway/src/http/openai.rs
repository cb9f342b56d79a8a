//! OpenAI's API over ensembles that continue text or embed it.

mod adapters;
mod answer;
mod caller;
mod characters;
mod chat;
mod choice;
mod chunks;
mod completions;
mod counts;
mod echo;
mod embeddings;
mod error;
mod fields;
mod generation;
mod inputs;
mod log_probs;
mod models;
mod prompt;
mod prompt_log_probs;
mod record;
mod sampling;
mod sse;
mod template;
mod templates;
mod text_model;
mod vllm;

use axum::Router;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use consort_stage::Error;

use self::error::Refusal;
use self::fields::Fields;
pub(super) use self::templates::Templates;
use super::compression::{self, Encoding};
use super::error::Failure;
use super::offload::offload;
use super::{Front, body};

/// The routes of OpenAI's API.
pub(super) fn routes() -> Router<Front> {
    Router::new()
        .route("/v1/completions", post(completions::complete))
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/embeddings", post(embeddings::embed))
        .route("/v1/models", get(models::all))
        .route("/v1/models/{model}", get(models::one))
}

/// Whether a path is one of this API, route or not.
pub(super) fn is_under(path: &str) -> bool {
    path.strip_prefix("/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The answer to a path that is no route here, or not for this verb.
pub(super) fn no_route(method: &Method, uri: &Uri, status: StatusCode) -> Response {
    let text = format!("Invalid URL ({method} {})", uri.path());
    Refusal::from(Failure::from(Error::invalid(text)).with_status(status)).into_response()
}

/// The fields of a request's body.
async fn receive(front: &Front, request: Request) -> Result<(Parts, Fields), Refusal> {
    let (head, body) = request.into_parts();
    if compression::of_request(&head.headers).ok() != Some(Encoding::Identity) {
        return Err(Refusal::invalid("the request body must not be compressed"));
    }
    let body = body::read(body, front.options.max_input_size).await?;
    let size = body.len();
    let fields = offload(size, move || Fields::parse(&body)).await;
    Ok((head, fields.map_err(|error| Refusal::invalid(error.message()))?))
}
