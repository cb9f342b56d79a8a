//! Lets the requests of each sequence run in order on one instance, and keeps its state.

mod choice;
mod controls;
mod core;
mod instance;
mod line;
mod rows;
mod shared;
mod states;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use consort_config::{RaggedBatching, SequenceBatching};
use consort_stage::{BatchBackend, Request, Responses, Signature, Stage, Tensor, one};

use self::core::Policy;
use self::instance::Instance;
use self::rows::Rows;
use self::shared::Shared;
use crate::Counting;
use crate::assembly::Layout;

/// What a model with a sequence batcher is made of.
#[derive(Debug)]
pub struct Sequences {
    /// What its configuration says.
    pub batching: SequenceBatching,
    /// What callers give and get.
    pub signature: Arc<Signature>,
    /// What the backend gives and gets: the same with controls and states.
    pub backend_signature: Arc<Signature>,
    /// What the backend is told about requests of different shapes in one batch.
    pub ragged: RaggedBatching,
    /// One row of each state that a sequence begins with, in the configuration's order and named
    /// as the inputs.
    pub initial: Vec<Tensor>,
    /// How many requests may wait.
    pub queue_size: usize,
}

/// A stage over the instances of a batch backend whose requests belong to sequences.
///
/// A sequence stays on the instance it began on, with a thread for each instance. Dropping the
/// stage lets the instances finish what waits and ends their threads.
pub struct SequenceStage {
    shared: Arc<Shared>,
}

impl SequenceStage {
    /// Starts a thread for each instance; `name` is the model's, for the threads' names.
    pub fn start(
        name: &str,
        instances: Vec<Box<dyn BatchBackend>>,
        sequences: Sequences,
        counting: Counting,
    ) -> io::Result<Self> {
        let Sequences { batching, signature, backend_signature, ragged, initial, queue_size } =
            sequences;
        let rows = Rows::new(counting.model.clone(), signature, &batching, initial);
        let batch = usize::try_from(backend_signature.max_batch_size).unwrap_or(0);
        let policy = Policy {
            instances: instances.len(),
            rows: batch.max(1),
            strategy: batching.strategy,
            max_idle: batching.max_idle,
            queue_size,
            initial_form: rows.states.initial_form(),
        };
        let shared = Arc::new(Shared::new(policy, rows, counting));
        let stage = Self { shared: shared.clone() };
        let layout = Layout::new(backend_signature, false).told_of(&ragged);
        for (index, backend) in instances.into_iter().enumerate() {
            let instance = Instance::new(index, backend, layout.clone());
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("{name}_{index}"))
                .spawn(move || instance.work(&shared))?;
        }
        Ok(stage)
    }
}

impl Drop for SequenceStage {
    fn drop(&mut self) {
        self.shared.close(Instant::now());
    }
}

impl Stage for SequenceStage {
    fn call(&self, request: Request) -> Responses {
        let shared = self.shared.clone();
        one(async move { shared.submit(request).await })
    }
}
