//! Lets the requests of each sequence run in order on one instance, and keeps its state.

mod choice;
mod controls;
mod core;
mod exchange;
mod instance;
mod lane;
mod line;
mod rows;
mod shared;
mod states;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use consort_config::{RaggedBatching, SequenceBatching};
use consort_stage::{
    BatchBackend, CorrelationId, Request, Responses, Signature, Stage, Tensor, one,
};

use self::controls::{Controls, Told};
use self::core::Policy;
use self::instance::Instance;
use self::rows::Rows;
use self::shared::Shared;
use crate::Counting;
use crate::assembly::Layout;
use crate::threads::Threads;

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

/// What a backend is told of a sequence of one request: one row of each control input, which an
/// id of 1 fits in any type.
pub fn controls_of_one(batching: &SequenceBatching, is_batching: bool) -> Vec<Tensor> {
    let id = CorrelationId::Number(1);
    let told = Told { is_start: true, is_ready: true, is_end: true, id: Some(&id) };
    Controls::new(batching.controls.clone(), is_batching).tensors(&told).collect()
}

/// A stage over the instances of a batch backend whose requests belong to sequences.
///
/// A sequence stays on the instance it began on, with a thread for each instance. Dropping the
/// stage lets the instances finish what waits and ends their threads.
pub struct SequenceStage {
    shared: Arc<Shared>,
    threads: Threads,
    layout: Layout,
    /// How many threads were started, for their names.
    started: AtomicUsize,
}

impl SequenceStage {
    /// Starts a thread of the model's for each instance.
    pub fn start(
        threads: impl Into<Threads>,
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
            is_iterative: batching.is_iterative,
            max_idle: batching.max_idle,
            queue_size,
            initial_form: rows.states.initial_form(),
        };
        let shared = Arc::new(Shared::new(policy, rows, counting));
        let layout = Layout::new(backend_signature, false).told_of(&ragged);
        let (threads, started) = (threads.into(), AtomicUsize::default());
        let stage = Self { shared, threads, layout, started };
        for (number, told) in stage.spawn(instances)?.into_iter().enumerate() {
            // One that has ended already has nobody to tell.
            let _sent = told.send(number);
        }
        Ok(stage)
    }

    /// Adds instances and gives their numbers, and lets those that are `retired` go once the
    /// sequences that they have are over; they take no further ones.
    ///
    /// The instances of the start have the numbers from 0. Errors, with all as it was, when a
    /// thread cannot be started.
    pub fn change(
        &self,
        added: Vec<Box<dyn BatchBackend>>,
        retired: &[usize],
    ) -> io::Result<Vec<usize>> {
        let told = self.spawn(added)?;
        let numbers = self.shared.change(told.len(), retired);
        for (told, number) in told.into_iter().zip(&numbers) {
            let _sent = told.send(*number);
        }
        Ok(numbers)
    }

    /// A thread for each instance, which begins when it is told its number and ends when it never
    /// is.
    fn spawn(&self, instances: Vec<Box<dyn BatchBackend>>) -> io::Result<Vec<Sender<usize>>> {
        let start = |backend| {
            let (sender, told) = channel();
            let (shared, layout) = (self.shared.clone(), self.layout.clone());
            let number = self.started.fetch_add(1, Relaxed);
            self.threads.start(number, move || {
                if let Ok(number) = told.recv() {
                    Instance::new(number, backend, layout).work(&shared);
                }
            })?;
            Ok(sender)
        };
        instances.into_iter().map(start).collect()
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
