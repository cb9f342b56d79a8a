//! A histogram that threads fill without waiting for one another.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Where the buckets of a histogram end, and what one unit of its exposition is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scale {
    /// Upper bounds in ascending order.
    pub(crate) bounds: Cow<'static, [u64]>,
    /// How many of what is observed make one of what is exposed, such as 1e9 nanoseconds a second.
    pub(crate) per_unit: f64,
}

impl Scale {
    const fn fixed(bounds: &'static [u64], per_unit: f64) -> Self {
        Self { bounds: Cow::Borrowed(bounds), per_unit }
    }
}

/// Durations, observed in nanoseconds and exposed in seconds: three bounds a decade, from what an
/// in-process call costs to where clients give up.
pub(crate) const SECONDS: Scale = Scale::fixed(
    &[
        100 * MICROSECOND,
        250 * MICROSECOND,
        500 * MICROSECOND,
        MILLISECOND,
        2_500 * MICROSECOND,
        5 * MILLISECOND,
        10 * MILLISECOND,
        25 * MILLISECOND,
        50 * MILLISECOND,
        100 * MILLISECOND,
        250 * MILLISECOND,
        500 * MILLISECOND,
        SECOND,
        2_500 * MILLISECOND,
        5 * SECOND,
        10 * SECOND,
        30 * SECOND,
        60 * SECOND,
    ],
    1e9,
);

/// Triton's buckets of the time to the first response, observed in nanoseconds and exposed in
/// milliseconds.
pub(crate) const MILLISECONDS: Scale =
    Scale::fixed(&[100 * MILLISECOND, 500 * MILLISECOND, 2 * SECOND, 5 * SECOND], 1e6);

/// Batch sizes: every power of two up to where batches no longer pay.
pub(crate) const BATCH_SIZES: Scale =
    Scale::fixed(&[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], 1.0);

/// Shares of a whole, observed in millionths and exposed from 0 to 1: fine where little is wasted,
/// as most executions should be.
pub(crate) const SHARES: Scale = Scale::fixed(
    &[
        0, 10_000, 25_000, 50_000, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000, 700_000,
        800_000, 900_000,
    ],
    1e6,
);

/// How long a text takes, as OpenTelemetry's conventions for generative AI advise.
pub(crate) const GENERATION_SECONDS: Scale = Scale::fixed(
    &[
        10 * MILLISECOND,
        20 * MILLISECOND,
        40 * MILLISECOND,
        80 * MILLISECOND,
        160 * MILLISECOND,
        320 * MILLISECOND,
        640 * MILLISECOND,
        1_280 * MILLISECOND,
        2_560 * MILLISECOND,
        5_120 * MILLISECOND,
        10_240 * MILLISECOND,
        20_480 * MILLISECOND,
        40_960 * MILLISECOND,
        81_920 * MILLISECOND,
    ],
    1e9,
);

/// How long a token takes. The conventions begin at 10 ms for later tokens and at 1 ms for the
/// first; small models need less.
pub(crate) const TOKEN_SECONDS: Scale = Scale::fixed(
    &[
        100 * MICROSECOND,
        250 * MICROSECOND,
        500 * MICROSECOND,
        MILLISECOND,
        2_500 * MICROSECOND,
        5 * MILLISECOND,
        10 * MILLISECOND,
        25 * MILLISECOND,
        50 * MILLISECOND,
        75 * MILLISECOND,
        100 * MILLISECOND,
        150 * MILLISECOND,
        200 * MILLISECOND,
        300 * MILLISECOND,
        400 * MILLISECOND,
        500 * MILLISECOND,
        750 * MILLISECOND,
        SECOND,
        2_500 * MILLISECOND,
        5 * SECOND,
        7_500 * MILLISECOND,
        10 * SECOND,
    ],
    1e9,
);

/// How many tokens there are, as the conventions advise.
pub(crate) const TOKEN_COUNTS: Scale = Scale::fixed(
    &[
        1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
        67_108_864,
    ],
    1.0,
);

/// How often values fell into each bucket, and their sum.
#[derive(Debug)]
pub(crate) struct Histogram {
    scale: Scale,
    /// One count for each bound and one for what is above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Default for Histogram {
    /// A histogram of durations in [`SECONDS`].
    fn default() -> Self {
        Self::new(SECONDS)
    }
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new(scale: Scale) -> Self {
        let buckets = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { scale, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub(crate) fn observe(&self, duration: Duration) {
        self.count_value(nanoseconds(duration));
    }

    /// Counts one value in the unit of the bounds.
    pub(crate) fn count_value(&self, value: u64) {
        let bucket = self.scale.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// The bounds in the unit of the exposition.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = f64> {
        self.scale.bounds.iter().map(|bound| self.exposed(*bound))
    }

    /// The counts of the buckets, the last being what is above every bound.
    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed))
    }

    /// How many values were counted.
    pub(crate) fn count(&self) -> u64 {
        self.counts().sum()
    }

    /// The sum of the values as they were observed: nanoseconds for durations.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// The sum of the values in the unit of the exposition.
    pub(crate) fn exposed_sum(&self) -> f64 {
        self.exposed(self.sum())
    }

    fn exposed(&self, value: u64) -> f64 {
        value as f64 / self.scale.per_unit
    }
}

/// A duration in whole nanoseconds; 584 years and longer are all the same.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_counts_below_it() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(100));
        histogram.observe(Duration::from_nanos(100_001));
        histogram.observe(Duration::from_secs(61));
        let counts: Vec<_> = histogram.counts().collect();
        assert_eq!((counts[0], counts[1], counts[18]), (1, 1, 1));
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.sum(), 61 * SECOND + 200_001);
    }

    #[test]
    fn shares_are_exposed_from_0_to_1() {
        let histogram = Histogram::new(SHARES);
        histogram.count_value(0);
        histogram.count_value(250_000);
        let buckets: Vec<_> = histogram.bounds().zip(histogram.counts()).collect();
        assert_eq!((buckets[0], buckets[6]), ((0.0, 1), (0.3, 1)));
        assert!((histogram.exposed_sum() - 0.25).abs() < 1e-9);
    }
}
