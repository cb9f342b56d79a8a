//! `POST /v1/embeddings`: texts to vectors, as many at once as the model takes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_repository::Served;
use consort_stage::{DataType, Error, Tensor, TensorSpec, collect_one};
use consort_telemetry::Operation;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::Value;

use super::caller::Caller;
use super::counts::{self, Usage};
use super::error::Refusal;
use super::fields::{Fields, mismatch};
use super::inputs::{Input, tensor};
use super::receive;
use super::record::Record;
use crate::http::{Front, reply};

/// How many texts one request may have, as at OpenAI.
const MOST_TEXTS: usize = 2048;

/// How many of a request's batches are with the model at once: enough to keep instances busy, and a
/// sixteenth of what its queue holds by default, so that one caller does not fill it.
const CALLS_AT_ONCE: usize = 64;

/// The vectors of a request's texts.
#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Item>,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Tokens>,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Embedding,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Tokens {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// A model that gives a vector for a text.
pub(super) struct Embedder {
    served: Arc<Served>,
    text: TensorSpec,
    vector: TensorSpec,
}

impl Embedder {
    /// The model, if one text is all it needs and a vector of FP32 all it gives.
    pub(super) fn of(served: &Arc<Served>) -> Option<Self> {
        let mut needed = served.signature.inputs.iter().filter(|spec| !spec.is_optional);
        let (text, others) = (needed.next()?, needed.next());
        let [vector] = &*served.signature.outputs else { return None };
        let is_one = text.datatype == DataType::Bytes && others.is_none();
        let gives_vectors = vector.datatype == DataType::Fp32 && !served.signature.is_decoupled;
        (is_one && gives_vectors).then(|| Self {
            text: text.clone(),
            vector: vector.clone(),
            served: served.revealed.clone().unwrap_or_else(|| served.clone()),
        })
    }

    /// The vectors of `texts`, in order, and how many tokens they have.
    async fn embed(
        &self,
        caller: &Caller,
        texts: &[String],
    ) -> Result<(Vec<Vec<f32>>, Usage), Error> {
        let signature = &self.served.signature;
        let count = texts.len() as i64;
        let shape: Vec<i64> = signature.is_batching().then_some(count).into_iter().collect();
        let mut text = if let [text] = texts {
            let one = Input::Texts(vec![text.clone()]);
            tensor(signature, &self.text, &one).ok_or_else(|| self.unfit())?
        } else {
            let dims = self.text.dims.iter().map(|_| 1);
            let shape: Vec<i64> = shape.into_iter().chain(dims).collect();
            Tensor::from_strings(self.text.name.clone(), &shape, texts)
        };
        text.name = self.text.name.clone();
        let outputs = [Some(&*self.vector.name), counts::prompt_output(signature)];
        let outputs = outputs.into_iter().flatten().map(Arc::from).collect();
        let request = consort_stage::Request {
            inputs: vec![text],
            outputs,
            ..consort_stage::Request::default()
        };
        let response = collect_one(caller.call(&*self.served.stage, request, None)).await?;
        let vectors = response.output(&self.vector.name).ok_or_else(|| self.unfit())?;
        let values = vectors.to_slice::<f32>()?;
        let length = values.len() / texts.len();
        if length == 0 || length * texts.len() != values.len() {
            return Err(self.unfit());
        }
        let usage = Usage { prompt: counts::prompt_tokens(&response), ..Usage::NONE };
        Ok((values.chunks(length).map(<[f32]>::to_vec).collect(), usage))
    }

    /// The vectors of any number of texts, in batches that the model takes.
    async fn embed_all(
        &self,
        caller: &Caller,
        texts: &[String],
    ) -> Result<(Vec<Vec<f32>>, Usage), Error> {
        let most = self.served.signature.max_batch_size.max(1) as usize;
        let batches = texts.chunks(most).map(|texts| self.embed(caller, texts).boxed());
        // Listed, because a stream over the closure is not seen to be `Send`.
        let batches: Vec<_> = batches.collect();
        let batches = stream::iter(batches).buffered(CALLS_AT_ONCE);
        let (vectors, usages): (Vec<_>, Vec<_>) =
            batches.try_collect::<Vec<_>>().await?.into_iter().unzip();
        let usage = usages.into_iter().fold(Usage::NONE, Usage::and);
        Ok((vectors.into_iter().flatten().collect(), usage))
    }

