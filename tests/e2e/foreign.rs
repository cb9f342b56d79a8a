//! Models whose backend nobody has: one process and a gateway over services say the same of them.

use std::fs;

use serde_json::Value;

use crate::repository::{INFER, Repository};
use crate::system::{Layout, System, wait_until};

/// A model of Triton's Python backend.
const PYTHON: &str = r#"backend: "python"
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]"#;

/// The same, which readiness does not wait for.
fn optional() -> String {
    format!(r#"{PYTHON} parameters {{ key: "optional" value {{ string_value: "true" }} }}"#)
}

fn repository() -> Repository {
    Repository::new()
        .with_identity("first")
        .with("py", PYTHON)
        .with("plan", "platform: \"tensorrt_plan\"")
        .with_chain("chain", &["first", "py"])
}

/// The one row of the index about `model`, but for its name.
fn row(system: &System, model: &str) -> Option<[String; 3]> {
    let index = system.index();
    let mut rows = index.as_array().expect("the index is a list").iter();
    let row = rows.find(|row| row["name"] == model)?;
    let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(["version", "state", "reason"].map(text))
}

/// Asserts what is asked for at a path answers with this status and a text that holds `parts`.
#[track_caller]
fn assert_post(system: &System, path: &str, body: &str, status: u16, parts: &[&str]) {
    let answer = system.post(path, body);
    assert_eq!(answer.status, status, "{}", answer.text);
    for part in parts {
        assert!(answer.text.contains(part), "{part} is not in {}", answer.text);
    }
}

/// Waits until the row of `model` is in this state for a reason that holds `part`.
fn wait_for(system: &System, model: &str, state: &str, part: &str) {
    wait_until(&format!("{model} to be {state} for {part}"), || {
        row(system, model).is_some_and(|[version, is, why]| {
            version.is_empty() && is == state && why.contains(part)
        })
    });
}

#[test]
fn a_model_whose_backend_nobody_has_is_listed_and_refused_with_the_reason() {
    for layout in Layout::ALL {
        let repository = repository();
        let system = System::launch(layout, repository.path(), &[]);
        wait_for(&system, "py", "UNAVAILABLE", "backend `python`");
        wait_for(&system, "plan", "UNAVAILABLE", "backend `tensorrt`");
        wait_until("the other model", || {
            system.post("/v2/models/first/infer", INFER).status == 200
        });
        let why = "'py' has no available versions (";
        assert_post(&system, "/v2/models/py/infer", INFER, 404, &[why, "backend `python`"]);
        let unknown = "Request for unknown model: 'py' version 3 is not found";
        assert_post(&system, "/v2/models/py/versions/3/infer", INFER, 404, &[unknown]);
        let whole = "ensemble 'chain' depends on 'py' which has no loaded version. Model 'py' \
                     loading failed with error: Request for unknown model: 'py' has no available \
                     versions (";
        assert_post(&system, "/v2/models/chain/infer", INFER, 404, &[whole, "backend `python`"]);
        assert_eq!(system.get("/v2/models/py/ready").status, 400, "{layout:?}");
        assert_ne!(system.get("/v2/health/ready").status, 200, "{layout:?}");
    }
}

#[test]
fn readiness_does_not_wait_for_an_optional_model_whose_backend_nobody_has() {
    for layout in Layout::ALL {
        let repository = Repository::new().with_identity("first").with("py", &optional());
        let system = System::start(layout, repository.path());
        wait_for(&system, "py", "UNAVAILABLE", "backend `python`");
    }
}

#[test]
fn loading_a_model_whose_backend_nobody_has_fails_with_the_reason() {
    let explicit = [("CONSORT_MODEL_CONTROL_MODE", "explicit")];
    for layout in Layout::ALL {
        let repository = repository();
        let system = System::launch(layout, repository.path(), &explicit);
        system.wait_until_ready();
        wait_for(&system, "py", "", "");
        let change = |model: &str, what: &str| format!("/v2/repository/models/{model}/{what}");
        let failed = ["load failed for model 'py': ", "backend `python`"];
        assert_post(&system, &change("py", "load"), "", 400, &failed);
        wait_for(&system, "py", "UNAVAILABLE", "backend `python`");
        assert_ne!(system.get("/v2/health/ready").status, 200, "{layout:?}");
        assert_post(&system, &change("py", "unload"), "", 200, &[]);
        wait_for(&system, "py", "UNAVAILABLE", "unloaded");
        let failed =
            ["load failed for model 'chain': load failed for model 'py': ", "backend `python`"];
        assert_post(&system, &change("chain", "load"), "", 400, &failed);
        assert_post(&system, &change("plan", "unload"), "", 200, &[]);
        assert_eq!(row(&system, "plan").expect("it is listed")[1], "", "{layout:?}");
    }
}

#[test]
fn polling_sees_a_model_come_whose_backend_nobody_has_and_change_and_go() {
    let poll = [("CONSORT_MODEL_CONTROL_MODE", "poll"), ("CONSORT_REPOSITORY_POLL_SECS", "1")];
    for layout in Layout::ALL {
        let repository = Repository::new().with_identity("first");
        let system = System::launch(layout, repository.path(), &poll);
        system.wait_until_ready();
        let repository = repository.with("py", PYTHON).with("old", PYTHON);
        wait_for(&system, "py", "UNAVAILABLE", "backend `python`");
        wait_for(&system, "old", "UNAVAILABLE", "backend `python`");
        let repository = repository.with_identity("py");
        wait_until("the other backend", || system.post("/v2/models/py/infer", INFER).status == 200);
        fs::remove_dir_all(repository.path().join("old")).expect("it can be removed");
        wait_until("the loss", || row(&system, "old").is_none());
        wait_until("readiness", || system.get("/v2/health/ready").status == 200);
    }
}

#[test]
fn polling_keeps_a_model_whose_backend_has_become_one_that_nobody_has() {
    let poll = [("CONSORT_MODEL_CONTROL_MODE", "poll"), ("CONSORT_REPOSITORY_POLL_SECS", "1")];
    for layout in Layout::ALL {
        let repository = Repository::new().with_identity("py");
        let system = System::launch(layout, repository.path(), &poll);
        system.wait_until_ready();
        let wait_for_note = |part: &str| {
            wait_until(&format!("{part:?} beside READY"), || {
                row(&system, "py").is_some_and(|[_, state, reason]| {
                    state == "READY"
                        && reason.contains(part)
                        && reason.is_empty() == part.is_empty()
                })
            });
        };
        let repository = repository.with("py", PYTHON);
        wait_for_note("backend `python` of model `py` is not one of this service's: ");
        assert_post(&system, "/v2/models/py/infer", INFER, 200, &[]);
        assert_eq!(system.get("/v2/health/ready").status, 200, "{layout:?}");
        let _repository = repository.with_identity("py");
        wait_for_note("");
        assert_post(&system, "/v2/models/py/infer", INFER, 200, &[]);
    }
}

#[test]
fn a_model_that_is_named_to_be_loaded_and_is_nowhere_is_listed_with_the_reason() {
    let named =
        [("CONSORT_MODEL_CONTROL_MODE", "explicit"), ("CONSORT_LOAD_MODEL", "first,nowhere")];
    for layout in Layout::ALL {
        let repository = Repository::new().with_identity("first");
        let system = System::launch(layout, repository.path(), &named);
        let why = "failed to load 'nowhere', failed to poll from model repository";
        wait_for(&system, "nowhere", "UNAVAILABLE", why);
        wait_until("the other model", || {
            system.post("/v2/models/first/infer", INFER).status == 200
        });
        let answer = ["'nowhere' has no available versions (", why];
        assert_post(&system, "/v2/models/nowhere/infer", INFER, 404, &answer);
        assert_ne!(system.get("/v2/health/ready").status, 200, "{layout:?}");
        let load = "/v2/repository/models/nowhere/load";
        assert_post(&system, load, "", 500, &[why]);
    }
}
