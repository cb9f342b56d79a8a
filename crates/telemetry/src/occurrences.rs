//! How often something happened and how long it took, counted with atomics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::histogram::nanoseconds;
use crate::snapshot::Tally;

/// How often something happened and how long it took.
#[derive(Debug, Default)]
pub(crate) struct Occurrences {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Occurrences {
    pub(crate) fn add(&self, duration: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.ns.fetch_add(nanoseconds(duration), Relaxed);
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally { count: self.count.load(Relaxed), ns: self.ns.load(Relaxed) }
    }
}
