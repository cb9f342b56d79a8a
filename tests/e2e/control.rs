//! Loading and unloading while the system runs: over HTTP, by tritonclient, across replicas.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use serde_json::{Value, json};

use crate::clients::python;
use crate::program::{Program, checkout};
use crate::repository::{INFER, Repository};
use crate::system::{Answer, Layout, System, post, start_stage, wait_until};

const EXPLICIT: [(&str, &str); 1] = [("CONSORT_MODEL_CONTROL_MODE", "explicit")];

fn load(system: &System, model: &str, body: &str) -> Answer {
    system.post(&format!("/v2/repository/models/{model}/load"), body)
}

fn unload(system: &System, model: &str, body: &str) -> Answer {
    system.post(&format!("/v2/repository/models/{model}/unload"), body)
}

/// Asserts an answer's status and that its text holds `part`.
#[track_caller]
fn assert_answer(answer: &Answer, status: u16, part: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert!(answer.text.contains(part), "{}", answer.text);
}

fn infer(system: &System, model: &str) -> Answer {
    system.post(&format!("/v2/models/{model}/infer"), INFER)
}

/// The rows of the index about `model`, each as its state and its reason.
fn rows(system: &System, model: &str) -> Vec<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let index = system.index();
    let rows = index.as_array().expect("the index is a list").iter();
    rows.filter(|row| row["name"] == model)
        .map(|row| (text(row, "state"), text(row, "reason")))
        .collect()
}

fn chain() -> Repository {
    Repository::new()
        .with_identity("first")
        .with_identity("second")
        .with_identity("other")
        .with_chain("chain", &["first", "second"])
}

/// Waits until the services of a gateway have said which models they have.
fn launch(layout: Layout, repository: &Repository) -> System {
    let system = System::launch(layout, repository.path(), &EXPLICIT);
    system.wait_until_ready();
    system
}

#[test]
fn an_ensemble_is_loaded_with_its_steps_and_unloaded_with_them() {
    for layout in Layout::ALL {
        let repository = chain();
        let system = launch(layout, &repository);
        assert_eq!(rows(&system, "chain"), [(String::new(), String::new())], "{layout:?}");
        assert_answer(&infer(&system, "chain"), 404, "has no available versions");
        assert_answer(&load(&system, "chain", ""), 200, "");
        assert_answer(&infer(&system, "chain"), 200, "\"y\"");
        assert_eq!(rows(&system, "other"), [(String::new(), String::new())]);

        assert_answer(&unload(&system, "second", "{}"), 200, "");
        let (state, reason) = rows(&system, "chain").remove(0);
        assert_eq!(state, "UNAVAILABLE", "{layout:?}");
        assert!(reason.contains("depends on 'second'"), "{layout:?}: {reason}");
        assert_answer(&load(&system, "second", "{}"), 200, "");
        assert_answer(&infer(&system, "chain"), 200, "\"y\"");

        let all = r#"{"parameters":{"unload_dependents":true}}"#;
        assert_answer(&unload(&system, "chain", all), 200, "");
        for model in ["chain", "first", "second"] {
            let unloaded = [("UNAVAILABLE".to_owned(), "unloaded".to_owned())];
            assert_eq!(rows(&system, model), unloaded, "{layout:?}: {model}");
        }
        assert_eq!(system.get("/v2/health/ready").status, 200, "{}", system.index());
        assert!(system.metric("nv_inference_count{model=\"chain\"") < 0.5);
    }
}

#[test]
fn an_ensemble_named_at_the_start_brings_the_ensembles_that_it_calls() {
    for layout in Layout::ALL {
        let repository = chain().with_chain("outer", &["chain", "other"]);
        let named = [EXPLICIT[0], ("CONSORT_LOAD_MODEL", "outer")];
        let system = System::launch(layout, repository.path(), &named);
        wait_until("the ensemble", || infer(&system, "outer").status == 200);
        assert_answer(&infer(&system, "chain"), 200, "\"y\"");
    }
}

#[test]
fn an_ensemble_whose_reload_fails_keeps_serving_and_says_why() {
    for layout in Layout::ALL {
        let repository = chain();
        let system = launch(layout, &repository);
        assert_answer(&load(&system, "chain", ""), 200, "");
        let repository = repository.with_chain("chain", &["first", "none"]);
        let failed = load(&system, "chain", "");
        assert_answer(&failed, 400, "load failed for model 'chain': ");
        assert_answer(&failed, 400, "failed to load 'none'");
        assert_answer(&infer(&system, "chain"), 200, "\"y\"");
        let (state, reason) = rows(&system, "chain").remove(0);
        assert_eq!(state, "READY", "{layout:?}");
        assert!(reason.contains("depends on 'none'"), "{layout:?}: {reason}");
        let _repository = repository.with_chain("chain", &["second", "other"]);
        assert_answer(&load(&system, "chain", ""), 200, "");
        assert_eq!(rows(&system, "chain"), [("READY".to_owned(), String::new())]);
    }
}

