//! The options that say what the metrics show, as tritonserver takes them.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use consort_telemetry::{Machine, Metrics, MetricsOptions, Sampler};

/// What the metrics show.
#[derive(Args, Clone, Debug)]
pub struct ShownMetrics {
    /// Whether the processors and the memory of the machine are among the metrics
    #[arg(long, env = "CONSORT_ALLOW_CPU_METRICS", default_value_t = true, value_name = "BOOL",
          action = clap::ArgAction::Set)]
    pub allow_cpu_metrics: bool,

    /// Whether the GPUs are among the metrics of programs that compute on them
    #[arg(long, env = "CONSORT_ALLOW_GPU_METRICS", default_value_t = true, value_name = "BOOL",
          action = clap::ArgAction::Set)]
    pub allow_gpu_metrics: bool,

    /// Milliseconds between two readings of the machine and its GPUs
    #[arg(long, env = "CONSORT_METRICS_INTERVAL_MS", default_value_t = 2000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub metrics_interval_ms: u64,

    /// What is exposed of every model, such as `summary_latencies=true`; repeatable, in the variable separated by spaces
    #[arg(long, env = "CONSORT_METRICS_CONFIG", value_delimiter = ' ', value_name = "NAME=VALUE")]
    pub metrics_config: Vec<MetricsSetting>,
}

impl ShownMetrics {
    /// The metrics of this program, as the options want them.
    pub fn to_metrics(&self) -> Arc<Metrics> {
        Metrics::with(options(&self.metrics_config))
    }

    /// Begins to read what is wanted of the machine and of `gpus`, where there are any.
    pub(crate) fn sample(&self, metrics: &Arc<Metrics>, gpus: Option<Box<dyn Sampler>>) {
        let machine = self.allow_cpu_metrics.then(|| Box::new(Machine::default()) as Box<_>);
        let gpus = gpus.filter(|_| self.allow_gpu_metrics);
        let samplers = machine.into_iter().chain(gpus).collect();
        metrics.sample(samplers, Duration::from_millis(self.metrics_interval_ms));
    }
}

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricsSetting {
    /// Whether the cumulative durations are exposed.
    CounterLatencies(bool),
    /// Whether Triton's histograms are exposed.
    HistogramLatencies(bool),
    /// Whether Triton's summaries are exposed.
    SummaryLatencies(bool),
    /// The quantiles of the summaries.
    SummaryQuantiles(Vec<f64>),
}

impl FromStr for MetricsSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or("a setting is written `name=value`".to_owned())?;
        match name {
            "counter_latencies" => boolean(value).map(Self::CounterLatencies),
            "histogram_latencies" => boolean(value).map(Self::HistogramLatencies),
            "summary_latencies" => boolean(value).map(Self::SummaryLatencies),
            "summary_quantiles" => {
                value.split(',').map(quantile).collect::<Result<_, _>>().map(Self::SummaryQuantiles)
            }
            _ => Err(format!(
                "`{name}` is not one of `counter_latencies`, `histogram_latencies`, \
                 `summary_latencies` and `summary_quantiles`"
            )),
        }
    }
}

/// What the settings come to; the last word about a thing counts.
fn options(settings: &[MetricsSetting]) -> MetricsOptions {
    let mut options = MetricsOptions::default();
    for setting in settings {
        match setting {
            MetricsSetting::CounterLatencies(wanted) => options.counter_latencies = *wanted,
            MetricsSetting::HistogramLatencies(wanted) => options.histogram_latencies = *wanted,
            MetricsSetting::SummaryLatencies(wanted) => options.summary_latencies = *wanted,
            MetricsSetting::SummaryQuantiles(quantiles) => {
                options.summary_quantiles.clone_from(quantiles);
            }
        }
    }
    options
}

fn boolean(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("`{value}` is neither `true` nor `false`"))
}

/// One `quantile:error`; the error that is allowed says nothing here, as ranks are exact.
fn quantile(pair: &str) -> Result<f64, String> {
    let quantile = pair.split_once(':').map_or(pair, |(quantile, _)| quantile);
    let parsed = quantile.trim().parse().ok().filter(|value| (0.0..=1.0).contains(value));
    parsed.ok_or_else(|| {
        format!("`{pair}` is not a quantile from 0 to 1 with its error, such as `0.99:0.001`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_tritonserver_takes_them() {
        let settings = [
            "counter_latencies=false",
            "summary_latencies=true",
            "summary_quantiles=0.5:0.05,0.99:0.001,1",
        ];
        let settings: Vec<MetricsSetting> =
            settings.iter().map(|text| text.parse().unwrap()).collect();
        let expected = MetricsOptions {
            counter_latencies: false,
            histogram_latencies: false,
            summary_latencies: true,
            summary_quantiles: vec![0.5, 0.99, 1.0],
        };
        assert_eq!(options(&settings), expected);
    }

    #[test]
    fn a_setting_that_is_wrong_says_how_it_would_be_right() {
        for (text, word) in [
            ("latency", "`name=value`"),
            ("latency=true", "`counter_latencies`"),
            ("summary_latencies=1", "`true`"),
            ("summary_quantiles=0.5:0.05,50", "0.99:0.001"),
        ] {
            let error = text.parse::<MetricsSetting>().unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
