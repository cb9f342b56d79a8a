//! Steps run when their inputs are there, side by side, and only when somebody wants them.

use std::sync::Arc;

use consort_stage::{Code, Error, Parameter, Parameters, Request, Stage, Tensor};
use consort_testkit::{Gate, Probe, answering, failing, identity};
use futures::{FutureExt, StreamExt};

use crate::graph::{Graph, answers, ensemble, number, request, value};

const ONE: &str = "IN INT32[1] -> OUT INT32[1]";

/// A stage that adds `by` to its input.
pub(crate) fn adding(by: i32) -> Arc<dyn Stage> {
    answering(move |request| Ok(vec![number("OUT", value(&request.inputs[0]) + by)]))
}

/// A stage that adds its inputs, an absent one counting 100.
pub(crate) fn summing() -> Arc<dyn Stage> {
    answering(|request: Request| {
        let of = |name| request.input(name).map_or(100, value);
        Ok(vec![number("OUT", of("A") + of("B"))])
    })
}

#[tokio::test]
async fn a_chain_gives_what_its_steps_make() {
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("a", ONE, adding(1))
        .runs("b", ONE, adding(10))
        .step("b", "IN=t -> OUT=y")
        .step("a", "IN=x -> OUT=t");
    assert_eq!(answers(&graph.build(), vec![number("x", 5)]).await, ["y=16."]);
}

#[tokio::test]
async fn one_model_serves_several_steps() {
    let (probe, stage) = Probe::on(adding(1));
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("a", ONE, stage)
        .step("a", "IN=x -> OUT=t")
        .step("a@2", "IN=t -> OUT=u")
        .step("a", "IN=u -> OUT=y");
    assert_eq!(answers(&graph.build(), vec![number("x", 0)]).await, ["y=3."]);
    assert_eq!(probe.ended(), 3);
}

#[tokio::test]
async fn a_tensor_goes_to_everyone_who_reads_it() {
    let graph = ensemble("x INT32[1] -> x2 INT32[1], y INT32[1], z INT32[1]")
        .runs("a", ONE, adding(1))
        .runs("sum", "A INT32[1], B INT32[1] -> OUT INT32[1]", summing())
        .step("a", "IN=x -> OUT=x2")
        .step("sum", "A=x2 B=x2 -> OUT=y")
        .step("sum", "A=x2 B=x -> OUT=z");
    assert_eq!(answers(&graph.build(), vec![number("x", 1)]).await, ["x2=2 y=4 z=3."]);
}

#[tokio::test]
async fn independent_steps_run_side_by_side() {
    let gate = Gate::closed();
    let (probe, stage) = Probe::on(gate.before(adding(1)));
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("slow", ONE, stage)
        .runs("sum", "A INT32[1], B INT32[1] -> OUT INT32[1]", summing())
        .step("slow", "IN=x -> OUT=l")
        .step("slow", "IN=x -> OUT=r")
        .step("sum", "A=l B=r -> OUT=y");
    let stage = graph.build();
    let mut responses = stage.call(request(vec![number("x", 1)]));
    assert!(responses.next().now_or_never().is_none());
    assert_eq!(probe.running(), 2);
    gate.pass(2);
    assert_eq!(value(&responses.next().await.unwrap().unwrap().outputs[0]), 4);
    assert!(responses.next().await.is_none());
    assert!(responses.next().await.is_none(), "a stream that has ended stays ended");
}

#[tokio::test]
async fn nothing_is_called_before_the_first_poll() {
    let (probe, stage) = Probe::on(adding(1));
    let graph =
        ensemble("x INT32[1] -> y INT32[1]").runs("a", ONE, stage).step("a", "IN=x -> OUT=y");
    drop(graph.build().call(request(vec![number("x", 1)])));
    assert_eq!(probe.begun(), 0);
}

fn forked() -> (Probe, Probe, Graph) {
    let (left, left_stage) = Probe::on(adding(1));
    let (right, right_stage) = Probe::on(adding(2));
    let graph = ensemble("x INT32[1] -> y INT32[1], z INT32[1]")
        .runs("left", ONE, left_stage)
        .runs("right", ONE, right_stage)
        .step("left", "IN=x -> OUT=y")
        .step("right", "IN=x -> OUT=t")
        .step("right", "IN=t -> OUT=z");
    (left, right, graph)
}

