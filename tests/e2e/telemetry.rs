//! Traces leave the programs as OTLP, with every stage under the caller's trace.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::clients::python;
use crate::otlp::{Collector, Span};
use crate::program::Program;
use crate::repository::{INFER, Repository, shipped};
use crate::system::{Layout, System, agent};

const TRACE: [u8; 16] = [
    0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
];
const CALLER: [u8; 8] = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];
pub(crate) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn contains(bodies: &[u8], text: &[u8]) -> bool {
    bodies.windows(text.len()).any(|window| window == text)
}

/// The span above, by its name; nothing for the first of the trace.
fn above<'a>(spans: &'a [Span], span: &Span) -> Option<&'a Span> {
    spans.iter().find(|other| other.id == span.parent)
}

/// Whether every span of [`TRACE`] has its parent, and each of `edges`, a span and the one above it,
/// is among them.
fn are_whole(spans: &[Span], edges: &[(&str, &str)]) -> bool {
    let of_trace = || spans.iter().filter(|span| span.trace == TRACE);
    let is_under = |span: &Span| span.parent == CALLER || above(spans, span).is_some();
    let is_there = |(name, parent): &(&str, &str)| {
        let named = of_trace().filter(|span| span.name == *name);
        named.filter_map(|span| above(spans, span)).any(|above| above.name == *parent)
    };
    of_trace().all(is_under) && edges.iter().all(is_there)
}

#[test]
fn a_request_is_one_trace_from_the_front_to_every_stage() {
    const HERE: [(&str, &str); 4] = [
        ("step quick", "infer chain"),
        ("compute", "step quick"),
        ("step slow", "infer chain"),
        ("queue", "step slow"),
    ];
    const APART: [(&str, &str); 6] = [
        ("step quick", "infer chain"),
        ("infer quick", "step quick"),
        ("compute", "infer quick"),
        ("step slow", "infer chain"),
        ("infer slow", "step slow"),
        ("queue", "infer slow"),
    ];
    let repository = Repository::new()
        .with_delay("slow", 1)
        .with_identity("quick")
        .with_chain("chain", &["quick", "slow"]);
    for (layout, edges) in [(Layout::OneProcess, &HERE[..]), (Layout::Services, &APART)] {
        let mut collector = Collector::start();
        let system = System::launch(layout, repository.path(), &collector.variables());
        system.wait_until_ready();
        let headers = [("traceparent", TRACEPARENT)];
        assert_eq!(system.post_with("/v2/models/chain/infer", INFER, &headers).status, 200);
        let spans = collector.spans_when(|spans| are_whole(spans, edges));
        let of_trace = || spans.iter().filter(|span| span.trace == TRACE);
        let firsts = of_trace().filter(|span| span.parent == CALLER);
        let firsts: Vec<&str> = firsts.map(|span| span.name.as_str()).collect();
        assert_eq!(firsts, ["infer chain"], "{layout:?}: the caller called once");
        let services: BTreeSet<&str> = of_trace().map(|span| span.service.as_str()).collect();
        let is_apart = layout == Layout::Services;
        assert_eq!(services.len() > 1, is_apart, "{layout:?}: {services:?}");
    }
}

/// Whether all of these spans of [`TRACE`] have come and failed, each with `part` in its message.
fn have_failed(spans: &[Span], names: &[&str], part: &str) -> bool {
    let has_failed = |name: &&str| {
        let mut named = spans.iter().filter(|span| span.trace == TRACE && span.name == **name);
        let says_so = |span: &Span| span.failure.as_ref().is_some_and(|text| text.contains(part));
        named.next().is_some_and(says_so)
    };
    names.iter().all(has_failed)
}

#[test]
fn spans_say_which_step_failed_and_that_the_time_was_over() {
    const IN_TIME: &str = "must be";
    const TOO_LATE: &str = "deadline exceeded";
    for layout in Layout::ALL {
        let mut collector = Collector::start();
        let system = System::launch(layout, &shipped(), &collector.variables());
        system.wait_until_ready();
        let body = r#"{"text_input":"a","max_tokens":4,"temperature":-1}"#;
        let headers = [("traceparent", TRACEPARENT)];
        assert_eq!(system.post_with("/generate", body, &headers).status, 400);
        let mut names = vec!["infer generate", "step ferris", "compute"];
        if layout == Layout::Services {
            names.push("infer ferris");
        }
        // Of the three steps' computations one has failed.
        let computed = |span: &Span| span.name != "compute" || span.failure.is_some();
        collector.spans_when(|spans| {
            let some: Vec<_> = spans.iter().filter(|span| computed(span)).cloned().collect();
            have_failed(&some, &names, IN_TIME)
        });

        let mut collector = Collector::start();
        let slow = Repository::new().with_delay("slow", 5000).with_chain("chain", &["slow"]);
        let system = System::launch(layout, slow.path(), &collector.variables());
        system.wait_until_ready();
        let headers = [("traceparent", TRACEPARENT), ("consort-timeout-ms", "200")];
        assert_eq!(system.post_with("/v2/models/chain/infer", INFER, &headers).status, 504);
        let names = ["infer chain", "step slow", "infer slow"];
        let names = if layout == Layout::Services { &names[..] } else { &names[..2] };
        collector.spans_when(|spans| have_failed(spans, names, TOO_LATE));
    }
}

