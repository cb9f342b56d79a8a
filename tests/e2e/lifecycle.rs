//! Cancelling, deadlines, draining, and replicas that come and go.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::program::{PATIENCE, Program};
use crate::repository::{INFER, Repository};
use crate::system::{Layout, System, metric, post, start_stage, wait_until};

/// How long a step may go on without its caller, as a rule: the median of many is held to it, which
/// a busy machine's pauses hardly move.
const SOON: Duration = Duration::from_millis(50);

/// How long it may go on when the machine is busy with something else.
const AT_WORST: Duration = Duration::from_secs(2);

/// How many callers go away, one after another.
const CALLERS: usize = 15;

fn slow_chain() -> Repository {
    Repository::new()
        .with_identity("quick")
        .with_delay("slow", 20_000)
        .with_chain("chain", &["quick", "slow", "quick"])
}

/// Where statistics of the models may be kept: `identity` is in every service, and the gateway calls
/// whichever has the least to do.
pub(crate) fn counters(system: &mut System) -> Vec<String> {
    let stages = system.stages.iter_mut();
    let mut addresses: Vec<String> =
        stages.map(|(_, program, _)| program.address("Metrics Service")).collect();
    if addresses.is_empty() {
        addresses.push(system.metrics.clone());
    }
    addresses
}

/// The sum over all services of the metric lines that start with `prefix`.
pub(crate) fn counted(addresses: &[String], prefix: &str) -> f64 {
    addresses.iter().map(|address| metric(address, prefix)).sum()
}

/// Asks the chain, goes away when the slow step has begun, and gives how long that step went on.
fn hang_up(system: &System, metrics: &[String], nth: usize) -> Duration {
    let mut client = TcpStream::connect(&system.http).expect("the front listens");
    let length = INFER.len();
    write!(
        client,
        "POST /v2/models/chain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{INFER}"
    )
    .expect("the request is sent");
    // The slow step's instance has taken it: it is neither pending nor answered.
    let taken = r#"consort_queue_duration_seconds_count{model="slow""#;
    wait_until("the slow step", || counted(metrics, taken) >= nth as f64);
    drop(client);
    let cancelled = r#"nv_inference_request_failure{model="slow",reason="CANCELED""#;
    wait_until("the cancellation", || counted(metrics, cancelled) >= nth as f64)
}

#[test]
fn a_client_that_hangs_up_stops_the_running_step() {
    for layout in Layout::ALL {
        let repository = slow_chain();
        let mut system = System::start(layout, repository.path());
        let metrics = counters(&mut system);
        let mut took: Vec<Duration> =
            (1..=CALLERS).map(|nth| hang_up(&system, &metrics, nth)).collect();
        took.sort();
        assert!(took[CALLERS / 2] < SOON, "{layout:?}: {took:?}");
        assert!(took[CALLERS - 1] < AT_WORST, "{layout:?}: {took:?}");
        // The instance is free again, so a short deadline is met by the delay and not by a queue.
        let answer =
            system.post_with("/v2/models/slow/infer", INFER, &[("consort-timeout-ms", "300")]);
        assert_eq!(answer.status, 504, "{layout:?}: {}", answer.text);
    }
}

#[test]
fn a_deadline_ends_a_request_wherever_it_is() {
    for layout in Layout::ALL {
        let repository = slow_chain();
        let mut system = System::start(layout, repository.path());
        let metrics = counters(&mut system);
        let begun_at = Instant::now();
        let headers = [("consort-timeout-ms", "200")];
        let answer = system.post_with("/v2/models/chain/infer", INFER, &headers);
        assert_eq!(answer.status, 504, "{layout:?}: {}", answer.text);
        assert!(answer.text.contains("deadline"), "{}", answer.text);
        assert!(begun_at.elapsed() < Duration::from_secs(2), "{:?}", begun_at.elapsed());
        let cancelled = r#"nv_inference_request_failure{model="slow",reason="CANCELED""#;
        wait_until("the cancellation", || counted(&metrics, cancelled) >= 1.0);
    }
}

#[test]
fn a_server_told_to_stop_finishes_what_is_running_and_exits_with_0() {
    let repository = Repository::new().with_delay("slow", 1_500);
    for layout in Layout::ALL {
        let mut system = System::start(layout, repository.path());
        let metrics = counters(&mut system);
        let url = format!("http://{}/v2/models/slow/infer", system.http);
        let asker = thread::spawn(move || post(&url, INFER));
        // Its instance has taken it: it is neither pending nor answered.
        wait_until("the request", || {
            let queued = counted(&metrics, r#"consort_queue_duration_seconds_count{model="slow""#);
            queued >= 1.0
        });
        system.front.terminate();
        let answer = asker.join().expect("the asker lives");
        assert_eq!(answer.status, 200, "{layout:?}: {}", answer.text);
        let (status, log) = system.front.wait();
        assert_eq!(status.code(), Some(0), "{layout:?}: {log}");
        let (_, end) = log.split_once("stopping").expect("it said so");
        assert!(!end.contains("not ready"), "{layout:?}: {log}");
        let mut unloaded = end.matches("unloaded").count();
        for (_, stage, _) in system.stages {
            stage.terminate();
            let (status, log) = stage.wait();
            assert_eq!(status.code(), Some(0), "{log}");
            unloaded += log.matches("unloaded").count();
        }
        assert!(unloaded >= 1, "whoever has the model unloads it: {log}");
    }
}

#[test]
fn a_server_told_to_stop_twice_waits_for_nothing() {
    let repository = Repository::new().with_delay("slow", 60_000);
    let mut system = System::start(Layout::OneProcess, repository.path());
    let metrics = counters(&mut system);
    let url = format!("http://{}/v2/models/slow/infer", system.http);
    thread::spawn(move || post(&url, INFER));
    let taken = r#"consort_queue_duration_seconds_count{model="slow""#;
    wait_until("the request", || counted(&metrics, taken) >= 1.0);
    system.front.terminate();
    assert!(system.front.line_with("stopping: ").contains("30s"));
    let told_at = Instant::now();
    system.front.terminate();
    let (status, log) = system.front.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("told to stop once more"), "{log}");
    assert!(told_at.elapsed() < Duration::from_secs(5), "{:?}", told_at.elapsed());
}

