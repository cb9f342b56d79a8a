//! `POST /v1/completions`: continues one text or several.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;

use super::answer::{Answer, Kind, now};
use super::caller::Caller;
use super::error::Refusal;
use super::fields::{Fields, mismatch};
use super::generation::Generation;
use super::receive;
use super::sampling::{MOST_LOG_PROBS, Sampling};
use crate::http::Front;

/// How many tokens a completion has when the request does not say, as at OpenAI.
const MAX_TOKENS: i64 = 16;

/// Answers one request.
pub(super) async fn complete(
    State(front): State<Front>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, mut fields) = receive(&front, request).await?;
    let caller = Caller::new(&head, &mut fields, "cmpl-")?;
    let response = respond(&front, &caller, fields).await;
    response.map_err(|refusal| refusal.noted_on(&caller.span, caller.labels()))
}

async fn respond(front: &Front, caller: &Caller, mut fields: Fields) -> Result<Response, Refusal> {
    let model = caller.find_text(front)?;
    let prompts = prompts(&mut fields)?;
    let mut sampling = Sampling::read(&mut fields)?;
    if model.takes("max_tokens") {
        sampling.max_tokens.get_or_insert(MAX_TOKENS);
    }
    if fields.integer("best_of", 1..=i64::MAX)?.is_some_and(|best| best != sampling.choices as i64)
    {
        let text = "`best_of` is not supported: it must be as many as `n`";
        return Err(Refusal::of("best_of", text));
    }
    fields.refuse("suffix", "models continue a text, and insert nothing before an end")?;
    sampling.log_probs =
        fields.integer("logprobs", 0..=MOST_LOG_PROBS)?.map(|alternatives| alternatives as usize);
    let echoes = fields.flag("echo")?;
    if echoes && sampling.log_probs.is_some() {
        let text =
            "`logprobs` is not supported with `echo`: models tell no probabilities of a prompt";
        return Err(Refusal::of("logprobs", text));
    }
    let mut generation = Generation { model, prompts, sampling, echoes };
    generation.take_rest(fields)?;
    let (id, model) = (caller.id.clone(), caller.model.clone());
    let answer = Answer { kind: Kind::Completion, id, model, created: now() };
    generation.respond(front, caller, answer).await
}

fn prompts(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let wanted = "a string or a list of strings";
    let list = match fields.require("prompt")? {
        Value::String(prompt) => return Ok(vec![prompt]),
        Value::Array(list) => list,
        other => return Err(mismatch("prompt", wanted, &other)),
    };
    if list.is_empty() {
        return Err(Refusal::of("prompt", "`prompt` is an empty list"));
    }
    let text = |prompt| match prompt {
        Value::String(prompt) => Ok(prompt),
        Value::Number(_) | Value::Array(_) => Err(Refusal::of(
            "prompt",
            "`prompt` has token ids; the ensembles of this server tokenize by themselves, so send text",
        )),
        other => Err(mismatch("prompt", wanted, &other)),
    };
    list.into_iter().map(text).collect()
}
