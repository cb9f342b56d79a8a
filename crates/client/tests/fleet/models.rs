//! Which models a fleet offers, in which state, as replicas and their models come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use consort_client::{Addresses, Discovery, Fleet, FleetOptions, Found, StageAddress};
use consort_repository::{Leaves, Models, State};
use consort_stage::{Code, DataType};
use consort_telemetry::Metrics;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::WatchStream;

use crate::calls::ask;
use crate::fake::{Fake, config, row};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses that a test exchanges.
pub(crate) struct Listed(pub(crate) watch::Receiver<Found>);

impl Discovery for Listed {
    fn watch(self: Box<Self>) -> BoxStream<'static, Found> {
        // A list whose sender has gone stays as it is.
        WatchStream::new(self.0).chain(futures::stream::pending()).boxed()
    }
}

pub(crate) fn addresses(fakes: &[&Fake]) -> Addresses {
    fakes.iter().map(|fake| fake.address).collect()
}

pub(crate) fn options() -> FleetOptions {
    FleetOptions { probe_every: Duration::from_millis(20), ..FleetOptions::new(Metrics::new()) }
}

/// A fleet of the stages, each with its replicas.
pub(crate) fn fleet_of(stages: &[(&str, &[&Fake])], options: FleetOptions) -> Arc<Fleet> {
    let discoveries = stages.iter().map(|(name, fakes)| {
        let listed: Box<dyn Discovery> = Box::new(Listed(watch::channel(Ok(addresses(fakes))).1));
        (Arc::from(*name), listed)
    });
    Fleet::start_with(discoveries.collect(), options)
}

/// A fleet of one stage, once it is ready.
pub(crate) async fn ready_fleet(fakes: &[&Fake]) -> Arc<Fleet> {
    let fleet = fleet_of(&[("model", fakes)], options());
    until(|| fleet.is_ready()).await;
    fleet
}

/// Waits until `condition` holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn reason(fleet: &Fleet, name: &str) -> Option<(State, String)> {
    let entries = fleet.index().into_iter();
    let mut entries = entries.filter(|entry| *entry.name == *name);
    entries.next().map(|entry| (entry.state, entry.reason))
}

fn is_in(fleet: &Fleet, name: &str, state: State, text: &str) -> bool {
    reason(fleet, name).is_some_and(|(is, why)| is == state && why.contains(text))
}

