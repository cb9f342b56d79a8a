//! The bounded queue that the instances of a model pull their batches from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use consort_stage::{Code, Error, Request, Result};
use consort_telemetry::{PendingGuard, WorkSpan};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::batching::{Batcher, Crew, Ended, Entry, Expired, Place, Post, Rules, Told, Turn};
use crate::order::Answer;
use crate::ticket::Ticket;

/// A request that waits for an instance.
pub(crate) struct Queued {
    pub(crate) request: Request,
    pub(crate) ticket: Ticket,
    pub(crate) answer: Answer,
    pub(crate) pending: PendingGuard,
    /// The span of the wait.
    pub(crate) span: WorkSpan,
}

impl Queued {
    /// Says on the span of the wait why there is none; gives that to be told to the caller.
    fn refused(mut self, error: Error) -> Error {
        self.span.failed(error.code().name(), error.message());
        error
    }
}

/// Tells one instance that it is wanted no longer. It is told and asks under the queue's lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dismissal(Arc<AtomicBool>);

impl Dismissal {
    fn is_told(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The requests of a model, each level of priority bounded.
pub(crate) struct Queue {
    crew: Mutex<Crew<Queued>>,
    /// Tells an instance that something has come which may be for it.
    arrived: Condvar,
    /// Tells the wide instance so.
    arrived_wide: Condvar,
    rules: Rules,
}

/// An instance at the queue.
#[derive(Debug)]
pub(crate) struct Seat {
    dismissal: Dismissal,
    post: Post,
}

impl Seat {
    /// A place for one more instance; a wide one has the threads of all the others.
    pub(crate) fn new(dismissal: Dismissal, is_wide: bool) -> Self {
        Self { dismissal, post: Post::new(is_wide) }
    }

    /// Notes the run that the instance has ended; `None` when nobody was there any more.
    pub(crate) fn ended(&mut self, run: Option<Ended>) {
        self.post.ended(run);
    }
}

impl Queue {
    /// An empty queue that follows these rules.
    pub(crate) fn new(rules: Rules) -> Self {
        let batcher = Batcher::new(rules.manner.clone(), rules.max_rows);
        let crew = Crew::new(batcher, rules.cores, rules.least_capacity());
        let (arrived, arrived_wide) = (Condvar::new(), Condvar::new());
        Self { crew: Mutex::new(crew), arrived, arrived_wide, rules }
    }

    /// The rules that it follows.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Adds a request and tells the instance that it is for; refused at once when its level is full.
    pub(crate) fn push(&self, entry: Entry, queued: Queued) -> Result<Place> {
        let mut crew = self.crew.lock();
        if crew.is_closed() {
            drop(crew);
            return Err(queued.refused(stopping()));
        }
        let waiting = crew.batcher.len_of(entry.level);
        if waiting >= self.rules.capacity(entry.level).saturating_add(crew.idle()) {
            drop(crew);
            return Err(queued.refused(full()));
        }
        let (place, told) = crew.add(entry, queued);
        drop(crew);
        match told {
            Told::Nobody => false,
            Told::Wide => self.arrived_wide.notify_one(),
            Told::Narrow => self.arrived.notify_one(),
        };
        Ok(place)
    }

    /// Takes out a request whose caller has gone, unless an instance has it already.
    pub(crate) fn forget(&self, place: Place) {
        let forgotten = self.crew.lock().batcher.remove(place);
        // Its tensors are given back without the lock.
        drop(forgotten);
    }

    /// Refuses the requests whose time is up.
    pub(crate) fn expire(&self) {
        let expired = self.crew.lock().batcher.expire(Instant::now());
        refuse(expired);
    }

    /// The next batch for the instance in `seat`, which has ended the one before, waiting for one;
    /// `None` once the queue is closed and empty, or the instance is dismissed. A wide one goes as
    /// soon as the queue is closed.
    pub(crate) fn pull(&self, seat: &mut Seat) -> Option<Vec<Queued>> {
        let Seat { dismissal, post } = seat;
        let mut crew = self.crew.lock();
        crew.leave(post);
        loop {
            if dismissal.is_told() || (post.is_wide && crew.is_closed()) {
                drop(crew);
                // What was reported to this instance alone concerns another now.
                self.arrived.notify_one();
                return None;
            }
            let now = Instant::now();
            let expired = crew.batcher.expire(now);
            if !expired.is_empty() {
                drop(crew);
                refuse(expired);
                crew = self.crew.lock();
                continue;
            }
            match crew.turn(now, post) {
                Turn::Run(batch) => return Some(self.take(now, crew, post, batch)),
                Turn::Wait if crew.is_closed() && crew.batcher.len() == 0 => return None,
                Turn::Wait => self.rest(&mut crew, post, None),
                Turn::Leave => {
                    self.arrived.notify_one();
                    self.rest(&mut crew, post, None);
                }
                Turn::WaitUntil(at) => {
                    let at = crew.batcher.next_expiry().map_or(at, |expiry| expiry.min(at));
                    self.rest(&mut crew, post, Some(at));
                }
                Turn::Hold(hold) => {
                    crew.hold(post, hold);
                    self.bell(post).wait_until(&mut crew, hold.until);
                    crew.release(post);
                }
            }
        }
    }

    /// Counts `batch` as taken.
    fn take(
        &self,
        now: Instant,
        mut crew: MutexGuard<'_, Crew<Queued>>,
        post: &mut Post,
        batch: Vec<Queued>,
    ) -> Vec<Queued> {
        let rows = batch.iter().map(|queued| self.rules.layout.rows(&queued.request)).sum();
        crew.take(now, post, batch.len(), rows);
        let is_more_waiting = crew.batcher.len() > 0;
        drop(crew);
        // What is left over may have been reported to this instance alone.
        if is_more_waiting {
            self.arrived.notify_one();
        }
        batch
    }

    /// Waits as one that is free, until it is told or the time has come.
    fn rest(&self, crew: &mut MutexGuard<'_, Crew<Queued>>, post: &Post, until: Option<Instant>) {
        crew.rest(post);
        match until {
            Some(at) => drop(self.bell(post).wait_until(crew, at)),
            None => self.bell(post).wait(crew),
        }
        crew.rise(post);
    }

    /// What tells the instance that something may be for it.
    fn bell(&self, post: &Post) -> &Condvar {
        if post.is_wide { &self.arrived_wide } else { &self.arrived }
    }

    /// Lets these instances finish what they run and then go home; what waits is for the others.
    pub(crate) fn dismiss<'a>(&self, dismissals: impl IntoIterator<Item = &'a Dismissal>) {
        let crew = self.crew.lock();
        dismissals.into_iter().for_each(|dismissal| dismissal.0.store(true, Relaxed));
        drop(crew);
        self.ring_all();
    }

    /// Lets the instances finish what waits and then go home.
    pub(crate) fn close(&self) {
        self.crew.lock().close();
        self.ring_all();
    }

    fn ring_all(&self) {
        self.arrived.notify_all();
        self.arrived_wide.notify_all();
    }
}

/// Tells those whose time is up so.
fn refuse(expired: Vec<(Expired, Queued)>) {
    for (why, queued) in expired {
        let Queued { answer, pending, mut span, .. } = queued;
        let error = match why {
            Expired::Timeout => Error::new(Code::Overloaded, "Request timeout expired"),
            Expired::Deadline => Error::deadline_exceeded(),
        };
        span.failed(error.code().name(), error.message());
        drop((pending, span));
        answer.send(Err(error));
    }
}

/// Too many requests wait.
pub(crate) fn full() -> Error {
    Error::new(Code::Overloaded, "Exceeds maximum queue size")
}

/// The model is being unloaded.
pub(crate) fn stopping() -> Error {
    Error::unavailable(
        "server is stopping, scheduler for model has stopped accepting new inference requests",
    )
}
