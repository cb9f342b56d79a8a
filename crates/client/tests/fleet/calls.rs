//! What a call carries there and brings back, and how it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use consort_client::Fleet;
use consort_repository::Models;
use consort_stage::{
    Code, Context, Parameter, Request, Response, Responses, Result, Stage, Tensor, collect_one,
};
use consort_telemetry::Outcome;
use futures::StreamExt;
use futures::future::join_all;
use tokio::time::timeout;

use crate::fake::{Fake, row};
use crate::models::{fleet_of, options, ready_fleet, until};

/// A cancelled call must be over there within this.
const SOON: Duration = Duration::from_millis(50);

pub(crate) fn request(value: i32) -> Request {
    Request { inputs: vec![Tensor::from_vec("x", &[1], vec![value])], ..Request::default() }
}

pub(crate) fn values(response: &Response) -> Vec<i32> {
    response.outputs[0].to_slice().unwrap().into_owned()
}

/// The one answer to one value.
pub(crate) async fn ask(stage: &dyn Stage, value: i32) -> Result<Response> {
    collect_one(stage.call(request(value))).await
}

fn call(fleet: &Fleet, model: &str, request: Request) -> Responses {
    fleet.get(model, None).unwrap().stage.call(request)
}

fn count_to(n: u64) -> Request {
    Request { parameters: [("n".to_owned(), Parameter::Uint(n))].into(), ..request(0) }
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let fake = Fake::start(&["echo"]);
    let fleet = ready_fleet(&[&fake]).await;
    let mut asked = request(7);
    asked.id = "r1".into();
    asked.outputs = vec!["x".into()];
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    asked.context.traceparent = Some(traceparent.into());
    asked.context.tracestate = Some("a=1".into());
    let answer = collect_one(call(&fleet, "echo", asked)).await.unwrap();
    assert_eq!(values(&answer), [7]);
    assert!(answer.is_last);
    let sent = fake.state.request.lock().clone();
    assert_eq!((&*sent.model_name, &*sent.model_version, &*sent.id), ("echo", "1", "r1"));
    assert_eq!(sent.outputs[0].name, "x");
    assert!(sent.parameters.is_empty(), "an empty final response is for decoupled models");
    let metadata = fake.state.metadata.lock().clone();
    for (name, value) in [("traceparent", traceparent), ("tracestate", "a=1")] {
        assert_eq!(metadata.get(name).unwrap(), value);
    }
    assert!(metadata.get("grpc-timeout").is_none());
}

