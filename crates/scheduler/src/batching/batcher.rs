//! The batcher: entries go in, decisions come out.

use std::time::Instant;

use super::exact::Choice;
use super::greedy::Greedy;
use super::waiting::Waiting;
use super::{Ended, Entry, Expired, Hold, Manner, Others, Place};

/// The requests of a model that wait, and the manner in which they are batched.
#[derive(Debug)]
pub(crate) struct Batcher<T> {
    waiting: Waiting<T>,
    manner: Manner,
    max_rows: usize,
}

/// What a free instance is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision<T> {
    /// Run these together, in this order.
    Run(Vec<T>),
    /// Ask again then, or when another request has come.
    WaitUntil(Instant),
    /// The same, but not as one that is free: callers are on the way to it.
    Hold(Hold),
    /// Nothing waits.
    Nothing,
}

impl<T> Batcher<T> {
    /// A batcher that puts at most `max_rows` rows into a batch of several requests.
    pub(crate) fn new(manner: Manner, max_rows: usize) -> Self {
        Self { waiting: Waiting::default(), manner, max_rows }
    }

    /// Adds a request.
    pub(crate) fn add(&mut self, entry: Entry, payload: T) -> Place {
        self.waiting.add(entry, payload)
    }

    /// Takes out a request whose caller has left; `None` when it is not there any more.
    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        self.waiting.remove(place)
    }

    /// Takes out the requests whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(Expired, T)> {
        self.waiting.expire(now)
    }

    /// What an instance is to do that is free since `last` has ended, beside `others`; `awaited` are
    /// the rows of all callers and the end of the wait for them, where they are waited for. Requests
    /// whose time is up must have been taken out before.
    pub(crate) fn decide(
        &mut self,
        now: Instant,
        others: Others,
        last: Option<Ended>,
        awaited: Option<(usize, Instant)>,
    ) -> Decision<T> {
        if self.waiting.len() == 0 {
            return Decision::Nothing;
        }
        let chosen = match &self.manner {
            Manner::Alone => self.waiting.iter().take(1).map(|(place, _)| place).collect(),
            Manner::Exact(exact) => match exact.choose(&self.waiting, self.max_rows, now) {
                Choice::Run(places) => places,
                Choice::WaitUntil(at) => return Decision::WaitUntil(at),
            },
            Manner::Greedy(greedy) => {
                let fit = |rows, runs| self.fits(*greedy, rows, runs);
                // More than all the instances could take fills their runs without any waiting.
                let all = awaited.filter(|(rows, _)| fit(*rows, others.all()));
                let share = others.share(self.waiting.rows(), last);
                let places = greedy.choose(&self.waiting, self.max_rows.min(share), now);
                // A run that leaves some behind would not take those who come either.
                let is_open = places.len() == self.waiting.len() && fit(self.waiting.rows() + 1, 1);
                let own = last.filter(|_| is_open).and_then(|last| last.awaited(others, share));
                let hold = self.hold(now, all, true).or_else(|| self.hold(now, own, false));
                match hold {
                    Some(hold) => return Decision::Hold(hold),
                    None => places,
                }
            }
        };
        let payloads = chosen.into_iter().filter_map(|place| self.waiting.remove(place));
        Decision::Run(payloads.collect())
    }

    /// The wait for so many rows until then, where some of them are not there yet and nobody's time
    /// runs out meanwhile.
    fn hold(
        &self,
        now: Instant,
        awaited: Option<(usize, Instant)>,
        is_for_all: bool,
    ) -> Option<Hold> {
        let (rows, until) = awaited?;
        let may_wait = now < until && self.next_expiry().is_none_or(|expiry| until < expiry);
        (self.waiting.rows() < rows && may_wait).then_some(Hold { rows, until, is_for_all })
    }

    /// Whether all that wait would be one run, and so many rows if the rest is like them.
    pub(crate) fn is_one_run(&self, rows: usize, now: Instant) -> bool {
        let Manner::Greedy(greedy) = self.manner else { return false };
        self.fits(greedy, rows, 1)
            && greedy.choose(&self.waiting, self.max_rows, now).len() == self.waiting.len()
    }

    /// Whether so many rows like those that wait go into so many runs.
    fn fits(&self, greedy: Greedy, rows: usize, runs: usize) -> bool {
        rows <= self.max_rows.saturating_mul(runs) && greedy.fits(&self.waiting, rows, runs)
    }

    /// The rows of all that wait.
    pub(crate) fn rows(&self) -> usize {
        self.waiting.rows()
    }

    /// The rows of those that have waited since before `then`.
    pub(crate) fn rows_since_before(&self, then: Instant) -> usize {
        let since = self.waiting.iter().filter(|(_, entry)| entry.queued_at <= then);
        since.map(|(_, entry)| entry.rows).sum()
    }

    /// The first moment at which the time of a request is up.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.waiting.next_expiry()
    }

    /// How many requests wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many requests of a level wait.
    pub(crate) fn len_of(&self, level: u64) -> usize {
        self.waiting.len_of(level)
    }
}

#[cfg(test)]
mod tests;
