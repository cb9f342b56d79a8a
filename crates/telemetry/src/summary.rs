//! Quantiles of the last minute, from counters that threads fill without waiting for one another.
//!
//! Values fall into buckets that are at most 1/32 of their lower bound wide, so a quantile is the
//! right rank and its value at most 1.6 % off; values below 32 µs are exact. A summary keeps one
//! set of counters and a few earlier readings of it, 64 KB in all, however much it counts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::histogram::nanoseconds;

/// The buckets of each doubling, as a power of two.
const PRECISION: u32 = 5;
const PER_DOUBLING: usize = 1 << PRECISION;

/// Doublings above the exact values: up to 2^36 µs, 19 hours; longer ones count as that.
const DOUBLINGS: usize = 31;
const BUCKETS: usize = PER_DOUBLING * (DOUBLINGS + 1);

/// What the quantiles speak of, as Triton's do.
const WINDOW: Duration = Duration::from_mins(1);

/// Readings are kept this far apart, so that the window is right to a fifth.
const READING_EVERY: Duration = Duration::from_secs(12);

/// The distribution of one duration.
#[derive(Debug)]
pub(crate) struct Summary {
    buckets: Box<[AtomicU64]>,
    sum_us: AtomicU64,
    /// Earlier counts with their times, oldest first; only scrapes come here.
    readings: Mutex<VecDeque<(Instant, Box<[u64]>)>>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_us: AtomicU64::new(0),
            readings: Mutex::default(),
        }
    }
}

/// What a summary exposes.
#[derive(Debug, PartialEq)]
pub(crate) struct Quantiles {
    /// Of each quantile that was asked for, in microseconds; not a number when nothing was counted.
    pub(crate) values: Vec<f64>,
    /// Everything that was ever counted.
    pub(crate) count: u64,
    /// Its sum in microseconds.
    pub(crate) sum_us: u64,
}

impl Summary {
    /// Counts one duration `times` times.
    pub(crate) fn observe(&self, duration: Duration, times: u64) {
        let us = nanoseconds(duration) / 1_000;
        self.buckets[bucket(us)].fetch_add(times, Relaxed);
        self.sum_us.fetch_add(us.saturating_mul(times), Relaxed);
    }

    /// The quantiles of the last minute, or since the scrape before where scrapes are rarer.
    pub(crate) fn quantiles(&self, asked: &[f64], now: Instant) -> Quantiles {
        let mut readings = self.readings.lock();
        // Read in the turn of the scrapes, so that no reading is newer than the counts it is taken from.
        let counts: Box<[u64]> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count = counts.iter().sum();
        // The newest reading that is a window old is where the window begins.
        while readings.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            readings.pop_front();
        }
        let before = readings.front().map(|(_, counts)| counts);
        let recent: Vec<u64> = counts
            .iter()
            .enumerate()
            .map(|(bucket, count)| count.saturating_sub(before.map_or(0, |before| before[bucket])))
            .collect();
        let values = asked.iter().map(|quantile| value_at(&recent, *quantile)).collect();
        if readings.back().is_none_or(|(at, _)| now.duration_since(*at) >= READING_EVERY) {
            readings.push_back((now, counts));
        }
        Quantiles { values, count, sum_us: self.sum_us.load(Relaxed) }
    }
}

/// The bucket of a value: exact below one doubling, then by its highest bits.
fn bucket(us: u64) -> usize {
    if us < PER_DOUBLING as u64 {
        return us as usize;
    }
    let doubling = (us.ilog2() - PRECISION) as usize;
    if doubling >= DOUBLINGS {
        return BUCKETS - 1;
    }
    let within = (us >> doubling) as usize - PER_DOUBLING;
    (doubling + 1) * PER_DOUBLING + within
}

/// The middle of a bucket.
fn middle(bucket: usize) -> f64 {
    if bucket < PER_DOUBLING {
        return bucket as f64;
    }
    let (doubling, within) = (bucket / PER_DOUBLING - 1, bucket % PER_DOUBLING);
    let width = (1_u64 << doubling) as f64;
    let first = (PER_DOUBLING + within) as f64 * width;
    first + (width - 1.0) / 2.0
}

fn value_at(counts: &[u64], quantile: f64) -> f64 {
    let count: u64 = counts.iter().sum();
    let rank = ((quantile * count as f64).ceil() as u64).max(1);
    let mut below = 0;
    let found = counts.iter().position(|count| {
        below += count;
        below >= rank
    });
    found.map_or(f64::NAN, middle)
}

/// Triton's summaries, counted only where they are exposed.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    pub(crate) request: Summary,
    pub(crate) queue: Summary,
    pub(crate) compute_input: Summary,
    pub(crate) compute_infer: Summary,
    pub(crate) compute_output: Summary,
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn every_value_is_found_again_within_its_promised_error() {
        let mut us = 1_u64;
        while us < 1 << 35 {
            for value in [us - 1, us, us + us / 3] {
                let error = (middle(bucket(value)) - value as f64).abs();
                assert!(error <= value as f64 / 64.0, "{value} is {error} off");
            }
            us *= 2;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_have_their_rank() {
        let summary = Summary::default();
        for us in 1..=1000 {
            summary.observe(us * US, 2);
        }
        let quantiles = summary.quantiles(&[0.5, 0.9, 0.999], Instant::now());
        assert_eq!((quantiles.count, quantiles.sum_us), (2000, 1_001_000));
        for (value, right) in quantiles.values.iter().zip([500.0, 900.0, 999.0]) {
            assert!((value - right).abs() / right <= 0.016, "{value} for {right}");
        }
    }

    #[test]
    fn scrapes_side_by_side_count_nothing_below_nothing() {
        let summary = Summary::default();
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for nth in 0..2_000 {
                        summary.observe(US, 1);
                        let now = began + nth * READING_EVERY;
                        let median = summary.quantiles(&[0.5], now).values[0];
                        assert!(median.is_nan() || (median - 1.0).abs() < 0.1, "{median}");
                    }
                });
            }
        });
        assert_eq!(summary.quantiles(&[], began).count, 8_000);
    }

    #[test]
    fn what_is_older_than_the_window_no_longer_counts() {
        let summary = Summary::default();
        let began = Instant::now();
        assert!(summary.quantiles(&[0.5], began).values[0].is_nan());
        summary.observe(5 * US, 100);
        assert_eq!(summary.quantiles(&[0.5], began + WINDOW / 2).values, [5.0]);
        summary.observe(9 * US, 1);
        let later = summary.quantiles(&[0.5], began + WINDOW + WINDOW / 2);
        assert_eq!((later.values, later.count), (vec![9.0], 101));
    }
}
