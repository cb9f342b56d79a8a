//! A thread for each instance of a model, pulling from one bounded queue.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use consort_stage::{
    BatchBackend, Error, Interrupt, Request, Response, Responses, Result, Stage, one,
};
use consort_telemetry::{Execution, compute_span, queue_span};
use tokio::sync::oneshot;

use crate::Counting;
use crate::guarded::guarded;
use crate::queue::{Queue, Queued};
use crate::ticket::{Left, Ticket};

/// A stage over the instances of a batch backend.
///
/// Dropping it lets the instances finish what is queued and ends their threads.
pub struct PoolStage {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Queue,
    counting: Counting,
    has_instances: bool,
}

impl PoolStage {
    /// Starts a thread for each instance; `name` is the model's, for the threads' names.
    pub fn start(
        name: &str,
        instances: Vec<Box<dyn BatchBackend>>,
        queue_size: usize,
        counting: Counting,
    ) -> io::Result<Self> {
        let has_instances = !instances.is_empty();
        let shared = Arc::new(Shared { queue: Queue::new(queue_size), counting, has_instances });
        let stage = Self { shared: shared.clone() };
        for (index, backend) in instances.into_iter().enumerate() {
            let instance = Instance { interrupt: backend.interrupt(), backend };
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("{name}_{index}"))
                .spawn(move || instance.work(&shared))?;
        }
        Ok(stage)
    }
}

impl Drop for PoolStage {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Stage for PoolStage {
    fn call(&self, request: Request) -> Responses {
        let shared = self.shared.clone();
        one(async move { shared.submit(request).await })
    }
}

impl Shared {
    async fn submit(&self, request: Request) -> Result<Response> {
        if !self.has_instances {
            return Err(Error::unavailable("the model has no instance"));
        }
        let (reply, response) = oneshot::channel();
        let ticket = Ticket::default();
        let pending = self.counting.meter.pending();
        let span = queue_span(request.context.span.as_ref(), &self.counting.model);
        self.queue.push(Queued { request, ticket: ticket.clone(), reply, pending, span })?;
        let caller = Caller { ticket, queue: &self.queue };
        let response = response.await;
        drop(caller);
        response.unwrap_or_else(|_| Err(Error::internal("the instance gave no answer")))
    }
}

/// Who waits for a queued or running request; dropping it before the end cancels the request.
struct Caller<'a> {
    ticket: Ticket,
    queue: &'a Queue,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if self.ticket.cancel() == Left::TheQueue {
            self.queue.forget(&self.ticket);
        }
    }
}

/// One instance on its thread.
struct Instance {
    backend: Box<dyn BatchBackend>,
    interrupt: Option<Interrupt>,
}

impl Instance {
    fn work(mut self, shared: &Shared) {
        while let Some(queued) = shared.queue.pull() {
            if queued.request.context.is_expired() {
                drop(queued.reply.send(Err(Error::deadline_exceeded())));
            } else if queued.ticket.begin(self.interrupt.clone()) {
                let Queued { request, ticket, reply, pending, span } = queued;
                let waited = pending.waited();
                drop((pending, span));
                let answer = self.run(request, waited, &shared.counting);
                ticket.end();
                // A caller that has gone does not want it.
                drop(reply.send(answer));
            }
        }
    }

    /// Runs one request. A backend that panics fails this request and stays in service.
    fn run(&mut self, request: Request, queue: Duration, counting: &Counting) -> Result<Response> {
        let span = compute_span(request.context.span.as_ref(), &counting.model);
        let _entered = span.enter();
        let inferences = counting.inferences(&request);
        let spent = request.context.spent.clone();
        let started_at = Instant::now();
        let outputs = guarded(&counting.model, || self.backend.run(request.into()))?;
        let execution = Execution {
            requests: 1,
            inferences,
            queue,
            compute_infer: started_at.elapsed(),
            ..Execution::default()
        };
        counting.executed(&execution, spent.as_deref());
        Ok(Response::only(outputs))
    }
}
