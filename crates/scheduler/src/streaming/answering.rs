//! The responses of a streaming backend to one request, counted as they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use consort_stage::{Enough, Response, Responses, Result, Spent};
use consort_telemetry::{Execution, WorkSpan};
use futures::{Stream, StreamExt};

use super::admission::Admission;
use super::instance::InFlight;
use crate::Counting;

/// The responses to one request; an execution is counted when the last of them passes.
pub(super) struct Answering {
    // Before what is held, so that the backend is told of a caller that has gone when it can see it.
    responses: Responses,
    asked: Asked,
    counting: Counting,
    started_at: Instant,
    /// What the request occupies until its end.
    held: Option<(InFlight, WorkSpan)>,
}

/// What is counted of a request.
pub(super) struct Asked {
    pub(super) inferences: u64,
    /// Who asked what it spends.
    pub(super) spent: Option<Arc<Spent>>,
    /// Who may want less than everything.
    pub(super) enough: Option<Enough>,
    pub(super) admission: Arc<Admission>,
}

impl Answering {
    pub(super) fn new(
        responses: Responses,
        asked: Asked,
        counting: Counting,
        held: (InFlight, WorkSpan),
    ) -> Self {
        Self { responses, asked, started_at: Instant::now(), counting, held: Some(held) }
    }

    fn count_execution(&self) {
        let queue = self.asked.admission.waited();
        let execution = Execution {
            requests: 1,
            inferences: self.asked.inferences,
            queue,
            compute_infer: self.started_at.elapsed().saturating_sub(queue),
            ..Execution::default()
        };
        self.counting.executed(&execution, self.asked.spent.as_deref());
    }
}

impl Drop for Answering {
    /// Whoever has gone waits no longer, whether the backend knows it yet or not.
    fn drop(&mut self) {
        let has_enough = self.asked.enough.as_ref().is_some_and(Enough::is_said);
        if let Some((_, work)) = self.held.as_mut().filter(|_| has_enough) {
            work.done();
            self.asked.admission.happen();
            self.count_execution();
        }
        self.asked.admission.give_up();
    }
}

impl Stream for Answering {
    type Item = Result<Response>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.responses.poll_next_unpin(context));
        // A backend that does not say when it admits a request has done so by now.
        self.asked.admission.happen();
        let is_over = match &item {
            None | Some(Err(_)) => true,
            Some(Ok(response)) => response.is_last,
        };
        if is_over && let Some((_in_flight, mut span)) = self.held.take() {
            if let Some(Err(error)) = &item {
                span.failed(error.code().name(), error.message());
            } else {
                span.done();
                self.count_execution();
            }
        }
        Poll::Ready(item)
    }
}
