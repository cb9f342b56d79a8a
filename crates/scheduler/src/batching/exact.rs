//! Triton's rules for a batch: preferred sizes, a delay, and strictly the order of arrival.

use std::time::{Duration, Instant};

use super::waiting::{Place, Waiting};

/// What a configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exact {
    /// The sizes worth waiting for.
    pub(crate) preferred: Vec<usize>,
    /// How long the oldest request may be kept waiting for them.
    pub(crate) delay: Duration,
}

/// What is to be done with the requests that wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Run these together.
    Run(Vec<Place>),
    /// Ask again then, unless another request comes first.
    WaitUntil(Instant),
}

impl Exact {
    /// What to do now with at least one request waiting.
    pub(crate) fn choose<T>(&self, waiting: &Waiting<T>, max_rows: usize, now: Instant) -> Choice {
        let walk = self.walk(waiting, max_rows);
        let due_at = walk.oldest_at.map_or(now, |at| at + self.delay);
        let is_due = !self.delay.is_zero() && due_at <= now;
        if walk.best > 0 && !is_due {
            return Choice::Run(walk.places[..walk.best].to_vec());
        }
        if walk.is_closed || walk.rows >= self.largest() || is_due || self.delay.is_zero() {
            return Choice::Run(walk.places);
        }
        Choice::WaitUntil(due_at)
    }

    fn largest(&self) -> usize {
        self.preferred.iter().copied().max().unwrap_or(0)
    }

    /// Goes through the requests until one does not fit, which closes the batch.
    fn walk<T>(&self, waiting: &Waiting<T>, max_rows: usize) -> Walk {
        let mut walk = Walk::default();
        let mut first = None;
        for (place, entry) in waiting.iter() {
            let likeness = *first.get_or_insert(&entry.likeness);
            let rows = walk.rows + entry.rows;
            if !walk.places.is_empty() {
                // Beyond every preferred size without having met one: what is there will do.
                if rows > self.largest() && walk.best == 0 {
                    walk.best = walk.places.len();
                }
                if rows > max_rows || *likeness != entry.likeness {
                    walk.is_closed = true;
                    break;
                }
            }
            walk.rows = rows;
            walk.places.push(place);
            let oldest_at = walk.oldest_at.map_or(entry.queued_at, |at| at.min(entry.queued_at));
            walk.oldest_at = Some(oldest_at);
            if self.preferred.contains(&rows) {
                walk.best = walk.places.len();
            }
        }
        walk
    }
}

/// The longest batch in the order of arrival.
#[derive(Default)]
struct Walk {
    places: Vec<Place>,
    rows: usize,
    /// How many of the requests make the batch most worth running; 0 when none does.
    best: usize,
    /// Whether the next request does not fit.
    is_closed: bool,
    oldest_at: Option<Instant>,
}
