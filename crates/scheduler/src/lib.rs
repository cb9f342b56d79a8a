//! Instances and queues between a request and a backend.
//!
//! Each kind of backend has its stage: [`InlineStage`] runs where it is called, [`PoolStage`] has
//! a thread for each instance and one bounded queue they pull from, [`StreamingStage`] hands
//! requests to a backend that owns its loop.

mod assembly;
mod batching;
mod guarded;
mod inline;
mod limiter;
mod order;
mod pool;
mod queue;
mod roster;
mod sequence;
mod streaming;
mod threads;
mod ticket;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use consort_stage::{Context, Durations, Error, Request, Spent};
use consort_telemetry::{Execution, Meter, WorkSpan, failed, queue_span};
use tracing::Span;

pub use assembly::batch_of_one;
pub use batching::Rules;
pub use guarded::guarded;
pub use inline::InlineStage;
pub use limiter::{Limiter, Need, Needs, Supply};
pub use pool::PoolStage;
pub use sequence::{SequenceStage, Sequences, controls_of_one};
pub use streaming::StreamingStage;
pub use threads::Threads;

/// The requests that may wait for an instance when the configuration does not say: at 1 ms each
/// the last of them waits a second, beyond which callers are better told to come back.
pub const DEFAULT_QUEUE_SIZE: usize = 1024;

/// What a stage counts, and in whose name.
#[derive(Clone, Debug)]
pub struct Counting {
    /// The model's name.
    pub model: Arc<str>,
    /// Its version.
    pub version: u64,
    /// The statistics of the model version.
    pub meter: Arc<Meter>,
    /// Whether the first dimension of a request's tensors is its batch.
    pub is_batching: bool,
}

impl Counting {
    /// Counts the execution of one request, here and for whoever asked what the request spent.
    fn executed(&self, execution: &Execution, spent: Option<&Spent>) {
        self.meter.execution(execution);
        if let Some(spent) = spent {
            spend(spent, execution.queue, execution);
        }
    }

    /// The span of a request's wait for an instance.
    fn queue_span(&self, context: &Context) -> WorkSpan {
        let span = queue_span(context.span.as_ref(), &self.model, self.version);
        WorkSpan::new(Some(span), context.deadline)
    }

    /// How many inferences a request counts for: its batch size, or one.
    fn inferences(&self, request: &Request) -> u64 {
        let batch = request.inputs.first().and_then(|tensor| tensor.shape.first());
        batch.filter(|_| self.is_batching).map_or(1, |size| (*size).max(1) as u64)
    }
}

/// Notes on the span of a run that it failed.
fn note_failure(span: &Span, error: &Error) {
    failed(span, error.code().name(), error.message());
}

/// Adds to what a request has spent its own wait and the whole execution that it rode in.
fn spend(spent: &Spent, queue: Duration, execution: &Execution) {
    spent.add(&Durations {
        queue,
        compute_input: execution.compute_input,
        compute_infer: execution.compute_infer,
        compute_output: execution.compute_output,
    });
}
