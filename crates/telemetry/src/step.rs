//! The calls that an ensemble makes of one of its steps, and where their time goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::histogram::{Histogram, nanoseconds};
use crate::meter::Reason;

/// Counts the calls of one step of an ensemble.
#[derive(Debug, Default)]
pub struct StepMeter {
    pub(crate) duration: Histogram,
    failures: [AtomicU64; Reason::ALL.len()],
    in_flight: AtomicU64,
    queue_ns: AtomicU64,
    compute_ns: AtomicU64,
}

impl StepMeter {
    /// Counts one call as in flight until the guard is dropped; it counts as cancelled until it is
    /// said to have ended otherwise.
    pub fn call(self: &Arc<Self>) -> StepCall {
        self.in_flight.fetch_add(1, Relaxed);
        StepCall {
            meter: Arc::clone(self),
            begun_at: Instant::now(),
            failure: Some(Reason::Canceled),
        }
    }

    /// The calls that have not ended.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// The calls that ended for this reason.
    pub fn failures(&self, reason: Reason) -> u64 {
        self.failures[reason as usize].load(Relaxed)
    }

    /// The time that successful calls waited for an instance.
    pub fn queue(&self) -> Duration {
        Duration::from_nanos(self.queue_ns.load(Relaxed))
    }

    /// The time that instances worked for successful calls.
    pub fn compute(&self) -> Duration {
        Duration::from_nanos(self.compute_ns.load(Relaxed))
    }
}

/// One call of a step; dropping it counts it.
#[derive(Debug)]
pub struct StepCall {
    meter: Arc<StepMeter>,
    begun_at: Instant,
    failure: Option<Reason>,
}

impl StepCall {
    /// Says that the call gave its whole answer, and what it spent where the model runs: zero
    /// when that does not tell.
    pub fn succeeded(&mut self, queue: Duration, compute: Duration) {
        self.failure = None;
        self.meter.queue_ns.fetch_add(nanoseconds(queue), Relaxed);
        self.meter.compute_ns.fetch_add(nanoseconds(compute), Relaxed);
    }

    /// Says why the call has no answer, or not the whole one.
    pub fn failed(&mut self, reason: Reason) {
        self.failure = Some(reason);
    }
}

impl Drop for StepCall {
    fn drop(&mut self) {
        self.meter.in_flight.fetch_sub(1, Relaxed);
        match self.failure {
            None => self.meter.duration.observe(self.begun_at.elapsed()),
            Some(reason) => {
                self.meter.failures[reason as usize].fetch_add(1, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_once_it_is_over_and_as_cancelled_when_nobody_says_how() {
        let meter = Arc::new(StepMeter::default());
        let mut answered = meter.call();
        let mut refused = meter.call();
        let dropped = meter.call();
        assert_eq!(meter.in_flight(), 3);
        let ms = Duration::from_millis;
        answered.succeeded(ms(2), ms(3));
        refused.failed(Reason::Rejected);
        drop((answered, refused, dropped));
        assert_eq!((meter.in_flight(), meter.duration.count()), (0, 1));
        assert_eq!((meter.queue(), meter.compute()), (ms(2), ms(3)));
        assert_eq!(Reason::ALL.map(|reason| meter.failures(reason)), [1, 1, 0, 0]);
    }
}
