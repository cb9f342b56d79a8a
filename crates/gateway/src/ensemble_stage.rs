//! Counts the executions of an ensemble, which has no instance that would.

use std::sync::Arc;
use std::time::Instant;

use consort_ensemble::Ensemble;
use consort_stage::{Request, Responses, Signature, Stage};
use consort_telemetry::{Execution, Meter};
use futures::StreamExt;

/// An ensemble that counts each request it answers as one execution.
pub(crate) struct EnsembleStage {
    ensemble: Ensemble,
    signature: Arc<Signature>,
    meter: Arc<Meter>,
}

impl EnsembleStage {
    pub(crate) fn new(ensemble: Ensemble, signature: Arc<Signature>, meter: Arc<Meter>) -> Self {
        Self { ensemble, signature, meter }
    }

    fn inferences(&self, request: &Request) -> u64 {
        let batch = request.inputs.first().and_then(|tensor| tensor.shape.first());
        let batch = batch.filter(|_| self.signature.is_batching());
        batch.map_or(1, |size| (*size).max(1) as u64)
    }
}

impl Stage for EnsembleStage {
    fn call(&self, request: Request) -> Responses {
        let inferences = self.inferences(&request);
        let begun_at = Instant::now();
        let mut uncounted = Some(self.meter.clone());
        Box::pin(self.ensemble.call(request).inspect(move |response| {
            let is_over = response.as_ref().is_ok_and(|response| response.is_last);
            if let Some(meter) = uncounted.take_if(|_| is_over) {
                meter.execution(&Execution {
                    requests: 1,
                    inferences,
                    compute_infer: begun_at.elapsed(),
                    ..Execution::default()
                });
            }
        }))
    }
}
