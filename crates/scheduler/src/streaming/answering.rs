//! The responses of a streaming backend to one request, counted as they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use consort_stage::{Response, Responses, Result, Spent};
use consort_telemetry::{Execution, PendingGuard};
use futures::{Stream, StreamExt};

use super::instance::InFlight;
use crate::Counting;

/// The responses to one request; an execution is counted when the last of them passes.
pub(super) struct Answering {
    // Before what is held, so that the backend is told of a caller that has gone when it can see it.
    responses: Responses,
    inferences: u64,
    counting: Counting,
    started_at: Instant,
    /// Until its first response a request counts as pending, since only the backend knows when
    /// it was admitted.
    pending: Option<PendingGuard>,
    queue: Duration,
    spent: Option<Arc<Spent>>,
    /// What the request occupies until its end.
    held: Option<(InFlight, tracing::Span)>,
}

impl Answering {
    pub(super) fn new(
        responses: Responses,
        inferences: u64,
        spent: Option<Arc<Spent>>,
        counting: Counting,
        held: (InFlight, tracing::Span),
    ) -> Self {
        Self {
            responses,
            inferences,
            started_at: Instant::now(),
            pending: Some(counting.meter.pending()),
            counting,
            queue: Duration::ZERO,
            spent,
            held: Some(held),
        }
    }

    fn count_execution(&self) {
        let execution = Execution {
            requests: 1,
            inferences: self.inferences,
            queue: self.queue,
            compute_infer: self.started_at.elapsed().saturating_sub(self.queue),
            ..Execution::default()
        };
        self.counting.executed(&execution, self.spent.as_deref());
    }
}

impl Stream for Answering {
    type Item = Result<Response>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.responses.poll_next_unpin(context));
        if let Some(pending) = self.pending.take() {
            self.queue = pending.waited();
        }
        let is_over = match &item {
            None | Some(Err(_)) => true,
            Some(Ok(response)) => response.is_last,
        };
        if is_over && self.held.take().is_some() && !matches!(item, Some(Err(_))) {
            self.count_execution();
        }
        Poll::Ready(item)
    }
}
