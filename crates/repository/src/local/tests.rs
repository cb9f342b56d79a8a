//! Tests of loading, reloading and unloading over backends that load when the test lets them.

mod instances;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Weak};
use std::time::Duration;

use consort_scheduler::{Limiter, Threads};
use consort_stage::{Batch, InlineBackend, Request, Tensor, collect_one};
use consort_telemetry::Metrics;
use futures::FutureExt;
use parking_lot::Condvar;
use tempfile::TempDir;

use super::*;
use crate::control::AtStart;
use crate::kind::{Backend, Instance, Kind, Told, VersionFiles};

/// What the loads of one repository wait for, and what they have loaded.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    /// The loads that have come to the gate.
    arrived: usize,
    /// The backends that were loaded.
    loaded: Vec<Weak<Constant>>,
}

static GATES: LazyLock<Mutex<BTreeMap<PathBuf, Arc<Gate>>>> = LazyLock::new(Mutex::default);

impl Gate {
    fn pass(&self, loaded: &Arc<Constant>) {
        let mut state = self.state.lock();
        state.arrived += 1;
        state.loaded.push(Arc::downgrade(loaded));
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.is_closed);
    }

    fn close(&self) {
        self.state.lock().is_closed = true;
    }

    fn open(&self) {
        self.state.lock().is_closed = false;
        self.changed.notify_all();
    }

    async fn wait_for(self: Arc<Self>, count: usize) {
        let wait = move || {
            let mut state = self.state.lock();
            self.changed.wait_while(&mut state, |state| state.arrived < count);
        };
        tokio::task::spawn_blocking(wait).await.unwrap();
    }

    fn arrived(&self) -> usize {
        self.state.lock().arrived
    }

    /// How many backends live.
    fn living(&self) -> usize {
        self.state.lock().loaded.iter().filter(|loaded| loaded.strong_count() > 0).count()
    }
}

/// A backend that answers with the number in its file.
struct Constant(i32);

impl InlineBackend for Constant {
    fn run(&self, _: Batch) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::from_vec("y", &[1], vec![self.0])])
    }
}

const CONSTANT: Kind = Kind { tells, ..Kind::new("constant", load) };

/// Tells what the file `told` of the version says.
#[expect(clippy::unnecessary_wraps, reason = "as every kind's")]
fn tells(files: &VersionFiles<'_>) -> Result<Told> {
    let told = fs::read_to_string(files.version_folder.join("told"));
    Ok(told.into_iter().map(|told| ("told", told)).collect())
}

fn load(instance: &Instance<'_>) -> Result<Backend> {
    let text = fs::read_to_string(instance.version_folder.join("value")).unwrap_or_default();
    let value = text.trim().parse();
    let value = value.map_err(|_| Error::invalid(format!("`{text}` is no number")))?;
    let backend = Arc::new(Constant(value));
    let gates = GATES.lock();
    let gate = gates.iter().find(|(path, _)| instance.model_folder.starts_with(path));
    let gate = gate.map(|(_, gate)| gate.clone());
    drop(gates);
    if let Some(gate) = gate {
        gate.pass(&backend);
    }
    Ok(Backend::Inline(backend))
}

/// A repository whose loads pass a gate.
struct Repository {
    folder: TempDir,
    gate: Arc<Gate>,
}

const CONFIG: &str = r#"backend: "constant"
    input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]
    output [ { name: "y" data_type: TYPE_INT32 dims: [ 1 ] } ]"#;