#[test]
fn the_index_says_why_the_last_change_of_a_model_failed() {
    let refused = [
        (r#"{"backend":"identity","max_batchsize":1}"#, "max_batchsize"),
        ("{", "not valid JSON"),
        (r#"{"name":"other","backend":"identity"}"#, "directory name must equal"),
        (r#"{"backend":"identity","max_batch_size":-1}"#, "'max_batch_size' must be"),
        ("{", "not valid JSON"),
    ];
    for layout in Layout::ALL {
        let repository = chain();
        let system = launch(layout, &repository);
        assert_answer(&load(&system, "chain", ""), 200, "");
        // What could be read and is no ensemble's would be for the services.
        for (model, count) in [("first", refused.len()), ("chain", 3)] {
            for (config, part) in &refused[..count] {
                let body = json!({"parameters": {"config": config}}).to_string();
                let text = format!("failed to load '{model}', failed to poll");
                assert_answer(&load(&system, model, &body), 500, &text);
                let (state, reason) = rows(&system, model).remove(0);
                assert_eq!(state, "READY", "{layout:?}");
                assert!(reason.contains(part), "{layout:?}, {model}: {reason}");
                assert_answer(&infer(&system, model), 200, "\"y\"");
            }
        }
        let (stages, front) = (system.stages, system.front);
        let holder = stages.into_iter().next().map_or(front, |(_, program, _)| program);
        holder.terminate();
        let (_, log) = holder.wait();
        let lines = log.lines().filter(|line| line.contains("'max_batch_size' must be")).count();
        assert_eq!(lines, 1, "{layout:?}: a failure is one line of the log:\n{log}");
    }
}

#[test]
fn a_model_whose_backend_becomes_another_services_is_loaded_there() {
    let config = |backend: &str| {
        format!(
            r#"backend: "{backend}" max_batch_size: 4
            input [ {{ name: "logits" data_type: TYPE_FP32 dims: [ 3 ] }} ]
            output [ {{ name: "scores" data_type: TYPE_FP32 dims: [ 3 ] }} ]"#
        )
    };
    for layout in Layout::ALL {
        let repository = Repository::new().with("m", &config("onnxruntime"));
        let system = launch(layout, &repository);
        assert_answer(&load(&system, "m", ""), 400, "model.onnx");
        let _repository = repository.with("m", &config("classifier"));
        // The services are asked once a second which models they have.
        wait_until("the other service", || load(&system, "m", "").status == 200);
        assert_eq!(rows(&system, "m"), [("READY".to_owned(), String::new())], "{layout:?}");
    }
}

#[test]
fn refusals_are_in_tritons_words() {
    for layout in Layout::ALL {
        let repository = chain();
        let system = launch(layout, &repository);
        let parameter = |key: &str, value: Value| json!({"parameters": {key: value}}).to_string();
        let load = |model: &str, body: &str| load(&system, model, body);
        let unknown = "failed to load 'none', failed to poll from model repository";
        assert_answer(&load("none", ""), 500, unknown);
        let bad = parameter("config", r#"{"backend":"identity","no_such_field":1}"#.into());
        let polled = "failed to load 'first', failed to poll from model repository";
        assert_answer(&load("first", &bad), 500, polled);
        let traversal = "invalid model name '..', model name must not contain path traversal";
        assert_answer(&load("%2e%2e", ""), 400, traversal);
        let alone = parameter("file:1/model.onnx", "AAAA".into());
        assert_answer(&load("first", &alone), 400, "Load parameter 'config' must be specified");
        let odd = parameter("other", "x".into());
        assert_answer(&load("first", &odd), 500, "unexpected error on creating Triton parameter");
        let number = parameter("config", 1.into());
        assert_answer(&load("first", &number), 500, "attempt to access JSON non-string as string");
        assert_eq!(rows(&system, "first"), [(String::new(), String::new())], "{layout:?}");
    }
}

#[test]
fn settings_that_contradict_themselves_are_refused_and_change_nothing() {
    let repository = Repository::new().with_identity("m");
    let limits = [
        EXPLICIT[0],
        ("CONSORT_RATE_LIMIT", "execution_count"),
        ("CONSORT_RATE_LIMIT_RESOURCE", "R:4"),
    ];
    let system = System::launch(Layout::OneProcess, repository.path(), &limits);
    system.wait_until_ready();
    let folder = repository.path().display().to_string();
    python("bad_settings.py", &[&system.http, &system.grpc, &folder]);
}

#[test]
fn changes_are_refused_where_the_mode_is_another() {
    for layout in Layout::ALL {
        let repository = chain();
        let system = System::start(layout, repository.path());
        let text = "explicit model load / unload is not allowed if polling is enabled";
        assert_answer(&load(&system, "first", ""), 503, text);
        assert_answer(&unload(&system, "first", ""), 503, text);
    }
    // A gateway that may, over services that may not.
    let repository = chain();
    let argument = format!("--model-repository={}", repository.path().display());
    let (name, program, address) = start_stage("preprocess", &argument, &[]);
    let stage = format!("--stage={name}=static:///{address}");
    let gateway = Program::start_with("consort-gateway", &[stage, argument], &EXPLICIT);
    let system = System::of(gateway, vec![(name, program, address)]);
    system.wait_until_ready();
    let refusal = load(&system, "first", "");
    assert_answer(&refusal, 503, "service 'preprocess' (");
    assert_answer(&refusal, 503, "polling is enabled");
    assert_answer(&load(&system, "chain", ""), 200, "");
    assert_answer(&infer(&system, "chain"), 200, "\"y\"");
}

#[test]
fn tritonclient_loads_and_unloads() {
    for layout in Layout::ALL {
        let repository = chain();
        let system = launch(layout, &repository);
        let folder = repository.path().display().to_string();
        python("model_control.py", &[&system.http, &system.grpc, &folder]);
    }
}

#[test]
fn no_request_fails_while_models_are_reloaded_and_nothing_is_left_behind() {
    for layout in Layout::ALL {
        let repository = chain();
        let system = launch(layout, &repository);
        assert_answer(&load(&system, "chain", ""), 200, "");
        let holder = system.stages.first().map_or(&system.front, |(_, program, _)| program);
        python("reloads.py", &[&system.http, &system.grpc, "30", &holder.id().to_string()]);
        assert_answer(&infer(&system, "chain"), 200, "\"y\"");
    }
}

#[test]
fn no_request_that_names_no_version_fails_while_the_newest_is_taken_away() {
    let config = |versions: &str| {
        format!(
            r#"backend: "identity"
            input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
            output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
            version_policy {{ {versions} }}"#
        )
    };
    for layout in Layout::ALL {
        let repository = Repository::new()
            .with("m", &config("all {}"))
            .with_file("m", "2/.keep", "")
            .with_chain("chain", &["m"]);
        let system = launch(layout, &repository);
        assert_answer(&load(&system, "chain", ""), 200, "");
        let done = &AtomicBool::new(false);
        thread::scope(|scope| {
            for model in ["m", "chain"] {
                let url = format!("http://{}/v2/models/{model}/infer", system.http);
                scope.spawn(move || {
                    while !done.load(Relaxed) {
                        assert_answer(&post(&url, INFER), 200, "\"y\"");
                    }
                });
            }
            let changes = ["specific { versions: 1 }", "all {}"].repeat(6);
            let answers = changes.into_iter().map(|versions| {
                fs::write(repository.path().join("m/config.pbtxt"), config(versions))
                    .expect("it can be written");
                load(&system, "m", "")
            });
            let answers: Vec<_> = answers.collect();
            done.store(true, Relaxed);
            for answer in answers {
                assert_answer(&answer, 200, "");
            }
        });
    }
}

#[test]
fn a_replica_that_joins_late_or_comes_back_gets_the_same_models() {
    let repository = chain();
    let argument = format!("--model-repository={}", repository.path().display());
    let (name, first, one) = start_stage("preprocess", &argument, &EXPLICIT);
    // The port that the second replica will have.
    let (_, mut second, two) = start_stage("preprocess", &argument, &EXPLICIT);
    second.kill();
    let stage = format!("--stage={name}=static:///{one},{two}");
    let gateway = Program::start_with("consort-gateway", &[stage, argument.clone()], &EXPLICIT);
    let system = System::of(gateway, vec![(name, first, one.clone())]);
    system.wait_until_ready();
    let config = json!({
        "backend": "identity",
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}],
        "parameters": {"mark": {"string_value": "overridden"}}
    });
    let body = json!({"parameters": {"config": config.to_string()}}).to_string();
    assert_answer(&load(&system, "first", &body), 200, "");
    assert_answer(&load(&system, "chain", ""), 200, "");

    let port = format!("--grpc-port={}", two.rsplit(':').next().expect("an address has a port"));
    let start = || {
        let arguments = [argument.clone(), port.clone()];
        let mut program = Program::start_on("consort-preprocess", &arguments, &EXPLICIT);
        program.address("GRPCInferenceService");
        program
    };
    let upstream = || {
        system.metric(&format!(
            r#"consort_upstream_requests{{stage="preprocess",replica="{two}",outcome="success""#
        ))
    };
    let mut joined = start();
    for _ in 0..2 {
        let before = upstream();
        wait_until("the late replica's answers", || {
            assert_answer(&infer(&system, "chain"), 200, "\"y\"");
            assert_answer(&infer(&system, "first"), 200, "\"y\"");
            upstream() >= before + 3.0
        });
        let config = system.get("/v2/models/first/config").text;
        assert!(config.contains("overridden"), "{config}");
        joined.kill();
        wait_until("an answer without it", || infer(&system, "first").status == 200);
        joined = start();
    }
    let before = upstream();
    wait_until("answers of the replica that came back", || {
        assert_answer(&infer(&system, "first"), 200, "\"y\"");
        upstream() > before
    });
    assert_answer(&unload(&system, "first", ""), 200, "");
    assert_answer(&infer(&system, "first"), 404, "has no available versions");
}

#[test]
fn polling_follows_the_files_of_a_running_system() {
    let variables = [("CONSORT_MODEL_CONTROL_MODE", "poll"), ("CONSORT_REPOSITORY_POLL_SECS", "1")];
    for layout in Layout::ALL {
        let repository = Repository::new().with_identity("first");
        let system = System::launch(layout, repository.path(), &variables);
        system.wait_until_ready();
        let repository =
            repository.with_identity("second").with_chain("chain", &["first", "second"]);
        wait_until("the new models", || infer(&system, "chain").status == 200);
        fs::remove_dir_all(repository.path().join("second")).expect("it can be removed");
        wait_until("the loss", || rows(&system, "second").is_empty());
        wait_until("what follows", || infer(&system, "chain").status != 200);
        assert_eq!(infer(&system, "first").status, 200);
    }
}

/// The threads of a program whose names begin with `prefix`.
fn threads(program: &Program, prefix: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", program.id())).expect("it lives").flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

#[test]
fn the_number_of_instances_changes_under_traffic_without_a_reload() {
    let config = |count: u32| {
        format!(
            r#"backend: "identity"
            input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
            output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
            parameters {{ key: "execute_delay_ms" value {{ string_value: "20" }} }}
            model_warmup [ {{ name: "w" batch_size: 1 count: 5
              inputs {{ key: "x" value {{ data_type: TYPE_FP32 dims: [ 4 ] zero_data: true }} }} }} ]
            instance_group [ {{ count: {count} kind: KIND_CPU }} ]"#
        )
    };
    let poll = [("CONSORT_MODEL_CONTROL_MODE", "poll"), ("CONSORT_REPOSITORY_POLL_SECS", "1")];
    for variables in [&EXPLICIT[..], &poll[..]] {
        let repository = Repository::new().with("slow", &config(1));
        let system = System::launch(Layout::OneProcess, repository.path(), variables);
        system.wait_until_ready();
        let is_explicit = variables.len() == 1;
        if is_explicit {
            assert_answer(&load(&system, "slow", ""), 200, "");
        }
        let took = system.metric("nv_model_load_duration_secs{model=\"slow\"");
        let (done, url) =
            (&AtomicBool::new(false), &format!("http://{}/v2/models/slow/infer", system.http));
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        assert_answer(&post(url, INFER), 200, "\"y\"");
                    }
                });
            }
            for count in [3, 1, 2] {
                let path = repository.path().join("slow/config.pbtxt");
                fs::write(path, config(count)).expect("it can be written");
                if is_explicit {
                    assert_answer(&load(&system, "slow", ""), 200, "");
                }
                wait_until("the instances", || {
                    let shown = system.metric("consort_model_instances{model=\"slow\"");
                    (shown - f64::from(count)).abs() < 0.5
                        && threads(&system.front, "slow_") == count as usize
                });
                assert_eq!(rows(&system, "slow"), [("READY".to_owned(), String::new())]);
            }
            done.store(true, Relaxed);
        });
        let failed = system.metric("nv_inference_request_failure{model=\"slow\"");
        assert!(failed.abs() < 0.5, "{failed} requests failed");
        let now = system.metric("nv_model_load_duration_secs{model=\"slow\"");
        assert!((now - took).abs() < f64::EPSILON, "the model was loaded again");
        let shown = system.get("/v2/models/slow/config").json();
        assert_eq!(shown["instance_group"][0]["count"], 2);
    }
}

