//! The requests that no slot is free for yet, the most urgent first.

use std::time::Instant;

use super::sequence::Sequence;

/// How many requests are kept in order of urgency. What comes beyond waits in the queue before the
/// loop, in order of arrival, which is bounded by the configuration.
const MOST: usize = 256;

/// Requests in the order they are to be worked on: by priority, then by deadline, then by arrival.
#[derive(Default)]
pub(crate) struct Waiting(Vec<Sequence>);

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
    /// Whether another can be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < MOST
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one more, behind those that are as urgent.
    pub(crate) fn push(&mut self, sequence: Sequence) {
        let urgency = sequence.urgency();
        let place = self.0.partition_point(|other| other.urgency() <= urgency);
        self.0.insert(place, sequence);
    }

    /// The most urgent.
    pub(crate) fn pop(&mut self) -> Option<Sequence> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// Lets those go that nobody waits for any more.
    pub(crate) fn retire(&mut self) {
        let over = self.0.extract_if(.., |sequence| sequence.is_over());
        over.for_each(Sequence::retire);
    }

    /// Everybody, with nobody left.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Sequence> {
        self.0.drain(..)
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
