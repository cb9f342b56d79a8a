//! The statistics of a served model as the protocol shows them.

use consort_protocol::{InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};
use consort_telemetry::{BatchSnapshot, Metrics, Tally};

use crate::models::Served;

/// Reads the statistics of `served`.
pub fn of(metrics: &Metrics, served: &Served) -> ModelStatistics {
    let version = served.version.to_string();
    let counts = metrics.meter(&served.name, &version).snapshot();
    ModelStatistics {
        name: served.name.to_string(),
        version,
        last_inference: counts.last_inference_ms,
        inference_count: counts.inference_count,
        execution_count: counts.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(counts.success),
            fail: duration(counts.fail),
            queue: duration(counts.queue),
            compute_input: duration(counts.compute_input),
            compute_infer: duration(counts.compute_infer),
            compute_output: duration(counts.compute_output),
            cache_hit: duration(counts.cache_hit),
            cache_miss: duration(counts.cache_miss),
        }),
        batch_stats: counts.batches.iter().map(batch).collect(),
        ..ModelStatistics::default()
    }
}

fn batch(counts: &BatchSnapshot) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size: counts.batch_size,
        compute_input: duration(counts.compute_input),
        compute_infer: duration(counts.compute_infer),
        compute_output: duration(counts.compute_output),
    }
}

// Always present: load generators refuse statistics with a member left out.
#[expect(clippy::unnecessary_wraps, reason = "message fields are optional in generated code")]
fn duration(tally: Tally) -> Option<StatisticDuration> {
    Some(StatisticDuration { count: tally.count, ns: tally.ns })
}