#[test]
fn an_ensemble_whose_service_is_away_is_unavailable_until_it_comes_back() {
    let repository = Repository::new()
        .with_identity("quick")
        .with_chain("inner", &["quick"])
        .with_chain("chain", &["inner"]);
    let argument = format!("--model-repository={}", repository.path().display());
    let (_, mut stage, address) = start_stage("preprocess", &argument, &[]);
    let option = format!("--stage=preprocess=static:///{address}");
    let gateway = || {
        let options = [option.as_str(), &argument];
        System::of(Program::start("consort-gateway", &options), Vec::new())
    };
    let early = gateway();
    early.wait_until_ready();
    stage.kill();
    let late = gateway();
    let missing = format!(
        "in ensemble 'chain', step 0 (model 'inner'): in ensemble 'inner', step 0 (model 'quick'): \
         no ready replica of stage `preprocess`: {address}: "
    );
    for system in [&early, &late] {
        wait_until("the gateway to notice", || {
            let answer = system.post("/v2/models/chain/infer", INFER);
            // Not for a moment is the ensemble unknown.
            assert_eq!(answer.status, 503, "{}", answer.text);
            answer.text.contains(&missing) && answer.text.contains("Connection refused")
        });
        assert_eq!(system.get("/v2/models/chain/ready").status, 400);
        let index = system.index().to_string();
        assert!(index.contains("no ready replica of stage"), "{index}");
    }
    // What its service has is known from before: this is not there.
    assert_eq!(early.post("/v2/models/none/infer", INFER).status, 404);
    let port = format!("--grpc-port={}", address.rsplit(':').next().unwrap_or_default());
    let _back = Program::start_on("consort-preprocess", &[argument.as_str(), &port], &[]);
    for system in [&early, &late] {
        system.wait_until_ready();
        assert_eq!(system.post("/v2/models/chain/infer", INFER).status, 200);
    }
}

#[test]
fn requests_go_on_while_one_of_two_replicas_dies() {
    let repository = Repository::new().with_identity("quick");
    let argument = format!("--model-repository={}", repository.path().display());
    let (_, mut first, one) = start_stage("preprocess", &argument, &[]);
    let (name, second, two) = start_stage("preprocess", &argument, &[]);
    let stage = format!("--stage=preprocess=static:///{one},{two}");
    let system = System::of(
        Program::start("consort-gateway", &[stage, argument]),
        vec![(name, second, two)],
    );
    system.wait_until_ready();
    let upstream = |replica: &str| {
        system.metric(&format!(
            r#"consort_upstream_requests{{stage="preprocess",replica="{replica}",outcome="success""#
        ))
    };
    let second = system.stages[0].2.clone();
    wait_until("both replicas' answers", || {
        assert_eq!(system.post("/v2/models/quick/infer", INFER).status, 200);
        upstream(&one) >= 1.0 && upstream(&second) >= 1.0
    });
    first.kill();
    for _ in 0..50 {
        let answer = system.post("/v2/models/quick/infer", INFER);
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

/// What the caller of a new connection met.
#[derive(Debug, PartialEq, Eq)]
enum Met {
    Answered,
    /// Nobody listens any more: the caller knows that nothing was done.
    Refused,
}

/// Connects anew, sends `asked` and waits for the first bytes of an answer.
fn knock(address: &str, asked: &[u8]) -> Met {
    let mut stream = match TcpStream::connect(address) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Met::Refused,
        Err(error) => panic!("cannot connect: {error}"),
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    stream.write_all(asked).expect("the connection takes what is asked");
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).expect("who is accepted is answered");
    Met::Answered
}

#[test]
fn no_new_connection_is_reset_while_the_server_stops() {
    const HTTP: &[u8] = b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    // The preface of HTTP/2 and empty settings, which the server answers with its own.
    const GRPC: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const AROUND: Duration = Duration::from_millis(300);
    for _ in 0..3 {
        let repository = Repository::new().with_identity("quick");
        let system = System::start(Layout::OneProcess, repository.path());
        let begun_at = Instant::now();
        let answered: usize = thread::scope(|scope| {
            let doors = [(&system.http, HTTP), (&system.grpc, GRPC)];
            let callers: Vec<_> = doors
                .into_iter()
                .flat_map(|door| [door; 4])
                .map(|(address, asked)| {
                    let address = address.clone();
                    scope.spawn(move || {
                        let knocks = std::iter::repeat_with(|| knock(&address, asked));
                        let before = knocks.take_while(|_| begun_at.elapsed() < 2 * AROUND);
                        before.filter(|met| *met == Met::Answered).count()
                    })
                })
                .collect();
            thread::sleep(AROUND);
            system.front.terminate();
            callers.into_iter().map(|caller| caller.join().expect("nobody is reset")).sum()
        });
        assert!(answered > 100, "{answered} are no burst");
        assert_eq!(system.front.wait().0.code(), Some(0));
        assert!(begun_at.elapsed() < Duration::from_secs(10), "{:?}", begun_at.elapsed());
    }
}