#[test]
fn instances_share_the_cores_anew_when_their_number_changes() {
    let cores = thread::available_parallelism().expect("it is known").get();
    let config = |count: usize| {
        format!(
            r#"backend: "onnxruntime" max_batch_size: 8
            instance_group [ {{ count: {count} kind: KIND_CPU }} ]"#
        )
    };
    let graph = fs::read(checkout().join("crates/model/tests/graphs/add_sub.onnx"));
    let repository = Repository::new().with("m", &config(1));
    let repository = repository.with_file("m", "1/model.onnx", graph.expect("it is there"));
    let named = [EXPLICIT[0], ("CONSORT_LOAD_MODEL", "m")];
    let system = System::launch(Layout::OneProcess, repository.path(), &named);
    system.wait_until_ready();
    // The runtime has threads of its own, which the first load starts.
    let mut helpers_of_one = usize::MAX;
    wait_until("the end of the first load", || {
        let before = std::mem::replace(&mut helpers_of_one, threads(&system.front, "load"));
        before == helpers_of_one
    });
    let of_the_runtime = helpers_of_one + 1 - cores;
    for count in [1, 2, cores + 1, 1] {
        fs::write(repository.path().join("m/config.pbtxt"), config(count)).expect("it is written");
        assert_answer(&load(&system, "m", ""), 200, "");
        let share = (cores / count).max(1);
        let wide = usize::from(count > 1 && share < cores);
        // The threads of a session are named after the one that opens it, which is one of them.
        let helpers = count * (share - 1) + wide * (cores - 1);
        wait_until(&format!("{count} instances of {share} threads"), || {
            threads(&system.front, "m_") == count + wide
                && threads(&system.front, "load") == of_the_runtime + helpers
        });
    }
}