#[tokio::test]
async fn streamed_responses_come_in_order_and_without_the_empty_last_one() {
    let fake = Fake::start(&["count"]);
    let fleet = ready_fleet(&[&fake]).await;
    let responses: Vec<_> = call(&fleet, "count", count_to(1000)).collect().await;
    let came: Vec<_> =
        responses.into_iter().flat_map(|response| values(&response.unwrap())).collect();
    assert!(came.into_iter().eq(0..1000));
    let parameters = fake.state.request.lock().parameters.clone();
    assert!(parameters.contains_key("triton_enable_empty_final_response"));
    let metadata = fake.state.metadata.lock().clone();
    assert_eq!(metadata.get("triton_grpc_error").unwrap(), "true");
    let none: Vec<_> = call(&fleet, "count", count_to(0)).collect().await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_large_tensor_goes_both_ways() {
    let fake = Fake::start(&["echo"]);
    let fleet = ready_fleet(&[&fake]).await;
    let numbers: Vec<i32> = (0..6_000_000).collect();
    let asked = Request {
        inputs: vec![Tensor::from_vec("x", &[6_000_000], numbers.clone())],
        ..Request::default()
    };
    let answer = collect_one(call(&fleet, "echo", asked)).await.unwrap();
    assert!(values(&answer) == numbers);
}

#[tokio::test]
async fn the_deadline_travels_as_grpc_timeout() {
    let fake = Fake::start(&["echo"]);
    let fleet = ready_fleet(&[&fake]).await;
    let mut asked = request(1);
    asked.context.deadline = Some(Instant::now() + Duration::from_secs(30));
    collect_one(call(&fleet, "echo", asked)).await.unwrap();
    let metadata = fake.state.metadata.lock().clone();
    let text = metadata.get("grpc-timeout").unwrap().to_str().unwrap();
    let microseconds: u64 = text.strip_suffix('u').unwrap().parse().unwrap();
    assert!((29_000_000..=30_000_000).contains(&microseconds), "{text}");
}

#[tokio::test]
async fn a_deadline_that_passes_is_said_to_have_passed() {
    let fake = Fake::start(&["echo", "hang"]);
    let fleet = ready_fleet(&[&fake]).await;
    let with_deadline = |model, deadline| {
        let mut asked = request(1);
        asked.context = Context { deadline: Some(deadline), ..Context::default() };
        collect_one(call(&fleet, model, asked))
    };
    let error = with_deadline("echo", Instant::now()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(fake.calls(), 0, "there was no time to ask");
    let soon = Instant::now() + Duration::from_millis(20);
    let error = with_deadline("hang", soon).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(error.message().starts_with("service 'model' ("), "{error}");
}

#[tokio::test]
async fn errors_keep_their_code_and_name_the_service() {
    let fake = Fake::start(&["fail", "full", "inband", "midway"]);
    let fleet = ready_fleet(&[&fake]).await;
    for (model, responses, code, text) in [
        ("fail", 0, Code::Overloaded, "queue is full"),
        ("full", 0, Code::Overloaded, "Exceeds maximum queue size"),
        ("inband", 1, Code::Unknown, "it went wrong"),
        ("midway", 1, Code::InvalidInput, "unexpected inference input 'y'"),
    ] {
        let mut came: Vec<_> = call(&fleet, model, request(1)).collect().await;
        let error = came.pop().unwrap().unwrap_err();
        assert_eq!(came.iter().filter(|response| response.is_ok()).count(), responses);
        assert_eq!((came.len(), error.code()), (responses, code), "{error}");
        let expected = format!("service 'model' ({}): {text}", fake.address);
        assert_eq!(error.message(), expected);
    }
}

#[tokio::test]
async fn whoever_names_no_version_gets_what_is_left_when_the_newest_has_just_gone() {
    let fake = Fake::start(&["left", "left_stream"]);
    for model in ["left", "left_stream"] {
        fake.state.index.lock().push(row(model, "2", "READY", ""));
    }
    let fleet = ready_fleet(&[&fake]).await;
    for model in ["left", "left_stream"] {
        let newest = fleet.get(model, None).unwrap();
        assert_eq!(newest.version, 2, "as far as is known");
        let answer = ask(&*newest.stage, 7).await.unwrap();
        assert_eq!((values(&answer), answer.version), (vec![7], Some(1)), "{model}");
        assert_eq!(fake.state.request.lock().model_version, "", "{model}");
        let named = fleet.get(model, Some(2)).unwrap();
        let refused = ask(&*named.stage, 7).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{model}: {refused}");
        // Whoever holds on to it, as an ensemble does, goes on with what is left.
        fake.state.index.lock().retain(|row| row.name != model || row.version == "1");
        until(|| fleet.get(model, None).unwrap().version == 1).await;
        let answer = ask(&*newest.stage, 8).await.unwrap();
        assert_eq!((values(&answer), answer.version), (vec![8], Some(1)), "{model}");
        assert_eq!(fake.state.request.lock().model_version, "1", "{model}");
        let refused = ask(&*named.stage, 8).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{model}: {refused}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_makes_its_calls_unavailable() {
    let fake = Fake::start(&["stall", "hang"]);
    let fleet = ready_fleet(&[&fake]).await;
    let mut streaming = call(&fleet, "stall", request(1));
    streaming.next().await.unwrap().unwrap();
    let silent = tokio::spawn(collect_one(call(&fleet, "hang", request(1))));
    until(|| fake.calls() == 2).await;
    let place = format!("service 'model' ({}): ", fake.address);
    drop(fake);
    let streaming = streaming.next().await.unwrap().unwrap_err();
    let silent = silent.await.unwrap().unwrap_err();
    for error in [streaming, silent] {
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.message().starts_with(&place), "{error}");
    }
}

#[tokio::test]
async fn dropping_the_responses_cancels_the_call_over_there() {
    let fake = Fake::start(&["stall", "hang"]);
    let fleet = ready_fleet(&[&fake]).await;
    let mut cancelled = fake.state.cancelled.subscribe();

    let mut streaming = call(&fleet, "stall", request(1));
    streaming.next().await.unwrap().unwrap();
    drop(streaming);
    let seen = timeout(SOON, cancelled.wait_for(|count| *count == 1)).await.is_ok();
    assert!(seen, "while it streams");

    let mut silent = call(&fleet, "hang", request(1));
    let waiting = timeout(Duration::from_secs(1), silent.next());
    tokio::select! {
        _ = waiting => panic!("it never answers"),
        () = until(|| fake.calls() == 2) => {}
    }
    drop(silent);
    let seen = timeout(SOON, cancelled.wait_for(|count| *count == 2)).await.is_ok();
    assert!(seen, "before it answers");
}

#[tokio::test]
async fn a_call_that_is_never_polled_is_never_sent() {
    let fake = Fake::start(&["echo"]);
    let fleet = ready_fleet(&[&fake]).await;
    drop(call(&fleet, "echo", request(1)));
    ask(&*fleet.get("echo", None).unwrap().stage, 2).await.unwrap();
    assert_eq!(fake.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_leave_nothing_in_flight() {
    let fake = Fake::start(&["echo", "count", "fail", "stall"]);
    let options = options();
    let metrics = options.metrics.clone();
    let fleet = fleet_of(&[("model", &[&fake])], options);
    until(|| fleet.is_ready()).await;
    let meter = metrics.upstream("model", &fake.address.to_string());
    let callers = (0..16).map(|caller| {
        let fleet = Arc::clone(&fleet);
        tokio::spawn(async move {
            for round in 0..64 {
                call_somehow(&fleet, caller + round).await;
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    assert_eq!(meter.in_flight(), 0);
    let ended = [Outcome::Success, Outcome::Failure, Outcome::Cancelled, Outcome::Unavailable];
    assert_eq!(ended.map(|outcome| meter.ended(outcome)), [512, 256, 256, 0]);
}

async fn call_somehow(fleet: &Fleet, turn: usize) {
    match turn % 4 {
        0 => drop(ask(&*fleet.get("echo", None).unwrap().stage, 1).await.unwrap()),
        1 => {
            // As one who knows from the last response that there is nothing left to read.
            let mut responses = call(fleet, "count", count_to(3));
            while let Some(response) = responses.next().await {
                response.unwrap();
            }
        }
        2 => drop(ask(&*fleet.get("fail", None).unwrap().stage, 1).await.unwrap_err()),
        _ => {
            let mut responses = call(fleet, "stall", request(1));
            responses.next().await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_at_the_last_response_resets_nothing() {
    let fake = Fake::start(&["echo"]);
    let fleet = ready_fleet(&[&fake]).await;
    let stage = &fleet.get("echo", None).unwrap().stage;
    let calls = (0..2000).map(|value| async move {
        let mut responses = stage.call(request(value));
        let response = responses.next().await.unwrap().unwrap();
        assert!(response.is_last);
    });
    futures::stream::iter(calls).buffer_unordered(64).collect::<Vec<()>>().await;
    assert_eq!(*fake.state.cancelled.borrow(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_cancellations_leaves_the_other_calls_alone() {
    let fake = Fake::start(&["flood", "echo"]);
    let fleet = ready_fleet(&[&fake]).await;
    let stage = &fleet.get("echo", None).unwrap().stage;
    let cancelling = (0..600).map(|_| async {
        let mut responses = call(&fleet, "flood", request(1));
        responses.next().await.unwrap().unwrap();
    });
    let cancelling = futures::stream::iter(cancelling).buffer_unordered(128).collect::<Vec<()>>();
    let asking = (0..300).map(|value| ask(&**stage, value));
    let asking = futures::stream::iter(asking).buffered(4).collect::<Vec<_>>();
    let (_, answers) = tokio::join!(cancelling, asking);
    for answer in answers {
        answer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_the_model_back_and_nobody_else() {
    let fake = Fake::start(&["flood", "echo"]);
    let fleet = ready_fleet(&[&fake]).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut responses = call(&fleet, "flood", request(1));
        responses.next().await.unwrap().unwrap();
        slow.push(responses);
    }
    let mut sent = 0;
    let mut still = 0;
    while still < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = fake.state.sent.load(SeqCst);
        still = if now == sent { still + 1 } else { 0 };
        sent = now;
    }
    // Each message is 64 KiB, each window 4 MiB; the transports hold a little more.
    assert!(sent < 4 * 100, "{sent} messages came although nobody reads");
    ask(&*fleet.get("echo", None).unwrap().stage, 1).await.unwrap();
}
