//! What the operator and a model's configuration say of the metrics.

use std::collections::BTreeMap;

use crate::histogram::Scale;
use crate::semconv::Family;

/// What is exposed for every model.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsOptions {
    /// Whether the cumulative `nv_inference_*_duration_us` are exposed.
    pub counter_latencies: bool,
    /// Whether Triton's histograms are exposed, in milliseconds; Consort's own always are.
    pub histogram_latencies: bool,
    /// Whether Triton's summaries are exposed.
    pub summary_latencies: bool,
    /// The quantiles of the summaries, each above 0 and below 1.
    pub summary_quantiles: Vec<f64>,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self {
            counter_latencies: true,
            histogram_latencies: false,
            summary_latencies: false,
            summary_quantiles: vec![0.5, 0.9, 0.95, 0.99, 0.999],
        }
    }
}

/// What one model says of its metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeterOptions {
    /// Labels that the model's metrics carry besides, without the `_` before their names.
    pub tags: BTreeMap<String, String>,
    /// The upper bounds of histograms by the names of their families, in the family's unit.
    pub buckets: BTreeMap<String, Vec<f64>>,
}

impl MeterOptions {
    /// The scale of a family: the model's own bounds, or else the usual ones.
    pub(crate) fn scale(&self, family: &Family, usual: Scale) -> Scale {
        let Some(buckets) = self.buckets.get(family.name) else { return usual };
        let finite = buckets.iter().filter(|bound| bound.is_finite() && **bound >= 0.0);
        let mut bounds: Vec<u64> =
            finite.map(|bound| (bound * usual.per_unit).round() as u64).collect();
        bounds.sort_unstable();
        bounds.dedup();
        Scale { bounds: bounds.into(), per_unit: usual.per_unit }
    }
}
