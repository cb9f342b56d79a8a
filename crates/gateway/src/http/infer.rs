//! `POST /v2/models/{model}/infer`: one request, one response, tensors in JSON or binary.

mod raw;
mod request;
mod response;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use consort_middleware::context_in;
use consort_repository::{Labels, Served};
use consort_stage::{Context, Error, Response, Result, collect_one};
use tracing::Span;

use self::request::Call;
use self::response::{Encoded, Form};
use super::compression::{self, Encoding};
use super::error::{Failure, Outcome};
use super::offload::offload;
use super::target::{Target, identify};
use super::{Front, body};

/// Where the JSON ends and the binary tensors begin, in requests and responses.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Answers one inference request.
pub(super) async fn infer(State(front): State<Front>, target: Target, request: Request) -> Outcome {
    let span = target.span();
    let context = context_in(request.extensions(), span.clone());
    let answer = answer(&front, &target, request, (&span, &context)).await;
    answer.map_err(|failure| failure.noted_on(&span, Labels::new(&target.name, "", &context)))
}

async fn answer(
    front: &Front,
    target: &Target,
    request: Request,
    (span, context): (&Span, &Context),
) -> Outcome {
    let served = front.models.get(&target.name, target.version)?;
    if served.signature.is_decoupled {
        return Err(Error::unsupported(
            "HTTP end point doesn't support models with decoupled transaction policy",
        )
        .into());
    }
    let (head, body) = request.into_parts();
    let body = receive(&head.headers, body, front.options.max_input_size).await?;
    let call = parse(&served, &head.headers, body, front.options.max_input_size).await;
    let Call { mut request, form } = call?;
    identify(span, target, &served, &form.id);
    request.context = context.clone();
    let response = collect_one(served.stage.call(request)).await?;
    let encoding = compression::for_response(&head.headers);
    let id = form.id.clone();
    let encoded = encode(served, form, response, encoding).await;
    Ok(reply(encoded.map_err(|error| Failure::from(error).of_request(&id))?, encoding))
}

/// The body of an answer.
async fn encode(
    served: Arc<Served>,
    form: Form,
    response: Response,
    encoding: Encoding,
) -> Result<Encoded> {
    let size = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
    let encoded = offload(size, move || {
        let encoded = response::encode(&served, &form, response)?;
        let bytes = compression::compress(encoded.bytes, encoding)?;
        Ok(Encoded { bytes, ..encoded })
    });
    encoded.await
}

/// The request's body, unpacked.
async fn receive(
    headers: &HeaderMap,
    body: axum::body::Body,
    limit: usize,
) -> Result<Bytes, Failure> {
    let encoding = compression::of_request(headers)?;
    let body = body::read(body, limit).await?;
    if encoding == Encoding::Identity {
        return Ok(body);
    }
    // How much a body unpacks to is not known before; any might be the limit's worth.
    let unpacked = offload(usize::MAX, move || compression::decompress(&body, encoding, limit));
    Ok(unpacked.await?)
}

/// Reads the JSON part, or deduces what it would say when there is none.
async fn parse(
    served: &Arc<Served>,
    headers: &HeaderMap,
    body: Bytes,
    limit: usize,
) -> Result<Call, Failure> {
    let json_length = json_length(headers, body.len()).map_err(Failure::of_the_caller)?;
    if json_length == Some(0) {
        return raw::request(served, &body).map_err(Failure::of_the_caller);
    }
    let served = Arc::clone(served);
    let size = json_length.unwrap_or(body.len());
    offload(size, move || request::parse(&served, body, json_length, limit)).await
}

fn json_length(headers: &HeaderMap, size: usize) -> Result<Option<usize>> {
    let Some(value) = headers.get(JSON_LENGTH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    match text.trim().parse() {
        Ok(length) if length <= size => Ok(Some(length)),
        _ => Err(Error::invalid(format!(
            "inference header size should be in range (0, {size}), got: {text}"
        ))),
    }
}

fn reply(encoded: Encoded, encoding: Encoding) -> axum::response::Response {
    let mut response = encoded.bytes.into_response();
    let headers = response.headers_mut();
    let kind = match encoded.json_length {
        Some(_) => "application/octet-stream",
        None => "application/json",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = encoded.json_length {
        headers.insert(JSON_LENGTH, length.into());
    }
    if encoding != Encoding::Identity {
        let name = HeaderValue::from_static(encoding.name());
        headers.insert(CONTENT_ENCODING, name);
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}
