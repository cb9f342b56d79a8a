//! The calls that a gateway makes to one replica of a stage, in flight and ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a call to a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It gave its answer.
    Success,
    /// It answered with an error.
    Failure,
    /// It could not be reached or broke off.
    Unavailable,
    /// The caller went away first.
    Cancelled,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Unavailable, Self::Cancelled];

    /// The value of the label `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Counts the calls to one replica.
#[derive(Debug, Default)]
pub struct UpstreamMeter {
    in_flight: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl UpstreamMeter {
    /// Counts one call as in flight until the guard is dropped; it counts as cancelled until it is
    /// said to have ended otherwise.
    pub fn call(self: &Arc<Self>) -> UpstreamCall {
        self.in_flight.fetch_add(1, Relaxed);
        UpstreamCall { meter: Arc::clone(self), outcome: Outcome::Cancelled }
    }

    /// The calls that have not ended.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// The calls that ended like this.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }
}

/// One call to a replica; dropping it counts it.
#[derive(Debug)]
pub struct UpstreamCall {
    meter: Arc<UpstreamMeter>,
    outcome: Outcome,
}

impl UpstreamCall {
    /// Says how the call ended.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for UpstreamCall {
    fn drop(&mut self) {
        self.meter.in_flight.fetch_sub(1, Relaxed);
        self.meter.outcomes[self.outcome as usize].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_in_flight_until_it_goes_and_cancelled_unless_it_ended() {
        let meter = Arc::new(UpstreamMeter::default());
        let mut answered = meter.call();
        let dropped = meter.call();
        assert_eq!(meter.in_flight(), 2);
        answered.ended(Outcome::Success);
        drop((answered, dropped));
        assert_eq!(meter.in_flight(), 0);
        assert_eq!(meter.ended(Outcome::Success), 1);
        assert_eq!(meter.ended(Outcome::Cancelled), 1);
    }
}
