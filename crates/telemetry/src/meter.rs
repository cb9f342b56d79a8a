//! The statistics of one model version, counted with atomics as its requests pass.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::batch_sizes::BatchSizes;
use crate::histogram::{BATCH_SIZES, Histogram, MILLISECONDS, SECONDS, SHARES, nanoseconds};
use crate::occurrences::Occurrences;
use crate::options::{MeterOptions, MetricsOptions};
use crate::response_counts::{Fate, ResponseCounts};
use crate::semconv::{consort, triton};
use crate::snapshot::{Snapshot, Tally};
use crate::summary::Summaries;

/// Why a request ended without its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A queue was full or the request waited too long in it.
    Rejected,
    /// The caller went away, asked to stop or ran out of time.
    Canceled,
    /// The backend gave an error.
    Backend,
    /// Anything else, such as a request that does not fit the model.
    Other,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }
}

/// One execution that gave its answers; one that failed is not counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Execution {
    /// The requests that rode in it.
    pub requests: u64,
    /// The sum of their batch sizes; 1 for a model that does not batch.
    pub inferences: u64,
    /// How long the requests waited for an instance, summed over them.
    pub queue: Duration,
    /// Gathering the inputs.
    pub compute_input: Duration,
    /// Inference itself.
    pub compute_infer: Duration,
    /// Scattering the outputs.
    pub compute_output: Duration,
    /// How long it took by the clock, where that is not the sum of the three: the steps of an
    /// ensemble run side by side.
    pub passed: Option<Duration>,
    /// What the requests asked for, in elements or tokens: rows times their own lengths. 0 where
    /// nothing is padded.
    pub useful: u64,
    /// What was computed besides, in the same unit, to make the requests equally long. An
    /// execution with `useful` and no `padded` wastes nothing; one with neither is not counted as
    /// one that could waste.
    pub padded: u64,
}

impl Execution {
    fn passed(&self) -> Duration {
        let sum = self.compute_input + self.compute_infer + self.compute_output;
        self.passed.unwrap_or(sum)
    }

    /// The share of the work that went into padding, in millionths; `None` where nothing is
    /// padded.
    fn waste(&self) -> Option<u64> {
        let whole = u128::from(self.useful) + u128::from(self.padded);
        (whole > 0).then(|| (u128::from(self.padded) * 1_000_000 / whole) as u64)
    }
}

/// Counts what happens to one model version.
///
/// Every method takes a few atomic additions and no lock.
#[derive(Debug)]
pub struct Meter {
    pub(crate) request_duration: Histogram,
    pub(crate) first_response_duration: Histogram,
    /// The same in Triton's unit and buckets, where it is exposed.
    pub(crate) first_response_ms: Option<Histogram>,
    pub(crate) queue_duration: Histogram,
    pub(crate) compute_duration: Histogram,
    pub(crate) batch_size: Histogram,
    pub(crate) padding_waste: Histogram,
    pub(crate) summaries: Option<Box<Summaries>>,
    pub(crate) useful: AtomicU64,
    pub(crate) padded: AtomicU64,
    failures: [AtomicU64; Reason::ALL.len()],
    fail_ns: AtomicU64,
    executed_requests: AtomicU64,
    inferences: AtomicU64,
    queue_ns: AtomicU64,
    compute_input_ns: AtomicU64,
    compute_infer_ns: AtomicU64,
    compute_output_ns: AtomicU64,
    last_inference_ms: AtomicU64,
    pending: AtomicU64,
    load_ns: AtomicU64,
    pub(crate) instances: AtomicU64,
    cache_hits: Occurrences,
    cache_misses: Occurrences,
    batch_sizes: BatchSizes,
    responses: ResponseCounts,
    pub(crate) options: MeterOptions,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new(&MetricsOptions::default(), MeterOptions::default())
    }
}

