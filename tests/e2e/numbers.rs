//! Statistics and metrics agree with each other and with what was sent, in both layouts.

use serde_json::{Value, json};

use crate::lifecycle::{counted, counters};
use crate::repository::{INFER, Repository, shipped};
use crate::system::{Layout, System, wait_until};

/// What load generators refuse statistics without.
const MEMBERS: [&str; 8] = [
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
];

fn statistics(system: &System, model: &str) -> Value {
    let answer = system.get(&format!("/v2/models/{model}/stats")).json();
    answer["model_stats"][0].clone()
}

/// The whole number at this place of the answer; as JSON, 64 bits may also come as a string.
fn number(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    value.as_u64().or(text).unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn statistics_and_metrics_agree_with_what_was_sent() {
    let repository = Repository::new()
        .with_delay("slow", 1)
        .with_identity("quick")
        .with_chain("chain", &["quick", "slow"]);
    for layout in Layout::ALL {
        let system = System::start(layout, repository.path());
        for _ in 0..5 {
            assert_eq!(system.post("/v2/models/chain/infer", INFER).status, 200);
        }
        for model in ["chain", "chain", "slow"] {
            let refused = system.post(&format!("/v2/models/{model}/infer"), r#"{"inputs":[]}"#);
            assert_eq!(refused.status, 400, "{layout:?}");
        }
        let [chain, quick, slow] = ["chain", "quick", "slow"].map(|name| statistics(&system, name));
        for (model, failed) in [(&chain, 2), (&quick, 0), (&slow, 1)] {
            let numbers = &model["inference_stats"];
            for member in MEMBERS {
                assert!(numbers[member]["ns"].is_number(), "{layout:?} {member}: {model}");
            }
            assert_eq!(number(&numbers["success"]["count"]), 5, "{layout:?}: {model}");
            assert_eq!(number(&numbers["fail"]["count"]), failed, "{layout:?}: {model}");
            assert_eq!(number(&numbers["compute_infer"]["count"]), 5, "{layout:?}: {model}");
            assert_eq!(number(&model["execution_count"]), 5, "{layout:?}: {model}");
            assert_eq!(number(&model["batch_stats"][0]["batch_size"]), 1, "{layout:?}: {model}");
            assert_eq!(number(&model["batch_stats"][0]["compute_infer"]["count"]), 5);
            assert!(number(&model["last_inference"]) > 0, "{layout:?}: {model}");
        }
        // What the steps spent, in this process or in others, is what the ensemble counts.
        for member in ["queue", "compute_input", "compute_infer", "compute_output"] {
            let ns = |model: &Value| number(&model["inference_stats"][member]["ns"]);
            assert_eq!(ns(&chain), ns(&quick) + ns(&slow), "{layout:?}: {member}");
        }
        metrics_agree(&system, &chain, &slow);
    }
}

/// What the front's metrics say of the same requests.
fn metrics_agree(system: &System, chain: &Value, slow: &Value) {
    let is = |prefix: &str, expected: f64| {
        let found = system.metric(prefix);
        assert!((found - expected).abs() < 1e-3, "{prefix}: {found} instead of {expected}");
    };
    let chain = &chain["inference_stats"];
    is(r#"nv_inference_request_success{model="chain""#, 5.0);
    is(r#"nv_inference_request_failure{model="chain",reason="OTHER""#, 2.0);
    is(r#"nv_inference_request_failure{model="chain""#, 2.0);
    is(r#"nv_inference_pending_request_count{model="chain""#, 0.0);
    let us = number(&chain["compute_infer"]["ns"]) / 1000;
    is(r#"nv_inference_compute_infer_duration_us{model="chain""#, us as f64);
    is(r#"consort_batch_size_count{model="chain""#, 5.0);
    is(r#"consort_step_duration_seconds_count{ensemble="chain",step="1""#, 5.0);
    is(r#"consort_step_failures{ensemble="chain""#, 0.0);
    is(r#"consort_step_in_flight{ensemble="chain""#, 0.0);
    let worked = number(&slow["inference_stats"]["compute_infer"]["ns"]) as f64 / 1e9;
    is(r#"consort_step_compute_seconds{ensemble="chain",step="1""#, worked);
    assert!(system.metric("nv_cpu_memory_total_bytes") > 0.0);
}

#[test]
fn a_decoupled_model_tells_of_each_of_its_responses() {
    let repository = crate::repository::shipped();
    let system = System::start(Layout::OneProcess, &repository);
    let asked = r#"{"text_input":"Ownership is","max_tokens":4}"#;
    assert_eq!(system.post("/generate", asked).status, 200);
    let statistics = statistics(&system, "ferris");
    let first = &statistics["response_stats"]["0"];
    assert_eq!(number(&first["success"]["count"]), 1, "{statistics}");
    assert!(number(&first["success"]["ns"]) > 0, "{statistics}");
    for member in ["compute_infer", "compute_output", "fail", "empty_response", "cancel"] {
        assert!(first[member]["count"].is_number(), "{member}: {statistics}");
    }
}

#[test]
fn what_the_operator_says_of_the_metrics_is_followed() {
    let repository = Repository::new().with_identity("quick");
    let variables = [
        ("CONSORT_METRICS_CONFIG", "counter_latencies=false summary_latencies=true"),
        ("CONSORT_ALLOW_CPU_METRICS", "false"),
    ];
    let system = System::launch(Layout::OneProcess, repository.path(), &variables);
    system.wait_until_ready();
    assert_eq!(system.post("/v2/models/quick/infer", INFER).status, 200);
    assert!((system.metric("nv_inference_request_summary_us_count") - 1.0).abs() < 0.1);
    assert!(system.metric("nv_inference_request_duration_us") < 0.1);
    assert!(system.metric("nv_cpu_memory_total_bytes") < 0.1);
}

/// The word begins within a token, so that the gateway ends the text while the model goes on.
#[test]
fn a_text_that_ends_at_a_stop_word_counts_as_answered() {
    const TEXTS: u32 = 6;
    for layout in Layout::ALL {
        let mut system = System::start(layout, &shipped());
        let metrics = counters(&mut system);
        let fields = json!({"text_input": "Ownership is", "max_tokens": 200,
            "stop_words": ["out fea"], "end_id": -1});
        let openai = json!({"model": "generate", "prompt": "Ownership is", "max_tokens": 200,
            "stop": "out fea", "ignore_eos": true});
        for _ in 0..TEXTS / 2 {
            let streamed = system.post("/generate_stream", &fields.to_string());
            assert_eq!(streamed.status, 200, "{layout:?}: {}", streamed.text);
            assert!(!streamed.text.contains("fea"), "{layout:?}: {}", streamed.text);
            let answer = system.post("/v1/completions", &openai.to_string()).json();
            assert_eq!(answer["choices"][0]["text"], " the break", "{layout:?}: {answer}");
        }
        let texts = f64::from(TEXTS) - 0.5;
        let answered = |name: &str| format!("{name}{{model=\"ferris\"");
        let succeeded = answered("nv_inference_request_success");
        wait_until("the model's count", || counted(&metrics, &succeeded) > texts);
        let executed = answered("nv_inference_exec_count");
        assert!(counted(&metrics, &executed) > texts, "{layout:?}");
        let tokens = r#"gen_ai_client_token_usage_count{gen_ai_operation_name="text_completion",gen_ai_request_model="ferris",gen_ai_token_type="output""#;
        assert!(counted(&metrics, tokens) > texts, "{layout:?}");
        let step = r#"consort_step_duration_seconds_count{ensemble="generate",step="1""#;
        assert!(system.metric(step) > texts, "{layout:?}");
        for name in ["nv_inference_request_failure", "consort_step_failures"] {
            assert!(counted(&metrics, name) + system.metric(name) < 0.5, "{layout:?}: {name}");
        }
    }
}
