//! Hands requests to a backend that owns its loop and answers each many times.

mod admission;
mod answering;
mod instance;

use std::io;
use std::sync::Arc;

use consort_stage::{Error, Job, Reply, Request, Responses, Stage, StreamingBackend, fail};
use consort_telemetry::{WorkSpan, compute_span};
use futures::FutureExt;
use parking_lot::RwLock;

use self::admission::Admission;
use self::answering::{Answering, Asked};
use self::instance::Instance;
use crate::Counting;
use crate::roster::Roster;
use crate::threads::Threads;

/// The responses a caller may leave unread before its request pauses: enough to ride out a slow
/// write, small enough that a stalled caller holds little.
const REPLY_CAPACITY: usize = 32;

/// A stage over the instances of a streaming backend.
///
/// Dropping it ends the loops once what they admitted is answered.
pub struct StreamingStage {
    shared: Arc<Shared>,
    threads: Threads,
    queue_size: usize,
}

struct Shared {
    instances: RwLock<Roster<Arc<Instance>>>,
    counting: Counting,
}

impl StreamingStage {
    /// Starts the loop of each instance on a thread of the model's.
    ///
    /// At most `queue_size` requests wait for each instance to admit them.
    pub fn start(
        threads: impl Into<Threads>,
        instances: Vec<Box<dyn StreamingBackend>>,
        queue_size: usize,
        counting: Counting,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared { instances: RwLock::default(), counting });
        let stage = Self { shared, threads: threads.into(), queue_size };
        stage.change(instances, &[])?;
        Ok(stage)
    }

    /// Adds instances and gives their numbers, and lets those that are `retired` go once what they
    /// were given is answered.
    ///
    /// The instances of the start have the numbers from 0. Errors, with all as it was, when a
    /// thread cannot be started.
    pub fn change(
        &self,
        added: Vec<Box<dyn StreamingBackend>>,
        retired: &[usize],
    ) -> io::Result<Vec<usize>> {
        let Self { threads, queue_size, .. } = self;
        let start = |number, backend| Instance::start(threads, number, backend, *queue_size);
        let mut instances = self.shared.instances.write();
        let (numbers, gone) = instances.change(added, retired, start);
        for instance in gone {
            instance.close();
        }
        numbers
    }
}

impl Drop for StreamingStage {
    fn drop(&mut self) {
        for instance in self.shared.instances.read().members() {
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
        // Held until the request is given over, so that no instance retires in between.
        let instances = self.instances.read();
        let Some(instance) = instances.members().min_by_key(|instance| instance.in_flight()) else {
            return fail(Error::unavailable("the model has no instance"));
        };
        if request.context.is_expired() {
            return fail(Error::deadline_exceeded());
        }
        let inferences = self.counting.inferences(&request);
        let spent = request.context.spent.clone();
        let enough = request.context.enough.clone();
        let Counting { model, version, meter, .. } = &self.counting;
        let queue = self.counting.queue_span(&request.context);
        let span = compute_span(request.context.span.as_ref(), model, *version);
        // What the loop says of its steps belongs to the span of its work.
        if !span.is_disabled() {
            request.context.span = Some(span.clone());
        }
        let in_flight = Instance::enter(instance);
        let (reply, responses) = Reply::channel(REPLY_CAPACITY);
        let admission = Admission::awaited(meter, queue);
        let mut work = WorkSpan::new(Some(span), request.context.deadline);
        let admitted = admission.clone();
        let reply = reply.telling(Box::new(move || admitted.happen()));
        if let Err(error) = instance.send(Job { request, reply }) {
            admission.refuse(&error);
            work.failed(error.code().name(), error.message());
            return fail(error);
        }
        let held = (in_flight, work);
        let asked = Asked { inferences, spent, enough, admission };
        Box::pin(Answering::new(responses, asked, self.counting.clone(), held))
    }
}
