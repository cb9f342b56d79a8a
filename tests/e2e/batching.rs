//! Many callers at once: batches of a real model, full queues, time-outs and priorities.

use std::fs;

use crate::clients::python;
use crate::repository::{Repository, shipped};
use crate::system::{Layout, System};

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
