//! What is wrong with a repository or a command line is said where a person looks, and harms
//! nothing else.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use crate::program::binary;
use crate::repository::{INFER, Repository};
use crate::system::{Layout, System, wait_until};

/// Waits until `model` is known and none is loading; gives the reason why it is unavailable.
fn reason(system: &System, model: &str) -> String {
    let mut row = Value::Null;
    wait_until("the model's state", || {
        let index = system.index();
        let rows = index.as_array().expect("the index is a list");
        row = rows.iter().find(|row| row["name"] == model).cloned().unwrap_or_default();
        !row.is_null() && rows.iter().all(|row| row["state"] != "LOADING")
    });
    assert_eq!(row["state"], "UNAVAILABLE", "{row}");
    row["reason"].as_str().unwrap_or_default().to_owned()
}

/// Starts `consort serve` over a good model and the bad ones; gives the reason for `model`.
fn reason_for(model: &str, repository: Repository) -> String {
    let repository = repository.with_identity("good");
    let system = System::launch(Layout::OneProcess, repository.path(), &[]);
    let reason = reason(&system, model);
    assert_eq!(system.post("/v2/models/good/infer", INFER).status, 200, "the others serve");
    assert_eq!(system.get("/v2/health/ready").status, 400);
    assert_eq!(system.get("/v2/health/live").status, 200);
    let answer = system.post(&format!("/v2/models/{model}/infer"), INFER);
    assert_eq!(answer.status, 404, "{}", answer.text);
    reason
}

fn says(reason: &str, texts: &[&str]) {
    for text in texts {
        assert!(reason.contains(text), "no `{text}` in: {reason}");
    }
    assert!(!reason.contains("panicked"), "{reason}");
}

#[test]
fn a_misspelt_field_is_told_with_its_place_and_remedy() {
    let config = "backend: \"identity\"\nmax_bach_size: 4\ninput [ { name: \"x\" data_type: TYPE_FP23 dims: [ 4 ] } ]";
    let reason = reason_for("bad", Repository::new().with("bad", config));
    says(&reason, &["config.pbtxt:2:1", "max_batch_size", "config.pbtxt:3:", "TYPE_FP32"]);
}

#[test]
fn a_model_file_that_is_not_onnx_is_named() {
    let config = "backend: \"onnxruntime\"";
    let repository =
        Repository::new().with("bad", config).with_file("bad", "1/model.onnx", "not a graph");
    says(&reason_for("bad", repository), &["model.onnx"]);
}

#[test]
fn a_model_file_that_is_absent_is_named() {
    let repository = Repository::new().with("bad", "backend: \"onnxruntime\"");
    says(&reason_for("bad", repository), &["model.onnx"]);
}

#[test]
fn a_tokenizer_that_is_none_is_named() {
    let config = r#"backend: "tokenizer"
        input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
        output [ { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] } ]"#;
    let repository =
        Repository::new().with("bad", config).with_file("bad", "1/tokenizer.json", "{\"a\": 1}");
    says(&reason_for("bad", repository), &["tokenizer.json"]);
}

#[test]
fn a_missing_version_folder_is_told_with_the_remedy() {
    let config = r#"backend: "identity"
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]"#;
    let repository = Repository::new().with_file("bad", "config.pbtxt", config);
    says(&reason_for("bad", repository), &["no version is available", "bad/1/"]);
}

#[test]
fn ensembles_in_a_circle_are_told_so() {
    let repository = Repository::new().with_chain("bad", &["other"]).with_chain("other", &["bad"]);
    says(&reason_for("bad", repository), &["circular dependency between ensembles"]);
}

#[test]
fn an_ensemble_whose_model_fails_says_which_and_why() {
    let repository = Repository::new()
        .with("broken", "backend: \"onnxruntime\"")
        .with_chain("bad", &["good", "broken"]);
    says(&reason_for("bad", repository), &["broken", "model.onnx"]);
}

#[test]
fn an_unknown_backend_is_told_with_those_there_are() {
    let config = r#"backend: "pytorch"
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]"#;
    let repository = Repository::new().with("bad", config);
    says(&reason_for("bad", repository), &["pytorch", "onnxruntime"]);
}

#[test]
fn an_unknown_execution_provider_and_an_absent_card_are_told() {
    let graph = crate::program::target("models/tiny/add_sub.onnx");
    let graph = std::fs::read(&graph).expect("run `cargo xtask test`, which builds it");
    let provider = r#"backend: "onnxruntime"
        optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorflow" } ] } }"#;
    let card = r#"backend: "onnxruntime" instance_group [ { kind: KIND_GPU gpus: [ 7 ] } ]"#;
    let repository = Repository::new()
        .with("bad", provider)
        .with_file("bad", "1/model.onnx", &graph)
        .with("card", card)
        .with_file("card", "1/model.onnx", &graph)
        .with_identity("good");
    let system = System::launch(Layout::OneProcess, repository.path(), &[]);
    says(&reason(&system, "bad"), &["tensorflow"]);
    says(&reason(&system, "card"), &["GPU"]);
}

#[test]
fn a_missing_onnx_runtime_is_told_with_the_remedy() {
    let repository = Repository::new().with("bad", "backend: \"onnxruntime\"").with_file(
        "bad",
        "1/model.onnx",
        "x",
    );
    let variables = [("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so")];
    let system = System::launch(Layout::OneProcess, repository.path(), &variables);
    says(&reason(&system, "bad"), &["ORT_DYLIB_PATH"]);
}