impl Meter {
    /// A meter that has counted nothing.
    pub(crate) fn new(metrics: &MetricsOptions, options: MeterOptions) -> Self {
        let histogram = |family, usual| Histogram::new(options.scale(family, usual));
        Self {
            request_duration: histogram(&consort::REQUEST_DURATION, SECONDS),
            first_response_duration: histogram(&consort::FIRST_RESPONSE_DURATION, SECONDS),
            first_response_ms: metrics
                .histogram_latencies
                .then(|| histogram(&triton::FIRST_RESPONSE_HISTOGRAM, MILLISECONDS)),
            queue_duration: histogram(&consort::QUEUE_DURATION, SECONDS),
            compute_duration: histogram(&consort::COMPUTE_DURATION, SECONDS),
            batch_size: histogram(&consort::BATCH_SIZE, BATCH_SIZES),
            padding_waste: histogram(&consort::PADDING_WASTE, SHARES),
            summaries: metrics.summary_latencies.then(Box::default),
            useful: AtomicU64::default(),
            padded: AtomicU64::default(),
            failures: Default::default(),
            fail_ns: AtomicU64::default(),
            executed_requests: AtomicU64::default(),
            inferences: AtomicU64::default(),
            queue_ns: AtomicU64::default(),
            compute_input_ns: AtomicU64::default(),
            compute_infer_ns: AtomicU64::default(),
            compute_output_ns: AtomicU64::default(),
            last_inference_ms: AtomicU64::default(),
            pending: AtomicU64::default(),
            load_ns: AtomicU64::default(),
            instances: AtomicU64::default(),
            cache_hits: Occurrences::default(),
            cache_misses: Occurrences::default(),
            batch_sizes: BatchSizes::default(),
            responses: ResponseCounts::default(),
            options,
        }
    }
}

impl Meter {
    /// Starts the clock of one request, which counts as cancelled until it is said to have ended
    /// otherwise.
    pub fn request(self: &Arc<Self>) -> RequestTimer {
        RequestTimer {
            meter: Arc::clone(self),
            started_at: Instant::now(),
            failure: Some(Reason::Canceled),
            has_responded: false,
            responses: None,
        }
    }

    /// Counts one request as pending until the guard is dropped; to be dropped when an instance
    /// takes the request, or when the request leaves the queue for another reason.
    pub fn pending(self: &Arc<Self>) -> PendingGuard {
        self.pending.fetch_add(1, Relaxed);
        PendingGuard { meter: Arc::clone(self), queued_at: Instant::now() }
    }

    /// Counts one request as pending until the guard is dropped, without measuring its wait: for
    /// an ensemble, which has no queue of its own and whose requests wait for an answer.
    pub fn unanswered(self: &Arc<Self>) -> Unanswered {
        self.pending.fetch_add(1, Relaxed);
        Unanswered(Arc::clone(self))
    }

    /// Counts a wait that was measured elsewhere: the sum over the steps of an ensemble.
    pub fn waited(&self, duration: Duration) {
        self.queue_duration.observe(duration);
        if let Some(summaries) = &self.summaries {
            summaries.queue.observe(duration, 1);
        }
    }

    /// Counts one execution.
    pub fn execution(&self, execution: &Execution) {
        let requests = execution.requests;
        let add = |counter: &AtomicU64, duration: Duration| {
            counter.fetch_add(nanoseconds(duration).saturating_mul(requests), Relaxed);
        };
        self.executed_requests.fetch_add(requests, Relaxed);
        self.inferences.fetch_add(execution.inferences, Relaxed);
        self.queue_ns.fetch_add(nanoseconds(execution.queue), Relaxed);
        add(&self.compute_input_ns, execution.compute_input);
        add(&self.compute_infer_ns, execution.compute_infer);
        add(&self.compute_output_ns, execution.compute_output);
        self.compute_duration.observe(execution.passed());
        if let Some(summaries) = &self.summaries {
            summaries.compute_input.observe(execution.compute_input, requests);
            summaries.compute_infer.observe(execution.compute_infer, requests);
            summaries.compute_output.observe(execution.compute_output, requests);
        }
        self.batch_size.count_value(execution.inferences);
        self.batch_sizes.record(execution);
        if let Some(waste) = execution.waste() {
            self.padding_waste.count_value(waste);
            self.useful.fetch_add(execution.useful, Relaxed);
            self.padded.fetch_add(execution.padded, Relaxed);
        }
    }

    /// Counts a request that was answered without a run, and what that took.
    pub fn cache_hit(&self, duration: Duration) {
        self.cache_hits.add(duration);
    }

    /// Counts a request that was looked for in vain, and what looking and keeping took.
    pub fn cache_miss(&self, duration: Duration) {
        self.cache_misses.add(duration);
    }

    /// Says how long the load of the model took.
    pub fn loaded(&self, duration: Duration) {
        self.load_ns.store(nanoseconds(duration), Relaxed);
    }

    /// Says how many instances take requests now.
    pub fn instances(&self, count: usize) {
        self.instances.store(count as u64, Relaxed);
    }

    /// How long the load of the model took.
    pub fn load_duration(&self) -> Duration {
        Duration::from_nanos(self.load_ns.load(Relaxed))
    }

