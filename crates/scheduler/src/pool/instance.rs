//! One instance on its thread: runs a batch and gives each of its requests an answer.

use consort_stage::{BatchBackend, Response, Result, Tensor};

use crate::Counting;
use crate::assembly::Layout;
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

impl Instance {
    pub(super) fn new(backend: Box<dyn BatchBackend>) -> Self {
        Self(Worker::new(backend))
    }

    /// Runs the requests whose callers are still there. A backend that fails or panics fails
    /// these requests and stays in service.
    pub(super) fn work(&mut self, batch: Vec<Queued>, layout: &Layout, counting: &Counting) {
        let run = Run::new(self.0.interrupt.clone());
        let mut requests = Vec::with_capacity(batch.len());
        let mut callers = Vec::with_capacity(batch.len());
        for queued in batch {
            let Queued { request, ticket, answer, pending, span } = queued;
            if ticket.board(&run) {
                let (waited, spent) = (pending.waited(), request.context.spent.clone());
                let wait = Wait { waited, spent };
                callers.push(Caller { answer, wait });
                requests.push(request);
            }
            drop((pending, span));
        }
        if !run.depart() {
            return;
        }
        let inferences = requests.iter().map(|request| counting.inferences(request)).sum();
        let done = self.0.run(requests, inferences, layout, counting);
        run.end();
        if let Ok(done) = &done {
            let waits = callers.iter().map(|caller| &caller.wait);
            done.count(waits, inferences, layout, counting);
        }
        give(callers, done.map(|done| done.outputs));
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
