//! One instance on its thread: runs a batch and gives each of its requests an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_stage::{Batch, BatchBackend, Interrupt, Request, Response, Result, Spent, Tensor};
use consort_telemetry::{Execution, batch_span, compute_span, link};
use tracing::Span;

use crate::assembly::{Layout, Rider, gather, scatter};
use crate::guarded::guarded;
use crate::order::Answer;
use crate::queue::Queued;
use crate::ticket::Run;
use crate::{Counting, spend};

/// A backend, and what stops it.
pub(super) struct Instance {
    backend: Box<dyn BatchBackend>,
    interrupt: Option<Interrupt>,
}

/// What is kept of a request while the batch has its tensors.
struct Caller {
    answer: Answer,
    waited: Duration,
    spent: Option<Arc<Spent>>,
}

/// The outputs of each request, and how long the instance took to make them.
struct Done {
    outputs: Vec<Vec<Tensor>>,
    riders: Vec<Rider>,
    gathered: Duration,
    ran: Duration,
    scattered: Duration,
}

impl Instance {
    pub(super) fn new(backend: Box<dyn BatchBackend>) -> Self {
        Self { interrupt: backend.interrupt(), backend }
    }

    /// Runs the requests whose callers are still there. A backend that fails or panics fails
    /// these requests and stays in service.
    pub(super) fn work(&mut self, batch: Vec<Queued>, layout: &Layout, counting: &Counting) {
        let run = Run::new(self.interrupt.clone());
        let mut requests = Vec::with_capacity(batch.len());
        let mut callers = Vec::with_capacity(batch.len());
        for queued in batch {
            let Queued { request, ticket, answer, pending, span } = queued;
            if ticket.board(&run) {
                let (waited, spent) = (pending.waited(), request.context.spent.clone());
                callers.push(Caller { answer, waited, spent });
                requests.push(request);
            }
            drop((pending, span));
        }
        if !run.depart() {
            return;
        }
        let inferences = requests.iter().map(|request| counting.inferences(request)).sum();
        let done = self.run(requests, inferences, layout, counting);
        run.end();
        if let Ok(done) = &done {
            count(done, &callers, inferences, layout, counting);
        }
        give(callers, done.map(|done| done.outputs));
    }

    fn run(
        &mut self,
        requests: Vec<Request>,
        inferences: u64,
        layout: &Layout,
        counting: &Counting,
    ) -> Result<Done> {
        let span = span(&requests, inferences, counting);
        let _entered = span.enter();
        let begun_at = Instant::now();
        guarded(&counting.model, || {
            let (batch, riders) = gather(layout, requests)?;
            self.run_batch(batch, riders, layout, begun_at)
        })
    }

    fn run_batch(
        &mut self,
        batch: Batch,
        riders: Vec<Rider>,
        layout: &Layout,
        begun_at: Instant,
    ) -> Result<Done> {
        let gathered_at = Instant::now();
        let outputs = self.backend.run(batch)?;
        let ran_at = Instant::now();
        let outputs = scatter(layout, outputs, &riders)?;
        Ok(Done {
            outputs,
            riders,
            gathered: gathered_at - begun_at,
            ran: ran_at - gathered_at,
            scattered: ran_at.elapsed(),
        })
    }
}

/// The span of the work: under the request that runs alone, or under a batch that is linked with
/// each of its requests.
fn span(requests: &[Request], inferences: u64, counting: &Counting) -> Span {
    if let [only] = requests {
        return compute_span(only.context.span.as_ref(), &counting.model);
    }
    let spans = requests.iter().filter_map(|request| request.context.span.as_ref());
    let version = counting.version.to_string();
    let batch = batch_span(&counting.model, &version, requests.len() as u64, inferences);
    spans.for_each(|request| link(&batch, request));
    compute_span(Some(&batch), &counting.model)
}

/// Counts an execution that gave its answers.
fn count(done: &Done, callers: &[Caller], inferences: u64, layout: &Layout, counting: &Counting) {
    let (useful, padded) = layout.tokens(&done.riders);
    let execution = Execution {
        requests: callers.len() as u64,
        inferences,
        queue: callers.iter().map(|caller| caller.waited).sum(),
        compute_input: done.gathered,
        compute_infer: done.ran,
        compute_output: done.scattered,
        useful,
        padded,
        ..Execution::default()
    };
    counting.meter.execution(&execution);
    for caller in callers {
        if let Some(spent) = &caller.spent {
            spend(spent, caller.waited, &execution);
        }
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
            let copies: Vec<_> = callers.iter().skip(1).map(|_| error.clone()).collect();
            // The first has the cause too, for the log.
            for (caller, error) in callers.into_iter().zip([error].into_iter().chain(copies)) {
                caller.answer.send(Err(error));
            }
        }
    }
}
