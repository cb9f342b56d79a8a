//! The generate extension: plain JSON in, plain JSON or Server-Sent Events out.

mod request;
mod response;
mod sse;

use std::sync::Arc;

use axum::extract::{Request, State};
use consort_middleware::context_in;
use consort_repository::{Labels, Served};
use consort_stage::{Context, Error, Response, Responses, Result};
use futures::StreamExt;
use tracing::Span;

use super::compression::{self, Encoding};
use super::error::{Failure, Outcome};
use super::offload::offload;
use super::target::{Target, identify};
use super::{Front, body, deadline, reply};

/// Answers with the model's only response.
pub(super) async fn generate(
    State(front): State<Front>,
    target: Target,
    request: Request,
) -> Outcome {
    let (caller, responses) = call(&front, &target, request, Wait::ForAll).await?;
    let whole = async { response::encode(&caller, &only(responses).await?) };
    let text = whole.await.map_err(|error| {
        let labels = caller.labels();
        Failure::from(error).noted_on(&caller.span, labels)
    });
    Ok(reply::text(text?))
}

/// Answers with every response of the model, each as soon as it is there.
pub(super) async fn generate_stream(
    State(front): State<Front>,
    target: Target,
    request: Request,
) -> Outcome {
    let (caller, responses) = call(&front, &target, request, Wait::ForEach).await?;
    sse::reply(caller, responses).await
}

/// [`generate`] with the model that the options name.
pub(super) async fn default_model(State(front): State<Front>, request: Request) -> Outcome {
    let target = default_target(&front);
    generate(State(front), target, request).await
}

/// [`generate_stream`] with the model that the options name.
pub(super) async fn default_model_stream(State(front): State<Front>, request: Request) -> Outcome {
    let target = default_target(&front);
    generate_stream(State(front), target, request).await
}

fn default_target(front: &Front) -> Target {
    Target { name: front.options.generate_model.clone(), version: None }
}

/// Who asked whom: what the responses are labelled with, and the span that they belong to.
struct Caller {
    served: Arc<Served>,
    id: String,
    span: Span,
    context: Context,
}

impl Caller {
    fn labels(&self) -> Labels {
        Labels::new(&self.served.name, &self.id, &self.context)
    }
}

/// Whether the client waits for the whole answer or reads it as it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    ForAll,
    ForEach,
}

async fn call(
    front: &Front,
    target: &Target,
    request: Request,
    wait: Wait,
) -> Result<(Caller, Responses), Failure> {
    let span = target.span();
    let context = context_in(request.extensions(), span.clone());
    let call = start(front, target, request, (wait, &span, &context)).await;
    let (served, id, responses) =
        call.map_err(|failure| failure.noted_on(&span, Labels::new(&target.name, "", &context)))?;
    Ok((Caller { served, id, span, context }, responses))
}

/// The model that is called, the request's id and what the model answers.
async fn start(
    front: &Front,
    target: &Target,
    request: Request,
    (wait, span, context): (Wait, &Span, &Context),
) -> Result<(Arc<Served>, String, Responses), Failure> {
    let served = front.models.get(&target.name, target.version)?;
    let (head, body) = request.into_parts();
    if compression::of_request(&head.headers).ok() != Some(Encoding::Identity) {
        return Err(
            Error::invalid("Unsupported content-encoding, only 'identity' is supported.").into()
        );
    }
    let limit = front.options.max_input_size;
    let body = body::read(body, limit).await?;
    let body_size = body.len();
    let signature = Arc::clone(&served.signature);
    let parse = move || request::parse(&signature, &body, limit);
    let mut request = offload(body_size, parse).await?;
    let id = request.id.clone();
    identify(span, target, &served, &id);
    request.context = context.clone();
    let responses = match wait {
        Wait::ForAll => served.stage.call(request),
        Wait::ForEach => {
            request::ask_for_a_stream(&served.signature, &mut request);
            deadline::limit(served.stage.call(request), head.extensions.get())
        }
    };
    Ok((served, id, responses))
}

/// The one response that carries data; one that only says that it is the last is no answer.
async fn only(mut responses: Responses) -> Result<Response> {
    let mut answer = None;
    while let Some(response) = responses.next().await {
        let response = response?;
        if response.outputs.is_empty() {
            continue;
        }
        if answer.replace(response).is_some() {
            return Err(not_one());
        }
    }
    answer.ok_or_else(not_one)
}

fn not_one() -> Error {
    Error::internal(
        "generate expects model to produce exactly 1 response, use generate stream for model that \
         generates various number of responses",
    )
}
