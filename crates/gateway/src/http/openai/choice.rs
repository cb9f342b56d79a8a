//! One choice of an answer: a model's responses as text, ended where it should end, its tokens counted.

use std::sync::Arc;

use consort_stage::{Enough, Error, Response, Responses};
use consort_telemetry::Pace;
use futures::{Stream, StreamExt, stream};

use super::characters::Characters;
use super::counts::{self, Usage};
use super::echo::{Echo, Told};
use super::log_probs::{LogProbs, Token};
use super::sampling::Sampling;
use crate::stop::{Stop, Words};
use crate::text_tensors::TEXT_OUTPUT;

/// What a choice gives.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// More of its text, and the tokens that begin in it where their probabilities are wanted.
    Text(String, Option<Vec<Token>>),
    /// Its end: why, and how many tokens there were.
    End(&'static str, Usage),
}

/// One choice of an answer.
pub(super) struct Choice {
    /// `None` once it is over.
    responses: Option<Responses>,
    enough: Enough,
    characters: Characters,
    stop: Stop,
    log_probs: Option<LogProbs>,
    pace: Option<Pace>,
    /// What comes before the text, while that is not there.
    echo: Echo,
    /// The same once it is there, until it is shown.
    before: Option<Told>,
    /// Text that waits for what comes before it: no more than the model makes, whose responses are read
    /// meanwhile, for the choice that is told of the prompt may come after this one.
    held: String,
    max_tokens: Option<i64>,
    usage: Usage,
    /// Whether the text ended at a stop word, before everything that the model made of it.
    is_cut: bool,
    finish: Option<&'static str>,
    /// The end, once everything before it was given.
    end: Option<Event>,
}

impl Choice {
    /// A choice of these responses, which come for a request like `sampling` that is told when the
    /// choice has enough of them. It begins with `echo`.
    pub(super) fn new(
        (responses, enough): (Responses, Enough),
        sampling: &Sampling,
        echo: Echo,
        pace: Pace,
    ) -> Self {
        Self {
            responses: Some(responses),
            enough,
            characters: Characters::default(),
            stop: Stop::new(Arc::new(Words::new(&sampling.stop))),
            log_probs: sampling.log_probs.map(|_| LogProbs::default()),
            pace: Some(pace),
            echo,
            before: None,
            held: String::new(),
            max_tokens: sampling.max_tokens,
            usage: Usage::UNKNOWN,
            is_cut: false,
            finish: None,
            end: None,
        }
    }

    /// Whether it tells how likely its tokens were.
    pub(super) fn tells_log_probs(&self) -> bool {
        self.log_probs.is_some()
    }

    /// What it gives, in order; an error is the last.
    pub(super) fn events(self) -> impl Stream<Item = Result<Event, Error>> + Send {
        stream::unfold(self, |mut choice| async move {
            let event = choice.next().await?;
            Some((event, choice))
        })
    }

