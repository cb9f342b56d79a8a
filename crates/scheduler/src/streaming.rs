//! Hands requests to a backend that owns its loop and answers each many times.

mod answering;
mod instance;

use std::io;
use std::sync::Arc;

use consort_stage::{Error, Job, Reply, Request, Responses, Stage, StreamingBackend, fail};
use consort_telemetry::compute_span;
use futures::FutureExt;

use self::answering::Answering;
use self::instance::Instance;
use crate::Counting;

/// The responses a caller may leave unread before its request pauses: enough to ride out a slow
/// write, small enough that a stalled caller holds little.
const REPLY_CAPACITY: usize = 32;

/// A stage over the instances of a streaming backend.
///
/// Dropping it ends the loops once what they admitted is answered.
pub struct StreamingStage {
    shared: Arc<Shared>,
}

struct Shared {
    instances: Vec<Arc<Instance>>,
    counting: Counting,
}

impl StreamingStage {
    /// Starts the loop of each instance on a thread; `name` is the model's.
    ///
    /// At most `queue_size` requests wait for each instance to admit them.
    pub fn start(
        name: &str,
        instances: Vec<Box<dyn StreamingBackend>>,
        queue_size: usize,
        counting: Counting,
    ) -> io::Result<Self> {
        let mut started = Vec::new();
        for (index, backend) in instances.into_iter().enumerate() {
            match Instance::start(name, index, backend, queue_size) {
                Ok(instance) => started.push(instance),
                Err(error) => {
                    for instance in &started {
                        instance.close();
                    }
                    return Err(error);
                }
            }
        }
        Ok(Self { shared: Arc::new(Shared { instances: started, counting }) })
    }
}

impl Drop for StreamingStage {
    fn drop(&mut self) {
        for instance in &self.shared.instances {
            instance.close();
        }
    }
}

impl Stage for StreamingStage {
    fn call(&self, request: Request) -> Responses {
        let shared = self.shared.clone();
        Box::pin(async move { shared.submit(request) }.flatten_stream())
    }
}

impl Shared {
    fn submit(&self, mut request: Request) -> Responses {
        let Some(instance) = self.instances.iter().min_by_key(|instance| instance.in_flight())
        else {
            return fail(Error::unavailable("the model has no instance"));
        };
        if request.context.is_expired() {
            return fail(Error::deadline_exceeded());
        }
        let inferences = self.counting.inferences(&request);
        let spent = request.context.spent.clone();
        let span = compute_span(request.context.span.as_ref(), &self.counting.model);
        // What the loop says of its steps belongs to the span of its work.
        if !span.is_disabled() {
            request.context.span = Some(span.clone());
        }
        let in_flight = Instance::enter(instance);
        let (reply, responses) = Reply::channel(REPLY_CAPACITY);
        if let Err(error) = instance.send(Job { request, reply }) {
            return fail(error);
        }
        let held = (in_flight, span);
        Box::pin(Answering::new(responses, inferences, spent, self.counting.clone(), held))
    }
}
