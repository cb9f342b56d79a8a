//! The ecosystem's own clients, run as they are against both layouts.

use std::process::Command;

use crate::lifecycle::{counted, counters};
use crate::program::{checkout, target};
use crate::repository::shipped;
use crate::system::{Layout, System, wait_until};

/// Runs a script of `tests/python` in the environment that `cargo xtask test` makes.
pub(crate) fn python(script: &str, arguments: &[&str]) {
    let interpreter = target("venv/bin/python");
    assert!(interpreter.exists(), "no Python environment; run `cargo xtask test`");
    let output = Command::new(interpreter)
        .arg(checkout().join("tests/python").join(script))
        .args(arguments)
        .output()
        .expect("python runs");
    assert!(
        output.status.success(),
        "{script} {arguments:?}:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn tritonclient_works_unmodified() {
    for layout in Layout::ALL {
        let system = System::start(layout, &shipped());
        python("triton_clients.py", &[&system.http, &system.grpc]);
    }
}

#[test]
fn structured_output_is_what_other_validators_take() {
    let system = System::start_text(Layout::OneProcess);
    python("structured_output.py", &[&system.http]);
}

#[test]
fn openais_client_works_unmodified() {
    for layout in Layout::ALL {
        let mut system = System::start(layout, &shipped());
        let metrics = counters(&mut system);
        python("openai_client.py", &[&system.http]);
        // Each of the four streams that the script begins and leaves had four texts under way.
        let cancelled =
            |model| format!(r#"nv_inference_request_failure{{model="{model}",reason="CANCELED""#);
        wait_until("the cancellations", || system.metric(&cancelled("generate")) >= 16.0);
        wait_until("the model's rest", || counted(&metrics, &cancelled("ferris")) >= 1.0);
    }
}

#[test]
fn streamed_text_is_the_whole_text_over_every_face() {
    for layout in Layout::ALL {
        let system = System::start_text(layout);
        python("streaming_text.py", &[&system.http, &system.grpc]);
    }
}

#[test]
fn log_probabilities_are_those_of_the_same_graph_in_python() {
    for layout in Layout::ALL {
        let system = System::start_text(layout);
        let repository = shipped().display().to_string();
        python("log_probs.py", &[&system.http, &system.grpc, &repository]);
    }
}

#[test]
fn prompts_are_told_as_evaluation_harnesses_ask_for_them() {
    for layout in Layout::ALL {
        let system = System::start(layout, &shipped());
        let repository = shipped().display().to_string();
        python("prompt_log_probs.py", &[&system.http, &system.grpc, &repository]);
    }
}

#[test]
fn tritonclient_can_call_one_stage_alone() {
    let system = System::start(Layout::Services, &shipped());
    let address = |name: &str| {
        let stage = system.stages.iter().find(|(stage, ..)| *stage == name);
        stage.map(|(_, _, address)| address.clone()).expect("it runs")
    };
    let stages = [address("preprocess"), address("model"), address("postprocess")];
    python("one_stage.py", &[&stages[0], &stages[1], &stages[2]]);
}

#[test]
fn embeddings_agree_with_onnx_runtime_in_python() {
    let system = System::start(Layout::OneProcess, &shipped());
    let repository = shipped();
    python("embeddings.py", &[&system.grpc, &repository.display().to_string()]);
}
