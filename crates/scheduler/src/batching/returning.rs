//! How long an instance waits for the callers it has just answered to come back.
//!
//! Callers who ask again once they are answered come back one after another, within the time that
//! their answers take to reach them. Whoever takes the first of them runs it alone and keeps the
//! others waiting; a short wait puts them into one run again. It is short beside the run before,
//! and there is none for a caller who was alone.

use std::time::{Duration, Instant};

/// The wait is at most this part of the run before: what may be lost when nobody comes back.
const PART: u32 = 8;

/// The longest wait: callers further away than this do not come back together.
const LONGEST: Duration = Duration::from_millis(2);

/// Below this a wait is not worth the switch to another thread and back.
pub(super) const SHORTEST: Duration = Duration::from_micros(100);

/// The run that an instance has just ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The rows of the requests that it answered.
    pub(crate) rows: usize,
    pub(crate) took: Duration,
    pub(crate) at: Instant,
    /// Whether it gave its outputs; one that failed or was stopped says nothing of how long they
    /// take.
    pub(crate) is_done: bool,
}

/// A wait for callers who come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// It is over once so many rows wait.
    pub(crate) rows: usize,
    pub(crate) until: Instant,
    /// Whether they are those of all callers, for all instances together.
    pub(crate) is_for_all: bool,
}

/// What the other instances of a model are doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Others {
    /// Those that wait for a request.
    pub(crate) idle: usize,
    /// Those that wait for callers to come back.
    pub(crate) holding: usize,
    /// Those that run a batch.
    pub(crate) busy: usize,
    /// The rows of these batches.
    pub(crate) rows: usize,
    /// When the last of all batches was begun.
    pub(crate) began_at: Option<Instant>,
}

impl Others {
    /// An instance's fair part of the rows that wait. While all the others run, those that run and
    /// those on their way back from the run it has ended are shared fairly too.
    pub(crate) fn share(self, waiting: usize, ended: Option<Ended>) -> usize {
        let free = self.idle + self.holding;
        if free > 0 || self.busy == 0 {
            return waiting.div_ceil(free + 1);
        }
        let back = ended.map_or(0, |ended| ended.rows);
        (self.rows + waiting.max(back)).div_ceil(self.busy + 1)
    }

    /// How many instances there are with the one that asks.
    pub(crate) fn all(self) -> usize {
        self.idle + self.holding + self.busy + 1
    }

    /// The rows that are worth waiting a moment for, `share` being the fair part.
    fn worthwhile(self, share: usize, ended: Ended) -> usize {
        match self {
            Self { idle: 0, busy: 0, .. } => ended.rows,
            Self { idle: 0, .. } => share,
            // Whoever comes is taken by an instance that has nothing to do.
            _ => 0,
        }
    }
}

impl Ended {
    /// When it was begun.
    pub(super) fn began_at(self) -> Instant {
        self.at.checked_sub(self.took).unwrap_or(self.at)
    }

    /// The rows that are worth waiting a moment for beside `others`, and until when, `share` being
    /// the fair part of what waits; `None` for no time at all.
    pub(crate) fn awaited(self, others: Others, share: usize) -> Option<(usize, Instant)> {
        let wait = (self.took / PART).min(LONGEST);
        (wait >= SHORTEST).then(|| (others.worthwhile(share, self), self.at + wait))
    }
}

#[cfg(test)]
mod tests;