impl Repository {
    fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().unwrap(), gate: Arc::default() };
        GATES.lock().insert(repository.folder.path().to_owned(), repository.gate.clone());
        repository
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn model(&self, name: &str, value: &str) {
        self.write(&format!("{name}/config.pbtxt"), CONFIG);
        self.write(&format!("{name}/1/value"), value);
    }

    fn open(&self, mode: ControlMode) -> Arc<Local> {
        self.open_with(mode, None)
    }

    fn open_with(&self, mode: ControlMode, limiter: Option<Arc<Limiter>>) -> Arc<Local> {
        let repositories = vec![self.path().to_owned()];
        let options = LocalOptions { mode, ..LocalOptions::new(repositories, Foreign::Ignored) };
        let metrics = Metrics::new();
        Local::open(
            options,
            Loader {
                kinds: [CONSTANT, instances::SHARING, crate::IDENTITY].into(),
                metrics,
                cores: LOAD_THREADS,
                cache: None,
                limiter,
                threads: Threads::default(),
            },
        )
        .unwrap()
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        self.gate.open();
        GATES.lock().remove(self.path());
    }
}

fn explicit() -> ControlMode {
    ControlMode::Explicit { at_start: AtStart::Named(BTreeSet::new()) }
}

async fn load_model(local: &Local, name: &str) -> Result<()> {
    local.control(Change::load(name, None, Vec::new())?).await
}

async fn unload_model(local: &Local, name: &str) -> Result<()> {
    local.control(Change::unload(name, false)?).await
}

fn ask(served: &Served) -> Result<i32> {
    let inputs = vec![Tensor::from_vec("x", &[1], vec![0_i32])];
    let request = Request { inputs, ..Request::default() };
    let response = collect_one(served.stage.call(request)).now_or_never();
    let response = response.expect("it runs where it is called")?;
    let bytes: [u8; 4] = response.outputs[0].data[..4].try_into().unwrap();
    Ok(i32::from_le_bytes(bytes))
}

fn value_of(local: &Local, name: &str) -> i32 {
    ask(&local.get(name, None).unwrap()).unwrap()
}

fn rows(local: &Local) -> Vec<String> {
    let row = |row: IndexEntry| {
        let version = row.version.map(|version| version.to_string()).unwrap_or_default();
        format!("{} {version} {} {}", row.name, row.state.name(), row.reason).trim().to_owned()
    };
    local.index().into_iter().map(row).collect()
}

async fn settled(local: &Local) {
    let mut generation = local.generation();
    while local.index().iter().any(|row| row.state == State::Loading) {
        generation.changed().await.unwrap();
    }
}

