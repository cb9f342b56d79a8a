//! Sends an answer in chunks as its texts are made, as OpenAI's Server-Sent Events.

use std::collections::VecDeque;
use std::pin::Pin;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use consort_repository::Labels;
use consort_stage::Error;
use futures::stream::{self, SelectAll};
use futures::{Stream as Futures, StreamExt};
use tracing::Span;

use super::answer::Answer;
use super::choice::{Choice, Event};
use super::chunks::{Chunks, DONE};
use super::counts::Usage;
use super::error::{self, Refusal};
use super::generation::once_a_prompt;
use super::record::Record;
use crate::http::reply;

/// How an answer is streamed.
pub(super) struct Stream {
    /// The answer.
    pub(super) answer: Answer,
    /// How many choices belong to one prompt.
    pub(super) choices_of_prompt: usize,
    /// Whether the usage comes at the end.
    pub(super) includes_usage: bool,
    /// The request's span, which ends with the stream.
    pub(super) span: Span,
    /// What the log says of the request when it fails.
    pub(super) labels: Labels,
    /// What is told of the request.
    pub(super) record: Record,
}

/// What the choices give, each with the index of its choice.
type Numbered = Pin<Box<dyn Futures<Item = (usize, Result<Event, Error>)> + Send>>;

impl Stream {
    /// The response over `choices`; one that fails before its first piece decides the status.
    ///
    /// Dropping the body, as the server does when the client goes away, cancels every choice.
    pub(super) async fn reply(mut self, choices: Vec<Choice>) -> Result<Response, Refusal> {
        let count = choices.len();
        let numbered = choices.into_iter().enumerate().map(|(index, choice)| {
            let events = choice.events().map(move |event| (index, event));
            Box::pin(events) as Numbered
        });
        let mut events = stream::select_all(numbered);
        let Some((index, first)) = events.next().await else {
            return Err(Error::internal("there is nothing to stream").into());
        };
        let first = first.map_err(|error| {
            self.record.failed(error.code().name());
            Refusal::from(error)
        })?;
        let chunks = Chunks::new(&self.answer, self.includes_usage);
        let mut state = State {
            ready: (0..count).filter_map(|index| chunks.opening(index)).collect(),
            stream: self,
            chunks,
            events,
            usage: Usage::NONE,
            is_over: false,
        };
        state.take(index, Ok(first));
        Ok(respond(state))
    }
}

fn respond(state: State) -> Response {
    let chunks = stream::unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((chunk, state))
    });
    reply::events(StatusCode::OK, chunks)
}

struct State {
    stream: Stream,
    chunks: Chunks,
    events: SelectAll<Numbered>,
    usage: Usage,
    /// What can be sent.
    ready: VecDeque<Bytes>,
    is_over: bool,
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            if self.is_over {
                return None;
            }
            match self.events.next().await {
                Some((index, event)) => self.take(index, event),
                None => self.finish(),
            }
        }
    }

    fn take(&mut self, index: usize, event: Result<Event, Error>) {
        match event {
            Ok(Event::Text(text, tokens)) => {
                self.ready.push_back(self.chunks.piece(index, &text, tokens.as_deref()));
            }
            Ok(Event::End(finish, usage)) => {
                let usage = once_a_prompt(index, self.stream.choices_of_prompt, usage);
                self.usage = self.usage.and(usage);
                self.stream.record.text_ended(finish);
                self.ready.push_back(self.chunks.end(index, finish));
            }
            Err(error) => {
                // Without the choices nothing more comes; dropping them stops their models.
                self.events.clear();
                self.is_over = true;
                self.stream.record.failed(error.code().name());
                let Stream { span, labels, .. } = &self.stream;
                let error = error::in_stream(&error, span, labels);
                self.ready.push_back(format!("data: {error}\n\n").into());
            }
        }
    }

    fn finish(&mut self) {
        self.is_over = true;
        self.stream.record.answered(self.usage);
        if self.stream.includes_usage {
            self.ready.push_back(self.chunks.usage(self.usage));
        }
        self.ready.push_back(DONE);
    }
}
