//! Sequences of requests to a real ONNX model that adds up, in both layouts and over every protocol.

use std::fs;

use serde_json::json;

use crate::clients::python;
use crate::program::checkout;
use crate::repository::Repository;
use crate::system::{Layout, System};

/// A model that adds up the inputs of each sequence; `strategy` says how it is batched.
fn accumulator(strategy: &str) -> String {
    let flag = |name: &str, kind: &str| {
        format!(
            "{{ name: \"{name}\" control [ {{ kind: CONTROL_SEQUENCE_{kind} \
             int32_false_true: [ 0, 1 ] }} ] }}"
        )
    };
    let (start, ready, end) = (flag("START", "START"), flag("READY", "READY"), flag("END", "END"));
    format!(
        r#"backend: "onnxruntime"
        max_batch_size: 8
        input [ {{ name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] }} ]
        output [
          {{ name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] }},
          {{ name: "TOLD" data_type: TYPE_INT32 dims: [ 3 ] }},
          {{ name: "ID" data_type: TYPE_STRING dims: [ 1 ] }}
        ]
        instance_group [ {{ count: 2 kind: KIND_CPU }} ]
        sequence_batching {{
          max_sequence_idle_microseconds: 30000000
          {strategy}
          control_input [
            {start}, {ready}, {end},
            {{ name: "CORRID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING }} ] }}
          ]
          state [ {{
            input_name: "SUM_IN" output_name: "SUM_OUT" data_type: TYPE_INT32 dims: [ 1 ]
            initial_state {{ name: "zero" data_type: TYPE_INT32 dims: [ 1 ] zero_data: true }}
          }} ]
        }}"#
    )
}

const ENSEMBLE: &str = r#"platform: "ensemble"
    max_batch_size: 8
    input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
    output [
      { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] },
      { name: "TOLD" data_type: TYPE_INT32 dims: [ 3 ] },
      { name: "ID" data_type: TYPE_STRING dims: [ 1 ] }
    ]
    ensemble_scheduling { step [ {
      model_name: "direct" model_version: -1
      input_map { key: "INPUT" value: "INPUT" }
      output_map { key: "OUTPUT" value: "OUTPUT" }
      output_map { key: "TOLD" value: "TOLD" }
      output_map { key: "ID" value: "ID" }
    } ] }"#;

fn repository() -> Repository {
    let graph = checkout().join("crates/model/tests/graphs/accumulate.onnx");
    let graph = fs::read(graph).expect("it is in the checkout");
    Repository::new()
        .with("direct", &accumulator("direct { }"))
        .with_file("direct", "1/model.onnx", &graph)
        .with("oldest", &accumulator("oldest { max_candidate_sequences: 4 }"))
        .with_file("oldest", "1/model.onnx", &graph)
        .with("behind", ENSEMBLE)
}

#[test]
fn sequences_of_tritonclient_add_up_over_every_protocol() {
    let repository = repository();
    for layout in Layout::ALL {
        let system = System::start(layout, repository.path());
        python("sequences.py", &[&system.http, &system.grpc]);
    }
}

#[test]
fn each_request_of_an_iterative_model_is_a_sequence_of_its_own() {
    let graph = checkout().join("crates/model/tests/graphs/accumulate.onnx");
    let graph = fs::read(graph).expect("it is in the checkout");
    let mut repository = Repository::new();
    for (model, strategy) in
        [("direct", "direct { }"), ("oldest", "oldest { max_candidate_sequences: 4 }")]
    {
        repository = repository
            .with(model, &accumulator(&format!("iterative_sequence: true {strategy}")))
            .with_file(model, "1/model.onnx", &graph);
    }
    let system = System::start(Layout::OneProcess, repository.path());
    for model in ["direct", "oldest"] {
        let ask = |value: i32, parameters: serde_json::Value| {
            let input = json!({"name": "INPUT", "shape": [1, 1], "datatype": "INT32",
                "data": [value]});
            let body = json!({"inputs": [input], "parameters": parameters}).to_string();
            system.post(&format!("/v2/models/{model}/infer"), &body)
        };
        let outputs = |answer: &crate::system::Answer| {
            assert_eq!(answer.status, 200, "{}", answer.text);
            let outputs = answer.json()["outputs"].clone();
            ["OUTPUT", "TOLD", "ID"].map(|name| {
                let outputs = outputs.as_array().expect("a list").iter();
                let output = outputs.clone().find(|output| output["name"] == name);
                output.expect("it is there")["data"].clone()
            })
        };
        // Never 3 and 7: nothing is kept from one to the next.
        for (number, value) in [(1, 3), (2, 4)] {
            let expected = [json!([value]), json!([1, 1, 0]), json!([number.to_string()])];
            assert_eq!(outputs(&ask(value, json!({}))), expected, "{model}");
        }
        let own = json!({"sequence_id": "mine", "sequence_start": true});
        let expected = [json!([5]), json!([1, 1, 0]), json!(["mine"])];
        assert_eq!(outputs(&ask(5, own)), expected);
        let going_on = ask(6, json!({"sequence_id": "mine"}));
        assert_eq!(going_on.status, 400, "{}", going_on.text);
        assert!(going_on.text.contains("must specify the START flag"), "{}", going_on.text);
    }
}