    /// The length of the vectors, where the model states it.
    fn length(&self) -> Option<usize> {
        let fixed = |dim: &i64| usize::try_from(*dim).ok();
        self.vector.dims.iter().map(fixed).product()
    }

    fn unfit(&self) -> Error {
        let model = &self.served.name;
        Error::internal(format!("model `{model}` does not give one vector for each text"))
    }
}

/// Answers one request.
pub(super) async fn embed(
    State(front): State<Front>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, mut fields) = receive(&front, request).await?;
    let caller = Caller::new(&head, &mut fields, "embd-")?;
    let response = respond(&front, &caller, fields).await;
    response.map_err(|refusal| refusal.noted_on(&caller.span, caller.labels()))
}

async fn respond(front: &Front, caller: &Caller, mut fields: Fields) -> Result<Response, Refusal> {
    let served = caller.find(front)?;
    let embedder = Embedder::of(&served).ok_or_else(|| {
        let name = &served.name;
        let text = format!(
            "model `{name}` does not embed text: it does not take one TYPE_STRING tensor and give \
             one of TYPE_FP32"
        );
        Refusal::of("model", text)
    })?;
    let texts = texts(&mut fields)?;
    let is_base64 = is_base64(&mut fields)?;
    let dimensions = fields.integer("dimensions", 1..=i64::MAX)?;
    fields.refuse_rest()?;
    if let Some(length) = embedder.length() {
        check_dimensions(dimensions, length)?;
    }
    let mut record = Record::begin(front, caller, Operation::Embeddings, None);
    let answer = embedder.embed_all(caller, &texts).await;
    let (vectors, usage) = answer.inspect_err(|error| record.failed(error.code().name()))?;
    // No token comes out of it.
    record.answered(Usage { completion: None, ..usage });
    check_dimensions(dimensions, vectors.first().map_or(0, Vec::len))?;
    let item = |(index, vector)| {
        let embedding = if is_base64 { encode(vector) } else { Embedding::Numbers(vector) };
        Item { object: "embedding", index, embedding }
    };
    let usage = usage.prompt.map(|tokens| Tokens { prompt_tokens: tokens, total_tokens: tokens });
    Ok(reply::value(&Answer {
        object: "list",
        data: vectors.into_iter().enumerate().map(item).collect(),
        model: &caller.model,
        usage,
    }))
}

fn texts(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let wanted = "a string or a list of strings";
    let list = match fields.require("input")? {
        Value::String(text) => return Ok(vec![text]),
        Value::Array(list) => list,
        other => return Err(mismatch("input", wanted, &other)),
    };
    if list.is_empty() || list.len() > MOST_TEXTS {
        let text = format!("`input` has {} texts; there must be 1 to {MOST_TEXTS}", list.len());
        return Err(Refusal::of("input", text));
    }
    let text = |text| match text {
        Value::String(text) => Ok(text),
        Value::Number(_) | Value::Array(_) => Err(Refusal::of(
            "input",
            "`input` has token ids; the ensembles of this server tokenize by themselves, so send text",
        )),
        other => Err(mismatch("input", wanted, &other)),
    };
    list.into_iter().map(text).collect()
}

fn is_base64(fields: &mut Fields) -> Result<bool, Refusal> {
    match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => Ok(false),
        Some("base64") => Ok(true),
        Some(_) => {
            let text = "`encoding_format` must be `float` or `base64`";
            Err(Refusal::of("encoding_format", text))
        }
    }
}

fn check_dimensions(wanted: Option<i64>, found: usize) -> Result<(), Refusal> {
    if wanted.is_none_or(|wanted| wanted == found as i64) {
        return Ok(());
    }
    let text = format!("`dimensions` must be {found}: the model gives no shorter vectors");
    Err(Refusal::of("dimensions", text))
}

/// The little-endian bytes of the numbers, as OpenAI's own client asks for them.
fn encode(vector: Vec<f32>) -> Embedding {
    let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
    Embedding::Base64(STANDARD.encode(bytes))
}
