//! Every meter of the process by its labels, and the text that `/metrics` answers.

mod generations;
mod models;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::exposition::{Exposition, Labels};
use crate::gauges::{self, Gauges, Sampler};
use crate::generation::{GenerationMeter, Operation};
use crate::meter::{Meter, Reason};
use crate::options::{MeterOptions, MetricsOptions};
use crate::semconv::{Family, consort, label, process};
use crate::step::StepMeter;
use crate::upstream::{Outcome, UpstreamMeter};

/// A value that stands for one step of an ensemble.
type ReadStep = fn(&StepMeter) -> f64;

/// The metrics that have the labels of a step and nothing else.
const STEPS: [(Family, ReadStep); 3] = [
    (consort::STEP_IN_FLIGHT, |meter| meter.in_flight() as f64),
    (consort::STEP_QUEUE, |meter| meter.queue().as_secs_f64()),
    (consort::STEP_COMPUTE, |meter| meter.compute().as_secs_f64()),
];

/// The meters that share a set of label names, by the values of those labels.
#[derive(Debug)]
struct Register<const LABELS: usize, M>(RwLock<BTreeMap<[Box<str>; LABELS], Arc<M>>>);

impl<const LABELS: usize, M> Default for Register<LABELS, M> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<const LABELS: usize, M: Default> Register<LABELS, M> {
    fn get(&self, labels: [&str; LABELS]) -> Arc<M> {
        self.get_or(labels, Arc::default)
    }

    fn get_or(&self, labels: [&str; LABELS], new: impl FnOnce() -> Arc<M>) -> Arc<M> {
        let key = labels.map(Box::from);
        Arc::clone(self.0.write().entry(key).or_insert_with(new))
    }

    fn remove(&self, labels: [&str; LABELS]) {
        self.0.write().remove(&labels.map(Box::from));
    }

    /// The meters of now; a scrape holds no lock while it writes.
    fn all(&self) -> Vec<([Box<str>; LABELS], Arc<M>)> {
        let meters = self.0.read();
        let meters = meters.iter();
        meters.map(|(key, meter)| (key.clone(), Arc::clone(meter))).collect()
    }
}

/// Every meter of the process.
///
/// Meters are found by name once, when a model is loaded or a replica appears, and kept; the
/// requests themselves never come here.
#[derive(Debug, Default)]
pub struct Metrics {
    options: MetricsOptions,
    meters: Register<2, Meter>,
    upstreams: Register<2, UpstreamMeter>,
    steps: Register<3, StepMeter>,
    generations: Register<2, GenerationMeter>,
    gauges: Gauges,
}

impl Metrics {
    /// A process without meters.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A process without meters that exposes what `options` say.
    pub fn with(options: MetricsOptions) -> Arc<Self> {
        Arc::new(Self { options, ..Self::default() })
    }

    /// The meter of one model version; the same names give the same meter.
    pub fn meter(&self, model: &str, version: &str) -> Arc<Meter> {
        let new = || Arc::new(Meter::new(&self.options, MeterOptions::default()));
        self.meters.get_or([model, version], new)
    }

    /// The meter of a model version whose configuration says `options`; a meter that was made with
    /// others is replaced, and what it counted is forgotten.
    pub fn declare(&self, model: &str, version: &str, options: MeterOptions) -> Arc<Meter> {
        let found = self.meter(model, version);
        if found.options == options {
            return found;
        }
        self.meters.remove([model, version]);
        let new = || Arc::new(Meter::new(&self.options, options));
        self.meters.get_or([model, version], new)
    }

    /// Forgets a model version that was unloaded; what still holds its meter counts for nobody.
    pub fn remove_meter(&self, model: &str, version: &str) {
        self.meters.remove([model, version]);
        let is_this = |labels: &[Box<str>; 2], place: usize| *labels[place] == *model;
        if !self.meters.0.read().keys().any(|labels| is_this(labels, 0)) {
            self.generations.0.write().retain(|labels, _| !is_this(labels, 1));
        }
    }

    /// The meter of what a model is asked to generate; it goes with the model's last version.
    pub fn generation(&self, operation: Operation, model: &str) -> Arc<GenerationMeter> {
        self.generations.get([operation.as_str(), model])
    }

    /// The meter of the calls to one replica of a stage.
    pub fn upstream(&self, stage: &str, replica: &str) -> Arc<UpstreamMeter> {
        self.upstreams.get([stage, replica])
    }

    /// Forgets a replica that has gone.
    pub fn remove_upstream(&self, stage: &str, replica: &str) {
        self.upstreams.remove([stage, replica]);
    }