#[tokio::test]
async fn callers_decide_what_is_loaded_in_explicit_mode() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(explicit());
    assert_eq!(rows(&local), ["m"]);
    assert!(local.is_ready());
    load_model(&local, "m").await.unwrap();
    assert_eq!(rows(&local), ["m 1 READY"]);
    assert_eq!(value_of(&local, "m"), 1);
    unload_model(&local, "m").await.unwrap();
    assert_eq!(rows(&local), ["m 1 UNAVAILABLE unloaded"]);
    assert!(local.is_ready() && local.get("m", None).is_err());
    assert_eq!(repository.gate.living(), 0);
    assert!(!local.loader.metrics.encode().contains(r#"model="m""#));
    let error = load_model(&local, "other").await.unwrap_err();
    assert_eq!(error.message(), "failed to load 'other', failed to poll from model repository");
    unload_model(&local, "other").await.unwrap();
}

#[tokio::test]
async fn a_version_is_served_with_what_its_backend_tells_of_its_files() {
    let repository = Repository::new();
    repository.model("m", "1");
    repository.write("m/1/told", "one");
    let local = repository.open(explicit());
    let told = |local: &Local| {
        let config = local.get("m", None).unwrap().config.clone();
        config.parameters.get("told").map(|parameter| parameter.string_value.clone())
    };
    load_model(&local, "m").await.unwrap();
    assert_eq!(told(&local).as_deref(), Some("one"));
    repository.write("m/1/told", "another");
    load_model(&local, "m").await.unwrap();
    assert_eq!(told(&local).as_deref(), Some("another"));
    let group = format!("{CONFIG} instance_group [ {{ count: 2 }} ]");
    repository.write("m/config.pbtxt", &group);
    load_model(&local, "m").await.unwrap();
    assert_eq!(told(&local).as_deref(), Some("another"));
}

#[tokio::test]
async fn only_what_is_named_is_loaded_at_the_start() {
    let repository = Repository::new();
    repository.model("a", "1");
    repository.model("b", "2");
    let names = AtStart::Named(["b".to_owned()].into());
    let local = repository.open(ControlMode::Explicit { at_start: names });
    settled(&local).await;
    assert_eq!(rows(&local), ["a", "b 1 READY"]);
}

#[tokio::test]
async fn a_model_that_has_come_is_listed_once_somebody_looks() {
    let repository = Repository::new();
    let local = repository.open(explicit());
    repository.model("m", "1");
    repository.write("elsewhere/config.pbtxt", &CONFIG.replace("constant", "elsewhere"));
    assert!(rows(&local).is_empty(), "the index alone reads no files");
    local.discover().await;
    assert_eq!(rows(&local), ["m"]);
    load_model(&local, "m").await.unwrap();
    local.discover().await;
    assert_eq!(rows(&local), ["m 1 READY"]);
}

#[tokio::test]
async fn a_model_is_listed_by_the_service_that_its_folder_belongs_to_now() {
    let repository = Repository::new();
    let elsewhere = CONFIG.replace("constant", "elsewhere");
    repository.model("served", "1");
    repository.model("left", "2");
    repository.model("gone", "3");
    repository.write("joined/config.pbtxt", &elsewhere);
    let local = repository.open(explicit());
    load_model(&local, "served").await.unwrap();
    assert_eq!(rows(&local), ["gone", "left", "served 1 READY"]);
    repository.model("joined", "4");
    repository.write("left/config.pbtxt", &elsewhere);
    repository.write("served/config.pbtxt", &elsewhere);
    fs::remove_dir_all(repository.path().join("gone")).unwrap();
    local.discover().await;
    assert_eq!(rows(&local), ["joined", "served 1 READY"], "nothing is loaded or unloaded");
    unload_model(&local, "served").await.unwrap();
    let generation = *local.generation().borrow();
    local.discover().await;
    assert_eq!(rows(&local), ["joined"]);
    local.discover().await;
    assert_eq!(*local.generation().borrow(), generation + 1, "nothing else has changed");
    repository.model("left", "2");
    local.discover().await;
    load_model(&local, "left").await.unwrap();
    assert_eq!(rows(&local), ["joined", "left 1 READY"]);
}

#[tokio::test]
async fn nothing_is_changed_by_callers_in_other_modes() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(ControlMode::None);
    let error = load_model(&local, "m").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("polling is enabled"));
}

#[tokio::test]
async fn the_old_model_answers_until_the_new_one_is_ready_and_then_is_freed() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(ControlMode::Explicit { at_start: AtStart::All });
    settled(&local).await;
    let held = local.get("m", None).unwrap();
    repository.write("m/1/value", "20");
    repository.gate.close();
    let reload = load_model(&local, "m");
    let meanwhile = async {
        repository.gate.clone().wait_for(2).await;
        assert_eq!(rows(&local), ["m 1 READY"]);
        assert_eq!(value_of(&local, "m"), 1);
        repository.gate.open();
    };
    let (reloaded, ()) = tokio::join!(reload, meanwhile);
    reloaded.unwrap();
    assert_eq!(value_of(&local, "m"), 20);
    assert_eq!(ask(&held).unwrap(), 1, "what was under way goes on where it began");
    assert_eq!(repository.gate.living(), 2);
    drop(held);
    assert_eq!(repository.gate.living(), 1);
}

#[tokio::test]
async fn a_reload_that_fails_leaves_the_old_model_serving_and_says_why() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(ControlMode::Explicit { at_start: AtStart::All });
    settled(&local).await;
    repository.write("m/1/value", "no number");
    let error = load_model(&local, "m").await.unwrap_err();
    let reason = "load failed for model 'm': version 1 is at UNAVAILABLE state: `no number` is no \
                  number;";
    assert_eq!(error.message(), reason);
    assert_eq!(rows(&local), [format!("m 1 READY {reason}")]);
    assert_eq!(value_of(&local, "m"), 1);
    repository.write("m/config.pbtxt", "max_batch_size: x");
    assert!(load_model(&local, "m").await.is_err());
    assert_eq!(value_of(&local, "m"), 1);
    repository.model("m", "30");
    load_model(&local, "m").await.unwrap();
    assert_eq!(rows(&local), ["m 1 READY"]);
    assert_eq!(value_of(&local, "m"), 30);
}

