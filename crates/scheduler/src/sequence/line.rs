//! The requests of one sequence, in line behind one another.

use std::collections::VecDeque;
use std::time::Instant;

use consort_stage::Parameters;

/// What requests must have in common to share a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Form {
    /// The sizes that may differ from one request to the next.
    pub(crate) sizes: Vec<i64>,
    /// What the model is told beside its inputs.
    pub(crate) parameters: Parameters,
}

/// A request that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// Its place among all requests of the model.
    pub(super) number: u64,
    pub(super) request: T,
    pub(super) form: Form,
    pub(super) is_start: bool,
    pub(super) is_end: bool,
    /// Whether its sequence is over behind it.
    pub(super) closes: bool,
    pub(super) arrived_at: Instant,
    /// When its sequence must have a slot.
    pub(super) times_out_at: Option<Instant>,
    /// When it must have been answered.
    pub(super) deadline: Option<Instant>,
}

/// What a sequence keeps from one request to the next.
#[derive(Clone, Debug)]
pub(crate) struct Kept<S> {
    /// What is kept.
    pub(crate) state: S,
    /// What others of its batch must have in common with it.
    pub(crate) form: Form,
}

/// One sequence with the requests that wait in it.
#[derive(Debug)]
pub(super) struct Line<T, S> {
    queue: VecDeque<Waiting<T>>,
    /// The instance and slot it owns; `None` in the backlog.
    pub(super) seat: Option<(usize, usize)>,
    pub(super) is_running: bool,
    /// Whether a request of it has run, so that the next need not be told to start.
    has_begun: bool,
    /// Whether nothing follows on what runs.
    is_closing: bool,
    pub(super) kept: Option<Kept<S>>,
    active_at: Instant,
}

/// What the backend is told beside the request.
#[derive(Debug)]
pub(super) struct Turn<T, S> {
    pub(super) request: T,
    pub(super) is_start: bool,
    pub(super) is_end: bool,
    pub(super) kept: Option<Kept<S>>,
}

impl<T, S: Clone> Line<T, S> {
    /// A sequence that begins with what waits in `queue`.
    pub(super) fn new(queue: VecDeque<Waiting<T>>, now: Instant) -> Self {
        Self {
            queue,
            seat: None,
            is_running: false,
            has_begun: false,
            is_closing: false,
            kept: None,
            active_at: now,
        }
    }

    /// Whether a request that starts nothing may join.
    pub(super) fn is_open(&self) -> bool {
        self.queue.back().map_or(!self.is_closing, |last| !last.closes)
    }

    /// Whether nothing of it is left to keep its place for.
    pub(super) fn is_over(&self) -> bool {
        !self.is_running && self.queue.is_empty() && !self.has_begun
    }

    pub(super) fn push(&mut self, waiting: Waiting<T>, now: Instant) {
        self.queue.push_back(waiting);
        self.active_at = now;
    }

    /// The request whose turn it is, unless one runs.
    pub(super) fn next(&self) -> Option<&Waiting<T>> {
        self.queue.front().filter(|_| !self.is_running)
    }

    pub(super) fn first_number(&self) -> Option<u64> {
        self.queue.front().map(|first| first.number)
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Takes out a request that will not run.
    ///
    /// A start is not lost with it: the request behind begins the sequence then. Where none is
    /// behind, what came before the start has ended all the same.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.queue.iter().position(|waiting| waiting.number == number)?;
        let removed = self.queue.remove(place)?;
        if removed.is_start {
            if let Some(next) = self.queue.get_mut(place) {
                next.is_start = true;
            } else if let Some(last) = self.queue.back_mut() {
                last.closes = true;
            } else if self.is_running {
                self.is_closing = true;
            } else {
                self.has_begun = false;
            }
        }
        Some(removed.request)
    }

    /// The requests that will never run, once the sequence is given up.
    pub(super) fn into_requests(self) -> impl Iterator<Item = T> {
        self.queue.into_iter().map(|waiting| waiting.request)
    }

    /// The front request if its deadline has passed.
    pub(super) fn overdue(&self, now: Instant) -> Option<u64> {
        let first = self.next()?;
        first.deadline.filter(|deadline| *deadline <= now).map(|_| first.number)
    }

    /// When its requests will have waited too long for a slot.
    pub(super) fn times_out_at(&self) -> Option<Instant> {
        self.queue.iter().filter_map(|waiting| waiting.times_out_at).min()
    }

    /// Since when it has been silent; `None` while it has anything to do.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (!self.is_running && self.queue.is_empty()).then_some(self.active_at)
    }

    /// Lets the first request run.
    pub(super) fn begin(&mut self) -> Option<Turn<T, S>> {
        let Waiting { request, is_start, is_end, closes, .. } = self.queue.pop_front()?;
        let is_start = is_start || !self.has_begun;
        if is_start {
            self.kept = None;
        }
        self.is_running = true;
        self.has_begun = true;
        self.is_closing = closes;
        Some(Turn { request, is_start, is_end, kept: self.kept.clone() })
    }

    /// Notes that what ran is over; what it kept is `None` where it failed.
    ///
    /// Gives the requests behind when the sequence is over: they belong to the next one.
    pub(super) fn end(
        &mut self,
        kept: Option<Kept<S>>,
        now: Instant,
    ) -> Option<VecDeque<Waiting<T>>> {
        self.is_running = false;
        self.active_at = now;
        if kept.is_some() {
            self.kept = kept;
        }
        self.is_closing.then(|| std::mem::take(&mut self.queue))
    }
}