    async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            let Some(responses) = &mut self.responses else {
                return self.end.take().map(Ok);
            };
            let text = match responses.next().await {
                Some(Ok(response)) => self.read(&response),
                Some(Err(error)) => {
                    self.responses = None;
                    return Some(Err(error));
                }
                None => Ok(self.finish()),
            };
            let shown = match text {
                Ok(text) => self.show_behind_echo(text).await,
                Err(error) => Err(error),
            };
            match shown {
                Ok(None) => {}
                Ok(event) => return event.map(Ok),
                Err(error) => {
                    self.responses = None;
                    return Some(Err(error));
                }
            }
        }
    }

    /// More of the text once what comes before it is there.
    async fn show_behind_echo(&mut self, text: String) -> Result<Option<Event>, Error> {
        self.held += &text;
        let is_end = self.responses.is_none();
        if self.held.is_empty() && !is_end {
            return Ok(None);
        }
        if let Some(told) = self.echo.take(is_end).await? {
            self.begin_with(told);
        }
        if self.echo.is_awaited() {
            return Ok(None);
        }
        let text = std::mem::take(&mut self.held);
        Ok(self.show(text))
    }

    fn begin_with(&mut self, told: Told) {
        let characters = told.0.chars().count();
        self.log_probs.iter_mut().for_each(|it| it.begin_behind(characters));
        self.before = Some(told);
    }

    /// More of the text, with its tokens; nothing when there is neither.
    fn show(&mut self, mut text: String) -> Option<Event> {
        let has_ended = self.responses.is_none() && !self.is_cut;
        let before = self.before.take().map(Arc::unwrap_or_clone);
        let (echo, echoed) = before.unwrap_or_default();
        let tokens = self.log_probs.as_mut().map(|log_probs| {
            let mut tokens = echoed;
            tokens.extend(log_probs.shown(&text));
            // Only what was cut off at a stop word is not told.
            tokens.extend(has_ended.then(|| log_probs.finish()).into_iter().flatten());
            tokens
        });
        if !echo.is_empty() {
            text.insert_str(0, &echo);
        }
        let has_tokens = tokens.as_ref().is_some_and(|tokens| !tokens.is_empty());
        (has_tokens || !text.is_empty()).then_some(Event::Text(text, tokens))
    }

    /// The text that a response adds. At a stop word the responses are dropped, which stops the model.
    fn read(&mut self, response: &Response) -> Result<String, Error> {
        self.count(response);
        if let Some(told) = self.echo.read(response)? {
            self.begin_with(told);
        }
        let Some(output) = response.output(TEXT_OUTPUT) else { return Ok(String::new()) };
        let texts = output.to_strings()?;
        let text = self.characters.push(texts.first().copied().unwrap_or_default());
        if let Some(log_probs) = &mut self.log_probs {
            log_probs.read(response, &text)?;
        }
        let (text, is_over) = self.before_stop(text);
        if is_over {
            self.enough.say();
            self.responses = None;
            self.is_cut = true;
            self.ends_with("stop");
        }
        Ok(text)
    }

    /// What can be shown with one more piece, and whether the text ends there.
    fn before_stop(&mut self, piece: String) -> (String, bool) {
        let (text, is_over) = self.stop.push(piece.into_bytes());
        (whole(text), is_over)
    }

    fn count(&mut self, response: &Response) {
        self.usage.prompt = self.usage.prompt.or_else(|| counts::prompt_tokens(response));
        self.usage.cached = self.usage.cached.or_else(|| counts::cached_tokens(response));
        if let Some(tokens) = counts::completion_tokens(response) {
            *self.usage.completion.get_or_insert(0) += tokens;
            if let Some(pace) = &mut self.pace {
                pace.came(tokens, response.is_last);
            }
        }
        let reason = response.output("finish_reason").and_then(|reason| reason.to_strings().ok());
        match reason.as_deref() {
            Some([b"length"]) => self.finish = Some("length"),
            Some([b"stop"]) => self.finish = Some("stop"),
            _ => {}
        }
    }

    /// Ends the choice because the model has; gives what was held back.
    fn finish(&mut self) -> String {
        self.responses = None;
        let rest = self.characters.finish();
        let (mut text, is_over) = self.before_stop(rest);
        self.is_cut = is_over;
        if !is_over {
            text += &whole(self.stop.finish());
        }
        let is_full = || {
            let most = self.max_tokens.and_then(|most| u64::try_from(most).ok());
            most.is_some_and(|most| self.usage.completion >= Some(most))
        };
        // A model that does not say why it ended has used up its tokens or come to an end.
        let finish = match self.finish {
            _ if is_over => "stop",
            Some(finish) => finish,
            None if is_full() => "length",
            None => "stop",
        };
        self.ends_with(finish);
        text
    }

    fn ends_with(&mut self, finish: &'static str) {
        self.end = Some(Event::End(finish, self.usage));
        if let Some(pace) = self.pace.take() {
            pace.ended();
        }
    }
}

/// Text that is cut nowhere but at stop words, so between characters.
fn whole(text: Vec<u8>) -> String {
    String::from_utf8(text)
        .unwrap_or_else(|cut| String::from_utf8_lossy(cut.as_bytes()).into_owned())
}
