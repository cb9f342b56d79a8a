//! The statistics of a served model as the protocol shows them.

use std::collections::BTreeMap;

use consort_config::Model;
use consort_protocol::model_metrics::metric_control::MetricOptions;
use consort_protocol::{
    InferBatchStatistics, InferResponseStatistics, InferStatistics, ModelStatistics,
    StatisticDuration,
};
use consort_telemetry::{BatchSnapshot, MeterOptions, Metrics, ResponseSnapshot, Tally};

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
        response_stats: counts.responses.iter().map(responses).collect(),
        // What a backend holds is known to the backend's library alone.
        memory_usage: Vec::new(),
    }
}

/// What a model's configuration says of its metrics: `metric_tags`, and the buckets that
/// `model_metrics` gives to histograms; families that there are not are passed over, as by Triton.
pub fn options(model: &Model) -> MeterOptions {
    let controls = model.wire.model_metrics.iter().flat_map(|metrics| &metrics.metric_control);
    let buckets = controls.filter_map(|control| {
        let family = control.metric_identifier.as_ref()?.family.clone();
        let MetricOptions::HistogramOptions(options) = control.metric_options.as_ref()?;
        Some((family, options.buckets.clone()))
    });
    let tags = model.wire.metric_tags.iter().map(|(name, value)| (name.clone(), value.clone()));
    MeterOptions { tags: tags.collect::<BTreeMap<_, _>>(), buckets: buckets.collect() }
}

/// One place of a decoupled model's responses. Its outputs are gathered by the loop that computes
/// them, so `compute_infer` is the whole time and `compute_output` counts without any.
fn responses(counts: &ResponseSnapshot) -> (String, InferResponseStatistics) {
    let statistics = InferResponseStatistics {
        compute_infer: duration(counts.success),
        compute_output: duration(Tally { count: counts.success.count, ns: 0 }),
        success: duration(counts.success),
        fail: duration(counts.fail),
        empty_response: duration(counts.empty),
        cancel: duration(counts.cancel),
    };
    (counts.place.to_string(), statistics)
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
