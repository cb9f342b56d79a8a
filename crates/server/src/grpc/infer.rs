//! From a wire request to the model's stage and back: what unary and streamed inference share.

use std::sync::Arc;

use consort_middleware::{context, context_in};
use consort_protocol::{Call, ModelInferRequest, ModelInferResponse, to_status};
use consort_repository::{Labels, Models, Served, classify_outputs, log_failure};
use consort_stage::{Context, Error, Response as Answer, Result, Spent, collect_one};
use consort_telemetry::{Protocol, failed, request_span, version_chosen};
use http::{Extensions, HeaderMap};
use tonic::Status;

/// Whether a caller says `true` under a name.
pub(super) fn says_true(metadata: &HeaderMap, name: &str) -> bool {
    metadata.get(name).is_some_and(|value| value == "true")
}

/// A call whose model was found.
pub(super) struct Admitted {
    pub(super) served: Arc<Served>,
    pub(super) call: Call,
}

/// Reads a wire request, finds its model and opens its span.
pub(super) fn admit(
    models: &dyn Models,
    message: ModelInferRequest,
    context: Context,
) -> Result<Admitted> {
    let mut call = message.into_call()?;
    let served = models.get(&call.model, call.version)?;
    if let Some(span) = context.span.as_ref().filter(|_| call.version.is_none()) {
        version_chosen(span, served.version);
    }
    call.request.context = context;
    Ok(Admitted { served, call })
}

/// Answers one unary request, which came with this metadata.
pub(super) async fn infer(
    models: &dyn Models,
    metadata: &HeaderMap,
    extensions: &Extensions,
    message: ModelInferRequest,
) -> Result<ModelInferResponse, Status> {
    let span =
        request_span(Protocol::Grpc, &message.model_name, &message.model_version, &message.id);
    let spent = says_true(metadata, Spent::METADATA).then(Arc::<Spent>::default);
    let in_trace = context_in(extensions, span.clone());
    // The model's stage is given the message, and with it its names.
    let (model, id) = (message.model_name.clone(), message.id.clone());
    match answer(models, message, Context { spent: spent.clone(), ..in_trace }).await {
        Ok((served, response)) => {
            let response = ModelInferResponse::of(&*served.name, served.version, id, response);
            Ok(match spent {
                Some(spent) => response.with_durations(&spent.durations()),
                None => response,
            })
        }
        Err(error) => {
            failed(&span, error.code().name(), error.message());
            let span = (!span.is_disabled()).then_some(span);
            let context = Context { span, ..context(extensions) };
            Err(refused(&error, &Labels::new(&model, &id, &context)))
        }
    }
}

async fn answer(
    models: &dyn Models,
    message: ModelInferRequest,
    context: Context,
) -> Result<(Arc<Served>, Answer)> {
    let Admitted { served, call } = admit(models, message, context)?;
    if served.signature.is_decoupled {
        return Err(Error::unsupported(
            "ModelInfer RPC doesn't support models with decoupled transaction policy",
        ));
    }
    let mut response = collect_one(served.stage.call(call.request)).await?;
    classify_outputs(&served, &call.classes, &mut response)?;
    Ok((served, response))
}

/// The status that ends a call; logged unless its model has done so.
pub(super) fn refused(error: &Error, labels: &Labels) -> Status {
    log_failure(error, !error.code().is_the_servers_fault(), labels);
    to_status(error)
}
