//! Steps behind a streaming step: in order, with what is held, never far behind, nothing kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use consort_stage::{DataType, Request, Response, Responses, Stage, Tensor};
use consort_testkit::{Gate, Probe, answering, identity, many};
use futures::{FutureExt, StreamExt, stream};

use crate::dataflow::{adding, summing};
use crate::graph::{Graph, answers, ensemble, number, request, shown, value};

const ONE: &str = "IN INT32[1] -> OUT INT32[1]";
const STREAM: &str = "IN INT32[1] ->> OUT INT32[1]";
const SUM: &str = "A INT32[1], B INT32[1] -> OUT INT32[1]";

/// A streaming stage that counts up from its input, `count` times.
fn counting(count: i32) -> Arc<dyn Stage> {
    many(move |request: Request| {
        let first = value(&request.inputs[0]);
        (first..first + count).map(|number_| vec![number("OUT", number_)])
    })
}

/// A streaming stage that counts from 0 to its input.
fn repeating() -> Arc<dyn Stage> {
    many(|request: Request| {
        let count = value(&request.inputs[0]);
        (0..count).map(|number_| vec![number("OUT", number_)])
    })
}

#[tokio::test]
async fn each_response_of_a_stream_goes_through_in_order() {
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("stream", STREAM, counting(4))
        .runs("a", ONE, adding(10))
        .step("stream", "IN=x -> OUT=s")
        .step("a", "IN=s -> OUT=t")
        .step("a", "IN=t -> OUT=y");
    let said = answers(&graph.build(), vec![number("x", 1)]).await;
    assert_eq!(said, ["y=21", "y=22", "y=23", "y=24."]);
}

#[tokio::test]
async fn what_comes_once_is_given_to_every_response() {
    let gate = Gate::closed();
    let graph = ensemble("x INT32[1], bias INT32[1] -> y INT32[1], slow INT32[1], bias2 INT32[1]")
        .runs("stream", STREAM, counting(3))
        .runs("slow", ONE, gate.before(adding(100)))
        .runs("pass", ONE, identity(&[("IN", "OUT")]))
        .runs("sum", SUM, summing())
        .step("stream", "IN=x -> OUT=s")
        .step("slow", "IN=x -> OUT=slow")
        .step("pass", "IN=bias -> OUT=bias2")
        .step("sum", "A=s B=slow -> OUT=t")
        .step("sum", "A=t B=bias -> OUT=y");
    let stage = graph.build();
    let mut responses = stage.call(request(vec![number("x", 1), number("bias", 1000)]));
    assert!(responses.next().now_or_never().is_none());
    gate.open();
    let said: Vec<_> = responses.map(|response| shown(&response.unwrap())).collect().await;
    assert_eq!(
        said,
        ["y=1102 slow=101 bias2=1000", "y=1103 slow=101 bias2=1000", "y=1104 slow=101 bias2=1000."]
    );
}

fn nested() -> Graph {
    ensemble("x INT32[1] -> y INT32[1], s INT32[1]")
        .runs("stream", STREAM, counting(4))
        .runs("inner", STREAM, repeating())
        .runs(
            "sum",
            SUM,
            answering(|request| {
                let of = |name| value(request.input(name).unwrap());
                Ok(vec![number("OUT", 10 * of("A") + of("B"))])
            }),
        )
        .step("stream", "IN=x -> OUT=s")
        .step("inner", "IN=s -> OUT=t")
        .step("sum", "A=s B=t -> OUT=y")
}

#[tokio::test]
async fn a_stream_behind_a_stream_joins_with_what_it_came_from() {
    let said = answers(&nested().build(), vec![number("x", 0)]).await;
    assert_eq!(said, ["y=10 s=1", "y=20 s=2", "y=21 s=2", "y=30 s=3", "y=31 s=3", "y=32 s=3."]);
}