    /// The meter of one step of an ensemble.
    pub fn step(&self, ensemble: &str, step: &str, model: &str) -> Arc<StepMeter> {
        self.steps.get([ensemble, step, model])
    }

    /// Forgets a step of an ensemble that was unloaded.
    pub fn remove_step(&self, ensemble: &str, step: &str, model: &str) {
        self.steps.remove([ensemble, step, model]);
    }

    /// Reads `samplers` now and again every so often, on a thread of its own, for as long as the
    /// metrics are there: a scrape shows what was read last and waits for no device.
    pub fn sample(self: &Arc<Self>, samplers: Vec<Box<dyn Sampler>>, every: Duration) {
        let metrics = Arc::downgrade(self);
        gauges::follow(samplers, every, move |readings| {
            let metrics = metrics.upgrade();
            metrics.map(|metrics| metrics.gauges.replace(readings)).is_some()
        });
    }

    /// The text that `/metrics` answers, of the type [`CONTENT_TYPE`](crate::CONTENT_TYPE).
    pub fn encode(&self) -> String {
        let mut exposition = Exposition::default();
        models::encode(&self.options, &self.meters.all(), &mut exposition);
        self.encode_upstreams(&mut exposition);
        self.encode_steps(&mut exposition);
        generations::encode(&self.generations.all(), &mut exposition);
        encode_process(&mut exposition);
        self.gauges.encode(&mut exposition);
        exposition.finish()
    }

    fn encode_upstreams(&self, exposition: &mut Exposition) {
        let upstreams = self.upstreams.all();
        if upstreams.is_empty() {
            return;
        }
        exposition.family(&consort::UPSTREAM_IN_FLIGHT);
        for ([stage, replica], upstream) in &upstreams {
            let labels = [(label::STAGE, &**stage), (label::REPLICA, &**replica)];
            exposition.sample(&consort::UPSTREAM_IN_FLIGHT, &labels, upstream.in_flight());
        }
        exposition.family(&consort::UPSTREAM_REQUESTS);
        for ([stage, replica], upstream) in &upstreams {
            for outcome in Outcome::ALL {
                let labels = [
                    (label::STAGE, &**stage),
                    (label::REPLICA, &**replica),
                    (label::OUTCOME, outcome.as_str()),
                ];
                let ended = upstream.ended(outcome);
                exposition.sample(&consort::UPSTREAM_REQUESTS, &labels, ended);
            }
        }
    }

    fn encode_steps(&self, exposition: &mut Exposition) {
        let steps = self.steps.all();
        if steps.is_empty() {
            return;
        }
        exposition.family(&consort::STEP_DURATION);
        for (key, meter) in &steps {
            exposition.histogram(&consort::STEP_DURATION, &step_labels(key), &meter.duration);
        }
        exposition.family(&consort::STEP_FAILURES);
        for (key, meter) in &steps {
            for reason in Reason::ALL {
                let [ensemble, step, model] = step_labels(key);
                let labels = [ensemble, step, model, (label::REASON, reason.as_str())];
                exposition.sample(&consort::STEP_FAILURES, &labels, meter.failures(reason));
            }
        }
        for (family, read) in STEPS {
            exposition.family(&family);
            for (key, meter) in &steps {
                exposition.sample(&family, &step_labels(key), read(meter));
            }
        }
    }
}

fn encode_process(exposition: &mut Exposition) {
    fn gauge(exposition: &mut Exposition, family: &Family, labels: &Labels, value: f64) {
        exposition.family(family);
        exposition.sample(family, labels, value);
    }
    let version = [(label::VERSION, env!("CARGO_PKG_VERSION"))];
    gauge(exposition, &consort::BUILD_INFO, &version, 1.0);
    if let Some(bytes) = crate::process::resident_memory_bytes() {
        gauge(exposition, &process::RESIDENT_MEMORY, &[], bytes as f64);
    }
    if let Some(seconds) = crate::process::cpu_seconds() {
        gauge(exposition, &process::CPU_SECONDS, &[], seconds);
    }
}

