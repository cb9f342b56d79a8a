//! `POST /v1/completions`: continues one text or several.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::answer::{Answer, Kind, now};
use super::caller::Caller;
use super::error::Refusal;
use super::fields::Fields;
use super::generation::Generation;
use super::inputs::{Input, Setting};
use super::prompt::Prompt;
use super::receive;
use super::sampling::{MOST_LOG_PROBS, Sampling};
use super::vllm::{END, NO_END};
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
    let prompts = Prompt::read(&mut fields)?;
    let echoes = fields.flag("echo")?;
    // With nothing behind it, an echo is what the model makes of the prompt.
    let mut sampling = Sampling::read(&mut fields, i64::from(!echoes))?;
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
    if echoes {
        sampling.prompt_log_probs = of_prompt(&sampling, &prompts);
    }
    let prompts = prompts.into_iter().map(Arc::new).collect();
    let mut generation = Generation { model, prompts, sampling, echoes };
    generation.take_rest(fields)?;
    tell_end(&mut generation);
    let (id, model) = (caller.id.clone(), caller.model.clone());
    let answer = Answer { kind: Kind::Completion, id, model, created: now() };
    generation.respond(front, caller, answer).await
}

/// How many alternatives to each token of the prompts are told; `None` where nothing of their tokens
/// is needed.
fn of_prompt(sampling: &Sampling, prompts: &[Prompt]) -> Option<usize> {
    // The text of tokens is the model's to say, and so is how a prompt alone is answered.
    let is_text = prompts.iter().all(|prompt| matches!(prompt, Prompt::Text(_)));
    let is_needed = !is_text || sampling.max_tokens == Some(0);
    sampling.log_probs.or(is_needed.then_some(0))
}

/// Has a single token told behind a prompt that is told, whatever it is: callers that want to know of a prompt
/// alone ask for one token, and leave out the last that they are told.
fn tell_end(generation: &mut Generation) {
    let sampling = &mut generation.sampling;
    let is_told = generation.echoes && sampling.log_probs.is_some();
    if is_told && sampling.max_tokens == Some(1) && generation.model.takes(END) {
        // In front, so that it gives way to what the request says.
        let setting = Setting::new("max_tokens", END, Input::Integer(NO_END));
        sampling.settings.insert(0, setting);
    }
}