#[tokio::test]
async fn models_of_a_service_appear_as_it_describes_them() {
    let fake = Fake::start(&["echo", "count"]);
    fake.state.index.lock().push(row("echo", "3", "READY", ""));
    let fleet = fleet_of(&[("model", &[&fake])], options());
    assert!(!fleet.is_ready(), "nothing has been asked yet");
    let mut generation = fleet.generation();
    timeout(PATIENCE, generation.wait_for(|_| fleet.is_ready())).await.unwrap().unwrap();
    let latest = fleet.get("echo", None).unwrap();
    assert_eq!((latest.version, &latest.versions[..]), (3, &[1, 3][..]));
    assert_eq!(latest.platform, "identity");
    let input = latest.signature.input("x").unwrap();
    assert_eq!((input.datatype, &input.dims[..]), (DataType::Int32, &[-1][..]));
    assert!(!latest.signature.is_decoupled);
    assert!(fleet.get("count", Some(1)).unwrap().signature.is_decoupled);
    let rows = fleet.index().into_iter();
    let rows: Vec<_> = rows.map(|row| (row.name.to_string(), row.version, row.state)).collect();
    let expected = [("count", 1), ("echo", 1), ("echo", 3)];
    assert_eq!(rows, expected.map(|(name, v)| (name.to_owned(), Some(v), State::Ready)));
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_tritons_words() {
    let fake = Fake::start(&["echo"]);
    fake.state.index.lock().extend([
        row("broken", "1", "UNAVAILABLE", "no file"),
        row("retired", "1", "UNAVAILABLE", "unloaded"),
        row("never", "", "", ""),
    ]);
    fake.set_ready(false);
    let fleet = fleet_of(&[("model", &[&fake])], options());
    until(|| fleet.get("echo", None).is_ok()).await;
    assert!(!fleet.is_ready(), "`broken` should be served and is not");
    for (name, version, code, text) in [
        ("none", None, Code::NotFound, "'none' is not found"),
        ("echo", Some(7), Code::NotFound, "'echo' version 7 is not found"),
        ("broken", Some(1), Code::Unavailable, "'broken' version 1 is not at ready state: no file"),
        ("broken", None, Code::NotFound, "'broken' has no available versions (no file)"),
        ("retired", None, Code::NotFound, "'retired' has no available versions"),
        ("never", None, Code::NotFound, "'never' has no available versions"),
    ] {
        let error = fleet.get(name, version).err().unwrap();
        assert_eq!(error.code(), code, "{error}");
        let expected = format!("Request for unknown model: {text}");
        assert!(error.message().contains(&expected), "{error}");
        assert_eq!(fleet.away(name, version), None);
    }
}

#[tokio::test]
async fn a_model_that_gets_ready_is_offered_at_once() {
    let fake = Fake::start(&["echo"]);
    *fake.state.index.lock() = vec![row("echo", "1", "LOADING", "")];
    let fleet = fleet_of(&[("model", &[&fake])], options());
    until(|| is_in(&fleet, "echo", State::Loading, "")).await;
    assert!(!fleet.is_ready());
    *fake.state.index.lock() = vec![row("echo", "1", "READY", "")];
    until(|| fleet.is_ready()).await;
    fleet.get("echo", None).unwrap();
}

#[tokio::test]
async fn a_model_loaded_again_with_other_tensors_is_noticed() {
    let fake = Fake::start(&["echo", "other"]);
    let fleet = ready_fleet(&[&fake]).await;
    let mut changed = config("echo");
    changed.max_batch_size = 8;
    fake.state.configs.lock().insert("echo".into(), changed);
    until(|| fleet.get("echo", None).unwrap().signature.is_batching()).await;
}

#[tokio::test]
async fn a_model_that_has_become_another_stages_is_called_there_once_it_is_ready() {
    let (before, now) = (Fake::start(&["echo"]), Fake::start(&["echo"]));
    *before.state.index.lock() = vec![row("echo", "1", "READY", "no such backend here")];
    *now.state.index.lock() = vec![row("echo", "1", "LOADING", "")];
    let fleet = fleet_of(&[("before", &[&before]), ("now", &[&now])], options());
    until(|| is_in(&fleet, "echo", State::Ready, "no such backend here")).await;
    ask(&*fleet.get("echo", None).unwrap().stage, 1).await.unwrap();
    assert_eq!([before.calls(), now.calls()], [1, 0], "the old one serves on until then");
    *now.state.index.lock() = vec![row("echo", "1", "READY", "")];
    until(|| reason(&fleet, "echo") == Some((State::Ready, String::new()))).await;
    for value in 0..4 {
        ask(&*fleet.get("echo", None).unwrap().stage, value).await.unwrap();
    }
    assert_eq!([before.calls(), now.calls()], [1, 4]);
}

#[tokio::test]
async fn classes_are_called_what_the_label_file_says_now() {
    let repository = tempfile::tempdir().unwrap();
    let labels = repository.path().join("echo").join("animals.txt");
    std::fs::create_dir(labels.parent().unwrap()).unwrap();
    std::fs::write(&labels, "cat\ndog").unwrap();
    let fake = Fake::start(&["echo"]);
    let mut labelled = config("echo");
    labelled.output[0].label_filename = "animals.txt".into();
    fake.state.configs.lock().insert("echo".into(), labelled);
    let model_repositories = vec![repository.path().to_owned()];
    let fleet = fleet_of(&[("model", &[&fake])], FleetOptions { model_repositories, ..options() });
    until(|| fleet.is_ready()).await;
    let before = fleet.get("echo", None).unwrap();
    assert_eq!(before.labels.of("x"), ["cat", "dog"]);
    std::fs::write(&labels, "cow").unwrap();
    until(|| fleet.get("echo", None).unwrap().labels.of("x") == ["cow"]).await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_makes_that_model_unavailable() {
    let fake = Fake::start(&["echo"]);
    fake.state.index.lock().push(row("odd", "1", "READY", ""));
    let fleet = fleet_of(&[("model", &[&fake])], options());
    until(|| is_in(&fleet, "odd", State::Unavailable, "no configuration of 'odd'")).await;
    fleet.get("echo", None).unwrap();
    // The stage says that it is ready, so what it fails at is not what it was started for.
    assert!(fleet.is_ready());
}

#[tokio::test]
async fn a_server_that_is_going_away_gets_no_calls() {
    let fake = Fake::start(&["echo"]);
    let fleet = ready_fleet(&[&fake]).await;
    fake.set_ready(false);
    let why = "no ready replica of stage `model`: 127.0.0.1";
    until(|| is_in(&fleet, "echo", State::Unavailable, why)).await;
    assert!(is_in(&fleet, "echo", State::Unavailable, "server is not ready"));
    fake.set_ready(true);
    until(|| fleet.is_ready()).await;
}

#[tokio::test]
async fn a_service_that_dies_is_missed_and_taken_back() {
    let fake = Fake::start(&["echo"]);
    let address = fake.address;
    let fleet = ready_fleet(&[&fake]).await;
    let before = fleet.get("echo", None).unwrap();
    drop(fake);
    until(|| is_in(&fleet, "echo", State::Unavailable, "Connection refused")).await;
    assert!(!fleet.is_ready());
    let waiting = fleet.waiting_for();
    assert!(waiting[0].starts_with("no ready replica of stage `model`: "), "{waiting:?}");
    for version in [None, Some(1)] {
        let error = fleet.get("echo", version).err().unwrap();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert_eq!(fleet.away("echo", version).as_deref(), Some(&*waiting[0]));
    }
    // Its models are known: no other can be there.
    assert_eq!(fleet.get("none", None).err().unwrap().code(), Code::NotFound);
    assert_eq!(fleet.away("none", None), None);
    let _fake = Fake::start_at(address, &["echo"]);
    until(|| fleet.is_ready()).await;
    // What was kept by an ensemble works again.
    let answer = crate::calls::ask(&*before.stage, 5).await.unwrap();
    assert_eq!(crate::calls::values(&answer), [5]);
}

#[tokio::test]
async fn the_last_addresses_hold_while_discovery_fails() {
    let fake = Fake::start(&["echo"]);
    let (sender, receiver) = watch::channel(Err("cannot resolve `m`".to_owned()));
    let listed: Box<dyn Discovery> = Box::new(Listed(receiver));
    let fleet = Fleet::start_with(vec![("m".into(), listed)], options());
    let lost = "no ready replica of stage `m`: cannot resolve `m`";
    until(|| fleet.waiting_for() == [lost]).await;
    // It may have any model.
    assert_eq!(fleet.away("echo", None).as_deref(), Some(lost));
    assert_eq!(fleet.get("echo", None).err().unwrap().code(), Code::Unavailable);
    sender.send(Ok(addresses(&[&fake]))).unwrap();
    until(|| fleet.is_ready()).await;
    sender.send(Err("cannot resolve `m`".into())).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(fleet.is_ready());
    // That there is nobody is an answer, too; the models are remembered as missing.
    sender.send(Ok(BTreeSet::new())).unwrap();
    until(|| is_in(&fleet, "echo", State::Unavailable, "it has no address")).await;
}

#[tokio::test]
async fn the_first_stage_wins_a_model_that_two_serve_differently() {
    let (one, two) = (Fake::start(&["echo"]), Fake::start(&["echo"]));
    let mut changed = config("echo");
    changed.max_batch_size = 8;
    two.state.configs.lock().insert("echo".into(), changed);
    let fleet = fleet_of(&[("one", &[&one]), ("two", &[&two])], options());
    let why = "service 'two' (127.0.0.1:";
    until(|| is_in(&fleet, "echo", State::Ready, why)).await;
    let served = fleet.get("echo", None).unwrap();
    assert!(!served.signature.is_batching());
    for _ in 0..4 {
        crate::calls::ask(&*served.stage, 1).await.unwrap();
    }
    assert_eq!((one.calls(), two.calls()), (4, 0));
}

#[tokio::test]
async fn stages_that_serve_the_same_share_it() {
    let (one, two) = (Fake::start(&["echo"]), Fake::start(&["echo", "count"]));
    let fleet = fleet_of(&[("one", &[&one]), ("two", &[&two])], options());
    until(|| fleet.is_ready()).await;
    let served = fleet.get("echo", None).unwrap();
    for _ in 0..4 {
        crate::calls::ask(&*served.stage, 1).await.unwrap();
    }
    assert_eq!((one.calls(), two.calls()), (2, 2));
}

#[tokio::test]
async fn each_replica_is_asked_once_for_the_statistics_of_everything() {
    let (one, two) = (Fake::start(&["a", "b", "one"]), Fake::start(&["a", "b", "two"]));
    // Not ready there: what it has done elsewhere is no concern of callers.
    one.state.index.lock().push(row("old", "1", "UNAVAILABLE", "unloaded"));
    let fleet = ready_fleet(&[&one, &two]).await;
    until(|| ["one", "two"].iter().all(|model| fleet.get(model, None).is_ok())).await;
    let statistics = fleet.statistics("", None).await.unwrap();
    let names: Vec<_> = statistics.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "one", "two"]);
    let asked = [one, two].map(|fake| fake.state.asked_for_statistics.load(SeqCst));
    assert_eq!(asked, [1, 1]);
}