#[tokio::test]
async fn a_stream_whose_last_branch_gives_nothing_just_ends() {
    // 0 and negative numbers give no response of the inner stream.
    let said = answers(&nested().build(), vec![number("x", -2)]).await;
    assert_eq!(said, ["y=10 s=1."]);
    let falling = many(|_| [2, 1, 0].map(|number_| vec![number("OUT", number_)]));
    let stage = nested().runs("stream", STREAM, falling).build();
    let said = answers(&stage, vec![number("x", 0)]).await;
    assert_eq!(said, ["y=20 s=2", "y=21 s=2", "y=10 s=1"]);
    let said = answers(&nested().build(), vec![number("x", -9)]).await;
    assert_eq!(said, [""; 0]);
}

#[tokio::test]
async fn an_empty_response_only_ends_a_stream_and_a_missing_output_is_left_out() {
    let gaps =
        many(|_| vec![vec![number("OUT", 1), number("MORE", 2)], vec![number("OUT", 3)], vec![]]);
    let graph = ensemble("x INT32[1] -> y INT32[1], more INT32[1]")
        .runs("gaps", "IN INT32[1] ->> OUT INT32[1], MORE INT32[1]", gaps)
        .step("gaps", "IN=x -> OUT=y MORE=more");
    let said = answers(&graph.build(), vec![number("x", 1)]).await;
    assert_eq!(said, ["y=1 more=2", "y=3"]);
}

#[tokio::test]
async fn a_step_that_promises_one_response_need_not_say_it_is_the_last() {
    struct Modest;
    impl Stage for Modest {
        fn call(&self, _: Request) -> Responses {
            let outputs = vec![number("OUT", 1)];
            Box::pin(stream::iter([Ok(Response { outputs, ..Response::default() })]))
        }
    }
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("modest", ONE, Arc::new(Modest))
        .step("modest", "IN=x -> OUT=y");
    assert_eq!(answers(&graph.build(), vec![number("x", 1)]).await, ["y=1."]);
}

#[tokio::test]
async fn unrelated_streams_keep_their_own_order() {
    let graph = ensemble("x INT32[1] -> y INT32[1], z INT32[1]")
        .runs("few", STREAM, counting(2))
        .runs("some", STREAM, counting(3))
        .step("few", "IN=x -> OUT=y")
        .step("some", "IN=x -> OUT=z");
    let said = answers(&graph.build(), vec![number("x", 0)]).await;
    let of =
        |name: &str| said.iter().filter(|one| one.starts_with(name)).cloned().collect::<Vec<_>>();
    assert_eq!(of("y"), ["y=0", "y=1"]);
    assert_eq!(of("z"), ["z=0", "z=1", "z=2"]);
}

#[tokio::test]
async fn a_producer_is_never_further_ahead_than_it_may() {
    for most in [1, 3, 16] {
        let gate = Gate::closed();
        let (producer, stream_stage) = Probe::on(counting(10_000));
        let (slow, slow_stage) = Probe::on(gate.before(adding(0)));
        let graph = ensemble("x INT32[1] -> y INT32[1]")
            .inflight(most)
            .runs("stream", STREAM, stream_stage)
            .runs("quick", ONE, adding(0))
            .runs("slow", ONE, slow_stage)
            .step("stream", "IN=x -> OUT=s")
            .step("quick", "IN=s -> OUT=t")
            .step("quick", "IN=t -> OUT=u")
            .step("slow", "IN=u -> OUT=y");
        let stage = graph.build();
        let mut responses = stage.call(request(vec![number("x", 0)]));
        for read in 0..10_000 {
            assert!(responses.next().now_or_never().is_none());
            let ahead = producer.answers() - slow.ended();
            assert!(ahead <= most as usize, "{ahead} in flight, {most} may be");
            gate.pass(1);
            let response = responses.next().now_or_never().flatten().unwrap().unwrap();
            assert_eq!(value(&response.outputs[0]), read);
            // The runtime makes a task wait that never does of its own accord.
            tokio::task::yield_now().await;
        }
        assert!(responses.next().await.is_none());
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_everything() {
    let (producer, stage) = Probe::on(counting(10_000));
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("stream", STREAM, stage)
        .runs("a", ONE, adding(0))
        .step("stream", "IN=x -> OUT=s")
        .step("a", "IN=s -> OUT=y");
    let stage = graph.build();
    let mut responses = stage.call(request(vec![number("x", 0)]));
    responses.next().await;
    let made = producer.answers();
    tokio::task::yield_now().await;
    assert_eq!(producer.answers(), made);
    assert!(made <= 16, "{made}");
    drop(responses);
    assert_eq!(producer.cancelled(), 1);
}

/// Numbers whose memory is counted while it is there.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn number(&self, name: &str, value: i32) -> Tensor {
        struct Owner(Counted, [u8; 4]);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.1
            }
        }
        impl Drop for Owner {
            fn drop(&mut self) {
                self.0.0.fetch_sub(1, SeqCst);
            }
        }
        self.0.fetch_add(1, SeqCst);
        let data = Bytes::from_owner(Owner(self.clone(), value.to_le_bytes()));
        Tensor::new(name, DataType::Int32, vec![1], data).unwrap()
    }

    fn alive(&self) -> usize {
        self.0.load(SeqCst)
    }
}

