//! Many callers at once: batches of a real model, full queues, time-outs and priorities.

use std::{fs, thread};

use serde_json::json;

use crate::clients::python;
use crate::program::checkout;
use crate::repository::{Repository, shipped};
use crate::system::{Layout, System, post};

/// A model that takes its time, with this scheduler.
fn slow(delay: u32, batching: &str) -> String {
    format!(
        r#"backend: "identity"
        max_batch_size: 1
        input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
        output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
        instance_group [ {{ count: 1 }} ]
        dynamic_batching {{ {batching} }}
        parameters {{ key: "execute_delay_ms" value {{ string_value: "{delay}" }} }}"#
    )
}

#[test]
fn tritonclient_sees_batches_full_queues_time_outs_and_priorities() {
    let policy = "default_queue_policy { max_queue_size: 1 default_timeout_microseconds: 700000 }";
    let levels = "priority_levels: 2 default_priority_level: 2";
    let config = fs::read_to_string(shipped().join("minilm/config.pbtxt")).expect("it ships");
    let graph = fs::read(shipped().join("minilm/1/model.onnx"));
    let repository = Repository::new()
        .with("queued", &slow(2500, policy))
        .with("ranked", &slow(1000, levels))
        .with("minilm", &config)
        .with_file("minilm", "1/model.onnx", graph.expect("run `cargo xtask models`"));
    let system = System::start(Layout::OneProcess, repository.path());
    python("batching.py", &[&system.http, &system.grpc, &system.metrics]);
}

#[test]
fn a_full_queue_is_a_refusal_wherever_it_stands() {
    // Each of three services has the model, and each of those takes two at a time.
    const CALLERS: usize = 12;
    let body = json!({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    ]});
    for layout in Layout::ALL {
        let repository = Repository::new()
            .with("queued", &slow(300, "default_queue_policy { max_queue_size: 1 }"))
            .with("chain", &format!("max_batch_size: 1\n{}", Repository::chain(&["queued"])));
        let system = System::start(layout, repository.path());
        let url = format!("http://{}/v2/models/chain/infer", system.http);
        let (url, body) = (&url, &body.to_string());
        let refused: usize = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| post(url, body))).collect();
            let answers = callers.into_iter().map(|caller| caller.join().expect("it was answered"));
            let refused = answers.filter(|answer| answer.status == 503);
            refused.inspect(|one| assert!(one.text.contains("Exceeds maximum"), "{one:?}")).count()
        });
        assert!(refused > 0, "{layout:?}: somebody finds the queue full");
        for (metric, place) in [
            ("nv_inference_request_failure", r#"model="chain""#),
            ("consort_step_failures", r#"ensemble="chain",step="0",model="queued""#),
        ] {
            let count = |reason| {
                system.metric(&format!(r#"{metric}{{{place},reason="{reason}""#)).round() as usize
            };
            assert_eq!((count("REJECTED"), count("BACKEND")), (refused, 0), "{layout:?}: {metric}");
        }
    }
}

/// Sums of inputs of any length, with this scheduler and a warm-up.
fn ragged(batching: &str) -> String {
    format!(
        r#"backend: "onnxruntime"
        max_batch_size: 4
        input [ {{ name: "VALUES" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }} ]
        output [ {{ name: "DOUBLED" data_type: TYPE_FP32 dims: [ -1 ] }},
                 {{ name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] }} ]
        batch_input [ {{ kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "BOUNDS"
          data_type: TYPE_INT32 source_input: "VALUES" }} ]
        batch_output [ {{ target_name: "DOUBLED" kind: BATCH_SCATTER_WITH_INPUT_SHAPE
          source_input: "VALUES" }} ]
        instance_group [ {{ count: 1 kind: KIND_CPU }} ]
        model_warmup [ {{ name: "first" batch_size: 1
          inputs {{ key: "VALUES" value {{ data_type: TYPE_FP32 dims: [ 3 ] zero_data: true }} }} }} ]
        {batching}"#
    )
}

/// Sends these values and asserts that their doubles and their sum come back.
fn assert_summed(http: &str, model: &str, values: &[f32]) {
    let tensor =
        json!({"name": "VALUES", "datatype": "FP32", "shape": [1, values.len()], "data": values});
    let request = json!({"inputs": [tensor]}).to_string();
    let answer = post(&format!("http://{http}/v2/models/{model}/infer"), &request);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let outputs = &answer.json()["outputs"];
    let doubled: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
    assert_eq!(outputs[0]["shape"], json!([1, values.len()]));
    assert_eq!(outputs[0]["data"], json!(doubled));
    assert_eq!(outputs[1]["data"], json!([values.iter().sum::<f32>()]));
}

#[test]
fn requests_of_different_shapes_share_a_run_where_the_model_takes_ragged_batches() {
    let graph = fs::read(checkout().join("crates/model/tests/graphs/ragged.onnx"));
    let graph = graph.expect("it is committed");
    // Nothing leaves before there are two, since nobody waits as long as this.
    let pairs =
        "dynamic_batching { preferred_batch_size: 2 max_queue_delay_microseconds: 600000000 }";
    let repository = Repository::new()
        .with("pairs", &ragged(pairs))
        .with_file("pairs", "1/model.onnx", &graph)
        .with("alone", &ragged(""))
        .with_file("alone", "1/model.onnx", &graph);
    let system = System::start(Layout::OneProcess, repository.path());
    let http = &system.http;
    thread::scope(|scope| {
        scope.spawn(|| assert_summed(http, "pairs", &[1.0, 2.0]));
        scope.spawn(|| assert_summed(http, "pairs", &[3.0, 4.0, 5.0, 6.0, 7.0]));
    });
    let executions = system.metric(r#"nv_inference_exec_count{model="pairs""#);
    assert!((executions - 1.0).abs() < 0.5, "{executions}");
    assert_summed(http, "alone", &[8.0, 9.0, 10.0]);
    let given = json!({"inputs": [
        {"name": "VALUES", "datatype": "FP32", "shape": [1, 1], "data": [1.0]},
        {"name": "BOUNDS", "datatype": "INT32", "shape": [1, 2], "data": [0, 1]},
    ]});
    let answer = system.post("/v2/models/alone/infer", &given.to_string());
    assert_eq!(answer.status, 400, "{}", answer.text);
}