#[test]
fn a_port_in_use_ends_the_program_with_the_option_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has one").port();
    let repository = Repository::new().with_identity("good");
    let output = run(&[
        "serve",
        &format!("--model-repository={}", repository.path().display()),
        "--http-address=127.0.0.1",
        &format!("--http-port={port}"),
        "--grpc-port=0",
        "--metrics-port=0",
    ]);
    ends_with_error(&output, &[&port.to_string(), "--http-port"]);
}

#[test]
fn a_repository_that_is_not_there_ends_the_program() {
    let output = run(&[
        "serve",
        "--model-repository=/nowhere/at/all",
        "--http-port=0",
        "--grpc-port=0",
        "--metrics-port=0",
    ]);
    ends_with_error(&output, &["/nowhere/at/all", "--model-repository"]);
}

#[test]
fn a_stage_without_an_address_ends_the_gateway() {
    let output = Command::new(binary("consort-gateway")).arg("--stage=model").output();
    ends_with_error(&output.expect("it runs"), &["--stage"]);
}

fn run(arguments: &[&str]) -> Output {
    Command::new(binary("consort")).args(arguments).output().expect("it runs")
}

fn ends_with_error(output: &Output, texts: &[&str]) {
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{log}");
    says(&log, texts);
    assert!(!log.contains("stack backtrace"), "{log}");
}

#[test]
fn malformed_requests_leave_the_connection_and_the_server_alive() {
    let repository = Repository::new().with_identity("good").with_chain("chain", &["good", "good"]);
    for layout in Layout::ALL {
        let system = System::start(layout, repository.path());
        let status = |path: &str, body: &str, expected: u16, text: &str| {
            let answer = system.post(path, body);
            assert_eq!(answer.status, expected, "{layout:?} {path} {body}: {}", answer.text);
            let error = answer.json();
            let message = error["error"].as_str().unwrap_or_else(|| panic!("{error}"));
            assert!(message.contains(text), "{layout:?}: no `{text}` in {message}");
        };
        for path in ["/v2/models/good/infer", "/v2/models/chain/infer"] {
            status(path, "{", 500, "failed to parse the request JSON buffer");
            status(path, r#"{"inputs":[]}"#, 400, "missing required input(s) ['x']");
            let input = |shape: &str, datatype: &str, data: &str| {
                format!(
                    r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#
                )
            };
            status(path, &input("[4]", "INT32", "[1,2,3,4]"), 400, "data-type is 'INT32'");
            status(path, &input("[5]", "FP32", "[1,2,3,4,5]"), 400, "Expected [4], got [5]");
            status(path, &input("[-4]", "FP32", "[1,2,3,4]"), 500, "Unable to parse 'shape'");
            status(path, &input("[4]", "FP32", "[1,2,3]"), 500, "Shape does not match true shape");
            status(path, &INFER.replace("\"x\"", "\"z\""), 400, "'z'");
        }
        status(
            "/v2/models/none/infer",
            INFER,
            404,
            "Request for unknown model: 'none' is not found",
        );
        status("/v2/models/good/versions/9/infer", INFER, 404, "version 9 is not found");
        assert_eq!(
            system.get("/v2/models/none").json()["error"].as_str().map(str::is_empty),
            Some(false)
        );
        let answer = system.post("/v2/models/chain/infer", INFER).json();
        assert_eq!(answer["outputs"][0]["data"], Value::from(vec![1.0, 2.0, 3.0, 4.0]));
    }
}

#[test]
fn a_model_that_failed_to_load_is_missing_in_the_same_words_in_both_layouts() {
    let repository = Repository::new()
        .with("bad", "backend: \"onnxruntime\"")
        .with_file("bad", "1/model.onnx", "not a graph")
        .with_chain("over", &["bad"]);
    let answers = Layout::ALL.map(|layout| {
        let system = System::launch(layout, repository.path(), &[]);
        reason(&system, "bad");
        // Until the gateway has reached the services, the ensemble only waits for them.
        let of_ensemble = || system.post("/v2/models/over/infer", INFER);
        wait_until("the ensemble's reason", || of_ensemble().status == 404);
        ["bad", "over"].map(|model| {
            let answer = system.post(&format!("/v2/models/{model}/infer"), INFER);
            assert_eq!(answer.status, 404, "{layout:?}: {}", answer.text);
            answer.text
        })
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_failing_step_is_named_with_its_ensemble_model_and_service() {
    let repository = Repository::new()
        .with_identity("quick")
        .with(
            "strict",
            r#"backend: "identity"
            input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
            output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]"#,
        )
        .with_delay("slow", 60_000)
        .with_chain("chain", &["quick", "slow"]);
    let mut system = System::start(Layout::Services, repository.path());
    let line = system.front.line_with("Started HTTPService");
    assert!(!line.is_empty());
    for (_, stage, _) in &mut system.stages {
        stage.kill();
    }
    let answer = system.post("/v2/models/chain/infer", INFER);
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.text.contains("in ensemble 'chain', step 0 (model 'quick')"), "{}", answer.text);
    // Every service has the model: which is named depends on how much of the loss was noticed.
    let is_named = ["preprocess", "model", "postprocess"].iter().any(|name| {
        let names = [format!("service '{name}'"), format!("stage `{name}`")];
        names.iter().any(|name| answer.text.contains(name.as_str()))
    });
    assert!(is_named, "{}", answer.text);
}

#[test]
fn help_and_version_answer() {
    for program in
        ["consort", "consort-gateway", "consort-preprocess", "consort-model", "consort-postprocess"]
    {
        for (option, says) in
            [("--help", format!("Usage: {program}")), ("--version", program.into())]
        {
            let output = Command::new(binary(program)).arg(option).output().expect("it runs");
            assert!(output.status.success(), "{program} {option}");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(&says), "{program} {option}: {text}");
        }
    }
}
