//! Configurations that are accepted, in every style people write them, and what they come to.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::needless_raw_string_hashes, reason = "snapshots are written by a program")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use consort_config::{Device, Draft, Model, Scheduling, VersionPolicy};
use consort_protocol::to_json;
use consort_stage::{DataType, Signature, TensorSpec};
use expect_test::{Expect, expect};

#[track_caller]
fn accepted(file: &str, text: &str) -> Model {
    let draft = Draft::parse("m", file, text).unwrap_or_else(|problems| panic!("{problems}"));
    draft.check().unwrap_or_else(|problems| panic!("{problems}"))
}

/// The fields that are not at their default, one on a line.
fn shown(model: &Model) -> String {
    let Some(serde_json::Value::Object(fields)) = pruned(to_json(&*model.wire).unwrap()) else {
        return String::new();
    };
    let lines: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.join("\n")
}

fn pruned(value: serde_json::Value) -> Option<serde_json::Value> {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let kept = fields.filter_map(|(name, value)| Some((name, pruned(value)?)));
            let kept: serde_json::Map<_, _> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(items.into_iter().filter_map(pruned).collect()),
        Value::Bool(false) => None,
        Value::Number(number) if number.as_f64() == Some(0.0) => None,
        Value::String(text) if text.is_empty() || text.ends_with("_NONE") => None,
        other => Some(other),
    }
}

#[track_caller]
fn check(file: &str, text: &str, expected: &Expect) {
    expected.assert_eq(&shown(&accepted(file, text)));
}

const ARTICLE: &str = r#"
# The style of a text generation article.
name: "m"
backend: "python"
max_batch_size : 0

input [
  {
    name: "text_input",
    data_type: TYPE_STRING,
    dims: [ -1 ]
  }
]
output {
  name: "text"; data_type: TYPE_STRING; dims: -1
}
model_transaction_policy { decoupled: True }
dynamic_batching {}
instance_group [ { count: 2 kind: KIND_CPU } ]
parameters: {
  key: "EXECUTION_ENV_PATH",
  value: {string_value: "$$TRITON_MODEL_DIRECTORY/" 'env.tar.gz'}
}
"#;

#[test]
fn an_article_is_read_as_it_stands() {
    check(
        "config.pbtxt",
        ARTICLE,
        &expect![[r#"
            name: "m"
            version_policy: {"latest":{"num_versions":1}}
            input: [{"name":"text_input","data_type":"TYPE_STRING","dims":[-1]}]
            output: [{"name":"text","data_type":"TYPE_STRING","dims":[-1]}]
            instance_group: [{"name":"m_0","count":2,"kind":"KIND_CPU"}]
            default_model_filename: "model.py"
            optimization: {"priority":"PRIORITY_DEFAULT","input_pinned_memory":{"enable":true},"output_pinned_memory":{"enable":true}}
            parameters: {"EXECUTION_ENV_PATH":{"string_value":"$$TRITON_MODEL_DIRECTORY/env.tar.gz"}}
            backend: "python"
            model_transaction_policy: {"decoupled":true}"#]],
    );
    let model = accepted("config.pbtxt", ARTICLE);
    assert!(model.signature.is_decoupled);
    assert_eq!(model.instances[0].devices, [Device::Cpu]);
    assert_eq!(
        model.settings.get("EXECUTION_ENV_PATH"),
        Some("$$TRITON_MODEL_DIRECTORY/env.tar.gz")
    );
}

const ENSEMBLE: &str = r#"
platform: "ensemble"
max_batch_size: 8
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "SCORES" data_type: TYPE_FP32 dims: [ 2 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "tokenize"
      model_version: -1
      input_map { key: "text" value: "TEXT" }
      output_map [ { key: "input_ids" value: "ids" }, { key: "attention_mask" value: "mask" } ]
    },
    {
      model_name: "classify"
      model_version: 3
      input_map { key: "input_ids" value: "ids" }
      input_map { key: "attention_mask" value: "mask" }
      output_map { key: "logits" value: "SCORES" }
    }
  ]
}
"#;

