//! Configurations that are refused, and what is said about them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::needless_raw_string_hashes, reason = "snapshots are written by a program")]

use consort_config::Draft;
use consort_stage::{DataType, Signature, TensorSpec};
use expect_test::{Expect, expect};

#[track_caller]
fn refused(file: &str, text: &str, expected: &Expect) {
    let problems = Draft::parse("m", file, text).and_then(Draft::check).unwrap_err();
    expected.assert_eq(&format!("{problems}\n"));
}

#[track_caller]
fn check(text: &str, expected: &Expect) {
    refused("config.pbtxt", text, expected);
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = r#"name: "m"
backend: "onnxruntime"
max_bach_size: 8
input [
  { name: "x" data_type: FP32 dims: [ 0, -2 ] },
  { name: "y" datatype: TYPE_INT64 dims: "4" }
]
output { name: z data_type: TYPE_FP32, dims [ 2 ] }
instance_group { count: 5000000000 kind: KIND_TPU }
dynamic_batching { preferred_batch_size: 16 }
sequence_batching { }
name: "n"
"#;
    check(
        text,
        &expect![[r#"
            m/config.pbtxt:3:1: unknown field `max_bach_size`; did you mean `max_batch_size`?
            m/config.pbtxt:5:26: `data_type` has no value `FP32`; did you mean `TYPE_FP32`?
            m/config.pbtxt:5:39: model input 'x' dimension must be integer >= 1, or -1 to indicate a variable-size dimension for m; it is 0
            m/config.pbtxt:5:42: model input 'x' dimension must be integer >= 1, or -1 to indicate a variable-size dimension for m; it is -2
            m/config.pbtxt:6:15: unknown field `datatype`; did you mean `data_type`?
            m/config.pbtxt:6:36: `dims` must be an integer, not the string "4"
            m/config.pbtxt:8:16: `name` must be a string in quotes, not `z`; write "z"
            m/config.pbtxt:8:45: expected `:` after `dims`, found `[`
            m/config.pbtxt:9:25: `count` must be between -2147483648 and 2147483647, not 5000000000
            m/config.pbtxt:9:42: `kind` has no value `KIND_TPU`; did you mean `KIND_GPU`?
            m/config.pbtxt:11:1: `sequence_batching` cannot stand beside `dynamic_batching`; choose one of them
            m/config.pbtxt:12:1: `name` is given twice
        "#]],
    );
}

#[test]
fn yaml_mistakes_have_their_place_too() {
    let text = "
backend: onnxruntime
max_batch_size: many
input:
  - name: x
    data_typ: TYPE_FP32
    dims: [1, 0]
  - {name: y, data_type: FP32, dims: [1]}
output:
  - {name: z, data_type: TYPE_FP32}
instance_group: {count: -1}
";
    refused(
        "config.yaml",
        text,
        &expect![[r#"
            m/config.yaml:3:1: `max_batch_size` must be an integer, not the string "many"
            m/config.yaml:6:5: unknown field `data_typ`; did you mean `data_type`?
            m/config.yaml:7:15: model input 'x' dimension must be integer >= 1, or -1 to indicate a variable-size dimension for m; it is 0
            m/config.yaml:8:15: `data_type` has no value `FP32`; did you mean `TYPE_FP32`?
            m/config.yaml:11:18: instance group m_0 of model m has a negative count
        "#]],
    );
    refused(
        "config.yaml",
        "backend: [\nname: x",
        &expect![[r#"
            m/config.yaml:3:1: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 10
        "#]],
    );
    refused(
        "config.yaml",
        "- a\n- b",
        &expect![[r#"
            m/config.yaml: expected fields such as `backend:`, found a list
        "#]],
    );
    refused(
        "config.yaml",
        "backend: a\nbackend: b\noutput: !tagged {}",
        &expect![[r#"
            m/config.yaml:3:9: output: invalid type: enum, expected a value without a tag
        "#]],
    );
}

#[test]
fn broken_syntax_is_reported_and_reading_goes_on() {
    check(
        "backend \"x\"\ninput [ { name: } ]\noutput [ 1 2, ]\n= 3\nmax_batch_size: -\nplatform:\n  name: 'm",
        &expect![[r#"
            m/config.pbtxt:1:9: expected `:` after `backend`, found a string
            m/config.pbtxt:2:17: expected a value for `name`, found `}`
            m/config.pbtxt:3:8: expected `:` after `output`, found `[`
            m/config.pbtxt:3:10: `output` must be a group of fields, not `1`
            m/config.pbtxt:3:12: expected `,` or `]`, found `2`
            m/config.pbtxt:3:15: expected a value for `output`, found `]`
            m/config.pbtxt:4:1: unexpected character '='
            m/config.pbtxt:4:3: expected the name of a field, found `3`
            m/config.pbtxt:6:1: expected a number after `-`, found `platform`
            m/config.pbtxt:7:3: expected a value for `platform`, found `name`
            m/config.pbtxt:7:9: this string is not closed on its line
        "#]],
    );
    check(
        "backend: 'x'\ninput {\n  name: 'x'\noutput { name: 'y' }\n",
        &expect![[r#"
            m/config.pbtxt:2:7: this `{` is never closed
        "#]],
    );
    check(
        "backend: 'x' } output [ { name: 'y' ] }",
        &expect![[r#"
            m/config.pbtxt:1:14: this `}` closes nothing
            m/config.pbtxt:1:23: this `[` is never closed
            m/config.pbtxt:1:37: expected the name of a field, found `]`
        "#]],
    );
    check(
        &"input {".repeat(100),
        &expect![[r#"
            m/config.pbtxt:1:7: this `{` is never closed
            m/config.pbtxt:1:455: more than 64 groups lie in one another here
        "#]],
    );
}

#[test]
fn backends_and_platforms_must_agree() {
    let output = "output { name: 'y' data_type: TYPE_INT8 dims: 1 }";
    check(
        output,
        &expect![[r#"
            m/config.pbtxt: must specify 'platform' or 'backend' for 'm'; write `backend: "…"`, or `platform: "ensemble"` for an ensemble
        "#]],
    );
    check(
        &format!("platform: 'onnxruntime_onx' {output}"),
        &expect![[r#"
            m/config.pbtxt:1:1: unexpected platform type 'onnxruntime_onx' for m; did you mean `onnxruntime_onnx`?
        "#]],
    );
    check(
        &format!("platform: 'onnxruntime_onnx' backend: 'python' {output}"),
        &expect![[r#"
            m/config.pbtxt:1:30: unexpected 'platform' and 'backend' pair, got:onnxruntime_onnx, python
        "#]],
    );
    check(
        &format!("backend: 'ensemble' {output}"),
        &expect![[r#"
            m/config.pbtxt:1:1: unexpected 'platform' and 'backend' pair, got:, ensemble; write `platform: "ensemble"`
        "#]],
    );
    check(
        &format!("name: 'other' backend: 'python' {output}"),
        &expect![[r#"
            m/config.pbtxt:1:1: unexpected directory name 'm' for model 'other', directory name must equal model name; rename the folder, or write `name: "m"`
        "#]],
    );
}

#[test]
fn tensors_must_be_described() {
    let text = "backend: 'python'
input { dims: 1 }
input { name: 'a' data_type: TYPE_INT8 }
input { name: 'b' data_type: TYPE_INT8 dims: [2, 2] reshape { shape: [3] } }
input { name: 'b' data_type: TYPE_INT8 dims: [1] reshape { } }
input { name: 'c' data_type: TYPE_INT8 dims: [1] format: FORMAT_NHWC is_shape_tensor: true }
batch_input { kind: BATCH_ELEMENT_COUNT target_name: 'n' data_type: TYPE_INT8 source_input: 'bb' }
batch_output { target_name: ['z', 'z'] }
model_metrics { metric_control { metric_identifier { } histogram_options { } } metric_control { } }
";
    check(
        text,
        &expect![[r#"
            m/config.pbtxt: model configuration must contain at least one output, none were specified for 'm'; write `output [ { name: "…" data_type: TYPE_… dims: [ … ] } ]`
            m/config.pbtxt:2:1: model input must specify 'name' for m
            m/config.pbtxt:2:1: model input must specify 'data_type' for m
            m/config.pbtxt:3:1: model input 'a' must specify 'dims' for m
            m/config.pbtxt:4:53: model input 'b' has different size for dims and reshape for m
            m/config.pbtxt:5:9: model input 'b' is given twice
            m/config.pbtxt:5:50: model input 'b' cannot have empty reshape for non-batching model as scalar tensors are not supported for m
            m/config.pbtxt:6:50: model input 'c' NHWC/NCHW require 3 dims for m
            m/config.pbtxt:6:70: shape tensors are only supported for TensorRT platform for m
            m/config.pbtxt:7:1: needs a `max_batch_size` above 0, which m lacks; let the model batch, or leave it out
            m/config.pbtxt:7:58: batch input data type must be TYPE_INT32 or TYPE_FP32, not TYPE_INT8
            m/config.pbtxt:7:79: unknown source input name 'bb'; did you mean `b`?
            m/config.pbtxt:8:1: needs a `max_batch_size` above 0, which m lacks; let the model batch, or leave it out
            m/config.pbtxt:8:1: batch output kind 'BATCH_SCATTER_WITH_INPUT_SHAPE' expects 1 source input, got 0
            m/config.pbtxt:8:30: unknown target output name 'z'
            m/config.pbtxt:8:35: unknown target output name 'z'
            m/config.pbtxt:8:35: target output name 'z' can only be specified once
            m/config.pbtxt:9:34: metric identifier must specify non-empty 'family'
            m/config.pbtxt:9:56: histogram options must specify non-empty 'buckets'
            m/config.pbtxt:9:80: metric control must specify 'metric_identifier'
            m/config.pbtxt:9:80: metric control must specify 'histogram_options'
        "#]],
    );
}

#[test]
fn what_the_server_makes_of_a_batch_must_fit_the_model() {
    let text = "backend: 'python'
max_batch_size: 4
input { name: 'x' data_type: TYPE_FP32 dims: [-1] allow_ragged_batch: true }
output { name: 'y' data_type: TYPE_FP32 dims: [-1, -1] }
batch_input { target_name: 'x' data_type: TYPE_INT32 source_input: 'x' }
batch_input { target_name: ['n', 'n'] data_type: TYPE_INT32 source_input: 'x' }
batch_output { target_name: 'y' source_input: 'x' }
";
    check(
        text,
        &expect![[r#"
            m/config.pbtxt:5:15: batch input 'x' is also an input of the model; take 'x' out of `input`
            m/config.pbtxt:6:29: batch input 'n' can only be specified once
            m/config.pbtxt:6:34: batch input 'n' can only be specified once
            m/config.pbtxt:7:16: output 'y' has a variable dimension beyond the 1 of its source input 'x'
        "#]],
    );
    check(
        "backend: 'python'
input { name: 'x' data_type: TYPE_FP32 dims: [-1] }
output { name: 'y' data_type: TYPE_FP32 dims: [-1] }
batch_output { target_name: 'y' source_input: 'x' }
",
        &expect![[r#"
            m/config.pbtxt:4:1: needs a `max_batch_size` above 0, which m lacks; let the model batch, or leave it out
        "#]],
    );
}

#[test]
fn schedulers_must_make_sense() {
    let output = "output { name: 'y' data_type: TYPE_INT8 dims: 1 }";
    let dynamic = format!(
        "backend: 'python' max_batch_size: 4 {output}
dynamic_batching {{
  preferred_batch_size: [ 0, 8 ]
  priority_levels: 2
  priority_queue_policy {{ key: 3 value {{ timeout_action: DELAY }} }}
  preserve_ordering: true
}}
response_cache {{ enable: true }}
model_transaction_policy {{ decoupled: true }}
version_policy {{ latest {{ num_versions: 0 }} }}
instance_group {{ kind: KIND_CPU gpus: 0 }}"
    );
    check(
        &dynamic,
        &expect![[r#"
            m/config.pbtxt:2:1: default priority level must be in range [1, 2] for m
            m/config.pbtxt:3:27: dynamic batching preferred size must be positive for m
            m/config.pbtxt:3:30: dynamic batching preferred size must be <= max batch size for m; 8 is more than 4
            m/config.pbtxt:5:27: priority queue policy must have priority level in range [1, 2] for m
            m/config.pbtxt:6:3: Only one priority level is allowed when 'preserve_ordering' is true for m
            m/config.pbtxt:6:3: Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for m
            m/config.pbtxt:8:1: Response Cache does not currently support model m with 'decoupled' transaction policy. Please disable the response cache.
            m/config.pbtxt:10:27: 'num_versions' must be positive for m
            m/config.pbtxt:11:33: instance group m_0 of model m has kind KIND_CPU but specifies one or more GPUs
        "#]],
    );
    let sequence = format!(
        "backend: 'python' {output} max_batch_size: -1
sequence_batching {{
  control_input {{ name: 'a' control {{ kind: CONTROL_SEQUENCE_START }} }}
  control_input {{ name: 'b' control {{ kind: CONTROL_SEQUENCE_START int32_false_true: [0] }} }}
  control_input {{ control {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32 }} }}
  direct {{ minimum_slot_utilization: 1.5 }}
}}"
    );
    check(
        &sequence,
        &expect![[r#"
            m/config.pbtxt:1:69: 'max_batch_size' must be non-negative value for m
            m/config.pbtxt:3:29: sequence batching must specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for CONTROL_SEQUENCE_START for m
            m/config.pbtxt:4:29: sequence batching specifies multiple CONTROL_SEQUENCE_START tensors for m
            m/config.pbtxt:4:68: sequence batching control 'int32_false_true' must have exactly 2 entries for CONTROL_SEQUENCE_START for m
            m/config.pbtxt:5:3: sequence batching control tensor must have a name for m
            m/config.pbtxt:5:59: unexpected data type for control CONTROL_SEQUENCE_CORRID for m, allowed data types are TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING
            m/config.pbtxt:6:12: sequence batching minimum slot utilization must be in range [0.0, 1.0] for m
        "#]],
    );
    let sequence = format!(
        "backend: 'python' {output} sequence_batching {{ oldest {{ max_candidate_sequences: -3 }} }}"
    );
    check(
        &sequence,
        &expect![[r#"
            m/config.pbtxt:1:98: 'max_candidate_sequences' must be positive for m
        "#]],
    );
}

#[test]
fn ensembles_must_be_whole() {
    let ends = "input { name: 'I' data_type: TYPE_INT8 dims: 1 }
output { name: 'O' data_type: TYPE_INT8 dims: 1 }";
    check(
        &format!("platform: 'ensemble' {ends} instance_group {{}} optimization {{}}"),
        &expect![[r#"
            m/config.pbtxt: ensemble scheduling must be set for ensemble m whose platform is ensemble; write `ensemble_scheduling { step [ … ] }`
            m/config.pbtxt:2:51: instance group should not be specified for ensemble 'm'
            m/config.pbtxt:2:69: optimization should not be specified for ensemble 'm'
        "#]],
    );
    check(
        &format!("platform: 'ensemble' {ends}\nensemble_scheduling {{ }}"),
        &expect![[r#"
            m/config.pbtxt:3:1: must specify 'step' for ensemble 'm'
        "#]],
    );
    let steps = format!(
        "{ends}
ensemble_scheduling {{
  step {{ input_map {{ key: 'x' value: 'I' }} }}
  step {{
    model_name: 'a' model_version: -2
    input_map {{ key: 'x' value: 'I' }}
    input_map {{ key: 'x' value: 'J' }}
    output_map {{ key: 'y' value: 'O' }}
    output_map {{ key: 'z' value: 'I' }}
  }}
  step {{ model_name: 'b' input_map {{ key: 'x' value: '' }} output_map [ {{ key: 'y' value: 'O' }} ] }}
}}"
    );
    check(
        &steps,
        &expect![[r#"
            m/config.pbtxt:6:21: 'model_version' must be -1 or a version, in step 1 of ensemble 'm'
            m/config.pbtxt:8:17: `x` is mapped twice
            m/config.pbtxt:10:18: ensemble tensor 'I' can appear in an output map only once for ensemble 'm' step 1; it is an input of the ensemble already
            m/config.pbtxt:12:38: 'input_map' has a 'key' or 'value' that is empty in step 2 of ensemble 'm'
            m/config.pbtxt:12:74: ensemble tensor 'O' can appear in an output map only once for ensemble 'm' step 2; step 1 writes it already
        "#]],
    );
    check(
        &format!("backend: 'python' {ends} ensemble_scheduling {{ step {{}} }}"),
        &expect![[r#"
            m/config.pbtxt:2:51: ensemble scheduling cannot be set for model 'm' whose platform is not ensemble
        "#]],
    );
}

#[test]
fn a_configuration_may_not_contradict_its_model_file() {
    let file = Signature {
        inputs: vec![TensorSpec::new("input_ids", DataType::Int64, &[-1, -1])],
        outputs: vec![TensorSpec::new("logits", DataType::Fp32, &[1, 2])],
        ..Signature::default()
    };
    let text = "backend: 'onnxruntime'
max_batch_size: 8
input { name: 'input_ids' data_type: TYPE_INT32 dims: [4, 4] }
output { name: 'logit' }
";
    let mut draft = Draft::parse("m", "config.pbtxt", text).unwrap();
    draft.complete(&file);
    let problems = draft.check().unwrap_err();
    expect![[r#"
        m/config.pbtxt:2:1: model 'm', tensor 'logits': for the model to support batching the shape should have at least 1 dimension and the first dimension must be -1; but shape expected by the model is [1,2]
        m/config.pbtxt:3:27: model 'm', tensor 'input_ids': the model expects data type TYPE_INT64, but the configuration says TYPE_INT32
        m/config.pbtxt:3:49: model 'm', tensor 'input_ids': the model expects shape [-1,-1], but the configuration says [-1,4,4], batch dimension included
        m/config.pbtxt:4:10: the file of model 'm' has no tensor 'logit' there; did you mean `logits`?
    "#]]
    .assert_eq(&format!("{problems}\n"));
}

#[test]
fn a_warm_up_that_cannot_run_is_refused_at_its_place() {
    check(
        "backend: 'python'
max_batch_size: 4
input [ { name: 'x' data_type: TYPE_FP32 dims: [ -1, 3 ] },
        { name: 'y' data_type: TYPE_INT64 dims: [ 1 ] },
        { name: 'z' data_type: TYPE_INT64 dims: [ 1 ] optional: true } ]
output { name: 'o' data_type: TYPE_FP32 dims: [ 1 ] }
model_warmup [
  { name: 'large' batch_size: 5
    inputs { key: 'x' value: { data_type: TYPE_FP32 dims: [ 2, 3 ] zero_data: true } }
    inputs { key: 'y' value: { data_type: TYPE_INT64 dims: [ 1 ] } } },
  { name: 'strange' batch_size: 1
    inputs { key: 'x' value: { data_type: TYPE_FP16 dims: [ -1, 4 ] random_data: true } }
    inputs { key: 'yy' value: { data_type: TYPE_INT64 dims: [ 1 ] zero_data: true } } }
]
",
        &expect![[r#"
            m/config.pbtxt:8:19: warmup setting 'large' has batch size 5, but the largest for m is 4
            m/config.pbtxt:10:14: warmup setting expects input 'y' to have input_data_type set; write `zero_data: true`, `random_data: true` or `input_data_file: "…"`
            m/config.pbtxt:11:3: warmup setting 'strange' lacks the input 'y' that m requires
            m/config.pbtxt:12:32: warmup input 'x' is TYPE_FP16, but m expects TYPE_FP32
            m/config.pbtxt:12:53: warmup input 'x' has dims [-1, 4], but m expects [-1, 3], batch dimension left out
            m/config.pbtxt:12:61: warmup setting expects all variable-size dimensions are specified for input 'x'
            m/config.pbtxt:13:14: warmup input 'yy' is no input of m; did you mean `y`?
        "#]],
    );
}

#[test]
fn the_state_of_sequences_must_fit_itself_and_the_model() {
    let text = r#"backend: "identity" max_batch_size: 4
input { name: "x" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_INT32 dims: [ 1 ] }
sequence_batching {
  control_input { name: "x" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } }
  state { input_name: "s" output_name: "y" data_type: TYPE_FP32 dims: [ 0 ] }
  state { input_name: "s" output_name: "t" data_type: TYPE_INT32 dims: [ 2 ]
    initial_state { name: "i" data_type: TYPE_FP32 dims: [ 3 ] } }
  state { output_name: "t" dims: [ -1 ] }
}
"#;
    check(
        text,
        &expect![[r#"
        m/config.pbtxt:5:19: input 'x' is given by the sequence batcher and must not be among the inputs of m
        m/config.pbtxt:6:44: state output 'y' is TYPE_FP32, where the model output is TYPE_INT32 for m
        m/config.pbtxt:6:73: sequence batching state 's' dimension must be integer >= 1, or -1 to indicate a variable-size dimension for m
        m/config.pbtxt:7:11: sequence batching input 's' is given twice for m
        m/config.pbtxt:8:5: initial state of 's' must specify its data; write `zero_data: true` or `data_file: "…"`
        m/config.pbtxt:8:31: initial state of 's' is TYPE_FP32, where the state is TYPE_INT32
        m/config.pbtxt:8:52: initial state of 's' has dims [3], which must be sizes that fit the state's [2]
        m/config.pbtxt:9:3: sequence batching state must specify 'input_name' for m
        m/config.pbtxt:9:3: sequence batching state must specify 'data_type' for m
        m/config.pbtxt:9:11: sequence batching state output 't' is given twice for m
    "#]],
    );
}
