//! Traces, logs and metrics: every name and every exporter of Consort.

mod batch_sizes;
mod exposition;
mod histogram;
mod meter;
mod metrics;
mod process;
pub mod semconv;
mod snapshot;
mod upstream;

pub use exposition::CONTENT_TYPE;
pub use meter::{Execution, Meter, PendingGuard, Reason, RequestTimer};
pub use metrics::Metrics;
pub use snapshot::{BatchSnapshot, Snapshot, Tally};
pub use upstream::{Outcome, StepMeter, UpstreamCall, UpstreamMeter};
