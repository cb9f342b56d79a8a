//! Traces, logs and metrics: every name and every exporter of Consort.

mod batch_sizes;
mod environment;
mod error;
mod export;
mod exposition;
mod gauges;
mod generation;
mod histogram;
mod logging;
mod machine;
mod meter;
mod metrics;
mod occurrences;
mod options;
mod process;
mod propagation;
mod response_counts;
pub mod semconv;
mod snapshot;
mod span;
mod step;
mod summary;
mod tls;
mod upstream;
mod work_span;

pub use error::Error;
pub use exposition::CONTENT_TYPE;
pub use gauges::{Reading, Sampler};
pub use generation::{
    Generating, GenerationMeter, GenerationRequest, Operation, Pace, TokenCounts, generation_asked,
    generation_ended,
};
pub use logging::{Guard, LogFormat, LogOptions, init};
pub use machine::Machine;
pub use meter::{Execution, Meter, PendingGuard, Reason, RequestTimer, Unanswered};
pub use metrics::Metrics;
pub use options::{MeterOptions, MetricsOptions};
pub use propagation::{Parent, extract, inject, trace_id};
pub use response_counts::RESPONSE_PLACES;
pub use snapshot::{BatchSnapshot, ResponseSnapshot, Snapshot, Tally};
pub use span::{
    Protocol, batch_span, compute_span, failed, first_response, is_recorded, link, link_to,
    queue_span, request_span, step_span, version_chosen,
};
pub use step::{StepCall, StepMeter};
pub use upstream::{Outcome, UpstreamCall, UpstreamMeter};
pub use work_span::WorkSpan;
