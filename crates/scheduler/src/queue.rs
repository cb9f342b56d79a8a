//! The bounded queue that the instances of a model pull from.

use std::collections::VecDeque;

use consort_stage::{Code, Error, Request, Response, Result};
use consort_telemetry::PendingGuard;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::ticket::Ticket;

/// A request that waits for an instance.
pub(crate) struct Queued {
    pub(crate) request: Request,
    pub(crate) ticket: Ticket,
    pub(crate) reply: oneshot::Sender<Result<Response>>,
    pub(crate) pending: PendingGuard,
    /// The span of the wait; closed when it is dropped.
    pub(crate) span: tracing::Span,
}

/// First in, first out; at most `capacity` wait.
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Queued>,
    /// The instances that wait for a request; what they are about to take does not wait.
    idle: usize,
    is_closed: bool,
}

impl Queue {
    /// An empty queue for at most `capacity` requests.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), capacity }
    }

    /// Adds a request and wakes one idle instance; refused at once when the queue is full.
    pub(crate) fn push(&self, queued: Queued) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(stopping());
        }
        if state.waiting.len() >= self.capacity + state.idle {
            return Err(full());
        }
        state.waiting.push_back(queued);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes out a request whose caller has gone, unless an instance has it already.
    pub(crate) fn forget(&self, ticket: &Ticket) {
        let mut state = self.state.lock();
        let place = state.waiting.iter().position(|queued| queued.ticket.is(ticket));
        let forgotten = place.and_then(|place| state.waiting.remove(place));
        drop(state);
        drop(forgotten);
    }

    /// The oldest request, waiting for one; `None` once the queue is closed and empty.
    pub(crate) fn pull(&self) -> Option<Queued> {
        let mut state = self.state.lock();
        loop {
            if let Some(queued) = state.waiting.pop_front() {
                return Some(queued);
            }
            if state.is_closed {
                return None;
            }
            state.idle += 1;
            self.arrived.wait(&mut state);
            state.idle -= 1;
        }
    }

    /// Lets the instances finish what waits and then go home.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_all();
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
