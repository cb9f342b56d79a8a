//! One call of a step's model, and the wait for its next response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use consort_stage::{Response, Responses, Result};
use futures::StreamExt;

use crate::plan::StepIndex;
use crate::store::Iteration;

/// One call of a step's model.
pub(super) struct Call {
    pub(super) step: StepIndex,
    pub(super) iteration: Iteration,
    /// How many responses have come.
    pub(super) answers: u32,
    /// Whether no later iteration of this step will come.
    pub(super) is_last: bool,
    pub(super) responses: Responses,
}

/// Waits for the next response of a call, and hands the call back with it.
pub(super) struct NextAnswer(Option<Call>);

impl NextAnswer {
    pub(super) fn of(call: Call) -> Self {
        Self(Some(call))
    }
}

impl Future for NextAnswer {
    type Output = (Call, Option<Result<Response>>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.0.as_mut().expect("a finished future is not polled again");
        let answer = ready!(call.responses.poll_next_unpin(context));
        let call = self.0.take().expect("it was there a line ago");
        Poll::Ready((call, answer))
    }
}
