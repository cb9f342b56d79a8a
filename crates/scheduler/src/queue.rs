//! The bounded queue that the instances of a model pull their batches from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use consort_stage::{Code, Error, Request, Result};
use consort_telemetry::{PendingGuard, WorkSpan};
use parking_lot::{Condvar, Mutex};

use crate::batching::{Batcher, Decision, Ended, Entry, Expired, Others, Place, Rules};
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
    state: Mutex<State>,
    arrived: Condvar,
    /// Told of a request that comes while nothing else runs or waits.
    lone: Condvar,
    rules: Rules,
}

/// An instance at the queue: what it runs, and what it ran before.
#[derive(Debug)]
pub(crate) struct Seat {
    dismissal: Dismissal,
    /// The rows of the batch that it has taken; 0 while it has none.
    rows: usize,
    /// The run that it ended last.
    pub(crate) last: Option<Ended>,
}

impl Seat {
    /// A new instance's.
    pub(crate) fn new(dismissal: Dismissal) -> Self {
        Self { dismissal, rows: 0, last: None }
    }
}

struct State {
    batcher: Batcher<Queued>,
    /// What the instances are doing; what the idle ones are about to take does not wait.
    crew: Others,
    /// The instances that wait for callers to come back.
    holding: usize,
    /// The instances for lone requests that wait for one; two while one takes another's place.
    wide_free: usize,
    is_closed: bool,
}

impl Queue {
    /// An empty queue that follows these rules.
    pub(crate) fn new(rules: Rules) -> Self {
        let batcher = Batcher::new(rules.manner.clone(), rules.max_rows);
        let state =
            State { batcher, crew: Others::default(), holding: 0, wide_free: 0, is_closed: false };
        let (arrived, lone) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::new(state), arrived, lone, rules }
    }

    /// The rules that it follows.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Adds a request and wakes one idle instance; refused at once when its level is full.
    pub(crate) fn push(&self, entry: Entry, queued: Queued) -> Result<Place> {
        let mut state = self.state.lock();
        if state.is_closed {
            drop(state);
            return Err(queued.refused(stopping()));
        }
        let waiting = state.batcher.len_of(entry.level);
        if waiting >= self.rules.capacity(entry.level).saturating_add(state.crew.idle) {
            drop(state);
            return Err(queued.refused(full()));
        }
        let place = state.batcher.add(entry, queued);
        let concerned = if state.is_lone() { &self.lone } else { &self.arrived };
        drop(state);
        concerned.notify_one();
        Ok(place)
    }

    /// Takes out a request whose caller has gone, unless an instance has it already.
    pub(crate) fn forget(&self, place: Place) {
        let forgotten = self.state.lock().batcher.remove(place);
        // Its tensors are given back without the lock.
        drop(forgotten);
    }

    /// Refuses the requests whose time is up.
    pub(crate) fn expire(&self) {
        let expired = self.state.lock().batcher.expire(Instant::now());
        refuse(expired);
    }

    /// The next batch for the instance in `seat`, which has ended the one before, waiting for one;
    /// `None` once the queue is closed and empty, or the instance is dismissed.
    pub(crate) fn pull(&self, seat: &mut Seat) -> Option<Vec<Queued>> {
        let mut state = self.state.lock();
        state.leave(seat);
        loop {
            if seat.dismissal.is_told() {
                drop(state);
                // What was reported to this instance alone concerns another now.
                self.arrived.notify_one();
                return None;
            }
            let now = Instant::now();
            let expired = state.batcher.expire(now);
            if !expired.is_empty() {
                drop(state);
                refuse(expired);
                state = self.state.lock();
                continue;
            }
            match state.decide(now, seat.last) {
                Decision::Run(batch) => {
                    let rows = batch.iter().map(|queued| self.rules.layout.rows(&queued.request));
                    state.take(seat, rows.sum());
                    let is_more_waiting = state.batcher.len() > 0;
                    drop(state);
                    // What is left over may have been reported to this instance alone.
                    if is_more_waiting {
                        self.arrived.notify_one();
                    }
                    return Some(batch);
                }
                Decision::Nothing if state.is_closed => return None,
                Decision::Nothing => {
                    state.crew.idle += 1;
                    self.arrived.wait(&mut state);
                    state.crew.idle -= 1;
                }
                Decision::WaitUntil(at) => {
                    let at = state.batcher.next_expiry().map_or(at, |expiry| expiry.min(at));
                    state.crew.idle += 1;
                    self.arrived.wait_until(&mut state, at);
                    state.crew.idle -= 1;
                }
                Decision::Hold(until) => {
                    state.holding += 1;
                    self.arrived.wait_until(&mut state, until);
                    state.holding -= 1;
                }
            }
        }
    }

    /// The next request that comes while nothing else runs or waits; `None` once the queue is
    /// closed or the instance is dismissed. Whoever else is free may take it first, so none is lost
    /// here. For rules without a timer alone.
    pub(crate) fn pull_lone(&self, dismissal: &Dismissal) -> Option<Vec<Queued>> {
        let mut state = self.state.lock();
        state.wide_free += 1;
        let taken = loop {
            if state.is_closed || dismissal.is_told() {
                break None;
            }
            if !state.is_lone() {
                self.lone.wait(&mut state);
                continue;
            }
            let now = Instant::now();
            let expired = state.batcher.expire(now);
            if let Decision::Run(batch) = state.decide(now, None) {
                break Some(batch);
            }
            drop(state);
            refuse(expired);
            state = self.state.lock();
        };
        state.wide_free -= 1;
        drop(state);
        if taken.is_none() {
            // What was reported to this instance alone concerns another now.
            self.arrived.notify_one();
        }
        taken
    }

    /// Lets these instances finish what they run and then go home; what waits is for the others.
    pub(crate) fn dismiss<'a>(&self, dismissals: impl IntoIterator<Item = &'a Dismissal>) {
        let state = self.state.lock();
        dismissals.into_iter().for_each(|dismissal| dismissal.0.store(true, Relaxed));
        drop(state);
        self.arrived.notify_all();
        self.lone.notify_all();
    }

    /// Lets the instances finish what waits and then go home.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_all();
        self.lone.notify_all();
    }
}

impl State {
    /// Whether the one request that waits is for the instance that has every core.
    fn is_lone(&self) -> bool {
        let is_quiet = self.crew.busy == 0 && self.holding == 0;
        self.wide_free > 0 && is_quiet && self.batcher.len() == 1
    }

    /// Counts a batch of so many rows as running.
    fn take(&mut self, seat: &mut Seat, rows: usize) {
        seat.rows = rows;
        self.crew.rows += rows;
        self.crew.busy += 1;
    }

    /// Counts the instance's batch as ended, when it had one.
    fn leave(&mut self, seat: &mut Seat) {
        let rows = std::mem::take(&mut seat.rows);
        self.crew.rows -= rows;
        self.crew.busy -= usize::from(rows > 0);
    }

    fn decide(&mut self, now: Instant, last: Option<Ended>) -> Decision<Queued> {
        match self.batcher.decide(now, self.crew, last) {
            // Nobody comes any more, so there is nothing to wait for.
            Decision::WaitUntil(at) | Decision::Hold(at) if self.is_closed => {
                self.batcher.decide(at, self.crew, None)
            }
            decision => decision,
        }
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
