//! Instances and queues between a request and a backend.
//!
//! Each kind of backend has its stage: [`InlineStage`] runs where it is called, [`PoolStage`] has
//! a thread for each instance and one bounded queue they pull from, [`StreamingStage`] hands
//! requests to a backend that owns its loop.

mod assembly;
mod guarded;
mod inline;
mod pool;
mod queue;
mod streaming;
mod ticket;

use std::sync::Arc;

use consort_stage::Request;
use consort_telemetry::Meter;

pub use inline::InlineStage;
pub use pool::PoolStage;
pub use streaming::StreamingStage;

/// The requests that may wait for an instance when the configuration does not say: at 1 ms each
/// the last of them waits a second, beyond which callers are better told to come back.
pub const DEFAULT_QUEUE_SIZE: usize = 1024;

/// What a stage counts, and in whose name.
#[derive(Clone, Debug)]
pub struct Counting {
    /// The model's name.
    pub model: Arc<str>,
    /// The statistics of the model version.
    pub meter: Arc<Meter>,
    /// Whether the first dimension of a request's tensors is its batch.
    pub is_batching: bool,
}

impl Counting {
    /// How many inferences a request counts for: its batch size, or one.
    fn inferences(&self, request: &Request) -> u64 {
        let batch = request.inputs.first().and_then(|tensor| tensor.shape.first());
        batch.filter(|_| self.is_batching).map_or(1, |size| (*size).max(1) as u64)
    }
}
