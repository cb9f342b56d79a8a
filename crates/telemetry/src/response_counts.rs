//! What became of each response of a decoupled model, by its place among its request's responses.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::histogram::nanoseconds;
use crate::snapshot::{ResponseSnapshot, Tally};

/// The places that are told apart. A stream of tokens can go on for thousands, and what happens to
/// the later ones is no different; the statistics of every one would be larger than the answers.
pub const RESPONSE_PLACES: usize = 256;

/// What became of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was sent with its tensors.
    Success,
    /// It was sent without a tensor.
    Empty,
    /// An error came in its place.
    Fail,
    /// The caller went away before it.
    Cancel,
}

/// Count and nanoseconds of each fate.
#[derive(Debug, Default)]
struct Cell([[AtomicU64; 2]; 4]);

/// One cell a place, made when the first response is counted: most models are not decoupled.
#[derive(Debug, Default)]
pub(crate) struct ResponseCounts(OnceLock<Box<[Cell]>>);

impl ResponseCounts {
    /// Counts what became of the response at `place` and how long it took since the one before;
    /// places beyond those told apart are left out.
    pub(crate) fn record(&self, place: usize, fate: Fate, duration: Duration) {
        let cells = self.0.get_or_init(|| (0..RESPONSE_PLACES).map(|_| Cell::default()).collect());
        if let Some(cell) = cells.get(place) {
            let [count, ns] = &cell.0[fate as usize];
            count.fetch_add(1, Relaxed);
            ns.fetch_add(nanoseconds(duration), Relaxed);
        }
    }

    /// The places where anything happened, in ascending order.
    pub(crate) fn snapshot(&self) -> Vec<ResponseSnapshot> {
        let cells = self.0.get().into_iter().flatten();
        let cells = cells.enumerate().map(|(place, cell)| cell.snapshot(place as u64));
        cells.filter(|responses| !responses.is_unused()).collect()
    }
}

impl Cell {
    fn snapshot(&self, place: u64) -> ResponseSnapshot {
        let tally = |fate: Fate| {
            let [count, ns] = &self.0[fate as usize];
            Tally { count: count.load(Relaxed), ns: ns.load(Relaxed) }
        };
        ResponseSnapshot {
            place,
            success: tally(Fate::Success),
            fail: tally(Fate::Fail),
            empty: tally(Fate::Empty),
            cancel: tally(Fate::Cancel),
        }
    }
}
