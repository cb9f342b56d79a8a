//! `GET /v1/models`: the models that OpenAI's API reaches, and what each is good for.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use consort_repository::Served;
use consort_stage::Error;
use serde_json::{Value, json};

use super::adapters::{self, Named};
use super::embeddings::Embedder;
use super::error::Refusal;
use super::text_model::TextModel;
use crate::http::target::Target;
use crate::http::{Front, reply};

/// Every model that can be asked.
pub(super) async fn all(State(front): State<Front>) -> Response {
    let ready = adapters::ready(&*front.models);
    let mut models = Vec::new();
    for served in &ready {
        models.extend(card(&front, &served.name, &Named::plain(served)).await);
    }
    for (name, named) in adapters::listed(&*front.models, &ready) {
        models.extend(card(&front, &name, &named).await);
    }
    reply::value(&json!({"object": "list", "data": models}))
}

/// One of them.
pub(super) async fn one(State(front): State<Front>, target: Target) -> Result<Response, Refusal> {
    let named = adapters::find(&*front.models, &target.name);
    let named = named.map_err(|error| Refusal::from(error).about("model"))?;
    let card = card(&front, &target.name, &named).await.ok_or_else(|| {
        let name = &target.name;
        let text = format!("model `{name}` neither continues text nor embeds it");
        Refusal::from(Error::not_found(text)).about("model")
    })?;
    Ok(reply::value(&card))
}

/// The model as one that continues text.
pub(super) fn text(served: &Arc<Served>) -> Result<TextModel, Refusal> {
    TextModel::of(served).ok_or_else(|| {
        let text = format!(
            "model `{}` does not continue text: it has no TYPE_STRING input `text_input` and output \
             `text_output`",
            served.name
        );
        Refusal::of("model", text)
    })
}

/// What clients are told of a model by this name; nothing of one that they cannot ask.
async fn card(front: &Front, name: &str, named: &Named) -> Option<Value> {
    let Named { served, adapter } = named;
    let routes: &[&str] = if TextModel::of(served).is_some() {
        match front.templates.of(&front.models, served).await {
            Ok(_) => &["/v1/completions", "/v1/chat/completions"],
            Err(_) => &["/v1/completions"],
        }
    } else {
        Embedder::of(served)?;
        &["/v1/embeddings"]
    };
    Some(json!({
        "id": name,
        "object": "model",
        "created": front.templates.opened_at,
        "owned_by": "consort",
        "root": &*served.name,
        "parent": adapter.as_ref().map(|_| &*served.name),
        "routes": routes,
    }))
}