#[test]
fn an_ensemble_becomes_steps_and_edges() {
    let model = accepted("config.pbtxt", ENSEMBLE);
    assert_eq!(&*model.backend, "ensemble");
    assert!(model.instances.is_empty());
    let Scheduling::Ensemble(spec) = &model.scheduling else { panic!("{:?}", model.scheduling) };
    assert_eq!(spec.steps[0].version, None);
    assert_eq!(spec.steps[1].version, Some(3));
    assert_eq!(&*spec.steps[1].inputs[0].model_tensor, "attention_mask");
    assert_eq!(&*spec.steps[1].inputs[0].ensemble_tensor, "mask");
    let place = model.locate("ensemble_scheduling.step[1].input_map").unwrap();
    assert_eq!((place.line, place.column), (17, 7));
    let place = model.locate("ensemble_scheduling.step[1].input_map[\"attention_mask\"]").unwrap();
    assert_eq!((place.line, place.column), (18, 19));
    let problem = model.problem("ensemble_scheduling.step[0].nothing", "is wrong");
    assert_eq!(problem.to_string(), "m/config.pbtxt:8:5: is wrong");
}

#[test]
fn yaml_means_the_same_as_the_text_format() {
    let yaml = r#"
platform: ensemble
max_batch_size: 8
input:
  - {name: TEXT, data_type: TYPE_STRING, dims: [1]}
output:
  - name: SCORES
    data_type: TYPE_FP32
    dims: 2
ensemble_scheduling:
  step:
    - model_name: tokenize
      model_version: -1
      input_map: {text: TEXT}
      output_map: {input_ids: ids, attention_mask: mask}
    - model_name: classify
      model_version: 3
      input_map:
        - {key: input_ids, value: ids}
        - {key: attention_mask, value: mask}
      output_map: {logits: SCORES}
"#;
    let from_yaml = accepted("config.yaml", yaml);
    assert_eq!(from_yaml.wire, accepted("config.pbtxt", ENSEMBLE).wire);
    let place = from_yaml.locate("ensemble_scheduling.step[1].output_map").unwrap();
    assert_eq!((place.line, place.column), (21, 7));
    let article = r#"
backend: python
input: {name: text_input, data_type: TYPE_STRING, dims: [-1]}
output: {name: text, data_type: TYPE_STRING, dims: [-1]}
model_transaction_policy: {decoupled: true}
dynamic_batching:
instance_group: [{count: 2, kind: KIND_CPU}]
parameters:
  EXECUTION_ENV_PATH: $$TRITON_MODEL_DIRECTORY/env.tar.gz
"#;
    assert_eq!(accepted("config.yml", article).wire, accepted("config.pbtxt", ARTICLE).wire);
}

#[test]
fn numbers_and_switches_may_be_parameters_in_yaml() {
    let yaml = "backend: identity\noutput: {name: y, data_type: TYPE_INT8, dims: 1}\n\
                parameters: {threads: 4, fast: true, scale: {string_value: '1.5'}}";
    let settings = accepted("config.yaml", yaml).settings;
    assert_eq!(settings.get("threads"), Some("4"));
    assert_eq!(settings.get("fast"), Some("true"));
    assert_eq!(settings.get("scale"), Some("1.5"));
}

const ONNX: &str = r#"
platform: "onnxruntime_onnx"
version_policy: { specific { versions: [1, 3] } }
max_batch_size: 16
input < name: 'x' data_type: TYPE_FP32 dims: [ 3, 224, 224 ] format: FORMAT_NCHW >
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "labels.txt" } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy { max_queue_size: 0x10 }
}
optimization { graph { level: -1 } }
instance_group { kind: KIND_GPU gpus: [0, 1] }
"#;