#[tokio::test]
async fn steps_that_nobody_wants_are_skipped() {
    for (wanted, left_calls, right_calls) in
        [(vec![], 1, 2), (vec!["y"], 1, 0), (vec!["z"], 0, 2), (vec!["z", "y"], 1, 2)]
    {
        let (left, right, graph) = forked();
        let outputs: Vec<Arc<str>> = wanted.iter().map(|name| Arc::from(*name)).collect();
        let asked = Request { outputs, ..request(vec![number("x", 0)]) };
        let responses: Vec<_> = graph.build().call(asked).collect().await;
        assert_eq!(responses.len(), 1);
        let response = responses[0].as_ref().unwrap();
        let count = if wanted.is_empty() { 2 } else { wanted.len() };
        assert_eq!(response.outputs.len(), count, "{wanted:?}");
        assert_eq!((left.ended(), right.ended()), (left_calls, right_calls), "{wanted:?}");
    }
}

#[tokio::test]
async fn a_model_is_not_asked_for_what_only_skipped_steps_would_read() {
    let both = answering(|_| Ok(vec![number("A", 1), number("B", 2)]));
    let (probe, both) = Probe::on(both);
    let graph = ensemble("x INT32[1] -> y INT32[1], z INT32[1]")
        .runs("both", "IN INT32[1] -> A INT32[1], B INT32[1]", both)
        .runs("add", ONE, adding(1))
        .step("both", "IN=x -> A=a B=b")
        .step("add", "IN=a -> OUT=y")
        .step("add", "IN=b -> OUT=z");
    let stage = graph.build();
    for (wanted, asked) in [(vec![], vec!["A", "B"]), (vec!["y"], vec!["A"])] {
        let outputs: Vec<Arc<str>> = wanted.iter().map(|name| Arc::from(*name)).collect();
        let request = Request { outputs, ..request(vec![number("x", 0)]) };
        let responses: Vec<_> = stage.call(request).collect().await;
        responses[0].as_ref().unwrap();
        let last = probe.requests().pop().unwrap();
        assert_eq!(last.outputs.iter().map(|name| &**name).collect::<Vec<_>>(), asked);
    }
}

#[tokio::test]
async fn a_model_is_asked_for_the_outputs_that_are_mapped() {
    let (probe, stage) = Probe::on(adding(1));
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("a", "IN INT32[1] -> OUT INT32[1], MORE INT32[1]", stage)
        .step("a", "IN=x -> OUT=y");
    answers(&graph.build(), vec![number("x", 1)]).await;
    assert_eq!(probe.requests()[0].outputs, ["OUT".into()]);
}

#[tokio::test]
async fn an_optional_input_may_be_absent_all_the_way() {
    let graph = ensemble("x INT32[1], hint INT32[1]? -> y INT32[1], z INT32[1]")
        .runs("pass", "IN INT32[1]? -> OUT INT32[1]", identity(&[("IN", "OUT")]))
        .runs("sum", "A INT32[1], B INT32[1]? -> OUT INT32[1]", summing())
        .step("pass", "IN=hint -> OUT=z")
        .step("sum", "A=x B=z -> OUT=y");
    let stage = graph.build();
    assert_eq!(answers(&stage, vec![number("x", 1)]).await, ["y=101."]);
    assert_eq!(answers(&stage, vec![number("x", 1), number("hint", 5)]).await, ["y=6 z=5."]);
}

