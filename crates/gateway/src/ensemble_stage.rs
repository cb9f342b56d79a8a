//! Counts the executions of an ensemble, which has no instance that would.

use std::sync::Arc;
use std::time::Instant;

use consort_stage::{Request, Responses, Signature, Spent, Stage};
use consort_telemetry::{Execution, Meter};
use futures::StreamExt;

use crate::at_end::at_end;

/// An ensemble that counts each request it answers as one execution.
///
/// As with Triton its queue and compute durations are the sums over its steps, which parallel
/// branches make longer than the time that passes; that time is counted beside them.
pub(crate) struct EnsembleStage {
    ensemble: Arc<dyn Stage>,
    signature: Arc<Signature>,
    meter: Arc<Meter>,
}

impl EnsembleStage {
    pub(crate) fn new(
        ensemble: Arc<dyn Stage>,
        signature: Arc<Signature>,
        meter: Arc<Meter>,
    ) -> Self {
        Self { ensemble, signature, meter }
    }

    fn inferences(&self, request: &Request) -> u64 {
        let batch = request.inputs.first().and_then(|tensor| tensor.shape.first());
        let batch = batch.filter(|_| self.signature.is_batching());
        batch.map_or(1, |size| (*size).max(1) as u64)
    }
}

impl Stage for EnsembleStage {
    fn call(&self, mut request: Request) -> Responses {
        let inferences = self.inferences(&request);
        let begun_at = Instant::now();
        let meter = self.meter.clone();
        let spent = Arc::new(Spent::default());
        // Where the ensemble is itself a step, its caller hears of the sum.
        let outer = request.context.spent.replace(spent.clone());
        let mut unanswered = Some(meter.unanswered());
        let enough = request.context.enough.clone();
        let responses = at_end(self.ensemble.call(request), enough, move |end| {
            if end.is_ok() {
                let durations = spent.durations();
                if let Some(outer) = outer {
                    outer.add(&durations);
                }
                meter.waited(durations.queue);
                meter.execution(&Execution {
                    requests: 1,
                    inferences,
                    queue: durations.queue,
                    compute_input: durations.compute_input,
                    compute_infer: durations.compute_infer,
                    compute_output: durations.compute_output,
                    passed: Some(begun_at.elapsed()),
                    ..Execution::default()
                });
            }
        });
        Box::pin(responses.inspect(move |_| drop(unanswered.take())))
    }
}
