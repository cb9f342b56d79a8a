//! Writes the metrics of every model version.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::exposition::Exposition;
use crate::histogram::Histogram;
use crate::meter::{Meter, Reason};
use crate::options::MetricsOptions;
use crate::semconv::{Family, consort, label, triton};
use crate::snapshot::Snapshot;
use crate::summary::{Summaries, Summary};

/// A value that stands for one model version, read from its statistics.
type Read = fn(&Snapshot) -> u64;

/// Triton's metrics that have the labels of a model and nothing else.
const TRITON: [(Family, Read); 6] = [
    (triton::REQUEST_SUCCESS, |stats| stats.success.count),
    (triton::INFERENCE_COUNT, |stats| stats.inference_count),
    (triton::EXECUTION_COUNT, |stats| stats.execution_count),
    (triton::PENDING_REQUESTS, |stats| stats.pending),
    (triton::CACHE_HITS, |stats| stats.cache_hit.count),
    (triton::CACHE_MISSES, |stats| stats.cache_miss.count),
];

/// Triton's cumulative durations.
const DURATIONS: [(Family, Read); 7] = [
    (triton::REQUEST_DURATION, |stats| us(stats.success.ns)),
    (triton::QUEUE_DURATION, |stats| us(stats.queue.ns)),
    (triton::COMPUTE_INPUT_DURATION, |stats| us(stats.compute_input.ns)),
    (triton::COMPUTE_INFER_DURATION, |stats| us(stats.compute_infer.ns)),
    (triton::COMPUTE_OUTPUT_DURATION, |stats| us(stats.compute_output.ns)),
    (triton::CACHE_HIT_DURATION, |stats| us(stats.cache_hit.ns)),
    (triton::CACHE_MISS_DURATION, |stats| us(stats.cache_miss.ns)),
];

/// One histogram of a model version, where it is counted.
type Select = fn(&Meter) -> Option<&Histogram>;

/// The histograms of a model version.
const HISTOGRAMS: [(Family, Select); 7] = [
    (triton::FIRST_RESPONSE_HISTOGRAM, |meter| meter.first_response_ms.as_ref()),
    (consort::REQUEST_DURATION, |meter| Some(&meter.request_duration)),
    (consort::FIRST_RESPONSE_DURATION, |meter| Some(&meter.first_response_duration)),
    (consort::QUEUE_DURATION, |meter| Some(&meter.queue_duration)),
    (consort::COMPUTE_DURATION, |meter| Some(&meter.compute_duration)),
    (consort::BATCH_SIZE, |meter| Some(&meter.batch_size)),
    (consort::PADDING_WASTE, |meter| Some(&meter.padding_waste)),
];

/// One summary of a model version.
type SelectSummary = fn(&Summaries) -> &Summary;

/// Triton's summaries.
const SUMMARIES: [(Family, SelectSummary); 5] = [
    (triton::REQUEST_SUMMARY, |summaries| &summaries.request),
    (triton::QUEUE_SUMMARY, |summaries| &summaries.queue),
    (triton::COMPUTE_INPUT_SUMMARY, |summaries| &summaries.compute_input),
    (triton::COMPUTE_INFER_SUMMARY, |summaries| &summaries.compute_infer),
    (triton::COMPUTE_OUTPUT_SUMMARY, |summaries| &summaries.compute_output),
];

/// A model version with its labels.
struct Row<'a> {
    labels: Vec<(&'a str, &'a str)>,
    meter: &'a Meter,
    snapshot: Snapshot,
}

/// Writes what is exposed of every model version.
pub(super) fn encode(
    options: &MetricsOptions,
    meters: &[([Box<str>; 2], Arc<Meter>)],
    exposition: &mut Exposition,
) {
    if meters.is_empty() {
        return;
    }
    let tags: Vec<Vec<(String, &str)>> = meters.iter().map(|(_, meter)| tags(meter)).collect();
    let rows: Vec<Row> = meters
        .iter()
        .zip(&tags)
        .map(|(([model, version], meter), tags)| {
            let own = [(label::MODEL, &**model), (label::VERSION, &**version)];
            let tags = tags.iter().map(|(name, value)| (name.as_str(), *value));
            Row { labels: own.into_iter().chain(tags).collect(), meter, snapshot: meter.snapshot() }
        })
        .collect();
    encode_counters(options, &rows, exposition);
    encode_by_label(&rows, exposition);
    exposition.family(&triton::LOAD_DURATION);
    for row in &rows {
        let seconds = row.meter.load_duration().as_secs_f64();
        exposition.sample(&triton::LOAD_DURATION, &row.labels, seconds);
    }
    exposition.family(&consort::INSTANCES);
    for row in &rows {
        let count = row.meter.instances.load(Relaxed);
        exposition.sample(&consort::INSTANCES, &row.labels, count);
    }
    encode_distributions(options, &rows, exposition);
}

/// A model's own labels; Triton marks them by a `_`, so that they cannot clash with others.
fn tags(meter: &Meter) -> Vec<(String, &str)> {
    let tags = meter.options.tags.iter();
    tags.map(|(name, value)| (format!("_{}", label_name(name)), value.as_str())).collect()
}

/// The name with what the text format has no place for replaced.
fn label_name(tag: &str) -> String {
    tag.replace(|character: char| !character.is_ascii_alphanumeric() && character != '_', "_")
}

fn encode_counters(options: &MetricsOptions, rows: &[Row], exposition: &mut Exposition) {
    let durations = DURATIONS.into_iter().filter(|_| options.counter_latencies);
    for (family, read) in TRITON.into_iter().chain(durations) {
        exposition.family(&family);
        for row in rows {
            exposition.sample(&family, &row.labels, read(&row.snapshot));
        }
    }
}

fn encode_by_label(rows: &[Row], exposition: &mut Exposition) {
    exposition.family(&triton::REQUEST_FAILURE);
    for Row { labels, meter, .. } in rows {
        let (model, rest) = labels.split_at(1);
        for reason in Reason::ALL {
            let labels = [model, &[(label::REASON, reason.as_str())], rest].concat();
            exposition.sample(&triton::REQUEST_FAILURE, &labels, meter.failures(reason));
        }
    }
    exposition.family(&consort::BATCH_ELEMENTS);
    for Row { labels, meter, .. } in rows {
        for (kind, count) in [("useful", &meter.useful), ("padding", &meter.padded)] {
            let labels = [labels.as_slice(), &[(label::KIND, kind)]].concat();
            exposition.sample(&consort::BATCH_ELEMENTS, &labels, count.load(Relaxed));
        }
    }
}

fn encode_distributions(options: &MetricsOptions, rows: &[Row], exposition: &mut Exposition) {
    for (family, select) in HISTOGRAMS {
        let rows = rows.iter().filter_map(|row| Some((row, select(row.meter)?)));
        for (index, (row, histogram)) in rows.enumerate() {
            if index == 0 {
                exposition.family(&family);
            }
            exposition.histogram(&family, &row.labels, histogram);
        }
    }
    let asked = &options.summary_quantiles;
    let now = Instant::now();
    for (family, select) in SUMMARIES.into_iter().filter(|_| options.summary_latencies) {
        exposition.family(&family);
        for Row { labels, meter, .. } in rows {
            if let Some(summaries) = &meter.summaries {
                let quantiles = select(summaries).quantiles(asked, now);
                exposition.summary(&family, labels, (asked, &quantiles));
            }
        }
    }
}

fn us(ns: u64) -> u64 {
    ns / 1_000
}
