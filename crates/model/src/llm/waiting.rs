//! The requests that no slot is free for yet, the most urgent first.

use std::num::NonZeroUsize;
use std::time::Instant;

use super::request::MOST_TEXTS;
use super::sequence::Sequence;

/// How many requests are kept in order of urgency. What comes beyond waits in the queue before the
/// loop, in order of arrival, which is bounded by the configuration.
const MOST: usize = 256;

/// How many texts wait at most: of the last request that there is room for, all.
pub(crate) const MOST_WAITING: usize = MOST + MOST_TEXTS as usize;

/// Requests in the order they are to be worked on: by priority, then by deadline, then by arrival.
pub(crate) struct Waiting {
    sequences: Vec<Sequence>,
    most: usize,
}

/// What decides whose turn it is; the smallest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Urgency {
    /// The level of its priority, 1 before 2.
    pub(crate) level: u64,
    /// Whether it can wait for ever, and else until when.
    deadline: (bool, Option<Instant>),
}

impl Urgency {
    /// That of a request on a level, with the deadline that it has.
    pub(crate) fn new(level: u64, deadline: Option<Instant>) -> Self {
        Self { level, deadline: (deadline.is_none(), deadline) }
    }
}

impl Waiting {
    /// Nobody yet; no more are taken than the configuration lets wait.
    pub(crate) fn new(max_queue_size: Option<NonZeroUsize>) -> Self {
        let most = max_queue_size.map_or(MOST, |size| size.get().min(MOST));
        Self { sequences: Vec::new(), most }
    }

    /// Whether another can be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.sequences.len() < self.most
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Takes one more, behind those that are as urgent.
    pub(crate) fn push(&mut self, sequence: Sequence) {
        let urgency = sequence.urgency();
        let place = self.sequences.partition_point(|other| other.urgency() <= urgency);
        self.sequences.insert(place, sequence);
    }

    /// The most urgent of those that can be given a slot.
    pub(crate) fn pop(&mut self) -> Option<Sequence> {
        let mut index = 0;
        while index < self.sequences.len() {
            match self.sequences[index].is_ready() {
                Ok(true) => return Some(self.sequences.remove(index)),
                Ok(false) => index += 1,
                Err(error) => self.sequences.remove(index).fail(error),
            }
        }
        None
    }

    /// Lets those go that nobody waits for any more.
    pub(crate) fn retire(&mut self) {
        let over = self.sequences.extract_if(.., |sequence| sequence.is_over());
        over.for_each(Sequence::retire);
    }

    /// Everybody, with nobody left.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Sequence> {
        self.sequences.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn priority_comes_before_deadline_and_any_deadline_before_none() {
        let now = Instant::now();
        let soon = Some(now + Duration::from_secs(1));
        let late = Some(now + Duration::from_secs(2));
        let order = [(1, late), (1, None), (2, soon), (2, late), (2, None)];
        let order = order.map(|(level, deadline)| Urgency::new(level, deadline));
        assert!(order.is_sorted());
    }
}
