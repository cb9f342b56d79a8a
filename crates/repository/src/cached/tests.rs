//! Hits, misses and flights, with calls that a gate holds back.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use consort_stage::{Error, Parameter, Tensor, fail};
use consort_testkit::{Gate, Probe, answering, failing, identity};
use futures::{FutureExt, StreamExt};

use super::*;

struct Setup {
    stage: Cached,
    probe: Probe,
    gate: Gate,
    meter: Arc<Meter>,
    cache: Arc<ResponseCache>,
}

fn setup(inner: Arc<dyn Stage>) -> Setup {
    let (gate, meter) = (Gate::closed(), Arc::<Meter>::default());
    let cache = Arc::new(ResponseCache::new(1 << 20));
    let (probe, inner) = Probe::on(gate.before(inner));
    let stage = Cached::new(inner, cache.clone(), meter.clone());
    Setup { stage, probe, gate, meter, cache }
}

fn echo() -> Setup {
    setup(identity(&[("x", "y")]))
}

fn request(value: i32) -> Request {
    Request { inputs: vec![Tensor::from_vec("x", &[1], vec![value])], ..Request::default() }
}

async fn answer(responses: Responses) -> Result<i32> {
    let response = collect_one(responses).await?;
    Ok(response.outputs[0].to_slice::<i32>().unwrap()[0])
}

impl Setup {
    /// A call that waits.
    fn begin(&self, request: Request) -> Responses {
        let mut responses = self.stage.call(request);
        assert!(responses.next().now_or_never().is_none());
        responses
    }

    /// Hits and misses.
    fn counts(&self) -> (u64, u64) {
        let snapshot = self.meter.snapshot();
        (snapshot.cache_hit.count, snapshot.cache_miss.count)
    }

    fn flights(&self) -> usize {
        self.stage.0.flights.lock().len()
    }
}

#[tokio::test]
async fn what_was_asked_before_is_answered_without_a_run() {
    let setup = echo();
    setup.gate.open();
    for value in [1, 2, 1, 1] {
        assert_eq!(answer(setup.stage.call(request(value))).await.unwrap(), value);
    }
    assert_eq!((setup.probe.begun(), setup.counts()), (2, (2, 2)));
    assert_eq!(setup.flights(), 0);
}

#[tokio::test]
async fn equal_requests_in_flight_run_once() {
    let setup = echo();
    let calls: Vec<_> = (0..5).map(|_| setup.begin(request(1))).collect();
    let other = setup.begin(request(2));
    assert_eq!(setup.probe.begun(), 2);
    setup.gate.open();
    for answer in futures::future::join_all(calls.into_iter().map(answer)).await {
        assert_eq!(answer.unwrap(), 1);
    }
    assert_eq!(answer(other).await.unwrap(), 2);
    assert_eq!((setup.probe.begun(), setup.counts()), (2, (4, 2)));
    assert_eq!(setup.flights(), 0);
}

#[tokio::test]
async fn a_leader_that_goes_away_hands_over() {
    let setup = echo();
    let leader = setup.begin(request(1));
    let mut followers: Vec<_> = (0..2).map(|_| setup.begin(request(1))).collect();
    drop(leader);
    assert_eq!((setup.probe.begun(), setup.probe.cancelled()), (1, 1));
    // The next one leads as soon as it is asked, and may go away too.
    assert!(followers[0].next().now_or_never().is_none());
    assert_eq!(setup.probe.begun(), 2);
    drop(followers.remove(0));
    setup.gate.open();
    assert_eq!(answer(followers.remove(0)).await.unwrap(), 1);
    assert_eq!((setup.probe.begun(), setup.counts()), (3, (0, 1)));
    assert_eq!(setup.flights(), 0);
}

#[tokio::test]
async fn a_flight_that_everybody_left_is_forgotten() {
    let setup = echo();
    let calls: Vec<_> = (0..3).map(|_| setup.begin(request(1))).collect();
    assert_eq!(setup.flights(), 1);
    drop(calls);
    assert_eq!((setup.flights(), setup.probe.running()), (0, 0));
}

#[tokio::test]
async fn an_error_of_the_work_is_given_to_all_and_kept_for_nobody() {
    let setup = setup(failing(&Error::internal("no such operator")));
    let calls: Vec<_> = (0..3).map(|_| setup.begin(request(1))).collect();
    setup.gate.open();
    for answer in futures::future::join_all(calls.into_iter().map(answer)).await {
        assert_eq!(answer.unwrap_err().message(), "no such operator");
    }
    assert_eq!((setup.probe.begun(), setup.counts()), (1, (0, 1)));
    assert!(answer(setup.stage.call(request(1))).await.is_err());
    assert_eq!(setup.probe.begun(), 2);
}

/// Gives every request this error.
struct Broken(fn() -> Error);

impl Stage for Broken {
    fn call(&self, _: Request) -> Responses {
        fail((self.0)())
    }
}

#[tokio::test]
async fn the_caller_that_ran_is_given_the_cause_of_its_error() {
    let broken = || Error::internal("broken").with_source(std::io::Error::other("the cause"));
    let setup = setup(Arc::new(Broken(broken)));
    setup.gate.open();
    let error = answer(setup.stage.call(request(1))).await.unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn an_error_of_the_moment_stays_with_the_one_who_met_it() {
    let runs = AtomicUsize::new(0);
    let setup = setup(answering(move |request| match runs.fetch_add(1, SeqCst) {
        0 => Err(Error::new(Code::Overloaded, "Exceeds maximum queue size")),
        _ => Ok(vec![request.inputs[0].clone().renamed("y".into())]),
    }));
    let calls: Vec<_> = (0..3).map(|_| setup.begin(request(1))).collect();
    setup.gate.open();
    let answers = futures::future::join_all(calls.into_iter().map(answer)).await;
    let codes: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|e| e.code())).collect();
    assert_eq!(codes, [Err(Code::Overloaded), Ok(1), Ok(1)]);
    assert_eq!((setup.probe.begun(), setup.counts()), (2, (1, 2)));
}

#[tokio::test]
async fn a_request_of_a_sequence_is_always_run() {
    let setup = echo();
    setup.gate.open();
    let mut request = request(1);
    request.parameters.insert("sequence_id".into(), Parameter::Uint(7));
    for _ in 0..2 {
        assert_eq!(answer(setup.stage.call(request.clone())).await.unwrap(), 1);
    }
    assert_eq!((setup.probe.begun(), setup.counts()), (2, (0, 0)));
}

#[tokio::test]
async fn a_model_that_is_loaded_again_does_not_give_old_answers() {
    let setup = echo();
    setup.gate.open();
    answer(setup.stage.call(request(1))).await.unwrap();
    let (probe, inner) = Probe::on(identity(&[("x", "y")]));
    let reloaded = Cached::new(inner, setup.cache.clone(), setup.meter.clone());
    answer(reloaded.call(request(1))).await.unwrap();
    assert_eq!(probe.begun(), 1);
}