#[tokio::test]
async fn batch_dimensions_come_and_go_between_steps() {
    let shapes = |request: Request| {
        let shape = &request.inputs[0].shape;
        let count = shape.iter().product::<i64>() as usize;
        Ok(vec![Tensor::from_vec("OUT", shape, vec![0_i32; count])])
    };
    let (batched, batched_stage) = Probe::on(answering(shapes));
    let (plain, plain_stage) = Probe::on(answering(shapes));
    let graph = ensemble("8: x INT32[4] -> y INT32[4]")
        .runs("batched", "8: IN INT32[4] -> OUT INT32[4]", batched_stage)
        .runs("plain", "IN INT32[4] -> OUT INT32[4]", plain_stage)
        .step("plain", "IN=x -> OUT=t")
        .step("batched", "IN=t -> OUT=u")
        .step("plain", "IN=u -> OUT=y");
    let x = Tensor::from_vec("x", &[1, 4], vec![0_i32; 4]);
    let responses: Vec<_> = graph.build().call(request(vec![x])).collect().await;
    let shape_of = |probe: &Probe, call: usize| probe.requests()[call].inputs[0].shape.clone();
    assert_eq!(shape_of(&plain, 0), [4]);
    assert_eq!(shape_of(&batched, 0), [1, 4]);
    assert_eq!(shape_of(&plain, 1), [4]);
    assert_eq!(responses[0].as_ref().unwrap().outputs[0].shape, [1, 4]);
}

#[tokio::test]
async fn an_ensemble_is_a_step_like_any_other() {
    let inner = ensemble("p INT32[1] -> q INT32[1]")
        .runs("a", ONE, adding(1))
        .runs("bad", ONE, failing(&Error::invalid("no such word")))
        .step("a", "IN=p -> OUT=q");
    let outer = |inner: &Graph| {
        let mut outer = ensemble("x INT32[1] -> y INT32[1]")
            .runs("inner", "p INT32[1] -> q INT32[1]", Arc::new(inner.build()))
            .step("inner", "p=x -> q=t")
            .step("inner", "p=t -> q=y");
        outer.spec.name = "outer".into();
        outer.build()
    };
    assert_eq!(answers(&outer(&inner), vec![number("x", 1)]).await, ["y=3."]);

    let mut broken = inner.clone();
    broken.spec.steps[0].model = "bad".into();
    broken.spec.name = "inner".into();
    let error = outer(&broken).call(request(vec![number("x", 1)])).next().await.unwrap();
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::InvalidInput);
    assert_eq!(
        error.message(),
        "in ensemble 'outer', step 0 (model 'inner'): in ensemble 'inner', step 0 (model 'bad'): \
         no such word"
    );
}

#[tokio::test]
async fn an_error_over_an_input_names_the_one_that_the_caller_sent() {
    let wrong = |name: &str| failing(&Error::invalid("must be 1").of_input(Some(name)));
    let two = "IN INT32[1] P INT32[1] -> OUT INT32[1]";
    let inner = |model: &str, edges: &str, stage| {
        ensemble("p INT32[1] -> q INT32[1]")
            .runs("a", ONE, adding(1))
            .runs(model, two, stage)
            .step("a", "IN=p -> OUT=t")
            .step(model, edges)
    };
    let answers_of = async |inner: &Graph| {
        let mut outer = ensemble("x INT32[1] -> y INT32[1]")
            .runs("inner", "p INT32[1] -> q INT32[1]", Arc::new(inner.build()))
            .step("inner", "p=x -> q=y");
        outer.spec.name = "outer".into();
        answers(&outer.build(), vec![number("x", 1)]).await
    };
    let graph = inner("bad", "IN=t P=p -> OUT=q", wrong("P"));
    let text = "in ensemble 'outer', input 'x', step 0 (model 'inner'): in ensemble 'e', input \
                'p', step 1 (model 'bad'): must be 1";
    assert_eq!(answers_of(&graph).await, [text]);
    // What another step made of one input alone is that.
    let graph = inner("bad", "IN=t P=p -> OUT=q", wrong("IN"));
    assert_eq!(answers_of(&graph).await, [text]);
    // Of two, nobody knows which was wrong, unless only one was sent.
    let of_two = |inputs: Vec<Tensor>| {
        let graph = ensemble("p INT32[1], o INT32[1]? -> q INT32[1]")
            .runs("a", "IN INT32[1] MORE INT32[1]? -> OUT INT32[1]", adding(1))
            .runs("bad", ONE, wrong("IN"))
            .step("a", "IN=p MORE=o -> OUT=t")
            .step("bad", "IN=t -> OUT=q");
        async move { answers(&graph.build(), inputs).await }
    };
    let text = "in ensemble 'e', input 'p', step 1 (model 'bad'): must be 1";
    assert_eq!(of_two(vec![number("p", 1)]).await, [text]);
    let text = "in ensemble 'e', step 1 (model 'bad'): must be 1";
    assert_eq!(of_two(vec![number("p", 1), number("o", 1)]).await, [text]);
}

