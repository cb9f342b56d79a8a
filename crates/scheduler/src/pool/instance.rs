//! One instance on its thread: runs a batch and gives each of its requests an answer.

use std::sync::Arc;
use std::time::Instant;

use consort_stage::{BatchBackend, Response, Result, Spent, Tensor};
use consort_telemetry::{PendingGuard, WorkSpan};

use crate::Counting;
use crate::assembly::Layout;
use crate::batching::Ended;
use crate::order::Answer;
use crate::queue::Queued;
use crate::ticket::Run;
use crate::worker::{Wait, Worker, for_each_caller};

/// A backend on its thread.
pub(super) struct Instance(Worker);

/// What is kept of a request while the batch has its tensors.
struct Caller {
    answer: Answer,
    wait: Wait,
}

/// The same before the run begins.
struct Boarded {
    answer: Answer,
    pending: PendingGuard,
    spent: Option<Arc<Spent>>,
    /// The span of the wait.
    span: WorkSpan,
}

impl Instance {
    pub(super) fn new(backend: Box<dyn BatchBackend>) -> Self {
        Self(Worker::new(backend))
    }

    /// Runs the requests whose callers are still there; `None` when there was none. A backend that
    /// fails or panics fails these requests and stays in service.
    pub(super) fn work(
        &mut self,
        batch: Vec<Queued>,
        layout: &Layout,
        counting: &Counting,
    ) -> Option<Ended> {
        let run = Run::new(self.0.interrupt.clone());
        let mut requests = Vec::with_capacity(batch.len());
        let mut boarded = Vec::with_capacity(batch.len());
        for queued in batch {
            let Queued { request, ticket, answer, pending, span } = queued;
            if ticket.board(&run) {
                let spent = request.context.spent.clone();
                boarded.push(Boarded { answer, pending, spent, span });
                requests.push(request);
            }
        }
        if !run.depart() {
            return None;
        }
        // What an instance waits for, its requests wait for.
        let prepared = self.0.prepare(counting);
        let callers: Vec<_> = boarded.into_iter().map(Boarded::begin).collect();
        let begun_at = Instant::now();
        let rows = requests.iter().map(|request| layout.rows(request)).sum();
        let inferences = requests.iter().map(|request| counting.inferences(request)).sum();
        let done = prepared.and_then(|_held| self.0.run(requests, inferences, layout, counting));
        run.end();
        let at = Instant::now();
        if let Ok(done) = &done {
            let waits = callers.iter().map(|caller| &caller.wait);
            done.count(waits, inferences, layout, counting);
        }
        let is_done = done.is_ok();
        give(callers, done.map(|done| done.outputs));
        Some(Ended { rows, took: at - begun_at, at, is_done })
    }
}

impl Boarded {
    fn begin(mut self) -> Caller {
        self.span.done();
        let wait = Wait { waited: self.pending.waited(), spent: self.spent };
        Caller { answer: self.answer, wait }
    }
}

/// Gives each request its outputs, or all of them the error.
fn give(callers: Vec<Caller>, outputs: Result<Vec<Vec<Tensor>>>) {
    match outputs {
        Ok(outputs) => {
            for (caller, outputs) in callers.into_iter().zip(outputs) {
                caller.answer.send(Ok(Response::only(outputs)));
            }
        }
        Err(error) => {
            for (caller, error) in callers.into_iter().zip(for_each_caller(error)) {
                caller.answer.send(Err(error));
            }
        }
    }
}
