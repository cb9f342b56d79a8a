//! Runs every choice of every prompt at the same time and gives the answer, whole or as it is made.

use std::sync::Arc;

use axum::response::Response;
use consort_stage::{Enough, Error};
use futures::{StreamExt, future};

use super::answer::{Answer, Whole};
use super::caller::Caller;
use super::choice::{Choice, Event};
use super::counts::Usage;
use super::echo::Echo;
use super::error::Refusal;
use super::fields::{Fields, mismatch};
use super::inputs::{Input, Setting};
use super::prompt::Prompt;
use super::record::Record;
use super::sampling::{MOST_CHOICES, Sampling};
use super::sse;
use super::text_model::TextModel;
use super::vllm;
use crate::http::{Front, reply};

/// The input by which one call has several texts, which are choices here, each with a call of its own.
const TEXTS: &str = "num_return_sequences";

/// What is to be generated.
pub(super) struct Generation {
    /// The model that does it.
    pub(super) model: TextModel,
    /// The texts to continue, which their echoes share.
    pub(super) prompts: Vec<Arc<Prompt>>,
    /// How.
    pub(super) sampling: Sampling,
    /// Whether each answer begins with its prompt.
    pub(super) echoes: bool,
}

impl Generation {
    /// Hands the model what is left of the fields, by the names of its inputs; refuses the others.
    pub(super) fn take_rest(&mut self, fields: Fields) -> Result<(), Refusal> {
        for (name, value) in fields.rest() {
            if name == TEXTS {
                let text = format!("`{name}` is `n` in this API");
                return Err(Refusal::of(&name, text));
            }
            let setting = if self.model.takes(&name) {
                let wrong = mismatch(&name, "a value or a list of strings", &value);
                Some(Setting::new(&name, &name, Input::from_json(value).ok_or(wrong)?))
            } else {
                vllm::setting(&name, &value)?
            };
            // In front, so that it gives way to what OpenAI's own fields say of the same input.
            self.sampling.settings.splice(0..0, setting);
        }
        Ok(())
    }

    /// The response over all choices.
    pub(super) async fn respond(
        self,
        front: &Front,
        caller: &Caller,
        answer: Answer,
    ) -> Result<Response, Refusal> {
        let prompt = answer.kind.prompt();
        let mut record =
            Record::begin(front, caller, answer.kind.operation(), Some(&self.sampling));
        let choices = match self.choices(caller, &record) {
            Ok(choices) if self.sampling.is_streaming => {
                let stream = sse::Stream {
                    answer,
                    choices_of_prompt: self.sampling.choices,
                    includes_usage: self.sampling.includes_usage,
                    span: caller.span.clone(),
                    labels: caller.labels(),
                    record,
                };
                let response = stream.reply(choices).await;
                return response
                    .map_err(|refusal| refusal.traced_to(&self.sampling.settings, prompt));
            }
            choices => choices,
        };
        let whole = match choices {
            Ok(choices) => {
                let whole = choices.into_iter().map(collect);
                future::try_join_all(whole).await.map_err(Refusal::from)
            }
            Err(refusal) => Err(refusal),
        };
        let whole = whole.map_err(|refusal| {
            record.failed(refusal.kind());
            refusal.traced_to(&self.sampling.settings, prompt)
        })?;
        let usages = whole.iter().enumerate();
        let usages = usages.map(|(index, (_, usage))| self.usage_of(index, *usage));
        let usage = usages.fold(Usage::NONE, Usage::and);
        for (text, _) in &whole {
            record.text_ended(text.finish);
        }
        record.answered(usage);
        let texts: Vec<_> = whole.into_iter().map(|(text, _)| text).collect();
        Ok(reply::value(&answer.whole(&texts, usage)))
    }

    fn usage_of(&self, index: usize, usage: Usage) -> Usage {
        once_a_prompt(index, self.sampling.choices, usage)
    }

    fn choices(&self, caller: &Caller, record: &Record) -> Result<Vec<Choice>, Refusal> {
        let Sampling { choices, stop, is_streaming, .. } = &self.sampling;
        if self.prompts.len().saturating_mul(*choices) > MOST_CHOICES {
            let count = self.prompts.len();
            return Err(Refusal::of(
                "prompt",
                format!(
                    "{count} prompts with {choices} choices each are more than {MOST_CHOICES} texts"
                ),
            ));
        }
        // In pieces a text can be ended at a stop word before the model has made all of it.
        let is_streaming = *is_streaming || !stop.is_empty();
        let common = self.model.common(&self.sampling, is_streaming)?;
        // Nothing is called before everything is known to be right.
        let mut requests = Vec::with_capacity(self.prompts.len() * choices);
        for prompt in &self.prompts {
            let all = self.model.requests(&common, prompt, (&self.sampling, *choices))?;
            let echoes = self.echoes.then(|| Echo::of_choices(prompt, &self.sampling));
            let mut echoes = echoes.into_iter().flatten();
            let with_echo = |request| (request, echoes.next().unwrap_or_default());
            requests.extend(all.into_iter().map(with_echo));
        }
        let call = |(request, echo)| {
            let enough = Enough::default();
            let hears = (!stop.is_empty()).then(|| enough.clone());
            let responses = caller.call(&*self.model.served().stage, request, hears);
            Choice::new((responses, enough), &self.sampling, echo, record.pace())
        };
        Ok(requests.into_iter().map(call).collect())
    }
}

/// The usage of one of the choices; a prompt counts once, however many there are for it.
pub(super) fn once_a_prompt(index: usize, choices_of_prompt: usize, usage: Usage) -> Usage {
    let is_first = index.is_multiple_of(choices_of_prompt);
    let once = |tokens: Option<u64>| tokens.map(|tokens| if is_first { tokens } else { 0 });
    Usage { prompt: once(usage.prompt), cached: once(usage.cached), ..usage }
}

/// A whole choice, and how many tokens it has.
async fn collect(choice: Choice) -> Result<(Whole, Usage), Error> {
    let mut log_probs = choice.tells_log_probs().then(Vec::new);
    let mut events = std::pin::pin!(choice.events());
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event? {
            Event::Text(piece, tokens) => {
                text += &piece;
                if let Some(all) = &mut log_probs {
                    all.extend(tokens.into_iter().flatten());
                }
            }
            Event::End(finish, usage) => return Ok((Whole { text, log_probs, finish }, usage)),
        }
    }
    Err(Error::internal("a text ended without saying why"))
}