#[test]
fn every_request_of_a_stream_whose_time_is_over_says_so() {
    let repository = Repository::new().with_delay("slow", 60_000).with_identity("quick");
    let mut collector = Collector::start();
    let system = System::launch(Layout::OneProcess, repository.path(), &collector.variables());
    system.wait_until_ready();
    python("stream_deadline.py", &[&system.grpc, TRACEPARENT]);
    let named = |spans: &[Span], name: &str| {
        spans.iter().filter(|span| span.name == name).cloned().collect::<Vec<_>>()
    };
    let spans = collector.spans_when(|spans| {
        named(spans, "infer quick").len() == 1 && named(spans, "infer slow").len() == 2
    });
    let says_so = |span: &Span| span.failure.as_deref() == Some("request deadline exceeded");
    assert!(named(spans, "infer slow").iter().all(says_so), "{spans:?}");
    assert!(named(spans, "infer quick").iter().all(|span| span.failure.is_none()), "{spans:?}");
}

#[test]
fn the_span_of_a_wait_that_is_refused_says_why() {
    let config = |more: &str| {
        format!(
            r#"backend: "identity" max_batch_size: 1
            input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
            output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
            instance_group [ {{ count: 1 }} ] {more}"#
        )
    };
    let full = r#"dynamic_batching { default_queue_policy { max_queue_size: 1 } }
        parameters { key: "execute_delay_ms" value { string_value: "60000" } }"#;
    let repository = Repository::new()
        .with("full", &config(full))
        .with("stateful", &config("sequence_batching { oldest { max_candidate_sequences: 1 } }"));
    let mut collector = Collector::start();
    let system = System::launch(Layout::OneProcess, repository.path(), &collector.variables());
    system.wait_until_ready();
    let row = r#""inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]"#;
    let (alone, unstarted) =
        (format!("{{{row}}}"), format!(r#"{{"parameters":{{"sequence_id":7}},{row}}}"#));
    assert_eq!(system.post("/v2/models/stateful/infer", &unstarted).status, 400);
    // One runs, and one waits for it.
    let url = format!("http://{}/v2/models/full/infer", system.http);
    let ask = || {
        let request = agent().post(&url).header("consort-timeout-ms", "2000");
        request.send(&alone).expect("it answers").status().as_u16()
    };
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        callers.into_iter().map(|caller| caller.join().expect("it asks")).collect()
    });
    assert!(statuses.contains(&503), "{statuses:?}");
    let says = |spans: &[Span], part: &str| {
        let failures = spans.iter().filter(|span| span.name == "queue");
        failures.filter_map(|span| span.failure.as_ref()).any(|text| text.contains(part))
    };
    collector.spans_when(|spans| {
        says(spans, "Exceeds maximum queue size") && says(spans, "must specify the START flag")
    });
}

#[test]
fn a_collector_that_is_not_there_holds_up_nobody() {
    let repository = Repository::new().with_identity("quick");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")];
    let system = System::launch(Layout::OneProcess, repository.path(), &variables);
    system.wait_until_ready();
    let begun_at = Instant::now();
    for _ in 0..20 {
        assert_eq!(system.post("/v2/models/quick/infer", INFER).status, 200);
    }
    assert!(begun_at.elapsed() < Duration::from_secs(5), "{:?}", begun_at.elapsed());
}