#[test]
fn a_program_that_must_load_everything_ends_when_it_cannot() {
    let repository = Repository::new().with_identity("good").with("bad", "backend: \"nobody\"");
    let argument = format!("--model-repository={}", repository.path().display());
    let program = Program::start("consort", &["serve", &argument, "--exit-on-error=true"]);
    let (status, log) = program.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("models cannot be loaded at the start") && log.contains("bad"), "{log}");
}

#[test]
fn the_log_tells_what_became_of_each_model_and_which_settings_have_no_effect() {
    let chain =
        format!("{}\nresponse_cache {{ enable: true }}", Repository::chain(&["first", "first"]));
    let batching = r#"backend: "identity"
        max_batch_size: 4
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
        dynamic_batching { max_queue_delay_microseconds: 100 }"#;
    let repository =
        Repository::new().with_identity("first").with("inline", batching).with("cached", &chain);
    let poll = [("CONSORT_MODEL_CONTROL_MODE", "poll"), ("CONSORT_REPOSITORY_POLL_SECS", "1")];
    let system = System::launch(Layout::OneProcess, repository.path(), &poll);
    system.wait_until_ready();
    let repository = repository.with_identity("second");
    wait_until("the new model", || infer(&system, "second").status == 200);
    let repository = repository.with_delay("second", 1);
    wait_until("the reload", || {
        system.get("/v2/models/second/config").text.contains("execute_delay_ms")
    });
    fs::remove_dir_all(repository.path().join("second")).expect("it can be removed");
    wait_until("the loss", || rows(&system, "second").is_empty());
    system.front.terminate();
    let (_, log) = system.front.wait();
    let lines = |parts: &[&str]| {
        log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    };
    for what in [" loaded", "reloaded", "unloaded"] {
        assert_eq!(lines(&[what, "second"]), 1, "{what}:\n{log}");
    }
    assert_eq!(lines(&["WARN", "inline/config.pbtxt:5:9", "`dynamic_batching` has no effect"]), 1);
    assert_eq!(lines(&["WARN", "cached", "`response_cache` has no effect"]), 1, "{log}");
    let listening = log.find("Started HTTPService").expect("it says so");
    let ready = log.find("models are ready").expect("it says so");
    assert!(listening < ready, "{log}");
}
