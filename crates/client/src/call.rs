//! One call to one replica: the request goes there and its responses come back.

use std::sync::Arc;

use consort_protocol::{ModelInferResponse, ModelStreamInferResponse};
use consort_stage::{Code, Context, Error, Response, Result};
use consort_telemetry::{Outcome, UpstreamCall};
use tonic::{Status, Streaming};

use crate::failure;
use crate::outgoing::{Open, Outgoing};
use crate::replica::Replica;

/// Calls a model that answers once. Dropping the future resets the stream, which cancels the call
/// over there.
pub(crate) async fn ask(replica: &Replica, outgoing: &Outgoing) -> Result<Response> {
    let mut guard = replica.meter.call();
    let mut message = match replica.infer(outgoing).await {
        Ok(message) => message,
        Err(status) => return Err(failed(replica, outgoing, guard, &status)),
    };
    guard.ended(Outcome::Success);
    note_spent(&outgoing.context, &mut message);
    let response = message.into_response().map_err(|error| replica.locate(error))?;
    Ok(Response { is_last: true, ..response })
}

/// Adds what the request spent over there, when the service tells, to what it has spent in all.
fn note_spent(context: &Context, response: &mut ModelInferResponse) {
    let durations = response.take_durations();
    if let (Some(spent), Some(durations)) = (&context.spent, durations) {
        spent.add(&durations);
    }
}

/// A call that is answered by a stream. Dropping it resets the stream, which cancels it over there.
pub(crate) struct Call {
    replica: Arc<Replica>,
    context: Context,
    messages: Streaming<ModelStreamInferResponse>,
    /// Counts the call as in flight, and as cancelled unless it ends otherwise.
    guard: Option<UpstreamCall>,
    /// The last answer, kept until the server has ended the stream: whoever has the last answer
    /// may drop the call, and a stream must not be reset for its trailers.
    held: Option<Result<Response>>,
    /// Kept until then, where the caller may want to hear no more.
    open: Option<Open>,
}

impl Call {
    /// Sends a request to a replica and waits until it begins to answer.
    pub(crate) async fn open(replica: &Arc<Replica>, outgoing: &Outgoing) -> Result<Self> {
        let guard = replica.meter.call();
        let mut client = replica.client();
        let (request, open) = outgoing.streamed();
        match client.model_stream_infer(request).await {
            Ok(response) => Ok(Self {
                replica: Arc::clone(replica),
                context: outgoing.context.clone(),
                messages: response.into_inner(),
                guard: Some(guard),
                held: None,
                open,
            }),
            Err(status) => Err(failed(replica, outgoing, guard, &status)),
        }
    }

    /// The next response; `None` once the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Result<Response>> {
        self.guard.as_ref()?;
        loop {
            let message = match self.messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return self.end(None),
                Err(status) => return self.end(Some(failure::of_call(&status, &self.context))),
            };
            if matches!(self.held, Some(Err(_))) {
                continue;
            }
            if !message.error_message.is_empty() {
                self.open = None;
                self.held = Some(Err(Error::new(Code::Unknown, message.error_message)));
                continue;
            }
            let mut response = message.infer_response.unwrap_or_default();
            note_spent(&self.context, &mut response);
            let response = response.into_response();
            if response.as_ref().is_ok_and(|response| response.is_last) {
                // The server ends the stream once we have.
                self.open = None;
            }
            match response {
                // This only says that the model has sent everything.
                Ok(response) if response.outputs.is_empty() => {}
                Ok(response) => {
                    // A server that goes on after its last response is believed.
                    let earlier = self.held.take();
                    let next = if response.is_last || earlier.is_some() {
                        self.held = Some(Ok(response));
                        earlier
                    } else {
                        Some(Ok(response))
                    };
                    if next.is_some() {
                        return next;
                    }
                }
                Err(error) => return self.end(Some(error)),
            }
        }
    }

    /// The stream has ended: counts the call and gives what is left of the answer.
    fn end(&mut self, error: Option<Error>) -> Option<Result<Response>> {
        let held = self.held.take();
        let answer = error.map_or(held, |error| Some(Err(error)));
        let outcome = match &answer {
            Some(Err(error)) => outcome(error.code()),
            _ => Outcome::Success,
        };
        if let Some(mut guard) = self.guard.take() {
            guard.ended(outcome);
        }
        answer.map(|answer| answer.map_err(|error| self.replica.locate(error)))
    }
}

/// The error of a call that `status` ended before it gave anything.
fn failed(
    replica: &Replica,
    outgoing: &Outgoing,
    mut guard: UpstreamCall,
    status: &Status,
) -> Error {
    let error = failure::of_call(status, &outgoing.context);
    guard.ended(outcome(error.code()));
    replica.locate(error)
}

fn outcome(code: Code) -> Outcome {
    match code {
        Code::Unavailable => Outcome::Unavailable,
        Code::Cancelled => Outcome::Cancelled,
        _ => Outcome::Failure,
    }
}