#[test]
fn a_batching_model_is_scheduled_as_it_says() {
    let model = accepted("config.pbtxt", ONNX);
    assert_eq!(&*model.backend, "onnxruntime");
    assert_eq!(model.file_name, "model.onnx");
    assert_eq!(model.versions, VersionPolicy::Specific(vec![1, 3]));
    assert_eq!(model.instances[0].devices, [Device::Gpu(0), Device::Gpu(1)]);
    let Scheduling::Dynamic(batching) = &model.scheduling else { panic!() };
    assert_eq!(batching.preferred_batch_sizes, [4, 8]);
    assert_eq!(batching.max_queue_delay, Duration::from_micros(100));
    let policy = batching.priorities.policy(0);
    assert_eq!(policy.max_queue_size.map(NonZeroUsize::get), Some(16));
    check(
        "config.pbtxt",
        ONNX,
        &expect![[r#"
            name: "m"
            platform: "onnxruntime_onnx"
            version_policy: {"specific":{"versions":[1,3]}}
            max_batch_size: 16
            input: [{"name":"x","data_type":"TYPE_FP32","format":"FORMAT_NCHW","dims":[3,224,224]}]
            output: [{"name":"y","data_type":"TYPE_FP32","dims":[1000],"label_filename":"labels.txt"}]
            instance_group: [{"name":"m_0","count":1,"gpus":[1],"kind":"KIND_GPU"}]
            default_model_filename: "model.onnx"
            dynamic_batching: {"preferred_batch_size":[4,8],"max_queue_delay_microseconds":100,"default_queue_policy":{"timeout_action":"REJECT","max_queue_size":16}}
            optimization: {"graph":{"level":-1},"priority":"PRIORITY_DEFAULT","input_pinned_memory":{"enable":true},"output_pinned_memory":{"enable":true}}
            backend: "onnxruntime""#]],
    );
}

fn graph() -> Signature {
    Signature {
        inputs: vec![
            TensorSpec::new("ids", DataType::Int64, &[-1, -1]),
            TensorSpec::new("mask", DataType::Int64, &[-1, -1]),
        ],
        outputs: vec![
            TensorSpec::new("hidden", DataType::Fp32, &[-1, -1, 384]),
            TensorSpec::new("pooled", DataType::Fp32, &[-1, 384]),
        ],
        ..Signature::default()
    }
}

#[track_caller]
fn completed(text: &str, file: &Signature) -> Model {
    let mut draft = Draft::parse("m", "config.pbtxt", text).unwrap();
    draft.complete(file);
    draft.check().unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn an_onnx_model_is_completed_from_its_file() {
    let model = completed("backend: 'onnxruntime'", &graph());
    assert_eq!(model.signature.max_batch_size, 4);
    assert!(
        matches!(&model.scheduling, Scheduling::Dynamic(batching) if batching.preferred_batch_sizes == [4])
    );
    assert_eq!(model.signature.inputs[0], TensorSpec::new("ids", DataType::Int64, &[-1]));
    assert_eq!(model.signature.outputs[0], TensorSpec::new("hidden", DataType::Fp32, &[-1, 384]));
    assert_eq!(model.wire.platform, "onnxruntime_onnx");
}

#[test]
fn a_file_that_was_read_as_batching_means_the_same() {
    let row = |name, datatype, dims: &[i64]| TensorSpec::new(name, datatype, dims);
    let file = Signature {
        max_batch_size: 4,
        inputs: vec![
            row("ids", DataType::Int64, &[-1]),
            row("mask", DataType::Int64, &[-1]),
            TensorSpec { is_optional: true, ..row("weights", DataType::Fp32, &[8]) },
        ],
        outputs: vec![
            row("hidden", DataType::Fp32, &[-1, 384]),
            row("pooled", DataType::Fp32, &[384]),
        ],
        is_decoupled: false,
    };
    let model = completed("backend: 'onnxruntime'", &file);
    assert_eq!(model.wire, completed("backend: 'onnxruntime'", &graph()).wire);
}

#[test]
fn what_the_configuration_says_is_kept() {
    let text = "backend: 'onnxruntime' max_batch_size: 1 \
                input { name: 'mask' dims: 128 } output { name: 'pooled' }";
    let model = completed(text, &graph());
    assert_eq!(model.scheduling, Scheduling::Direct);
    let names: Vec<_> = model.signature.inputs.iter().map(|spec| &*spec.name).collect();
    assert_eq!(names, ["mask", "ids"]);
    assert_eq!(model.signature.inputs[0].dims, [128]);
    assert_eq!(model.signature.outputs, [TensorSpec::new("pooled", DataType::Fp32, &[384])]);

    let whole =
        completed("backend: 'onnxruntime' output { name: 'pooled' dims: [-1, 384] }", &graph());
    assert_eq!(whole.signature.max_batch_size, 0);
    assert_eq!(whole.signature.inputs[0].dims, [-1, -1]);
    let unbatched = completed("backend: 'onnxruntime' max_batch_size: 0", &graph());
    assert_eq!(unbatched.signature.max_batch_size, 0);
}

#[test]
fn a_ragged_model_is_compared_in_the_shapes_that_it_is_given() {
    let file = Signature {
        inputs: vec![
            TensorSpec::new("VALUES", DataType::Fp32, &[-1]),
            TensorSpec::new("BOUNDS", DataType::Int32, &[-1]),
        ],
        outputs: vec![
            TensorSpec::new("DOUBLED", DataType::Fp32, &[-1]),
            TensorSpec::new("SUM", DataType::Fp32, &[-1, 1]),
        ],
        ..Signature::default()
    };
    let ragged = "backend: 'onnxruntime' max_batch_size: 8
        input { name: 'VALUES' data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }
        output { name: 'DOUBLED' data_type: TYPE_FP32 dims: -1 }
        output { name: 'SUM' data_type: TYPE_FP32 dims: 1 }
        batch_input { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: 'BOUNDS'
          data_type: TYPE_INT32 source_input: 'VALUES' }
        batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: 'DOUBLED'
          source_input: 'VALUES' }";
    let model = completed(ragged, &file);
    let names: Vec<_> = model.signature.inputs.iter().map(|spec| &*spec.name).collect();
    assert_eq!(names, ["VALUES"], "what is made is none of a caller's inputs");
    let joined = Signature {
        inputs: vec![TensorSpec::new("VALUES", DataType::Fp32, &[-1, -1]), file.inputs[1].clone()],
        ..file
    };
    let mut draft = Draft::parse("m", "config.pbtxt", ragged).unwrap();
    draft.complete(&joined);
    let problems = draft.check().unwrap_err().to_string();
    let expected = "the model expects shape [-1,-1], but the configuration says [-1], the rows of";
    assert!(problems.contains(expected), "{problems}");
}

#[test]
fn a_constant_that_requests_may_replace_is_an_input_where_it_is_named() {
    let constant = TensorSpec { is_optional: true, ..TensorSpec::new("W", DataType::Fp32, &[4]) };
    let file = Signature {
        inputs: vec![TensorSpec::new("X", DataType::Fp32, &[-1, 4]), constant],
        outputs: vec![TensorSpec::new("Y", DataType::Fp32, &[-1, 4])],
        ..Signature::default()
    };
    let names = |model: &Model| {
        let inputs = model.signature.inputs.iter();
        inputs.map(|spec| (spec.name.to_string(), spec.is_optional)).collect::<Vec<_>>()
    };
    let model = completed("backend: 'onnxruntime'", &file);
    assert_eq!((model.signature.max_batch_size, names(&model)), (4, vec![("X".into(), false)]));
    let named = |batch: u32| {
        format!(
            "backend: 'onnxruntime' max_batch_size: {batch} input {{ name: 'W' data_type: TYPE_FP32 dims: 4 optional: true }}"
        )
    };
    let model = completed(&named(0), &file);
    assert_eq!(names(&model), [("W".into(), true), ("X".into(), false)]);
    let mut draft = Draft::parse("m", "config.pbtxt", &named(8)).unwrap();
    draft.complete(&file);
    let problems = draft.check().unwrap_err().to_string();
    assert!(problems.contains("the model expects shape [4]"), "{problems}");
}

#[test]
fn a_scalar_is_shown_as_one_element() {
    let file = Signature {
        inputs: vec![TensorSpec::new("x", DataType::Fp32, &[])],
        outputs: vec![TensorSpec::new("y", DataType::Fp32, &[2])],
        ..Signature::default()
    };
    let model = completed("backend: 'onnxruntime'", &file);
    assert_eq!(model.signature.inputs[0].dims, [1]);
    assert_eq!(model.signature.inputs[0].reshape, Some(Vec::new()));
}

#[test]
fn a_folder_with_a_model_file_needs_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("resnet");
    std::fs::create_dir_all(model.join("1")).unwrap();
    let problems = consort_config::read(&model).unwrap_err();
    expect![[r#"resnet: model `resnet` has no `config.pbtxt`; write `resnet/config.pbtxt` with at least `backend: "…"`, `input [ … ]` and `output [ … ]`, or put a `model.onnx` into `resnet/1/`"#]]
    .assert_eq(&problems.to_string());
    std::fs::write(model.join("1/model.onnx"), "").unwrap();
    let draft = consort_config::read(&model).unwrap();
    assert_eq!((draft.name(), draft.backend()), ("resnet", "onnxruntime"));
    assert_eq!(draft.file_name(), "model.onnx");
    std::fs::write(model.join("config.yaml"), "backend: onnxruntime").unwrap();
    assert_eq!(consort_config::read(&model).unwrap().backend(), "onnxruntime");
    std::fs::write(model.join("config.pbtxt"), "").unwrap();
    let problems = consort_config::read(&model).unwrap_err();
    expect![
        "resnet: `config.pbtxt` and `config.yaml` both configure model `resnet`; keep one of them"
    ]
    .assert_eq(&problems.to_string());
}

#[test]
fn the_models_that_ship_are_configured_right() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model_repository");
    for folder in std::fs::read_dir(repository).unwrap() {
        let folder = folder.unwrap().path();
        let is_configured =
            ["config.pbtxt", "config.yaml"].iter().any(|file| folder.join(file).exists());
        if is_configured {
            let draft = consort_config::read(&folder).unwrap_or_else(|error| panic!("{error}"));
            if draft.names_tensors() {
                draft.check().unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}