#[tokio::test]
async fn statistics_are_those_of_all_replicas_together() {
    let (one, two) = (Fake::start(&["echo"]), Fake::start(&["echo"]));
    let fleet = ready_fleet(&[&one, &two]).await;
    let served = fleet.get("echo", None).unwrap();
    let answers = (0..6).map(|value| crate::calls::ask(&*served.stage, value));
    futures::future::join_all(answers).await;
    for (name, version) in [("echo", None), ("echo", Some(1)), ("", None)] {
        let statistics = fleet.statistics(name, version).await.unwrap();
        let [echo] = &statistics[..] else { panic!("{statistics:?}") };
        let success = echo.inference_stats.as_ref().unwrap().success.unwrap();
        assert_eq!((echo.name.as_str(), echo.version.as_str()), ("echo", "1"));
        assert_eq!((success.count, success.ns, echo.inference_count), (6, 60, 6));
        assert_eq!(echo.last_inference as usize, one.calls().max(two.calls()));
    }
    let error = fleet.statistics("none", None).await.unwrap_err();
    assert_eq!(error.message(), "requested model 'none' is not available");
    let error = fleet.statistics("echo", Some(9)).await.unwrap_err();
    assert!(error.message().contains("requested model version is not available"));
}

#[tokio::test]
async fn a_service_is_found_by_its_name() {
    let fake = Fake::start(&["echo"]);
    let port = SocketAddr::port(&fake.address);
    let stage: StageAddress = format!("model=dns:///localhost:{port}").parse().unwrap();
    let fleet = Fleet::start(vec![stage], options());
    until(|| fleet.is_ready()).await;
    fleet.get("echo", None).unwrap();
}

#[tokio::test]
async fn a_dropped_fleet_asks_nobody_any_more() {
    let fake = Fake::start(&["echo"]);
    let metrics = Metrics::new();
    let options = FleetOptions { metrics: metrics.clone(), ..options() };
    let fleet = fleet_of(&[("model", &[&fake])], options);
    until(|| fleet.is_ready()).await;
    drop(fleet);
    until(|| Arc::strong_count(&metrics) == 1).await;
}
