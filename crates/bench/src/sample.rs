//! Durations that were measured, and the few numbers that stand for them.

use std::time::Duration;

/// What one contender did in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// How long each call took, ascending.
    latencies: Vec<Duration>,
    /// How long the round took.
    elapsed: Duration,
    /// The processor time that the measured processes used meanwhile.
    cpu: Duration,
}

impl Sample {
    /// The calls of one round.
    pub(crate) fn new(mut latencies: Vec<Duration>, elapsed: Duration, cpu: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, elapsed, cpu }
    }

    /// Calls a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that `share` of the calls stayed within.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.latencies.get(place).copied().unwrap_or_default()
    }

    /// Processor time for each call.
    pub(crate) fn cpu_per_call(&self) -> Duration {
        self.cpu.div_f64(self.latencies.len().max(1) as f64)
    }
}

/// What one contender did in all rounds, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// What it is called in the tables.
    pub(crate) name: String,
    samples: Vec<Sample>,
}

impl Series {
    /// A contender that has not been measured yet.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), samples: Vec::new() }
    }

    /// Adds a round.
    pub(crate) fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// The median of a figure over the rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure))
    }

    /// The median of the ratio of a figure to that of `other` in the same round.
    pub(crate) fn ratio(&self, other: &Self, figure: impl Fn(&Sample) -> f64) -> f64 {
        let pairs = self.samples.iter().zip(&other.samples);
        median(pairs.map(|(own, others)| figure(own) / figure(others)))
    }
}

/// Microseconds, the unit of every latency in the tables.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The middle of `values`; zero of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_sample_is_summed_up() {
        let sample = Sample::new(vec![3 * MS, MS, 2 * MS], 6 * MS, 9 * MS);
        assert_eq!(sample.quantile(0.5), 2 * MS);
        assert_eq!(sample.quantile(1.0), 3 * MS);
        assert_eq!(sample.cpu_per_call(), 3 * MS);
        assert!((sample.rate() - 500.0).abs() < 1e-6);
    }

    #[test]
    fn a_ratio_compares_round_by_round() {
        let sample = |ms| Sample::new(vec![ms * MS], MS, MS);
        let p50 = |sample: &Sample| micros(sample.quantile(0.5));
        let (mut one, mut other) = (Series::new("one"), Series::new("other"));
        // The second round was slow for both.
        for (own, others) in [(2, 1), (20, 10), (3, 1)] {
            one.push(sample(own));
            other.push(sample(others));
        }
        assert!((one.ratio(&other, p50) - 2.0).abs() < 1e-9);
    }
}