#[tokio::test]
async fn only_what_has_changed_is_loaded_again() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(ControlMode::Explicit { at_start: AtStart::All });
    settled(&local).await;
    repository.write("m/config.pbtxt", &format!("{CONFIG} # touched"));
    load_model(&local, "m").await.unwrap();
    assert_eq!(repository.gate.arrived(), 1, "an identical model is not loaded again");
    repository.write("m/config.pbtxt", &format!("{CONFIG} version_policy {{ all {{}} }}"));
    repository.write("m/2/value", "2");
    load_model(&local, "m").await.unwrap();
    assert_eq!(repository.gate.arrived(), 2, "version 1 is as it was");
    assert_eq!(rows(&local), ["m 1 READY", "m 2 READY"]);
    assert_eq!(local.get("m", Some(1)).unwrap().versions, [1, 2]);
    repository.write("m/config.pbtxt", CONFIG);
    load_model(&local, "m").await.unwrap();
    assert_eq!(repository.gate.arrived(), 2);
    assert_eq!(rows(&local), ["m 2 READY"]);
    assert_eq!(repository.gate.living(), 1);
    assert!(!local.loader.metrics.encode().contains(r#"version="1""#));
}

#[tokio::test]
async fn a_configuration_and_files_of_the_callers_own_replace_the_folder() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(explicit());
    let config = r#"{"backend": "constant", "max_batch_size": "4",
        "input": [{"name": "x", "data_type": "type_int32", "dims": ["1"]}],
        "output": [{"name": "y", "data_type": "TYPE_INT32", "dims": [1]}]}"#;
    let given = |files| Change::load("m", Some(config.to_owned()), files).unwrap();
    local.control(given(vec![("3/value".to_owned(), "7".into())])).await.unwrap();
    assert_eq!(rows(&local), ["m 3 READY"]);
    assert_eq!(local.get("m", None).unwrap().config.max_batch_size, 4);
    let bad = Change::load("m", Some(r#"{"no_such_field": 1}"#.to_owned()), Vec::new()).unwrap();
    let error = local.control(bad).await.unwrap_err();
    assert_eq!(error.message(), "failed to load 'm', failed to poll from model repository");
    let row = rows(&local).concat();
    assert!(row.starts_with("m 3 READY") && row.contains("no_such_field"), "{row}");
    load_model(&local, "m").await.unwrap();
    assert_eq!(rows(&local), ["m 1 READY"]);
    assert_eq!(value_of(&local, "m"), 1);
    let empty = Change::load("m", Some(config.to_owned()), vec![("x".to_owned(), "".into())]);
    let error = local.control(empty.unwrap()).await.unwrap_err();
    assert!(error.message().starts_with("failed to load 'm', no version is available"), "{error}");
    assert_eq!(value_of(&local, "m"), 1);
}

#[tokio::test]
async fn what_a_caller_gives_says_nothing_of_whose_a_folder_is() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(explicit());
    let elsewhere = r#"{"backend": "elsewhere"}"#.to_owned();
    let change = Change::load("m", Some(elsewhere), Vec::new()).unwrap();
    let error = local.control(change).await.unwrap_err();
    assert!(error.message().contains("failed to poll"), "{error}");
    repository.write("m/config.pbtxt", "no configuration");
    let error = load_model(&local, "m").await.unwrap_err();
    assert!(error.message().starts_with("load failed for model 'm': "), "{error}");
}

