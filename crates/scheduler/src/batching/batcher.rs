//! The batcher: entries go in, decisions come out.

use std::time::Instant;

use super::exact::Choice;
use super::waiting::Waiting;
use super::{Ended, Entry, Expired, Manner, Others, Place};

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
    /// The same, but not as one that is free: whom it waits for is on the way to it.
    Hold(Instant),
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

    /// What an instance is to do that is free since `last` has ended, beside `others`. Requests whose
    /// time is up must have been taken out before.
    pub(crate) fn decide(
        &mut self,
        now: Instant,
        others: Others,
        last: Option<Ended>,
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
            // A free instance that is left without work costs more than a smaller batch.
            Manner::Greedy(greedy) => {
                let rows = self.waiting.rows();
                let share = others.share(rows, last);
                let places = greedy.choose(&self.waiting, self.max_rows.min(share), now);
                // A run that leaves some behind would not take those who come either.
                let is_open = places.len() == self.waiting.len()
                    && rows < self.max_rows
                    && greedy.has_room(&self.waiting);
                let awaited = last.filter(|last| is_open && rows < others.worthwhile(share, *last));
                match awaited.and_then(Ended::hold) {
                    Some(until) if now < until => return Decision::Hold(until),
                    _ => places,
                }
            }
        };
        let payloads = chosen.into_iter().filter_map(|place| self.waiting.remove(place));
        Decision::Run(payloads.collect())
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
