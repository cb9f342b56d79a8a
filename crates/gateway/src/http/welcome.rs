//! `GET /`: in plain words what this server is and where to go.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, HOST};
use axum::response::{Html, IntoResponse};
use consort_repository::{IndexEntry, State as ModelState};
use consort_server::VERSION;

use super::Front;
use super::error::Outcome;

/// What a person finds at `/`: a page for a browser, text for everything else.
pub(super) async fn page(State(front): State<Front>, headers: HeaderMap) -> Outcome {
    front.models.discover().await;
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let text = text(&front, host.unwrap_or("localhost:8000"));
    Ok(if accept.is_some_and(|accept| accept.contains("text/html")) {
        Html(html(&text)).into_response()
    } else {
        text.into_response()
    })
}

fn text(front: &Front, host: &str) -> String {
    let mut text = format!(
        "This is Consort {VERSION}, an inference server: it answers requests to machine learning models\n\
         over the protocol of KServe and Triton. Send it JSON, or use the clients you have.\n\nModels\n"
    );
    let entries = front.models.index();
    if entries.is_empty() {
        text.push_str("  none: the model repository is empty\n");
    }
    for entry in &entries {
        text.push_str(&line(entry));
    }
    text.push_str("\nTry\n");
    let _ = writeln!(text, "  {}", suggestion(front, &entries, host));
    text.push_str(
        "\nWhere to go\n  \
         GET  /v2/health/ready                   whether everything is ready\n  \
         GET  /v2/models/{model}                 what a model takes and gives\n  \
         GET  /v2/models/{model}/config          how it is configured\n  \
         GET  /v2/models/stats                   what the models have done\n  \
         POST /v2/models/{model}/infer           tensors in, tensors out\n  \
         POST /v2/models/{model}/generate        plain JSON in and out\n  \
         POST /v2/models/{model}/generate_stream the same, as Server-Sent Events\n",
    );
    text
}

fn line(entry: &IndexEntry) -> String {
    let version = entry.version.map(|version| format!(" version {version}"));
    let state = match entry.state {
        ModelState::Unknown => "not loaded",
        state => state.name(),
    };
    let reason = if entry.reason.is_empty() { "" } else { ": " };
    format!("  {}{}  {state}{reason}{}\n", entry.name, version.unwrap_or_default(), entry.reason)
}

/// A request to copy: the language model when it is there, else a look at whatever is.
fn suggestion(front: &Front, entries: &[IndexEntry], host: &str) -> String {
    if front.models.get(&front.options.generate_model, None).is_ok() {
        return format!(
            "curl {host}/generate -d '{{\"text_input\":\"Ownership is\",\"max_tokens\":40}}'"
        );
    }
    let ready = entries.iter().find(|entry| entry.state == ModelState::Ready);
    match ready {
        Some(entry) => format!("curl {host}/v2/models/{}", entry.name),
        None => format!("curl -i {host}/v2/health/ready"),
    }
}

fn html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Consort</title>\
         <body style=\"max-width:60em;margin:3em auto;padding:0 1em\"><pre>{text}</pre></body></html>"
    )
}