#[tokio::test]
async fn a_load_goes_on_when_its_caller_goes_away_and_other_models_do_not_wait() {
    let repository = Repository::new();
    repository.model("slow", "1");
    repository.model("other", "2");
    let local = repository.open(explicit());
    repository.gate.close();
    let mut load = Box::pin(load_model(&local, "slow"));
    assert!(futures::poll!(&mut load).is_pending());
    repository.gate.clone().wait_for(1).await;
    let mut other = Box::pin(load_model(&local, "other"));
    assert!(futures::poll!(&mut other).is_pending());
    repository.gate.clone().wait_for(2).await;
    drop(load);
    // The unload of the same model has its turn when the load is done.
    let unload = unload_model(&local, "slow");
    let (unloaded, loaded, ()) = tokio::join!(unload, other, async { repository.gate.open() });
    unloaded.unwrap();
    loaded.unwrap();
    assert_eq!(rows(&local), ["other 1 READY", "slow 1 UNAVAILABLE unloaded"]);
}

#[tokio::test]
async fn polling_follows_the_files() {
    let repository = Repository::new();
    repository.model("changed", "1");
    repository.model("gone", "2");
    let local = repository.open(ControlMode::None);
    settled(&local).await;
    let mut watching = Watching::begin(&[repository.path().to_owned()]).unwrap();
    repository.write("changed/1/value", "10");
    repository.model("new", "3");
    fs::remove_dir_all(repository.path().join("gone")).unwrap();
    local.follow(watching.look().unwrap()).await;
    assert_eq!(rows(&local), ["changed 1 READY", "new 1 READY"]);
    assert_eq!(value_of(&local, "changed"), 10);
    assert_eq!(repository.gate.living(), 2);
    repository.write("new/1/value", "broken");
    local.follow(watching.look().unwrap()).await;
    assert_eq!(value_of(&local, "new"), 3);
    let arrived = repository.gate.arrived();
    local.follow(watching.look().unwrap()).await;
    assert_eq!(repository.gate.arrived(), arrived, "what failed is not tried at each look");
}

#[tokio::test]
async fn a_model_that_becomes_somebody_elses_serves_on_and_says_why() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(ControlMode::None);
    settled(&local).await;
    let mut watching = Watching::begin(&[repository.path().to_owned()]).unwrap();
    repository.write("m/config.pbtxt", &CONFIG.replace("constant", "elsewhere"));
    local.follow(watching.look().unwrap()).await;
    let reason = "backend `elsewhere` of model `m` is not one of this service's: constant, \
                  sharing, identity";
    assert_eq!(rows(&local), [format!("m 1 READY {reason}")]);
    assert_eq!(value_of(&local, "m"), 1);
    repository.model("m", "20");
    local.follow(watching.look().unwrap()).await;
    assert_eq!(rows(&local), ["m 1 READY"]);
    assert_eq!(value_of(&local, "m"), 20);
    // An ensemble of the same name takes its place.
    let ensemble = CONFIG.replace(r#"backend: "constant""#, r#"platform: "ensemble""#);
    let steps = "ensemble_scheduling { step [ { model_name: \"n\" model_version: -1 } ] }";
    repository.write("m/config.pbtxt", &format!("{ensemble} {steps}"));
    local.follow(watching.look().unwrap()).await;
    assert!(rows(&local).is_empty());
}

/// The configuration of a model whose instances have threads of their own.
fn grouped(groups: &str) -> String {
    let parameters = r#"parameters { key: "execute_delay_ms" value { string_value: "1" } }"#;
    let config = CONFIG.replace("constant", "identity");
    format!("{config} {parameters} instance_group [ {groups} ]")
}

