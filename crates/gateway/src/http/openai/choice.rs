//! One choice of an answer: a model's responses as text, ended where it should end, its tokens counted.

use consort_stage::{Error, Response, Responses};
use futures::{Stream, StreamExt, stream};

use super::characters::Characters;
use super::counts::{self, Usage};
use super::stop::Stop;
use super::text_model::TEXT_OUTPUT;

/// What a choice gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// More of its text.
    Text(String),
    /// Its end: why, and how many tokens there were.
    End(&'static str, Usage),
}

/// One choice of an answer.
pub(super) struct Choice {
    /// `None` once it is over.
    responses: Option<Responses>,
    characters: Characters,
    stop: Stop,
    /// What comes before the text.
    echo: String,
    max_tokens: Option<i64>,
    usage: Usage,
    finish: Option<&'static str>,
    /// The end, once everything before it was given.
    end: Option<Event>,
}

impl Choice {
    /// A choice of these responses, which come for a request of at most `max_tokens`.
    pub(super) fn new(
        responses: Responses,
        stop: Vec<String>,
        max_tokens: Option<i64>,
        echo: String,
    ) -> Self {
        Self {
            responses: Some(responses),
            characters: Characters::default(),
            stop: Stop::new(stop),
            echo,
            max_tokens,
            usage: Usage { prompt: None, completion: None },
            finish: None,
            end: None,
        }
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
            match text {
                Ok(text) if text.is_empty() && self.responses.is_some() => {}
                Ok(text) => {
                    let text = std::mem::take(&mut self.echo) + &text;
                    return if text.is_empty() {
                        self.end.take().map(Ok)
                    } else {
                        Some(Ok(Event::Text(text)))
                    };
                }
                Err(error) => {
                    self.responses = None;
                    return Some(Err(error));
                }
            }
        }
    }

    /// The text that a response adds. At a stop word the responses are dropped, which stops the model.
    fn read(&mut self, response: &Response) -> Result<String, Error> {
        self.count(response);
        let Some(output) = response.output(TEXT_OUTPUT) else { return Ok(String::new()) };
        let texts = output.to_strings()?;
        let text = self.characters.push(texts.first().copied().unwrap_or_default());
        let (text, is_over) = self.stop.push(&text);
        if is_over {
            self.responses = None;
            self.end = Some(Event::End("stop", self.usage));
        }
        Ok(text)
    }

    fn count(&mut self, response: &Response) {
        self.usage.prompt = self.usage.prompt.or_else(|| counts::prompt_tokens(response));
        if let Some(tokens) = counts::completion_tokens(response) {
            *self.usage.completion.get_or_insert(0) += tokens;
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
        let (mut text, is_over) = self.stop.push(&self.characters.finish());
        if !is_over {
            text += &self.stop.finish();
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
        self.end = Some(Event::End(finish, self.usage));
        text
    }
}
