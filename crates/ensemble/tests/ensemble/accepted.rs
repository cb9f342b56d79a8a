//! What a good ensemble is planned as: which streams a tensor descends from, what is sent together.

use expect_test::{Expect, expect};

use crate::graph::{Graph, ensemble};

fn plans(graph: &Graph, plan: &Expect) {
    plan.assert_eq(&graph.plan());
}

fn models(own: &str) -> Graph {
    ensemble(own)
        .model("a", "IN INT32[1] -> OUT INT32[1]")
        .model("two", "A INT32[1], B INT32[1] -> OUT INT32[1]")
        .model("stream", "IN INT32[1] ->> OUT INT32[1], MORE INT32[1]")
}

#[test]
fn one_response_carries_the_outputs_that_belong_to_no_stream() {
    plans(
        &models("x INT32[1] -> y INT32[1], z INT32[1]")
            .step("two", "A=t B=t -> OUT=z")
            .step("a", "IN=x -> OUT=t")
            .step("a", "IN=t -> OUT=y"),
        &expect![[r#"
            decoupled: false
            two []: t t -> z []
            a []: x -> t []
            a []: t -> y []
            response []: y z
        "#]],
    );
}

#[test]
fn steps_behind_a_stream_run_once_for_each_of_its_responses() {
    plans(
        &models("x INT32[1] -> y INT32[1], held INT32[1]")
            .step("stream", "IN=x -> OUT=s")
            .step("a", "IN=x -> OUT=held")
            .step("two", "A=s B=held -> OUT=y"),
        &expect![[r#"
            decoupled: true
            stream []: x -> s [0]
            a []: x -> held []
            two [0]: s held -> y [0]
            response [0]: y held
        "#]],
    );
}

#[test]
fn a_stream_behind_a_stream_makes_lineages_of_two() {
    plans(
        &models("x INT32[1] -> y INT32[1], s INT32[1]")
            .step("stream", "IN=x -> OUT=s")
            .step("stream", "IN=s -> OUT=t")
            .step("two", "A=s B=t -> OUT=y"),
        &expect![[r#"
            decoupled: true
            stream []: x -> s [0]
            stream [0]: s -> t [0, 1]
            two [0, 1]: s t -> y [0, 1]
            response [0, 1]: y s
        "#]],
    );
}

#[test]
fn outputs_of_unrelated_streams_come_in_responses_of_their_own() {
    plans(
        &models("x INT32[1] -> y INT32[1], z INT32[1], held INT32[1]")
            .step("stream", "IN=x -> OUT=y")
            .step("stream", "IN=x -> OUT=z")
            .step("a", "IN=x -> OUT=held"),
        &expect![[r#"
            decoupled: true
            stream []: x -> y [0]
            stream []: x -> z [1]
            a []: x -> held []
            response [0]: y held
            response [1]: z held
        "#]],
    );
}

#[test]
fn batches_types_and_shapes_may_differ_where_they_can_still_meet() {
    let graph = ensemble("x FP32[-1] -> y FP32[4]")
        .model("a", "8: IN FP32[4] -> OUT FP32[-1,2]")
        .model("b", "IN FP32[-1,3,2] -> OUT FP32[-1]")
        .step("a@3", "IN=x -> OUT=t")
        .step("b", "IN=t -> OUT=y");
    let plan = graph.check().unwrap();
    assert_eq!(plan.steps[0].version, Some(3));
    let asked: Vec<_> = plan.steps[0].outputs.iter().map(|output| &*output.name).collect();
    assert_eq!(asked, ["OUT"]);
    assert!(plan.tensors[1].is_batched);
    assert_eq!(plan.max_inflight, 16);
    assert_eq!(graph.inflight(3).check().unwrap().max_inflight, 3);
}