#[tokio::test]
async fn a_change_of_the_instances_alone_keeps_the_served_version() {
    let repository = Repository::new();
    let config = |groups| repository.write("m/config.pbtxt", &grouped(groups));
    repository.write("m/1/value", "1");
    let local = repository.open(ControlMode::Explicit { at_start: AtStart::All });
    config("{ count: 1 kind: KIND_CPU }");
    load_model(&local, "m").await.unwrap();
    let first = local.get("m", None).unwrap();
    let instances = |local: &Local| {
        let line = r#"consort_model_instances{model="m",version="1"} "#;
        let text = local.loader.metrics.encode();
        text.lines().find_map(|text| text.strip_prefix(line)).unwrap().to_owned()
    };
    assert_eq!(instances(&local), "1");
    for (groups, count) in [
        ("{ count: 3 kind: KIND_CPU }", "3"),
        ("{ count: 1 kind: KIND_CPU }, { count: 1 kind: KIND_CPU passive: true }", "1"),
        ("{ count: 0 kind: KIND_CPU }", "1"),
    ] {
        config(groups);
        load_model(&local, "m").await.unwrap();
        let served = local.get("m", None).unwrap();
        assert!(Arc::ptr_eq(&served.stage, &first.stage), "{groups}");
        assert_eq!(instances(&local), count, "{groups}");
        let shown: i32 = served.config.instance_group.iter().map(|group| group.count).sum();
        assert!(shown > 0, "the configuration is the new one");
    }
    // Where nobody would be left for what waits, and for any other change, the model is loaded
    // beside.
    config("{ count: 1 kind: KIND_CPU passive: true }");
    load_model(&local, "m").await.unwrap();
    assert!(!Arc::ptr_eq(&local.get("m", None).unwrap().stage, &first.stage));
    assert_eq!(instances(&local), "0");
}

#[tokio::test]
async fn a_model_is_unloading_until_the_last_of_its_requests_is_answered() {
    let repository = Repository::new();
    let config = grouped("{ count: 1 kind: KIND_CPU }").replace("\"1\"", "\"400\"");
    repository.write("m/config.pbtxt", &config);
    repository.write("m/1/value", "1");
    let local = repository.open(ControlMode::Explicit { at_start: AtStart::All });
    settled(&local).await;
    let inputs = vec![Tensor::from_vec("x", &[1], vec![0_i32])];
    let request = Request { inputs, ..Request::default() };
    let mut answer = local.get("m", None).unwrap().stage.call(request);
    assert!(futures::StreamExt::next(&mut answer).now_or_never().is_none());
    unload_model(&local, "m").await.unwrap();
    let reason = "unloading: requests under way are being finished";
    assert_eq!(rows(&local), [format!("m 1 UNLOADING {reason}")]);
    assert!(local.is_ready());
    let refused = local.get("m", Some(1)).err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    let mut generation = local.generation();
    assert!(collect_one(answer).await.is_ok());
    while rows(&local) != ["m 1 UNAVAILABLE unloaded"] {
        generation.changed().await.unwrap();
    }
}

