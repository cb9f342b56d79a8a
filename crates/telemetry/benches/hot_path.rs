//! Measures what telemetry costs on a request's way, without an exporter.

use std::hint::black_box;
use std::time::{Duration, Instant};

use consort_telemetry::{
    Execution, LogOptions, Metrics, Protocol, extract, init, request_span, step_span,
};
use http::{HeaderMap, HeaderValue};

/// Calls a round; short, so that most rounds are not interrupted and the best one is clean.
const CALLS: u32 = 10_000;
const ROUNDS: u32 = 200;

fn measure(name: &str, mut call: impl FnMut()) {
    let mut round = || {
        let started_at = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        started_at.elapsed()
    };
    let best = (0..ROUNDS).map(|_| round()).min().unwrap_or_default();
    eprintln!("{name:32} {:8.1} ns", best.as_secs_f64() * 1e9 / f64::from(CALLS));
}

fn main() {
    let guard = init(&LogOptions::default(), "hot_path").expect("the first in this process");
    let metrics = Metrics::new();
    let meter = metrics.meter("m", "1");
    let us = Duration::from_micros;
    let execution = Execution {
        requests: 4,
        inferences: 4,
        queue: us(20),
        compute_input: us(3),
        compute_infer: us(200),
        compute_output: us(2),
        useful: 100,
        padded: 12,
        ..Execution::default()
    };
    measure("clock", || {
        black_box(Instant::now());
    });
    measure("request", || {
        let mut timer = meter.request();
        timer.responded(false);
        timer.succeeded();
    });
    measure("pending", || drop(meter.pending()));
    measure("execution", || meter.execution(black_box(&execution)));
    let open = || request_span(Protocol::Grpc, black_box("m"), "1", "id");
    measure("request span", || drop(open()));
    let request = open();
    measure("step span", || drop(step_span(Some(&request), black_box("e"), "s", "m")));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    measure("extract, no trace", || drop(extract(black_box(&headers))));
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent", HeaderValue::from_static(caller));
    measure("extract", || drop(extract(black_box(&headers))));
    drop(guard);
}