fn step_labels([ensemble, step, model]: &[Box<str>; 3]) -> [(&'static str, &str); 3] {
    [(label::ENSEMBLE, ensemble), (label::STEP, step), (label::MODEL, model)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::meter::Execution;
    use crate::semconv::triton;

    #[test]
    fn counters_are_named_and_written_as_triton_does() {
        let metrics = Metrics::new();
        let meter = metrics.meter("m", "1");
        for _ in 0..3 {
            meter.request().succeeded();
        }
        drop(meter.request());
        meter.execution(&Execution {
            requests: 3,
            inferences: 3,
            queue: Duration::from_micros(7),
            ..Execution::default()
        });
        let text = metrics.encode();
        for line in [
            "# TYPE nv_inference_request_success counter\n",
            "nv_inference_request_success{model=\"m\",version=\"1\"} 3\n",
            "nv_inference_request_failure{model=\"m\",reason=\"CANCELED\",version=\"1\"} 1\n",
            "nv_inference_request_failure{model=\"m\",reason=\"BACKEND\",version=\"1\"} 0\n",
            "nv_inference_count{model=\"m\",version=\"1\"} 3\n",
            "nv_inference_exec_count{model=\"m\",version=\"1\"} 1\n",
            "nv_inference_queue_duration_us{model=\"m\",version=\"1\"} 7\n",
            "# TYPE nv_inference_pending_request_count gauge\n",
            "consort_request_duration_seconds_count{model=\"m\",version=\"1\"} 3\n",
            "consort_build_info{version=\"0.1.0\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_operator_and_model_say_of_the_metrics_is_followed() {
        let metrics = Metrics::with(MetricsOptions {
            counter_latencies: false,
            histogram_latencies: true,
            summary_latencies: true,
            summary_quantiles: vec![0.5],
        });
        let options = MeterOptions {
            tags: [("team".into(), "search".into())].into(),
            buckets: [
                (triton::FIRST_RESPONSE_HISTOGRAM.name.into(), vec![20.0, 10.0]),
                (consort::QUEUE_DURATION.name.into(), vec![0.5]),
            ]
            .into(),
        };
        let meter = metrics.declare("m", "1", options.clone());
        assert!(Arc::ptr_eq(&meter, &metrics.declare("m", "1", options)));
        meter.request().responded(false);
        let execution =
            Execution { compute_infer: Duration::from_micros(7), ..Execution::default() };
        meter.execution(&Execution { requests: 2, inferences: 2, ..execution });
        let text = metrics.encode();
        let labels = "model=\"m\",version=\"1\",_team=\"search\"";
        for line in [
            format!("nv_inference_request_success{{{labels}}} 0\n"),
            format!("nv_inference_first_response_histogram_ms_bucket{{{labels},le=\"10\"}} 1\n"),
            format!("nv_inference_first_response_histogram_ms_bucket{{{labels},le=\"20\"}} 1\n"),
            format!("consort_queue_duration_seconds_bucket{{{labels},le=\"0.5\"}} 0\n"),
            format!("nv_inference_compute_infer_summary_us{{{labels},quantile=\"0.5\"}} 7\n"),
            format!("nv_inference_compute_infer_summary_us_count{{{labels}}} 2\n"),
            format!("nv_inference_queue_summary_us{{{labels},quantile=\"0.5\"}} NaN\n"),
        ] {
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("_duration_us"), "{text}");
    }

    #[test]
    fn every_metric_is_announced_once() {
        let metrics = Metrics::new();
        metrics.meter("a", "1");
        metrics.meter("b", "1");
        metrics.upstream("model", "10.0.0.1:8001");
        metrics.step("e", "s", "m").call().succeeded(Duration::ZERO, Duration::from_millis(3));
        let text = metrics.encode();
        let mut announced: Vec<_> =
            text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let count = announced.len();
        announced.sort_unstable();
        announced.dedup();
        assert_eq!(announced.len(), count);
        assert!(text.contains("consort_upstream_requests{stage=\"model\",replica=\"10.0.0.1:8001\",outcome=\"success\"} 0"));
        assert!(text.contains(
            "consort_step_compute_seconds{ensemble=\"e\",step=\"s\",model=\"m\"} 0.003\n"
        ));
    }

    const PAGE: &str = include_str!("../../../docs/observability.md");

    /// The names of every metric that there can be.
    fn families() -> BTreeSet<String> {
        let metrics = Metrics::with(MetricsOptions {
            histogram_latencies: true,
            summary_latencies: true,
            ..MetricsOptions::default()
        });
        metrics.meter("m", "1").request().succeeded();
        metrics.upstream("s", "r");
        metrics.step("e", "s", "m");
        metrics.generation(Operation::Chat, "m").begin().failed("internal");
        let text = metrics.encode();
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let families = families.filter_map(|line| line.split(' ').next());
        // Those that depend on the machine or the options as well: every literal that is a name.
        let literals = include_str!("semconv.rs").split('"');
        let literals = literals.filter(|text| text.starts_with("nv_"));
        families.chain(literals).map(str::to_owned).collect()
    }

    /// Whether a name stands in a text, and not only a longer one that it begins or ends.
    fn is_named(text: &str, name: &str) -> bool {
        let is_part = |next: Option<char>| next.is_some_and(|c| c.is_alphanumeric() || c == '_');
        text.match_indices(name).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + name.len()..]);
            !is_part(before.chars().next_back()) && !is_part(after.chars().next())
        })
    }

    /// The words of a text that are called as metrics are.
    fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| {
            let mut begins = ["nv_", "consort_", "gen_ai_", "process_"].into_iter();
            begins.any(|begin| word.len() > begin.len() && word.starts_with(begin))
        })
    }

    #[test]
    fn every_metric_that_is_written_about_exists() {
        let families = families();
        let labels = include_str!("semconv.rs");
        let exists = |word: &str| {
            let series = ["_bucket", "_count", "_sum"].into_iter();
            let mut names = series.filter_map(|end| word.strip_suffix(end)).chain([word]);
            // `nv_inference_*` and the like stand for several.
            let is_several = word.ends_with('_');
            names.any(|name| families.contains(name))
                || is_named(labels, word)
                || (is_several && families.iter().any(|family| family.starts_with(word)))
        };
        let dashboard =
            include_str!("../../../deploy/observability/grafana/dashboards/consort.json");
        let expressions: Vec<&str> =
            dashboard.lines().filter(|line| line.contains("\"expr\": ")).collect();
        assert!(expressions.len() > 5, "{expressions:?}");
        let expressions = expressions.into_iter().flat_map(metrics_in);
        // A parameter of responses and a target of the log, which are called alike.
        let others = ["consort_durations", "consort_scheduler"];
        let told = metrics_in(PAGE).filter(|word| !others.contains(word));
        for word in expressions.chain(told) {
            assert!(exists(word), "there is no metric `{word}`");
        }
    }

    #[test]
    fn every_name_is_documented() {
        // Spans, attributes and labels: the constants of semconv that are plain strings.
        let constants = include_str!("semconv.rs").lines();
        let constants = constants.filter_map(|line| line.split_once(": &str = \""));
        let constants = constants.filter_map(|(_, rest)| rest.strip_suffix("\";"));
        let families = families();
        let names: Vec<_> = families.iter().map(String::as_str).chain(constants).collect();
        assert!(names.len() > 40, "{names:?}");
        let is_internal = |name: &str| name == crate::semconv::span::TARGET;
        for name in names.into_iter().filter(|name| !is_internal(name)) {
            assert!(is_named(PAGE, name), "`{name}` is not in docs/observability.md");
        }
    }

    #[test]
    fn what_was_generated_is_told_until_the_last_version_of_its_model_goes() {
        let metrics = Metrics::new();
        for version in ["1", "2"] {
            metrics.meter("m", version);
        }
        let mut request = metrics.generation(Operation::TextCompletion, "m").begin();
        request.succeeded(crate::TokenCounts { input: Some(3), output: Some(17) });
        drop(request);
        metrics.generation(Operation::TextCompletion, "m").begin().failed("internal");
        let labels = "gen_ai_operation_name=\"text_completion\",gen_ai_request_model=\"m\"";
        let lines = [
            format!("gen_ai_client_token_usage_sum{{{labels},gen_ai_token_type=\"output\"}} 17\n"),
            format!("gen_ai_server_request_duration_seconds_count{{{labels}}} 1\n"),
            format!(
                "gen_ai_server_request_duration_seconds_count{{{labels},error_type=\"internal\"}} 1\n"
            ),
            format!("gen_ai_server_time_to_first_token_seconds_count{{{labels}}} 0\n"),
        ];
        metrics.remove_meter("m", "1");
        let text = metrics.encode();
        for line in lines {
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
        metrics.remove_meter("m", "2");
        assert!(!metrics.encode().contains("gen_ai"));
    }

    #[test]
    fn the_same_names_give_the_same_meter_until_it_is_removed() {
        let metrics = Metrics::new();
        let meter = metrics.meter("m", "1");
        assert!(Arc::ptr_eq(&meter, &metrics.meter("m", "1")));
        assert!(!Arc::ptr_eq(&meter, &metrics.meter("m", "2")));
        metrics.remove_meter("m", "1");
        metrics.remove_meter("m", "2");
        assert!(!metrics.encode().contains("nv_inference"));
    }
}
