//! Checks what a model says about its metrics.

use consort_protocol::ModelConfig;
use consort_protocol::model_metrics::metric_control::MetricOptions;

use crate::report::Report;

/// Notes everything that is wrong with `model_metrics`.
pub(super) fn check(config: &ModelConfig, report: &mut Report) {
    let metrics = config.model_metrics.iter();
    for (index, control) in metrics.flat_map(|metrics| &metrics.metric_control).enumerate() {
        let path = format!("model_metrics.metric_control[{index}]");
        match &control.metric_identifier {
            None => report.missing(&path, "metric control must specify 'metric_identifier'", None),
            Some(identifier) if identifier.family.is_empty() => {
                let path = format!("{path}.metric_identifier");
                report.missing(&path, "metric identifier must specify non-empty 'family'", None);
            }
            Some(_) => {}
        }
        match &control.metric_options {
            None => report.missing(&path, "metric control must specify 'histogram_options'", None),
            Some(MetricOptions::HistogramOptions(options)) if options.buckets.is_empty() => {
                let path = format!("{path}.histogram_options");
                report.missing(&path, "histogram options must specify non-empty 'buckets'", None);
            }
            Some(MetricOptions::HistogramOptions(_)) => {}
        }
    }
}