#[test]
fn metrics_count_under_tritons_names() {
    let repository =
        Repository::new().with_identity("quick").with_chain("chain", &["quick", "quick"]);
    let system = System::start(Layout::OneProcess, repository.path());
    for _ in 0..3 {
        assert_eq!(system.post("/v2/models/chain/infer", INFER).status, 200);
    }
    assert_eq!(system.post("/v2/models/quick/infer", r#"{"inputs":[]}"#).status, 400);
    let count = |metric: &str, model: &str| {
        system.metric(&format!(r#"{metric}{{model="{model}",version="1""#))
    };
    assert!((count("nv_inference_request_success", "chain") - 3.0).abs() < 0.1);
    assert!((count("nv_inference_request_success", "quick") - 6.0).abs() < 0.1);
    assert!((count("nv_inference_count", "quick") - 6.0).abs() < 0.1);
    let failures = system.metric(r#"nv_inference_request_failure{model="quick",reason="OTHER""#);
    assert!((failures - 1.0).abs() < 0.1);
    assert!(count("nv_inference_request_duration_us", "chain") > 0.0);
}

#[test]
fn a_request_that_is_refused_is_found_in_the_log_by_its_model_its_id_and_its_trace() {
    let repository = Repository::new().with_identity("quick");
    let model_repository = format!("--model-repository={}", repository.path().display());
    let arguments = ["serve".into(), model_repository, "--log-verbose=1".into()];
    let system = System::of(Program::start("consort", &arguments), Vec::new());
    system.wait_until_ready();
    let post =
        |path: &str, body: &str| system.post_with(path, body, &[("traceparent", TRACEPARENT)]);
    assert_eq!(post("/v2/models/nobody/infer", INFER).status, 404);
    assert_eq!(post("/v2/models/quick/infer", r#"{"id":"mine","inputs":5}"#).status, 500);
    let shapeless = r#"{"id":"yours","inputs":[{"name":"x"}]}"#;
    assert_eq!(post("/v2/models/quick/infer", shapeless).status, 500);
    assert_eq!(post("/v2/models/quick/generate", r#"{"x":{},"id":"theirs"}"#).status, 500);
    assert_eq!(post("/v1/completions", r#"{"model":"nobody","prompt":"p"}"#).status, 404);
    python("grpc_refusals.py", &[&system.grpc, TRACEPARENT]);
    system.front.terminate();
    let log = system.front.wait().1;
    let trace = format!(r#" trace_id="{}""#, &TRACEPARENT[3..35]);
    let line_with = |labels: &str| log.lines().any(|line| line.contains(labels));
    for labels in [
        r#"model="nobody""#,
        r#"model="quick""#,
        r#"model="quick" request_id="yours""#,
        r#"model="quick" request_id="theirs""#,
        // Over gRPC, before and after the model was found.
        r#"code="not_found" model="nobody" request_id="mine""#,
        r#"code="invalid_input" model="quick" request_id="yours""#,
    ] {
        assert!(line_with(&format!("{labels}{trace}")), "{labels}: {log}");
    }
    assert!(line_with(r#"model="nobody" request_id="cmpl-"#), "{log}");
}

/// How often `text` is in `bodies`.
fn count(bodies: &[u8], text: &[u8]) -> usize {
    bodies.windows(text.len()).filter(|window| *window == text).count()
}

#[test]
fn a_generation_is_told_in_opentelemetrys_words_with_the_steps_it_rode_in() {
    for layout in Layout::ALL {
        let mut collector = Collector::start();
        let system = System::launch(layout, &shipped(), &collector.variables());
        system.wait_until_ready();
        let body = r#"{"model":"generate","prompt":"The borrow checker","max_tokens":40,"temperature":0.5,"seed":3,"stream":true}"#;
        let headers = [("traceparent", TRACEPARENT)];
        let answer = system.post_with("/v1/completions", body, &headers);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let wanted: [&[u8]; 6] = [
            &TRACE,
            b"batch ferris",
            b"text_completion",
            b"gen_ai.request.temperature",
            b"gen_ai.usage.output_tokens",
            b"gen_ai.response.finish_reasons",
        ];
        let steps = |received: &[u8]| count(received, b"batch ferris");
        let received = collector.bytes_when(|received| {
            wanted.iter().all(|text| contains(received, text)) && steps(received) >= 5
        });
        // Of 40 tokens the second, fourth, eighth, sixteenth and last but eight.
        assert_eq!(steps(received), 5, "{layout:?}");
        let labels = r#"{gen_ai_operation_name="text_completion",gen_ai_request_model="generate"}"#;
        for name in ["request_duration", "time_to_first_token", "time_per_output_token"] {
            let counted = system.metric(&format!("gen_ai_server_{name}_seconds_count{labels}"));
            assert!((counted - 1.0).abs() < 0.5, "{layout:?}: {name} is {counted}");
        }
    }
}
