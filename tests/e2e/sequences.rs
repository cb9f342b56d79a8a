//! Sequences of requests to a real ONNX model that adds up, in both layouts and over every protocol.

use std::fs;

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
