//! Runs a backend where it is called, for work that is shorter than a change of thread.

use std::sync::Arc;
use std::time::Instant;

use consort_stage::{InlineBackend, Request, Response, Responses, Result, Stage, one};
use consort_telemetry::{Execution, compute_span};

use crate::guarded::guarded;
use crate::{Counting, note_failure};

/// A stage that runs its backend on the caller's task.
pub struct InlineStage {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Arc<dyn InlineBackend>,
    counting: Counting,
}

impl InlineStage {
    /// A stage over `backend` that counts its executions.
    pub fn new(backend: Arc<dyn InlineBackend>, counting: Counting) -> Self {
        Self { shared: Arc::new(Shared { backend, counting }) }
    }

    /// The answer to a request.
    pub(crate) fn answer(&self, request: Request) -> Result<Response> {
        self.shared.run(request)
    }
}

impl Stage for InlineStage {
    fn call(&self, request: Request) -> Responses {
        let shared = self.shared.clone();
        one(async move { shared.run(request) })
    }
}

impl Shared {
    fn run(&self, request: Request) -> Result<Response> {
        let Counting { model, version, .. } = &self.counting;
        let span = compute_span(request.context.span.as_ref(), model, *version);
        let _entered = span.enter();
        let inferences = self.counting.inferences(&request);
        let spent = request.context.spent.clone();
        let started_at = Instant::now();
        let outputs = guarded(model, || self.backend.run(request.into()));
        let outputs = outputs.inspect_err(|error| note_failure(&span, error))?;
        let execution = Execution {
            requests: 1,
            inferences,
            compute_infer: started_at.elapsed(),
            ..Execution::default()
        };
        self.counting.executed(&execution, spent.as_deref());
        Ok(Response::only(outputs))
    }
}
