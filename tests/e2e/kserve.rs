//! Servers of the KServe v2 protocol without Triton's extensions as the services of steps.

use serde_json::{Value, json};

use crate::program::Program;
use crate::python::Server;
use crate::repository::Repository;
use crate::system::{Answer, System, wait_until};

/// A server of the model `scale` in these versions.
fn serve(versions: &[&str]) -> Server {
    Server::start("kserve_server.py", versions)
}

/// An ensemble that calls two versions of `scale`, one after the other; -1 is the newest.
fn twice(versions: [i64; 2]) -> String {
    let step = |version: i64, from: &str, to: &str| {
        format!(
            r#"{{ model_name: "scale" model_version: {version}
               input_map {{ key: "x" value: "{from}" }} output_map {{ key: "y" value: "{to}" }} }}"#
        )
    };
    format!(
        r#"platform: "ensemble" max_batch_size: 8
        input [ {{ name: "in" data_type: TYPE_FP32 dims: [ 4 ] }} ]
        output [ {{ name: "out" data_type: TYPE_FP32 dims: [ 4 ] }} ]
        ensemble_scheduling {{ step [ {}, {} ] }}"#,
        step(versions[0], "in", "t"),
        step(versions[1], "t", "out")
    )
}

fn gateway(server: &Server, repository: &Repository, mode: &str) -> System {
    gateway_with(server, repository, &[&format!("--model-control-mode={mode}")])
}

fn gateway_with(server: &Server, repository: &Repository, more: &[&str]) -> System {
    let mut options = vec![
        format!("--stage=scaling={}", server.address),
        format!("--model-repository={}", repository.path().display()),
    ];
    options.extend(more.iter().map(|&option| option.to_owned()));
    System::of(Program::start("consort-gateway", &options), Vec::new())
}

fn infer(system: &System, model: &str, first: f32) -> Answer {
    let input = json!({
        "name": "in", "datatype": "FP32", "shape": [2, 4], "data": [first, 2, 3, 4, 5, 6, 7, 8],
    });
    system.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": [input]}).to_string())
}

#[test]
fn a_server_that_can_only_be_asked_by_name_serves_the_steps_that_name_its_model() {
    let server = serve(&[]);
    let repository = Repository::new()
        .with("twice", &twice([-1, 1]))
        .with("other", &twice([-1, 7]))
        .with("none", &twice([-1, -1]).replace("scale", "none"));
    let system = gateway(&server, &repository, "none");
    wait_until("the model", || infer(&system, "twice", 1.0).status == 200);
    let answer = infer(&system, "twice", 1.0).json();
    let expected: Vec<f64> = (1..=8).map(|value| f64::from(value) * 100.0).collect();
    assert_eq!(answer["outputs"][0]["data"], json!(expected));
    assert_eq!(answer["outputs"][0]["shape"], json!([2, 4]));
    let refused = infer(&system, "twice", -1.0);
    assert_eq!(refused.status, 400, "{}", refused.text);
    let text = format!(
        "in ensemble 'twice', step 0 (model 'scale'): service 'scaling' ({}): x must not be negative",
        server.address
    );
    assert!(refused.text.contains(&text), "{}", refused.text);
    // The only version that there is has the number 1 here.
    let answer = infer(&system, "other", 1.0);
    assert_eq!(answer.status, 404, "{}", answer.text);
    assert!(answer.text.contains("required version 7"), "{}", answer.text);
    let answer = infer(&system, "none", 1.0);
    assert_eq!(answer.status, 404, "{}", answer.text);
    drop(server);
    let mut status = 0;
    wait_until("the loss to be noticed", || {
        let answer = infer(&system, "twice", 1.0);
        status = answer.status;
        answer.text.contains("no ready replica of stage `scaling`")
    });
    assert_eq!(status, 503);
}

#[test]
fn the_versions_that_its_metadata_lists_can_be_asked_for() {
    let server = serve(&["2", "3"]);
    let repository = Repository::new().with("twice", &twice([2, -1]));
    let system = gateway(&server, &repository, "none");
    system.wait_until_ready();
    let answer = infer(&system, "twice", 1.0).json();
    assert_eq!(answer["outputs"][0]["data"][0], json!(6.0), "{answer}");
    let index = system.index();
    let rows = index.as_array().expect("the index is a list").iter();
    let versions: Vec<&Value> =
        rows.filter(|row| row["name"] == "scale").map(|row| &row["version"]).collect();
    assert_eq!(versions, ["2", "3"]);
}

#[test]
fn what_a_caller_loads_is_asked_for_before_it_is_decided_whether_it_is_there() {
    let server = serve(&[]);
    let repository = Repository::new()
        .with("twice", &twice([-1, 1]))
        .with("lacking", &twice([-1, -1]).replace("scale", "none"));
    let system = gateway(&server, &repository, "explicit");
    system.wait_until_ready();
    let change = |model: &str, what: &str| {
        system.post(&format!("/v2/repository/models/{model}/{what}"), "{}")
    };
    assert_eq!(infer(&system, "twice", 1.0).status, 404);
    let loaded = change("twice", "load");
    assert_eq!(loaded.status, 200, "{}", loaded.text);
    let answer = infer(&system, "twice", 1.0);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let refused = change("lacking", "load");
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("failed to load 'none', failed to poll"), "{}", refused.text);

    // It is there without its ensemble, too, once somebody has loaded it, and cannot be unloaded.
    assert_eq!(change("twice", "unload").status, 200);
    assert_eq!(change("scale", "load").status, 200);
    assert_eq!(infer_scale(&system).status, 200);
    let refused = change("scale", "unload");
    assert_eq!(refused.status, 501, "{}", refused.text);
    assert!(refused.text.contains("service 'scaling' ("), "{}", refused.text);
    assert_eq!(infer_scale(&system).status, 200);
}

#[test]
fn a_model_in_no_ensemble_is_asked_for_where_the_gateway_is_told_its_name() {
    let server = serve(&[]);
    let foreign = r#"backend: "kserve""#;
    let repository = Repository::new().with("scale", foreign).with("none", foreign);
    let system = gateway(&server, &repository, "none");
    wait_until("the model", || infer_scale(&system).status == 200);
    let index = system.index();
    let row = |name: &str| {
        let mut rows = index.as_array().expect("the index is a list").iter();
        rows.find(|row| row["name"] == name).expect("it is listed").clone()
    };
    assert_eq!(row("scale")["state"], "READY", "{index}");
    assert_eq!(row("none")["state"], "UNAVAILABLE", "{index}");

    let nothing = Repository::new();
    let named = ["--model-control-mode=explicit", "--load-model=scale"];
    let system = gateway_with(&server, &nothing, &named);
    wait_until("the model", || infer_scale(&system).status == 200);
    let system = gateway(&server, &nothing, "none");
    system.wait_until_ready();
    assert_eq!(infer_scale(&system).status, 404, "a caller's word alone asks nobody");
}

fn infer_scale(system: &System) -> Answer {
    let x = json!({"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]});
    system.post("/v2/models/scale/infer", &json!({"inputs": [x]}).to_string())
}
