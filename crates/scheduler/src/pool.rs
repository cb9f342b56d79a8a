//! A thread for each instance of a model, pulling batches from one bounded queue.

mod brief;
mod instance;

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_stage::{BatchBackend, Error, Request, Response, Responses, Result, Stage, one};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use self::brief::Brief;
use self::instance::Instance;
use crate::Counting;
use crate::batching::{Place, Rules};
use crate::order::{Answer, Order};
use crate::queue::{Dismissal, Queue, Queued, Seat};
use crate::roster::Roster;
use crate::threads::Threads;
use crate::ticket::Ticket;

/// A stage over the instances of a batch backend.
///
/// Dropping it lets the instances finish what is queued and ends their threads.
pub struct PoolStage {
    shared: Arc<Shared>,
    members: Members,
}

/// The instances by their numbers, and what tells each to go.
struct Members {
    threads: Threads,
    dismissals: Mutex<Roster<Dismissal>>,
    /// The one with the threads of all the others, while there is one.
    wide: Mutex<Option<Dismissal>>,
}

struct Shared {
    queue: Queue,
    order: Order,
    counting: Counting,
    has_instances: bool,
    brief: Option<Brief>,
}

impl PoolStage {
    /// Starts a thread of the model's for each instance.
    pub fn start(
        threads: impl Into<Threads>,
        instances: Vec<Box<dyn BatchBackend>>,
        rules: Rules,
        counting: Counting,
    ) -> io::Result<Self> {
        let has_instances = !instances.is_empty();
        let first = instances.first().map(|backend| &**backend);
        let brief = first.and_then(|backend| Brief::of(backend, &rules, &counting));
        let (queue, order) = (Queue::new(rules), Order::default());
        let shared = Arc::new(Shared { queue, order, counting, has_instances, brief });
        let (dismissals, wide) = (Mutex::default(), Mutex::default());
        let members = Members { threads: threads.into(), dismissals, wide };
        let stage = Self { shared, members };
        stage.change(instances, &[])?;
        Ok(stage)
    }

    /// Adds instances and gives their numbers, and lets those that are `retired` go once what they
    /// run is over. What waits stays in its place, for whoever is there.
    ///
    /// The instances of the start have the numbers from 0. One of those that stay must be left for
    /// the requests that wait. Errors, with all as it was, when a thread cannot be started.
    pub fn change(
        &self,
        added: Vec<Box<dyn BatchBackend>>,
        retired: &[usize],
    ) -> io::Result<Vec<usize>> {
        let mut members = self.members.dismissals.lock();
        let start = |number, backend| self.add(number, backend, false);
        let (numbers, gone) = members.change(added, retired, start);
        self.shared.queue.dismiss(&gone);
        numbers
    }

    /// Whether an instance with the threads of all the others could be given requests: one that
    /// comes alone must not have to wait for others by the rules.
    pub fn runs_at_once(&self) -> bool {
        self.shared.queue.rules().runs_at_once()
    }

    /// Whether there is an instance with the threads of all the others.
    pub fn has_wide(&self) -> bool {
        self.members.wide.lock().is_some()
    }

    /// Adds an instance with the threads of all the others: it runs a request that comes while
    /// nothing else runs or waits, and on few cores all that are gathered where one run is sooner
    /// over. It takes the place of one that was there before.
    ///
    /// Errors, with all as it was, when its thread cannot be started.
    pub fn add_wide(&self, backend: Box<dyn BatchBackend>) -> io::Result<()> {
        let dismissal = self.add("wide", backend, true)?;
        let before = self.members.wide.lock().replace(dismissal);
        self.shared.queue.dismiss(&before);
        Ok(())
    }

    /// Lets the instance with the threads of all the others go once what it runs is over.
    pub fn retire_wide(&self) {
        let wide = self.members.wide.lock().take();
        self.shared.queue.dismiss(&wide);
    }

    /// Starts an instance, its thread named by the model and `which` it is.
    fn add(
        &self,
        which: impl Display,
        backend: Box<dyn BatchBackend>,
        is_wide: bool,
    ) -> io::Result<Dismissal> {
        let dismissal = Dismissal::default();
        let shared = self.shared.clone();
        let mut instance = Instance::new(backend);
        let mut seat = Seat::new(dismissal.clone(), is_wide);
        self.members.threads.start(which, move || {
            let Shared { queue, counting, .. } = &*shared;
            while let Some(batch) = queue.pull(&mut seat) {
                seat.ended(instance.work(batch, &queue.rules().layout, counting));
            }
        })?;
        Ok(dismissal)
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
        let rules = self.queue.rules();
        if let Some(brief) = self.brief.as_ref().filter(|brief| brief.takes(&request, rules)) {
            self.counting.meter.waited(Duration::ZERO);
            return brief.stage.answer(request);
        }
        let (sender, answer) = oneshot::channel();
        let entry = rules.entry(&request, Instant::now());
        let expiries = [entry.timeout.map(|(at, _)| at), entry.deadline];
        let ticket = Ticket::default();
        let queued = Queued {
            ticket: ticket.clone(),
            answer: if rules.preserves_order {
                Answer::in_order(sender, &self.order)
            } else {
                Answer::at_once(sender)
            },
            pending: self.counting.meter.pending(),
            span: self.counting.queue_span(&request.context),
            request,
        };
        let place = self.queue.push(entry, queued)?;
        let caller = Caller { ticket, place, queue: &self.queue };
        let answer = self.wait(answer, expiries).await;
        drop(caller);
        answer.unwrap_or_else(|_| Err(Error::internal("the instance gave no answer")))
    }

    /// The answer, while the queue is told whenever the request's time is up.
    async fn wait<T>(
        &self,
        mut answer: oneshot::Receiver<T>,
        mut expiries: [Option<Instant>; 2],
    ) -> Result<T, oneshot::error::RecvError> {
        expiries.sort_unstable();
        for at in expiries.into_iter().flatten() {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = sleep_until(at.into()) => self.queue.expire(),
            }
        }
        answer.await
    }
}

/// Who waits for a queued or running request; dropping it before the end cancels the request.
struct Caller<'a> {
    ticket: Ticket,
    place: Place,
    queue: &'a Queue,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if self.ticket.cancel() {
            self.queue.forget(self.place);
        }
    }
}
