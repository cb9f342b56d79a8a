//! Sends responses as Server-Sent Events, one each, as they are made.

use axum::http::StatusCode;
use bytes::Bytes;
use consort_stage::{Code, Responses, Result};
use futures::{StreamExt, stream};

use super::{Caller, response};
use crate::http::error::{self, Failure, Outcome};
use crate::http::reply;

/// The events of a call; the first decides the status.
///
/// A request that turns out to be wrong has no events: its error is plain JSON, as over `/generate`.
///
/// Dropping the body, as the server does when the client goes away, cancels the call.
pub(super) async fn reply(caller: Caller, mut responses: Responses) -> Outcome {
    let first = responses.next().await;
    if let Some(Err(error)) = first.as_ref().filter(|first| is_the_requests_fault(first)) {
        return Err(Failure::from(error.clone()).noted_on(&caller.span, caller.labels()));
    }
    let responses = Box::pin(stream::iter(first).chain(responses));
    let mut events = Events { caller, responses: Some(responses) };
    let first = events.next().await;
    let status = first.as_ref().map_or(StatusCode::OK, |event| event.status);
    let rest = stream::unfold(events, |mut events| async move {
        let event = events.next().await?;
        Some((event, events))
    });
    let events = stream::iter(first).chain(rest);
    Ok(reply::events(status, events.map(|event| event.bytes)))
}

fn is_the_requests_fault(first: &Result<consort_stage::Response>) -> bool {
    let codes = [Code::InvalidInput, Code::Unsupported, Code::NotFound];
    first.as_ref().is_err_and(|error| codes.contains(&error.code()))
}

struct Event {
    status: StatusCode,
    bytes: Bytes,
}

struct Events {
    caller: Caller,
    /// `None` once an error has ended the stream.
    responses: Option<Responses>,
}

impl Events {
    /// The next event; a response that only says that it is the last makes none.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let response = match self.responses.as_mut()?.next().await? {
                Ok(response) if response.outputs.is_empty() => continue,
                Ok(response) => response::encode(&self.caller, &response),
                Err(error) => Err(error),
            };
            return Some(self.event(response));
        }
    }

    fn event(&mut self, json: Result<Vec<u8>>) -> Event {
        let (status, json) = match json {
            Ok(json) => (StatusCode::OK, json),
            Err(error) => {
                self.responses = None;
                let (status, json) =
                    error::in_stream(&error, &self.caller.span, &self.caller.labels());
                (status, json.into_bytes())
            }
        };
        let bytes = [b"data: ", &*json, b"\n\n"].concat().into();
        Event { status, bytes }
    }
}