#[tokio::test]
async fn what_is_held_for_a_response_goes_when_the_response_is_used_up() {
    let counted = Counted::default();
    let outer = counted.clone();
    let stream_stage = many(move |_| {
        let outer = outer.clone();
        (0..5_000).map(move |index| vec![outer.number("OUT", index)])
    });
    // Every third gives nothing at all, and the rest one or two.
    let inner = many(|request: Request| {
        let count = value(&request.inputs[0]) % 3;
        (0..count).map(|index| vec![number("OUT", index)])
    });
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .inflight(4)
        .runs("stream", STREAM, stream_stage)
        .runs("inner", STREAM, inner)
        .runs("pass", ONE, identity(&[("IN", "OUT")]))
        .runs("sum", SUM, summing())
        .step("stream", "IN=x -> OUT=s")
        .step("pass", "IN=s -> OUT=p")
        .step("inner", "IN=p -> OUT=t")
        .step("sum", "A=s B=t -> OUT=u")
        .step("sum", "A=p B=u -> OUT=y");
    let stage = graph.build();
    let mut responses = stage.call(request(vec![number("x", 0)]));
    let mut read = 0;
    let mut most = 0;
    while let Some(response) = responses.next().await {
        response.unwrap();
        read += 1;
        most = most.max(counted.alive());
    }
    assert_eq!(read, 4_999, "1 and 2 in turn, of 5,000");
    assert!(most <= 5, "{most} responses were kept");
    assert_eq!(counted.alive(), 0);
}

#[tokio::test]
async fn streams_without_a_single_answer_behind_them_do_not_pile_up() {
    let (producer, stage) = Probe::on(counting(1_000));
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .inflight(2)
        .runs("stream", STREAM, stage)
        .runs("nothing", STREAM, many(|_| Vec::new()))
        .runs("sum", SUM, summing())
        .step("stream", "IN=x -> OUT=s")
        .step("nothing", "IN=s -> OUT=t")
        .step("sum", "A=s B=t -> OUT=y");
    assert_eq!(answers(&graph.build(), vec![number("x", 0)]).await, [""; 0]);
    assert_eq!(producer.answers(), 1_000);
}

#[tokio::test]
async fn only_the_wanted_part_of_a_stream_is_run() {
    let (unwanted, stage) = Probe::on(adding(0));
    let graph = ensemble("x INT32[1] -> y INT32[1], z INT32[1]")
        .inflight(1)
        .runs(
            "stream",
            "IN INT32[1] ->> OUT INT32[1], MORE INT32[1]",
            many(|_| (0..100).map(|index| vec![number("OUT", index), number("MORE", index)])),
        )
        .runs("unwanted", ONE, stage)
        .step("stream", "IN=x -> OUT=y MORE=m")
        .step("unwanted", "IN=m -> OUT=z");
    let asked = Request { outputs: vec!["y".into()], ..request(vec![number("x", 0)]) };
    assert_eq!(graph.build().call(asked).count().await, 100);
    assert_eq!(unwanted.begun(), 0);
}