    /// The requests that ended for this reason.
    pub fn failures(&self, reason: Reason) -> u64 {
        self.failures[reason as usize].load(Relaxed)
    }

    /// What has been counted so far. Counts that belong together may differ by requests that end
    /// while they are read.
    pub fn snapshot(&self) -> Snapshot {
        let executed = self.executed_requests.load(Relaxed);
        let per_request = |ns: &AtomicU64| Tally { count: executed, ns: ns.load(Relaxed) };
        let failures: [u64; Reason::ALL.len()] =
            array::from_fn(|reason| self.failures[reason].load(Relaxed));
        Snapshot {
            success: Tally {
                count: self.request_duration.count(),
                ns: self.request_duration.sum(),
            },
            fail: Tally { count: failures.iter().sum(), ns: self.fail_ns.load(Relaxed) },
            queue: per_request(&self.queue_ns),
            compute_input: per_request(&self.compute_input_ns),
            compute_infer: per_request(&self.compute_infer_ns),
            compute_output: per_request(&self.compute_output_ns),
            inference_count: self.inferences.load(Relaxed),
            execution_count: self.compute_duration.count(),
            last_inference_ms: self.last_inference_ms.load(Relaxed),
            pending: self.pending.load(Relaxed),
            batches: self.batch_sizes.snapshot(),
            responses: self.responses.snapshot(),
            cache_hit: self.cache_hits.tally(),
            cache_miss: self.cache_misses.tally(),
        }
    }

    fn succeeded(&self, duration: Duration) {
        self.request_duration.observe(duration);
        if let Some(summaries) = &self.summaries {
            summaries.request.observe(duration, 1);
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = since_epoch.unwrap_or_default().as_millis() as u64;
        self.last_inference_ms.store(now_ms, Relaxed);
    }

    fn failed(&self, reason: Reason, duration: Duration) {
        self.failures[reason as usize].fetch_add(1, Relaxed);
        self.fail_ns.fetch_add(nanoseconds(duration), Relaxed);
    }
}

/// The clock of one request; dropping it counts the request.
#[derive(Debug)]
pub struct RequestTimer {
    meter: Arc<Meter>,
    started_at: Instant,
    failure: Option<Reason>,
    has_responded: bool,
    /// Of a decoupled model, the place of the response to come and when the one before went.
    responses: Option<(usize, Instant)>,
}

impl RequestTimer {
    /// Says that the model is decoupled, so that each response counts for itself.
    pub fn counts_responses(&mut self) {
        self.responses = Some((0, self.started_at));
    }

    /// Says that a response is on its way to the caller, with tensors or without.
    ///
    /// Only the first is measured, unless the model is decoupled.
    pub fn responded(&mut self, is_empty: bool) {
        if !self.has_responded {
            self.has_responded = true;
            let duration = self.started_at.elapsed();
            self.meter.first_response_duration.observe(duration);
            if let Some(histogram) = &self.meter.first_response_ms {
                histogram.observe(duration);
            }
        }
        self.response_ended(if is_empty { Fate::Empty } else { Fate::Success });
    }

    fn response_ended(&mut self, fate: Fate) {
        if let Some((place, since)) = &mut self.responses {
            let now = Instant::now();
            self.meter.responses.record(*place, fate, now.duration_since(*since));
            (*place, *since) = (*place + 1, now);
        }
    }

    /// Says that the request has its whole answer.
    pub fn succeeded(&mut self) {
        self.failure = None;
    }

