//! What a request has spent in the queues and instances it came through, added up as it goes.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Durations of one request, summed over everything that worked for it: where steps run side by
/// side the sum is longer than the time that passed.
#[derive(Debug, Default)]
pub struct Spent {
    /// In nanoseconds: queue, compute input, compute infer, compute output.
    parts: [AtomicU64; 4],
}

/// The durations of a [`Spent`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Waiting for an instance.
    pub queue: Duration,
    /// Gathering inputs.
    pub compute_input: Duration,
    /// Inference itself.
    pub compute_infer: Duration,
    /// Scattering outputs.
    pub compute_output: Duration,
}

impl Spent {
    /// The gRPC metadata by which a caller asks to be told of it.
    pub const METADATA: &str = "consort-durations";

    /// Adds what one execution took.
    pub fn add(&self, durations: &Durations) {
        let Durations { queue, compute_input, compute_infer, compute_output } = durations;
        let durations = [queue, compute_input, compute_infer, compute_output];
        for (part, duration) in self.parts.iter().zip(durations) {
            part.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// What was added so far.
    pub fn durations(&self) -> Durations {
        let read = |part: usize| Duration::from_nanos(self.parts[part].load(Relaxed));
        Durations {
            queue: read(0),
            compute_input: read(1),
            compute_infer: read(2),
            compute_output: read(3),
        }
    }
}

impl Durations {
    /// What instances worked, inputs and outputs included.
    pub fn compute(&self) -> Duration {
        self.compute_input + self.compute_infer + self.compute_output
    }
}

/// As it travels between services: four counts of nanoseconds in the order of the fields.
impl std::fmt::Display for Durations {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { queue, compute_input, compute_infer, compute_output } = self;
        let [queue, input, infer, output] =
            [queue, compute_input, compute_infer, compute_output].map(Duration::as_nanos);
        write!(formatter, "{queue} {input} {infer} {output}")
    }
}

/// Reads what [`Durations`] displays as; the error says nothing, as nobody hears of it.
impl FromStr for Durations {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(' ').map(|part| part.parse().map(Duration::from_nanos));
        let mut next = || parts.next().and_then(Result::ok).ok_or(());
        Ok(Self {
            queue: next()?,
            compute_input: next()?,
            compute_infer: next()?,
            compute_output: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_and_survive_the_way_between_services() {
        let spent = Spent::default();
        let ns = Duration::from_nanos;
        let once = Durations {
            queue: ns(1),
            compute_input: ns(2),
            compute_infer: ns(30),
            compute_output: ns(4),
        };
        spent.add(&once);
        spent.add(&once);
        let text = spent.durations().to_string();
        assert_eq!(text, "2 4 60 8");
        assert_eq!(text.parse(), Ok(spent.durations()));
        for malformed in ["", "1 2 3", "1 2 3 x", "-1 2 3 4"] {
            assert_eq!(malformed.parse::<Durations>(), Err(()), "{malformed}");
        }
    }
}
