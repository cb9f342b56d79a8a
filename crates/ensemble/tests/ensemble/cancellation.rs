//! The first error ends everything, and so does a caller that goes away.

use std::sync::Arc;
use std::task::Context;

use consort_stage::{Code, Error, Stage};
use consort_testkit::{Gate, Probe, Wakes, failing, many, silent};
use futures::{FutureExt, StreamExt};

use crate::dataflow::{adding, summing};
use crate::graph::{answers, ensemble, number, request, shown};

const ONE: &str = "IN INT32[1] -> OUT INT32[1]";
const STREAM: &str = "IN INT32[1] ->> OUT INT32[1]";
const SUM: &str = "A INT32[1], B INT32[1] -> OUT INT32[1]";

#[tokio::test]
async fn the_first_error_names_its_place_and_stops_all_else() {
    let gate = Gate::closed();
    let (running, stage) = Probe::on(silent());
    let (after, after_stage) = Probe::on(adding(1));
    let full = Error::new(Code::Overloaded, "Exceeds maximum queue size");
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("silent", STREAM, stage)
        .runs("bad", ONE, gate.before(failing(&full)))
        .runs("worse", ONE, gate.before(failing(&Error::internal("second"))))
        .runs("after", ONE, after_stage)
        .runs("sum", SUM, summing())
        .step("silent", "IN=x -> OUT=s")
        .step("bad", "IN=x -> OUT=b")
        .step("worse", "IN=x -> OUT=w")
        .step("after", "IN=b -> OUT=c")
        .step("sum", "A=s B=c -> OUT=d")
        .step("sum", "A=d B=w -> OUT=y");
    let stage = graph.build();
    let mut responses = stage.call(request(vec![number("x", 1)]));
    assert!(responses.next().now_or_never().is_none());
    assert_eq!(running.running(), 1);
    gate.open();
    let error = responses.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Overloaded);
    assert_eq!(
        error.message(),
        "in ensemble 'e', step 1 (model 'bad'): Exceeds maximum queue size"
    );
    assert_eq!(running.cancelled(), 1, "at once, not when the stream is dropped");
    assert_eq!(after.begun(), 0);
    assert!(responses.next().await.is_none());
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_comes_after_what_was_said_before() {
    let stream = many(|_| (0..10).map(|index| vec![number("OUT", index)]));
    let picky = consort_testkit::answering(|request| {
        let value = crate::graph::value(&request.inputs[0]);
        if value == 2 {
            return Err(Error::invalid("two is too many"));
        }
        Ok(vec![number("OUT", value)])
    });
    let (producer, stream) = Probe::on(stream);
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("stream", STREAM, stream)
        .runs("picky", ONE, picky)
        .step("stream", "IN=x -> OUT=s")
        .step("picky", "IN=s -> OUT=y");
    let said = answers(&graph.build(), vec![number("x", 0)]).await;
    assert_eq!(said, ["y=0", "y=1", "in ensemble 'e', step 1 (model 'picky'): two is too many"]);
    assert_eq!(producer.cancelled(), 1);
}

#[test]
fn a_request_that_waits_for_its_steps_wakes_nobody() {
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("silent", ONE, silent())
        .runs("other", ONE, silent())
        .runs("sum", SUM, summing())
        .step("silent", "IN=x -> OUT=a")
        .step("other", "IN=x -> OUT=b")
        .step("sum", "A=a B=b -> OUT=y");
    let mut responses = graph.build().call(request(vec![number("x", 1)]));
    let wakes = Arc::new(Wakes::default());
    let waker = wakes.clone().into();
    let mut context = Context::from_waker(&waker);
    for _ in 0..3 {
        assert!(responses.poll_next_unpin(&mut context).is_pending());
    }
    assert_eq!(wakes.count(), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_every_running_step() {
    let (left, left_stage) = Probe::on(silent());
    let (right, right_stage) = Probe::on(silent());
    let inner = ensemble("p INT32[1] -> q INT32[1]")
        .runs("right", ONE, right_stage)
        .step("right", "IN=p -> OUT=q");
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("left", ONE, left_stage)
        .runs("inner", "p INT32[1] -> q INT32[1]", std::sync::Arc::new(inner.build()))
        .runs("sum", SUM, summing())
        .step("left", "IN=x -> OUT=l")
        .step("inner", "p=x -> q=r")
        .step("sum", "A=l B=r -> OUT=y");
    let stage = graph.build();
    let mut responses = stage.call(request(vec![number("x", 1)]));
    assert!(responses.next().now_or_never().is_none());
    assert_eq!((left.running(), right.running()), (1, 1));
    drop(responses);
    assert_eq!((left.cancelled(), right.cancelled()), (1, 1));
}

#[tokio::test]
async fn a_paused_stream_is_stopped_too() {
    let (producer, stream) = Probe::on(many(|_| (0..100).map(|index| vec![number("OUT", index)])));
    let (slow, slow_stage) = Probe::on(silent());
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .inflight(2)
        .runs("stream", STREAM, stream)
        .runs("slow", ONE, slow_stage)
        .step("stream", "IN=x -> OUT=s")
        .step("slow", "IN=s -> OUT=y");
    let stage = graph.build();
    let mut responses = stage.call(request(vec![number("x", 1)]));
    assert!(responses.next().now_or_never().is_none());
    assert_eq!((producer.answers(), slow.running()), (2, 1));
    drop(responses);
    assert_eq!((producer.cancelled(), slow.cancelled()), (1, 1));
}

#[tokio::test]
async fn requests_do_not_disturb_one_another() {
    let gate = Gate::closed();
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("a", ONE, gate.before(adding(1)))
        .step("a", "IN=x -> OUT=t")
        .step("a", "IN=t -> OUT=y");
    let stage = graph.build();
    let mut calls: Vec<_> = (0..50).map(|x| stage.call(request(vec![number("x", x)]))).collect();
    for call in &mut calls {
        assert!(call.next().now_or_never().is_none());
    }
    // Every second caller leaves.
    let mut index = 0;
    calls.retain(|_| {
        index += 1;
        index % 2 == 0
    });
    gate.open();
    for (index, call) in calls.into_iter().enumerate() {
        let said: Vec<_> = call.map(|response| shown(&response.unwrap())).collect().await;
        assert_eq!(said, [format!("y={}.", 2 * index + 3)]);
    }
}
