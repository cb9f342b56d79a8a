//! Every mistake in an ensemble is found, with its place, and all of them at once.

use expect_test::{Expect, expect};

use crate::graph::{Graph, ensemble};

fn refuses(graph: &Graph, defects: &Expect) {
    defects.assert_eq(&graph.defects());
}

/// `x` through the model `a` to `y`, as a start for what is wrong elsewhere.
fn chain() -> Graph {
    ensemble("x INT32[1] -> y INT32[1]")
        .model("a", "IN INT32[1] -> OUT INT32[1]")
        .model("two", "A INT32[1], B INT32[1] -> OUT INT32[1]")
        .model("stream", "IN INT32[1] ->> OUT INT32[1]")
}

#[test]
fn an_ensemble_needs_steps_and_they_need_maps() {
    refuses(
        &ensemble("-> y INT32[1]"),
        &expect![[r#"
            ensemble_scheduling: must specify 'step' for ensemble 'e'
            output[0]: ensemble output 'y' for ensemble 'e' is not used
        "#]],
    );
    refuses(
        &chain().step("a", "->").step("a", "IN=x -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[0].input_map: must specify 'input_map' in step 0 of ensemble 'e'
            ensemble_scheduling.step[0].output_map: must specify 'output_map' in step 0 of ensemble 'e'
            ensemble_scheduling.step[0].input_map: input IN in model a is not mapped to any ensemble tensors in ensemble e
        "#]],
    );
}

#[test]
fn models_must_be_there() {
    refuses(
        &chain()
            .step("a", "IN=x -> OUT=t")
            .step("zeta", "IN=t -> OUT=u")
            .step("beta", "IN=u -> OUT=v")
            .step("zeta", "IN=v -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[1].model_name: ensemble e contains models that are not available or ambiguous: beta, zeta
        "#]],
    );
}

#[test]
fn a_tensor_is_written_once() {
    refuses(
        &chain().step("a", "IN=x -> OUT=y").step("a", "IN=x -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[1].output_map["OUT"]: ensemble tensor 'y' can appear in an output map only once for ensemble 'e' step 1
        "#]],
    );
    refuses(
        &chain().step("a", "IN=x -> OUT=y").step("a", "IN=x -> OUT=x"),
        &expect![[r#"
            ensemble_scheduling.step[1].output_map["OUT"]: ensemble tensor 'x' can appear in an output map only once for ensemble 'e' step 1; it is an input of the ensemble
        "#]],
    );
}

#[test]
fn a_model_input_takes_one_tensor() {
    refuses(
        &chain().step("a", "IN=x -> OUT=t").step("a", "IN=x IN=t -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[1].input_map["IN"]: input 'IN' in model 'a' is mapped to multiple ensemble tensors for ensemble 'e' step 1
        "#]],
    );
}

#[test]
fn inputs_outputs_and_tensors_are_used() {
    refuses(
        &ensemble("x INT32[1], idle INT32[1] -> y INT32[1], z INT32[1]")
            .model("a", "IN INT32[1] -> OUT INT32[1], MORE INT32[1]")
            .step("a", "IN=x -> OUT=y MORE=extra"),
        &expect![[r#"
            input[1]: ensemble input 'idle' for ensemble 'e' is not used
            ensemble_scheduling.step[0].output_map: ensemble tensor 'extra' is unused in ensemble 'e'
            output[1]: ensemble output 'z' for ensemble 'e' is not used
        "#]],
    );
}

#[test]
fn names_are_those_of_the_models() {
    refuses(
        &chain().step("a", "INN=x -> OUTT=t").step("a", "IN=t -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[0].output_map["OUTT"]: ensemble tensor t is mapping to non-existing output OUTT in model a in ensemble e; the model's outputs are: OUT
            ensemble_scheduling.step[0].input_map["INN"]: ensemble tensor x is mapping to non-existing input INN in model a in ensemble e; the model's inputs are: IN
            ensemble_scheduling.step[0].input_map: input IN in model a is not mapped to any ensemble tensors in ensemble e
        "#]],
    );
}

#[test]
fn what_a_step_reads_is_written_somewhere() {
    refuses(
        &chain().step("two", "A=x B=nowhere -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[0].input_map["B"]: ensemble tensor 'nowhere' that input 'B' of model 'two' reads is written by no step and is no input of ensemble 'e'
        "#]],
    );
}

#[test]
fn required_inputs_are_mapped_and_optional_ones_need_not_be() {
    refuses(
        &chain()
            .model("opt", "A INT32[1], B INT32[1], C INT32[1]? -> OUT INT32[1]")
            .step("opt", "A=x -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[0].input_map: input B in model opt is not mapped to any ensemble tensors in ensemble e
        "#]],
    );
}

#[test]
fn steps_that_wait_for_one_another_are_named_without_those_behind_them() {
    refuses(
        &chain()
            .model("b", "IN INT32[1] -> OUT INT32[1]")
            .model("behind", "IN INT32[1] -> OUT INT32[1]")
            .step("behind", "IN=u -> OUT=y")
            .step("two", "A=x B=u -> OUT=t")
            .step("b", "IN=t -> OUT=u"),
        &expect![[r#"
            output[0]: output 'y' for ensemble 'e' is not written: at least one of its depending tensors, 'u', is not connected (the steps of two, b wait for one another)
        "#]],
    );
    refuses(
        &chain().step("a", "IN=x -> OUT=y").step("a", "IN=t -> OUT=u").step("a", "IN=u -> OUT=t"),
        &expect![[r#"
            ensemble_scheduling: in ensemble 'e' the steps of a, a wait for one another
        "#]],
    );
    refuses(
        &chain().step("a", "IN=y -> OUT=y"),
        &expect![[r#"
            input[0]: ensemble input 'x' for ensemble 'e' is not used
            output[0]: output 'y' for ensemble 'e' is not written: at least one of its depending tensors, 'y', is not connected (the steps of a wait for one another)
        "#]],
    );
}

#[test]
fn batches_fit_every_model() {
    refuses(
        &ensemble("8: x INT32[1] -> y INT32[1]")
            .model("small", "4: IN INT32[1] -> OUT INT32[1]")
            .model("none", "IN INT32[1] -> OUT INT32[1]")
            .step("small", "IN=x -> OUT=t")
            .step("none", "IN=t -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[0].model_name: ensemble e allows maximum batch size 8, but it contains model small which only allows maximum batch size to be 4
        "#]],
    );
}

#[test]
fn types_agree_along_every_edge() {
    refuses(
        &ensemble("x BYTES[1] -> y FP32[1]")
            .model("a", "IN INT32[1] -> OUT INT64[1]")
            .model("b", "IN FP16[1] -> OUT FP64[1]")
            .step("a", "IN=x -> OUT=t")
            .step("b", "IN=t -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[0].input_map["IN"]: in ensemble e, ensemble tensor x: inconsistent data type: TYPE_STRING is inferred from model e while TYPE_INT32 is inferred from model a
            ensemble_scheduling.step[1].input_map["IN"]: in ensemble e, ensemble tensor t: inconsistent data type: TYPE_INT64 is inferred from model a while TYPE_FP16 is inferred from model b
            output[0]: in ensemble e, ensemble tensor y: inconsistent data type: TYPE_FP64 is inferred from model b while TYPE_FP32 is inferred from model e
        "#]],
    );
}

#[test]
fn shapes_agree_along_every_edge() {
    refuses(
        &ensemble("x INT32[4] -> y INT32[2,2]")
            .model("a", "IN INT32[5] -> OUT INT32[-1,3]")
            .model("b", "IN INT32[7,4] -> OUT INT32[4]")
            .step("a", "IN=x -> OUT=t")
            .step("b", "IN=t -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[0].input_map["IN"]: in ensemble e, ensemble tensor x: inconsistent shape: [4] is inferred from model e while [5] is inferred from model a
            ensemble_scheduling.step[1].input_map["IN"]: in ensemble e, ensemble tensor t: inconsistent shape: [-1,3] is inferred from model a while [7,4] is inferred from model b
            output[0]: in ensemble e, ensemble tensor y: inconsistent shape: [4] is inferred from model b while [2,2] is inferred from model e
        "#]],
    );
}

#[test]
fn a_batch_dimension_is_only_imagined_where_a_model_batches() {
    let graph = |a: &str, b: &str| {
        ensemble("x INT32[4] -> y INT32[4]")
            .model("a", a)
            .model("b", b)
            .step("a", "IN=x -> OUT=t")
            .step("b", "IN=t -> OUT=y")
    };
    // A batching model's [4] is [-1,4] to one that does not batch.
    graph("8: IN INT32[4] -> OUT INT32[4]", "IN INT32[-1,4] -> OUT INT32[4]").check().unwrap();
    graph("IN INT32[4] -> OUT INT32[-1,4]", "8: IN INT32[4] -> OUT INT32[4]").check().unwrap();
    refuses(
        &graph("IN INT32[4] -> OUT INT32[4]", "IN INT32[-1,4] -> OUT INT32[4]"),
        &expect![[r#"
            ensemble_scheduling.step[1].input_map["IN"]: in ensemble e, ensemble tensor t: inconsistent shape: [4] is inferred from model a while [-1,4] is inferred from model b
        "#]],
    );
}

#[test]
fn streams_of_different_steps_do_not_meet() {
    refuses(
        &chain()
            .step("stream", "IN=x -> OUT=s")
            .step("stream", "IN=x -> OUT=t")
            .step("two", "A=s B=t -> OUT=y"),
        &expect![[r#"
            ensemble_scheduling.step[2].input_map: in ensemble e, step of model 'two' receives inputs originated from different decoupled models
        "#]],
    );
}

#[test]
fn everything_wrong_is_reported_together_and_once() {
    refuses(
        &ensemble("2: x INT32[1], idle INT32[1] -> y FP32[1], z INT32[1]")
            .model("a", "IN INT32[1] -> OUT INT32[1]")
            .model("one", "1: IN INT32[1] -> OUT INT32[1]")
            .model("stream", "2: IN INT32[1] ->> OUT INT32[1]")
            .model("two", "A INT32[1], B INT32[1] -> OUT INT32[1]")
            .step("a", "IN=x -> NONE=lost")
            .step("gone", "IN=lost -> OUT=t")
            .step("one", "IN=t -> OUT=y")
            .step("stream", "IN=x -> OUT=s")
            .step("stream", "IN=x -> OUT=s2")
            .step("two", "A=s B=s2 -> OUT=joined")
            .step("two", "A=joined B=round -> OUT=round"),
        &expect![[r#"
            ensemble_scheduling.step[1].model_name: ensemble e contains models that are not available or ambiguous: gone
            ensemble_scheduling.step[0].output_map["NONE"]: ensemble tensor lost is mapping to non-existing output NONE in model a in ensemble e; the model's outputs are: OUT
            input[1]: ensemble input 'idle' for ensemble 'e' is not used
            output[1]: ensemble output 'z' for ensemble 'e' is not used
            ensemble_scheduling.step[2].model_name: ensemble e allows maximum batch size 2, but it contains model one which only allows maximum batch size to be 1
            output[0]: in ensemble e, ensemble tensor y: inconsistent data type: TYPE_INT32 is inferred from model one while TYPE_FP32 is inferred from model e
            ensemble_scheduling.step[5].input_map: in ensemble e, step of model 'two' receives inputs originated from different decoupled models
            ensemble_scheduling: in ensemble 'e' the steps of two wait for one another
        "#]],
    );
}
