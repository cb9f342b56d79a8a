//! Warming up: what runs on the instances of a model before it is called ready.

use crate::repository::{INFER, Repository};
use crate::system::{Layout, System};

/// An identity model of FP32[4] that takes 20 ms, with more of a configuration.
fn slow(more: &str) -> String {
    format!(
        r#"backend: "identity"
        input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
        output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
        parameters {{ key: "execute_delay_ms" value {{ string_value: "20" }} }}
        {more}"#
    )
}

fn warm_up(data: &str) -> String {
    slow(&format!(
        r#"instance_group [ {{ count: 2 kind: KIND_CPU }} ]
        model_warmup [ {{ name: "first" batch_size: 1 count: 5
          inputs {{ key: "x" value {{ data_type: TYPE_FP32 dims: [ 4 ] {data} }} }} }} ]"#
    ))
}

#[test]
fn a_model_is_ready_once_every_instance_has_run_its_warm_up() {
    let repository = Repository::new()
        .with("file", &warm_up(r#"input_data_file: "x.bin""#))
        .with_file("file", "warmup/x.bin", [0; 16])
        .with("random", &warm_up("random_data: true"));
    let system = System::start(Layout::OneProcess, repository.path());
    for model in ["file", "random"] {
        let loading = format!(r#"nv_model_load_duration_secs{{model="{model}""#);
        // Five times 20 ms on two instances.
        assert!(system.metric(&loading) >= 0.2);
        let executions = format!(r#"nv_inference_exec_count{{model="{model}""#);
        assert!(system.metric(&executions).abs() < 0.5, "warming up is not counted");
        let answer = system.post(&format!("/v2/models/{model}/infer"), INFER);
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[test]
fn a_warm_up_that_fails_keeps_its_model_from_being_served() {
    let repository = Repository::new()
        .with_identity("other")
        .with("short", &warm_up(r#"input_data_file: "x.bin""#))
        .with_file("short", "warmup/x.bin", [0; 15])
        .with("absent", &warm_up(r#"input_data_file: "no.bin""#));
    let lenient = [("CONSORT_STRICT_READINESS", "false")];
    let system = System::launch(Layout::OneProcess, repository.path(), &lenient);
    system.wait_until_ready();
    let index = system.index();
    let reason = |model: &str| {
        let rows = index.as_array().expect("the index is a list");
        let row = rows.iter().find(|row| row["name"] == model);
        row.and_then(|row| row["reason"].as_str()).expect("it says why").to_owned()
    };
    for (model, text) in [
        ("short", "expects 16 bytes, but the data provided from x.bin only has 15 bytes"),
        ("absent", "in warmup sample 'first': input 'x': `warmup/no.bin` cannot be read"),
    ] {
        assert!(reason(model).contains(text), "{}", reason(model));
    }
    assert_eq!(system.post("/v2/models/other/infer", INFER).status, 200);
}