    /// Says why the request has no answer, or not the whole one.
    pub fn failed(&mut self, reason: Reason) {
        self.failure = Some(reason);
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        let duration = self.started_at.elapsed();
        match self.failure {
            Some(reason) => {
                let is_cancelled = reason == Reason::Canceled;
                self.response_ended(if is_cancelled { Fate::Cancel } else { Fate::Fail });
                self.meter.failed(reason, duration);
            }
            None => self.meter.succeeded(duration),
        }
    }
}

/// One request that waits for an instance; dropping it ends the wait.
#[derive(Debug)]
pub struct PendingGuard {
    meter: Arc<Meter>,
    queued_at: Instant,
}

impl PendingGuard {
    /// How long the request has waited so far.
    pub fn waited(&self) -> Duration {
        self.queued_at.elapsed()
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.meter.pending.fetch_sub(1, Relaxed);
        self.meter.waited(self.queued_at.elapsed());
    }
}

/// One request of an ensemble that has no answer yet; dropping it says that it has, or never will.
#[derive(Debug)]
pub struct Unanswered(Arc<Meter>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response_counts::RESPONSE_PLACES;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_request_that_nobody_finishes_is_counted_as_cancelled() {
        let meter = Arc::new(Meter::default());
        drop(meter.request());
        assert_eq!(meter.failures(Reason::Canceled), 1);
        assert_eq!(meter.snapshot().fail.count, 1);
        assert_eq!(meter.snapshot().last_inference_ms, 0);
    }

    #[test]
    fn the_last_word_about_a_request_counts() {
        let meter = Arc::new(Meter::default());
        let mut timer = meter.request();
        timer.responded(false);
        timer.responded(false);
        timer.succeeded();
        drop(timer);
        let mut timer = meter.request();
        timer.succeeded();
        timer.failed(Reason::Backend);
        drop(timer);
        let snapshot = meter.snapshot();
        assert_eq!((snapshot.success.count, snapshot.fail.count), (1, 1));
        assert_eq!(meter.failures(Reason::Backend), 1);
        assert_eq!(meter.first_response_duration.count(), 1);
        assert!(snapshot.last_inference_ms > 0);
    }

    #[test]
    fn each_request_of_a_batch_is_given_the_whole_compute_time() {
        let meter = Meter::default();
        meter.execution(&Execution {
            requests: 3,
            inferences: 4,
            queue: 5 * MS,
            compute_input: MS,
            compute_infer: 2 * MS,
            compute_output: MS,
            ..Execution::default()
        });
        let snapshot = meter.snapshot();
        let tally = |ms: u64| Tally { count: 3, ns: ms * 1_000_000 };
        assert_eq!(snapshot.queue, tally(5));
        assert_eq!(snapshot.compute_infer, tally(6));
        assert_eq!((snapshot.inference_count, snapshot.execution_count), (4, 1));
        assert_eq!(snapshot.batches[0].batch_size, 4);
        assert_eq!(snapshot.batches[0].compute_infer.ns, 2_000_000);
    }

    #[test]
    fn each_response_of_a_decoupled_model_counts_at_its_place() {
        let meter = Arc::new(Meter::default());
        let request = || {
            let mut timer = meter.request();
            timer.counts_responses();
            timer.responded(false);
            timer
        };
        let mut whole = request();
        whole.responded(true);
        whole.succeeded();
        let mut broken = request();
        broken.failed(Reason::Backend);
        drop((whole, broken, request()));
        let mut single = meter.request();
        single.responded(false);
        drop(single);
        let places = meter.snapshot().responses;
        let counts = places.iter().map(|place| {
            [
                place.place,
                place.success.count,
                place.empty.count,
                place.fail.count,
                place.cancel.count,
            ]
        });
        assert_eq!(counts.collect::<Vec<_>>(), [[0, 3, 0, 0, 0], [1, 0, 1, 1, 1]]);
    }

    #[test]
    fn places_beyond_those_told_apart_are_left_out() {
        let meter = Arc::new(Meter::default());
        let mut timer = meter.request();
        timer.counts_responses();
        (0..RESPONSE_PLACES + 3).for_each(|_| timer.responded(false));
        timer.succeeded();
        drop(timer);
        assert_eq!(meter.snapshot().responses.len(), RESPONSE_PLACES);
    }

    #[test]
    fn padding_counts_where_something_is_padded() {
        let meter = Meter::default();
        for (useful, padded) in [(0, 0), (100, 0), (30, 10), (u64::MAX, u64::MAX)] {
            meter.execution(&Execution { inferences: 3, useful, padded, ..Execution::default() });
        }
        assert_eq!((meter.batch_size.count(), meter.batch_size.sum()), (4, 12));
        assert_eq!((meter.padding_waste.count(), meter.padding_waste.sum()), (3, 750_000));
    }

    #[test]
    fn hits_and_misses_are_counted_with_their_time() {
        let meter = Meter::default();
        meter.cache_hit(MS);
        meter.cache_hit(MS);
        meter.cache_miss(5 * MS);
        let snapshot = meter.snapshot();
        assert_eq!(snapshot.cache_hit, Tally { count: 2, ns: 2_000_000 });
        assert_eq!(snapshot.cache_miss, Tally { count: 1, ns: 5_000_000 });
    }

    #[test]
    fn a_request_is_pending_until_its_guard_goes() {
        let meter = Arc::new(Meter::default());
        let guard = meter.pending();
        assert_eq!(meter.snapshot().pending, 1);
        assert!(guard.waited() < Duration::from_mins(1));
        drop(guard);
        assert_eq!(meter.snapshot().pending, 0);
        assert_eq!(meter.queue_duration.count(), 1);
    }
}