#[tokio::test]
async fn a_model_that_promises_one_response_owes_one() {
    let nothing = consort_testkit::many(|_| Vec::new());
    let twice = consort_testkit::many(|_| vec![vec![number("OUT", 1)], vec![number("OUT", 2)]]);
    for (stage, count) in [(nothing, 0), (twice, 2)] {
        let graph =
            ensemble("x INT32[1] -> y INT32[1]").runs("a", ONE, stage).step("a", "IN=x -> OUT=y");
        let said = answers(&graph.build(), vec![number("x", 1)]).await;
        let message =
            format!("in ensemble 'e', step 0 (model 'a'): expected a single response, got {count}");
        assert_eq!(said, [message]);
    }
}

#[tokio::test]
async fn everything_about_a_request_reaches_every_step() {
    let (probe, stage) = Probe::on(adding(1));
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("a", ONE, stage)
        .step("a", "IN=x -> OUT=t")
        .step("a", "IN=t -> OUT=y");
    let parameters = Parameters::from([
        ("priority".to_owned(), Parameter::Uint(2)),
        ("header".to_owned(), Parameter::String("yes".into())),
    ]);
    let mut asked = Request { parameters: parameters.clone(), ..request(vec![number("x", 1)]) };
    asked.context.deadline = Some(std::time::Instant::now() + std::time::Duration::from_mins(1));
    asked.context.traceparent = Some("00-1-2-01".into());
    let deadline = asked.context.deadline;
    let responses: Vec<_> = graph.build().call(asked).collect().await;
    assert!(responses[0].as_ref().unwrap().parameters.is_empty());
    for seen in probe.requests() {
        assert_eq!(seen.id, "7");
        assert_eq!(seen.parameters, parameters);
        assert_eq!(seen.context.deadline, deadline);
        assert_eq!(seen.context.traceparent.as_deref(), Some("00-1-2-01"));
    }
}

#[tokio::test]
async fn what_a_step_says_of_the_sequence_holds_for_those_behind_it() {
    let says = answering_with_parameters();
    let (probe, stage) = Probe::on(adding(1));
    let graph = ensemble("x INT32[1] -> y INT32[1]")
        .runs("says", ONE, says)
        .runs("a", ONE, stage)
        .step("says", "IN=x -> OUT=t")
        .step("a", "IN=t -> OUT=y");
    let parameters = Parameters::from([
        ("sequence_id".to_owned(), Parameter::Uint(1)),
        ("sequence_start".to_owned(), Parameter::Bool(true)),
        ("priority".to_owned(), Parameter::Uint(2)),
    ]);
    let asked = Request { parameters, ..request(vec![number("x", 1)]) };
    let responses: Vec<_> = graph.build().call(asked).collect().await;
    let seen = &probe.requests()[0].parameters;
    assert_eq!(seen["sequence_id"], Parameter::Uint(9));
    assert_eq!(seen["sequence_start"], Parameter::Bool(true));
    assert_eq!(seen["priority"], Parameter::Uint(2));
    assert!(!seen.contains_key("remark"));
    let said = &responses[0].as_ref().unwrap().parameters;
    assert_eq!(said["sequence_id"], Parameter::Uint(9));
    assert_eq!(said.len(), 2, "{said:?}");
}

/// A stage that changes the sequence's id and remarks on it.
fn answering_with_parameters() -> Arc<dyn Stage> {
    struct Says;
    impl Stage for Says {
        fn call(&self, request: Request) -> consort_stage::Responses {
            let input = request.inputs[0].clone().renamed("OUT".into());
            let mut response = consort_stage::Response::only(vec![input]);
            response.parameters.insert("sequence_id".into(), Parameter::Uint(9));
            response.parameters.insert("remark".into(), Parameter::Bool(true));
            consort_stage::one(async { Ok(response) })
        }
    }
    Arc::new(Says)
}
