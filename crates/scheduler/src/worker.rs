//! Runs a batch of requests on a backend and gives each of them its outputs.

use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_stage::{Batch, BatchBackend, Error, Held, Interrupt, Request, Result, Spent, Tensor};
use consort_telemetry::{Execution, batch_span, compute_span, link};
use tracing::Span;

use crate::assembly::{Layout, Rider, gather, scatter};
use crate::guarded::guarded;
use crate::{Counting, note_failure, spend};

/// One instance's backend, and what stops it.
pub(crate) struct Worker {
    backend: Box<dyn BatchBackend>,
    pub(crate) interrupt: Option<Interrupt>,
}

/// The outputs of each request, and how long the instance took to make them.
pub(crate) struct Done {
    pub(crate) outputs: Vec<Vec<Tensor>>,
    riders: Vec<Rider>,
    gathered: Duration,
    ran: Duration,
    scattered: Duration,
}

/// What a request has waited, and who asked what it spends.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) waited: Duration,
    pub(crate) spent: Option<Arc<Spent>>,
}

impl Worker {
    pub(crate) fn new(backend: Box<dyn BatchBackend>) -> Self {
        Self { interrupt: backend.interrupt(), backend }
    }

    /// Waits for what the backend needs before it may run, which is to be held until it has.
    pub(crate) fn prepare(&mut self, counting: &Counting) -> Result<Option<Held>> {
        guarded(&counting.model, || self.backend.prepare())
    }

    /// Runs `requests`, which count for so many inferences, in one batch.
    ///
    /// A backend that panics fails this run and stays in service.
    pub(crate) fn run(
        &mut self,
        requests: Vec<Request>,
        inferences: u64,
        layout: &Layout,
        counting: &Counting,
    ) -> Result<Done> {
        let span = span(&requests, inferences, counting);
        let _entered = span.enter();
        let begun_at = Instant::now();
        let done = guarded(&counting.model, || {
            let (batch, riders) = gather(layout, requests)?;
            self.run_batch(batch, riders, layout, begun_at)
        });
        done.inspect_err(|error| note_failure(&span, error))
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
        return compute_span(only.context.span.as_ref(), &counting.model, counting.version);
    }
    let spans = requests.iter().filter_map(|request| request.context.span.as_ref());
    let version = counting.version.to_string();
    let batch = batch_span(&counting.model, &version, requests.len() as u64, inferences);
    spans.for_each(|request| link(&batch, request));
    compute_span(Some(&batch), &counting.model, counting.version)
}

/// One error for every caller of a run; the first is given the cause too, for the log.
pub(crate) fn for_each_caller(error: Error) -> impl Iterator<Item = Error> {
    let copy = error.clone();
    iter::once(error).chain(iter::repeat(copy))
}

impl Done {
    /// Counts the execution for the requests that waited so.
    pub(crate) fn count<'a>(
        &self,
        waits: impl Iterator<Item = &'a Wait> + Clone,
        inferences: u64,
        layout: &Layout,
        counting: &Counting,
    ) {
        let (useful, padded) = layout.tokens(&self.riders);
        let execution = Execution {
            requests: waits.clone().count() as u64,
            inferences,
            queue: waits.clone().map(|wait| wait.waited).sum(),
            compute_input: self.gathered,
            compute_infer: self.ran,
            compute_output: self.scattered,
            useful,
            padded,
            ..Execution::default()
        };
        counting.meter.execution(&execution);
        for wait in waits {
            if let Some(spent) = &wait.spent {
                spend(spent, wait.waited, &execution);
            }
        }
    }
}
