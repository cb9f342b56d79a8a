//! The rules when nobody has tuned anything: what waits is run as soon as an instance is free.
//!
//! The first request is always taken, so each one's turn comes. Others join it when a joint run
//! costs less than two: time on a processor grows with the padded tokens beyond a fixed cost.

use std::time::{Duration, Instant};

use super::waiting::{Entry, Place, Waiting, longest};

/// How many requests that do not fit may be looked past for others that do. With more the search
/// would take longer than it saves, as it goes on under the lock of the queue.
const LOOK_PAST: usize = 64;

/// The age from which a request is overtaken by nobody: far above the time of a run, so that it
/// changes nothing but under overload, and far below what callers give up at.
pub(crate) const AGE_LIMIT: Duration = Duration::from_millis(100);

/// The padding that one request may bring into a batch, in tokens: what a run costs before its
/// first token, measured with all-MiniLM-L6-v2 on one thread (10 to 14). Above it two runs are
/// cheaper than one.
const WORTHWHILE_PADDING: usize = 12;

/// What limits a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greedy {
    /// The padded tokens of a batch of several requests; those without a length have none.
    pub(crate) max_tokens: usize,
}

/// A batch in the making.
struct Growing<'a> {
    rows: usize,
    longest: usize,
    first: &'a Entry,
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Limits {
    rows: usize,
    tokens: usize,
}

impl Greedy {
    /// The requests to run now; `rows` is how many may share a run. Empty when none waits.
    pub(crate) fn choose<T>(self, waiting: &Waiting<T>, rows: usize, now: Instant) -> Vec<Place> {
        let mut entries = waiting.iter();
        let Some((place, first)) = entries.next() else { return Vec::new() };
        let limits = Limits { rows, tokens: self.max_tokens };
        let mut batch = Growing { rows: first.rows, longest: first.length, first, limits };
        let mut chosen = vec![place];
        let mut candidates = Vec::new();
        let mut passed = 0;
        for (place, entry) in entries {
            if batch.rows >= limits.rows || passed >= LOOK_PAST {
                break;
            }
            let is_aged = now.saturating_duration_since(entry.queued_at) >= AGE_LIMIT;
            if !batch.takes(entry) {
                if is_aged {
                    break;
                }
                passed += 1;
            } else if is_aged {
                batch.add(entry);
                chosen.push(place);
            } else {
                candidates.push((entry.length.abs_diff(first.length), place, entry));
                // As many as could ever join are enough to choose from.
                passed += usize::from(candidates.len() > limits.rows);
            }
        }
        candidates.sort_by_key(|(distance, place, _)| (*distance, *place));
        for (_, place, entry) in candidates {
            if batch.takes(entry) {
                batch.add(entry);
                chosen.push(place);
            }
        }
        chosen.sort_unstable();
        chosen
    }

    /// Whether so many rows as long as the longest that waits go into so many runs.
    pub(crate) fn fits<T>(self, waiting: &Waiting<T>, rows: usize, runs: usize) -> bool {
        rows * longest(waiting) <= self.max_tokens.saturating_mul(runs)
    }
}

impl Growing<'_> {
    /// Whether an entry may join: it is like the first, and the run is cheaper than two.
    fn takes(&self, entry: &Entry) -> bool {
        let rows = self.rows + entry.rows;
        if rows > self.limits.rows || self.first.likeness != entry.likeness {
            return false;
        }
        let longest = self.longest.max(entry.length);
        let apart = self.rows * self.longest + entry.rows * entry.length;
        rows * longest <= self.limits.tokens && rows * longest - apart <= WORTHWHILE_PADDING
    }

    fn add(&mut self, entry: &Entry) {
        self.rows += entry.rows;
        self.longest = self.longest.max(entry.length);
    }
}
