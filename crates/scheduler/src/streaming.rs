//! Hands requests to a backend that owns its loop and answers each many times.

use std::io;
use std::thread;
use std::time::Instant;

use consort_stage::{
    Code, Error, Job, Jobs, Reply, Request, Responses, Stage, StreamingBackend, fail,
};
use consort_telemetry::Execution;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::Counting;

/// The responses a caller may leave unread before its request pauses: enough to ride out a slow
/// write, small enough that a stalled caller holds little.
const REPLY_CAPACITY: usize = 32;

/// A stage over the instances of a streaming backend.
///
/// Dropping it ends the loops once what they admitted is answered.
pub struct StreamingStage {
    instances: Vec<mpsc::Sender<Job>>,
    counting: Counting,
}

impl StreamingStage {
    /// Starts the loop of each instance on a thread; `name` is the model's.
    pub fn start(
        name: &str,
        instances: Vec<Box<dyn StreamingBackend>>,
        queue_size: usize,
        counting: Counting,
    ) -> io::Result<Self> {
        let mut senders = Vec::new();
        for (index, mut backend) in instances.into_iter().enumerate() {
            let (sender, jobs) = Jobs::channel(queue_size);
            let thread = thread::Builder::new().name(format!("{name}_{index}"));
            thread.spawn(move || backend.run(jobs))?;
            senders.push(sender);
        }
        Ok(Self { instances: senders, counting })
    }
}

impl Stage for StreamingStage {
    fn call(&self, request: Request) -> Responses {
        // The instance with the most room has the fewest requests waiting.
        let Some(instance) = self.instances.iter().max_by_key(|sender| sender.capacity()) else {
            return fail(Error::unavailable("the model has no instance"));
        };
        let inferences = self.counting.inferences(&request);
        let (reply, responses) = Reply::channel(REPLY_CAPACITY);
        match instance.try_send(Job { request, reply }) {
            Ok(()) => counted(responses, inferences, self.counting.clone()),
            Err(TrySendError::Full(_)) => {
                fail(Error::new(Code::Overloaded, "Exceeds maximum queue size"))
            }
            Err(TrySendError::Closed(_)) => {
                fail(Error::internal("the backend's loop has ended; see the server's log"))
            }
        }
    }
}

/// Counts the execution of a request at its end; until its first response it counts as pending,
/// since only the backend knows when it was admitted.
fn counted(responses: Responses, inferences: u64, counting: Counting) -> Responses {
    let started_at = Instant::now();
    let mut pending = Some(counting.meter.pending());
    let mut has_failed = false;
    let responses = responses.map(Some).chain(futures::stream::iter([None]));
    Box::pin(responses.filter_map(move |item| {
        let queue = pending.take().map(|pending| pending.waited());
        has_failed |= matches!(item, Some(Err(_)));
        if item.is_none() && !has_failed {
            counting.meter.execution(&Execution {
                requests: 1,
                inferences,
                queue: queue.unwrap_or_default(),
                compute_infer: started_at.elapsed(),
                ..Execution::default()
            });
        }
        std::future::ready(item)
    }))
}
