//! Warming up, rate limiting and caching: what stands between a request and an instance.

use std::thread;
use std::time::{Duration, Instant};

use crate::repository::{INFER, Repository};
use crate::system::{Layout, System, metric, post, wait_until};

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

/// A model that takes 200 ms and needs `count` of the resource `R`.
fn limited(count: u32) -> String {
    slow(&format!(
        r#"instance_group [ {{ count: 2 kind: KIND_CPU
          rate_limiter {{ resources [ {{ name: "R" global: true count: {count} }} ] }} }} ]"#
    ))
    .replace(r#""20""#, r#""200""#)
}

#[test]
fn models_that_need_the_same_resource_run_one_after_another() {
    let repository = Repository::new().with("one", &limited(3)).with("two", &limited(2));
    let limits =
        [("CONSORT_RATE_LIMIT", "execution_count"), ("CONSORT_RATE_LIMIT_RESOURCE", "R:4")];
    let system = System::launch(Layout::OneProcess, repository.path(), &limits);
    system.wait_until_ready();
    let begun_at = Instant::now();
    thread::scope(|scope| {
        for model in ["one", "two", "one", "two"] {
            let url = format!("http://{}/v2/models/{model}/infer", system.http);
            scope.spawn(move || {
                let answer = post(&url, INFER);
                assert_eq!(answer.status, 200, "{}", answer.text);
            });
        }
    });
    // The wait for the resource is a wait in the queue: 200 and 400 ms of the four, and at least as
    // much again while the instances are taken.
    let waited = system.metric("nv_inference_queue_duration_us");
    let worked = system.metric("nv_inference_compute_infer_duration_us");
    assert!(waited >= 500e3 && worked < 1400e3, "waited {waited} µs, worked {worked} µs");
    // Two of `two` fit side by side and nothing else does: at least three runs in a row.
    assert!(begun_at.elapsed() >= Duration::from_millis(600), "{:?}", begun_at.elapsed());
}

#[test]
fn a_server_stops_while_instances_wait_for_a_resource() {
    let repository = Repository::new().with("one", &limited(1)).with("two", &limited(1));
    let limits = [("CONSORT_RATE_LIMIT", "execution_count")];
    let system = System::launch(Layout::OneProcess, repository.path(), &limits);
    system.wait_until_ready();
    let http = system.http.clone();
    let ask = |model: &'static str| {
        let url = format!("http://{http}/v2/models/{model}/infer");
        thread::spawn(move || post(&url, INFER))
    };
    let askers = ["one", "two", "one"].map(ask);
    wait_until("two requests that wait", || {
        system.metric("nv_inference_pending_request_count") >= 2.0
    });
    system.front.terminate();
    for asker in askers {
        assert_eq!(asker.join().expect("the asker lives").status, 200);
    }
    assert_eq!(system.front.wait().0.code(), Some(0));
}

#[test]
fn a_model_that_needs_more_of_a_resource_than_there_is_is_not_served() {
    let repository = Repository::new().with("large", &limited(6)).with_identity("other");
    let limits = [
        ("CONSORT_RATE_LIMIT", "execution_count"),
        ("CONSORT_RATE_LIMIT_RESOURCE", "R:5"),
        ("CONSORT_STRICT_READINESS", "false"),
    ];
    let system = System::launch(Layout::OneProcess, repository.path(), &limits);
    system.wait_until_ready();
    let index = system.index().to_string();
    let text = "is limited to 5 which will prevent scheduling of one or more model instances, the \
                minimum required count is 6";
    assert!(index.contains(text), "{index}");
    // Without the option the same configuration has no effect.
    let system = System::start(Layout::OneProcess, repository.path());
    assert_eq!(system.post("/v2/models/large/infer", INFER).status, 200);
}

#[test]
fn a_model_whose_instances_are_all_passive_is_loaded_and_answers_nobody() {
    let passive = slow("instance_group [ { count: 1 kind: KIND_CPU passive: true } ]");
    let repository = Repository::new().with("passive", &passive);
    let system = System::start(Layout::OneProcess, repository.path());
    let answer = system.post("/v2/models/passive/infer", INFER);
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.text.contains("no instance"), "{}", answer.text);
}

/// The sum of a metric over every process of a system.
fn counted(system: &mut System, metric_prefix: &str) -> f64 {
    let services = system.stages.iter_mut();
    let services = services.map(|(_, program, _)| program.address("Metrics Service"));
    let addresses: Vec<String> = services.chain([system.metrics.clone()]).collect();
    addresses.iter().map(|address| metric(address, metric_prefix)).sum()
}

#[test]
fn equal_requests_run_once_for_models_and_for_ensembles() {
    let caching = "response_cache { enable: true }";
    let repository = Repository::new().with("leaf", &slow(caching)).with_identity("plain");
    let chain = Repository::chain(&["plain", "leaf", "plain"]);
    let repository = repository.with("chain", &format!("{chain}\n{caching}"));
    for layout in Layout::ALL {
        let cache = [("CONSORT_CACHE_CONFIG", "local,size=1048576")];
        let mut system = System::launch(layout, repository.path(), &cache);
        system.wait_until_ready();
        for _ in 0..3 {
            let answer = system.post("/v2/models/chain/infer", INFER);
            assert_eq!(answer.status, 200, "{layout:?}: {}", answer.text);
            assert!(answer.text.contains("[1.0,2.0,3.0,4.0]"), "{}", answer.text);
        }
        let of = |what: &str, model: &str| format!(r#"{what}{{model="{model}""#);
        for (metric, model, expected) in [
            ("nv_cache_num_hits_per_model", "chain", 2.0),
            ("nv_cache_num_misses_per_model", "chain", 1.0),
            ("nv_inference_request_success", "chain", 3.0),
            ("nv_inference_exec_count", "chain", 1.0),
            ("nv_inference_exec_count", "leaf", 1.0),
            ("nv_cache_num_misses_per_model", "leaf", 1.0),
        ] {
            let value = counted(&mut system, &of(metric, model));
            assert!((value - expected).abs() < 0.5, "{layout:?} {metric} {model}: {value}");
        }
        let statistics = system.get("/v2/models/chain/stats").json();
        let statistics = &statistics["model_stats"][0]["inference_stats"];
        assert_eq!(statistics["cache_hit"]["count"], 2, "{layout:?}: {statistics}");
        assert_eq!(statistics["success"]["count"], 3, "{layout:?}: {statistics}");
    }
}