#[tokio::test]
async fn models_that_were_closed_have_left_the_memory() {
    let repository = Repository::new();
    let config = grouped("{ count: 1 kind: KIND_CPU }").replace("\"1\"", "\"400\"");
    repository.write("busy/config.pbtxt", &config);
    repository.write("busy/1/value", "1");
    repository.model("idle", "2");
    let local = repository.open(ControlMode::None);
    settled(&local).await;
    assert_eq!(repository.gate.living(), 1);
    let inputs = vec![Tensor::from_vec("x", &[1], vec![0_i32])];
    let request = Request { inputs, ..Request::default() };
    let mut answer = local.get("busy", None).unwrap().stage.call(request);
    assert!(futures::StreamExt::next(&mut answer).now_or_never().is_none());
    let ((), answered) = tokio::join!(local.close(), collect_one(answer));
    assert!(answered.is_ok());
    assert_eq!(rows(&local), ["busy 1 UNAVAILABLE unloaded", "idle 1 UNAVAILABLE unloaded"]);
    assert_eq!(repository.gate.living(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_unloaded_again_is_unloading_until_both_are_gone() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(explicit());
    for first_goes_first in [true, false] {
        load_model(&local, "m").await.unwrap();
        // Whoever has a request under way holds on to what answers it.
        let first = local.get("m", None).unwrap();
        unload_model(&local, "m").await.unwrap();
        load_model(&local, "m").await.unwrap();
        assert_eq!(rows(&local), ["m 1 READY"]);
        let second = local.get("m", None).unwrap();
        unload_model(&local, "m").await.unwrap();
        let (goes, stays) = if first_goes_first { (first, second) } else { (second, first) };
        drop(goes);
        // Paused time runs when nothing else does: it is looked many times.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let reason = "unloading: requests under way are being finished";
        assert_eq!(rows(&local), [format!("m 1 UNLOADING {reason}")], "{first_goes_first}");
        let mut generation = local.generation();
        drop(stays);
        while rows(&local) != ["m 1 UNAVAILABLE unloaded"] {
            generation.changed().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_model_is_unloading_until_the_versions_before_its_reload_are_gone() {
    let repository = Repository::new();
    repository.model("m", "1");
    let local = repository.open(explicit());
    load_model(&local, "m").await.unwrap();
    // Whoever has a request under way holds on to what answers it.
    let oldest = local.get("m", None).unwrap();
    for value in ["20", "300"] {
        repository.write("m/1/value", value);
        load_model(&local, "m").await.unwrap();
    }
    assert_eq!(repository.gate.living(), 2);
    unload_model(&local, "m").await.unwrap();
    let reason = "unloading: requests under way are being finished";
    assert_eq!(rows(&local), [format!("m 1 UNLOADING {reason}")]);
    let mut generation = local.generation();
    drop(oldest);
    while rows(&local) != ["m 1 UNAVAILABLE unloaded"] {
        generation.changed().await.unwrap();
    }
    assert_eq!(repository.gate.living(), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_versions_that_were_replaced_or_whose_folder_has_gone() {
    let repository = Repository::new();
    repository.model("reloaded", "1");
    repository.model("removed", "2");
    let local = repository.open(ControlMode::None);
    settled(&local).await;
    let (reloaded, removed) =
        (local.get("reloaded", None).unwrap(), local.get("removed", None).unwrap());
    repository.write("reloaded/1/value", "10");
    fs::remove_dir_all(repository.path().join("removed")).unwrap();
    let changes = Changes { changed: vec!["reloaded".into()], gone: vec!["removed".into()] };
    local.follow(changes).await;
    assert_eq!(rows(&local), ["reloaded 1 READY"]);
    let unloading = "reloaded 1 UNLOADING unloading: requests under way are being finished";
    for (held, row) in [(reloaded, unloading), (removed, "reloaded 1 UNAVAILABLE unloaded")] {
        let close = local.close();
        let mut generation = local.generation();
        let waits_for_it = async {
            while rows(&local) != [row] {
                generation.changed().await.unwrap();
            }
            // Paused time runs when nothing else does: it is looked many times.
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            () = close => panic!("something of `{}` is in memory", held.name),
            () = waits_for_it => {}
        }
        drop(held);
    }
    local.close().await;
    assert_eq!(repository.gate.living(), 0);
}

#[tokio::test]
async fn instances_that_cannot_be_added_change_nothing() {
    let repository = Repository::new();
    let config = |groups| repository.write("m/config.pbtxt", &grouped(groups));
    repository.write("m/1/value", "1");
    config("{ count: 1 kind: KIND_CPU }");
    let local = repository.open(ControlMode::Explicit { at_start: AtStart::All });
    settled(&local).await;
    let first = local.get("m", None).unwrap();
    config("{ count: -1 kind: KIND_CPU }");
    let error = load_model(&local, "m").await.unwrap_err();
    assert!(error.message().contains("has a negative count"), "{error}");
    let served = local.get("m", None).unwrap();
    assert!(Arc::ptr_eq(&served.stage, &first.stage));
    assert_eq!(served.config.instance_group[0].count, 1);
}

#[tokio::test(start_paused = true)]
async fn the_repositories_are_looked_at_once_in_a_while() {
    let repository = Repository::new();
    let every = Duration::from_hours(1);
    let local = repository.open(ControlMode::Poll { every });
    let mut generation = local.generation();
    repository.model("m", "1");
    // Paused time runs when nothing else does.
    while rows(&local) != ["m 1 READY"] {
        generation.changed().await.unwrap();
    }
}
