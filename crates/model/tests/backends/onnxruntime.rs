//! The backend `onnxruntime`: every type, any rank, clear errors, and runs that can be stopped.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consort_config::{BatchInput, BatchInputKind, BatchOutput, Device, Model, RaggedBatching};
use consort_repository::Backend;
use consort_stage::{
    Batch, BatchBackend, Code, DataType, Error, Result, Signature, Tensor, TensorSpec,
};

use crate::loaded::{Folder, model};

const NAME: &str = "onnxruntime";

fn loaded(folder: &Folder, model: &Model) -> Result<Box<dyn BatchBackend>> {
    match folder.load(model)? {
        Backend::Batch(backend) => Ok(backend),
        _ => panic!("it is a batch backend"),
    }
}

/// The graph, loaded with the signature that its file has.
fn graph(name: &str) -> Box<dyn BatchBackend> {
    let folder = Folder::of(name);
    let signature = folder.signature(NAME).expect("run `cargo xtask setup`").unwrap();
    loaded(&folder, &model(NAME, signature, &[])).unwrap()
}

fn run(backend: &mut dyn BatchBackend, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    backend.run(Batch { inputs, ..Batch::default() })
}

fn refused(name: &str, signature: Signature, settings: &[(&str, &str)]) -> Error {
    loaded(&Folder::of(name), &model(NAME, signature, settings)).err().unwrap()
}

fn signature_of(name: &str) -> Signature {
    Folder::of(name).signature(NAME).unwrap().unwrap()
}

#[test]
fn a_graph_of_batches_is_completed_without_its_batch_dimension() {
    let signature = signature_of("add_sub");
    assert_eq!(signature.max_batch_size, 4);
    let input = signature.input("INPUT1").unwrap();
    assert_eq!((input.datatype, &*input.dims), (DataType::Int32, &[16][..]));
    assert!(signature.output("OUTPUT0").is_some());
}

#[test]
fn a_graph_of_fixed_or_no_dimensions_is_no_batching_one() {
    let fixed = signature_of("no_batch");
    assert_eq!(fixed.max_batch_size, 0);
    assert_eq!(fixed.input("MATRIX").unwrap().dims, [3, 4]);
    let scalar = signature_of("scalar");
    assert_eq!(scalar.max_batch_size, 0);
    assert!(scalar.input("SCALAR").unwrap().dims.is_empty());
    assert_eq!(scalar.output("SHIFTED").unwrap().dims, [-1]);
}

#[test]
fn a_request_may_replace_a_constant_that_is_an_input_of_the_graph() {
    let signature = signature_of("replaceable");
    assert_eq!(signature.max_batch_size, 0, "the constant has no row for each request");
    let weights = signature.input("WEIGHTS").unwrap();
    assert_eq!((weights.is_optional, &*weights.dims), (true, &[4][..]));
    let mut backend = graph("replaceable");
    let rows = Tensor::from_vec("ROWS", &[1, 4], vec![1.0_f32; 4]);
    let weights = Tensor::from_vec("WEIGHTS", &[4], vec![5.0_f32, 6.0, 7.0, 8.0]);
    let kept = run(&mut *backend, vec![rows.clone()]).unwrap();
    assert_eq!(&*kept[0].to_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    let replaced = run(&mut *backend, vec![rows, weights]).unwrap();
    assert_eq!(&*replaced[0].to_slice::<f32>().unwrap(), [5.0, 6.0, 7.0, 8.0]);
}

/// `VALUES` is ragged, `BOUNDS` is made of it, and `DOUBLED` is cut by it.
fn ragged(bounds: DataType) -> Model {
    let values = TensorSpec { is_ragged: true, ..TensorSpec::new("VALUES", DataType::Fp32, &[-1]) };
    let doubled = TensorSpec { name: "DOUBLED".into(), ..values.clone() };
    let signature = Signature {
        max_batch_size: 8,
        inputs: vec![values],
        outputs: vec![doubled, TensorSpec::new("SUM", DataType::Fp32, &[1])],
        ..Signature::default()
    };
    let input = BatchInput {
        kind: BatchInputKind::AccumulatedElementCountWithZero,
        targets: vec!["BOUNDS".into()],
        datatype: bounds,
        source: "VALUES".into(),
    };
    let outputs = vec![BatchOutput { targets: vec!["DOUBLED".into()], source: "VALUES".into() }];
    let ragged = RaggedBatching { inputs: vec![input], outputs };
    Model { ragged, ..model(NAME, signature, &[]) }
}

#[test]
fn a_graph_with_ragged_inputs_is_told_where_each_request_lies() {
    let mut backend = loaded(&Folder::of("ragged"), &ragged(DataType::Int32)).unwrap();
    let inputs = vec![
        Tensor::from_vec("VALUES", &[5], vec![1.0_f32, 2.0, 3.0, 4.0, 5.0]),
        Tensor::from_vec("BOUNDS", &[3], vec![0, 2, 5]),
    ];
    let outputs = run(&mut *backend, inputs).unwrap();
    assert_eq!(outputs[0].shape, [5]);
    assert_eq!(outputs[1].shape, [2, 1]);
    assert_eq!(&*outputs[1].to_slice::<f32>().unwrap(), [3.0, 12.0]);
    let error = loaded(&Folder::of("ragged"), &ragged(DataType::Fp32)).err().unwrap();
    assert!(error.message().contains("input `BOUNDS` is TYPE_FP32"), "{error}");
}

#[test]
fn every_type_comes_back_as_it_went_in() {
    let mut backend = graph("every_type");
    let inputs: Vec<_> = DataType::ALL
        .into_iter()
        .map(|datatype| {
            let name = format!("INPUT_{datatype}");
            match datatype.size() {
                Some(size) => {
                    // Unaligned, as tensors lie in a message.
                    let data = Bytes::from(vec![1_u8; 6 * size + 1]).slice(1..);
                    Tensor::new(name, datatype, vec![2, 3], data).unwrap()
                }
                None => Tensor::from_strings(name, &[2, 3], &["", "a", "Ωmega", "d", "e", "f"]),
            }
        })
        .collect();
    let outputs = run(&mut *backend, inputs.clone()).unwrap();
    for input in inputs {
        let name = input.name.replace("INPUT", "OUTPUT");
        let output = outputs.iter().find(|output| *output.name == *name).unwrap();
        assert_eq!(output.clone().renamed(input.name.clone()), input);
    }
}

#[test]
fn tensors_may_be_empty() {
    let mut backend = graph("every_type");
    let empty = |datatype| {
        let name = format!("INPUT_{datatype}");
        Tensor::new(name, datatype, vec![0, 5], Bytes::new()).unwrap()
    };
    let outputs = run(&mut *backend, DataType::ALL.into_iter().map(empty).collect()).unwrap();
    for output in outputs {
        assert_eq!((output.shape, output.data.len()), (vec![0, 5], 0));
    }
}

#[test]
fn scalars_have_no_dimensions() {
    let mut backend = graph("scalar");
    let scalar = Tensor::from_vec("SCALAR", &[], vec![1.5_f32]);
    let vector = Tensor::from_vec("VECTOR", &[2], vec![1.0_f32, 2.0]);
    let outputs = run(&mut *backend, vec![vector, scalar]).unwrap();
    let twice = outputs.iter().find(|tensor| &*tensor.name == "TWICE").unwrap();
    assert_eq!((&*twice.shape, &*twice.to_slice::<f32>().unwrap()), (&[][..], &[3.0][..]));
}

#[test]
fn only_the_wanted_outputs_come_back() {
    let mut backend = graph("add_sub");
    let ones = |name: &str| Tensor::from_vec(name, &[1, 16], vec![1_i32; 16]);
    let batch = Batch {
        inputs: vec![ones("INPUT0"), ones("INPUT1")],
        outputs: vec!["OUTPUT1".into()],
        ..Batch::default()
    };
    let outputs = backend.run(batch).unwrap();
    assert_eq!(outputs.len(), 1);
    assert_eq!(*outputs[0].name, *"OUTPUT1");
    assert_eq!(&*outputs[0].to_slice::<i32>().unwrap(), [0; 16]);
}

#[test]
fn strings_are_joined_in_a_batch() {
    let mut backend = graph("string_concat");
    let first = Tensor::from_strings("FIRST", &[2, 1], &["con", "Über"]);
    let second = Tensor::from_strings("SECOND", &[2, 1], &["sort", ""]);
    let outputs = run(&mut *backend, vec![first, second]).unwrap();
    assert_eq!(outputs[0].to_strings().unwrap(), [b"consort".as_slice(), "Über".as_bytes()]);
}

#[test]
fn outputs_outlive_the_model() {
    let mut backend = graph("no_batch");
    let matrix = Tensor::from_vec("MATRIX", &[3, 4], (0_u8..12).map(f32::from).collect());
    let outputs = run(&mut *backend, vec![matrix]).unwrap();
    drop(backend);
    assert_eq!(outputs[0].to_slice::<f32>().unwrap()[..3], [0.0, 4.0, 8.0]);
}

#[test]
fn inputs_that_do_not_fit_the_graph_are_the_callers_mistake() {
    let mut backend = graph("no_batch");
    let wrong_shape = Tensor::from_vec("MATRIX", &[4, 3], vec![0.0_f32; 12]);
    let wrong_type = Tensor::from_vec("MATRIX", &[3, 4], vec![0_i32; 12]);
    for (inputs, part) in
        [(vec![wrong_shape], "MATRIX"), (vec![wrong_type], "data type"), (vec![], "MATRIX")]
    {
        let error = run(&mut *backend, inputs).unwrap_err();
        assert_eq!(error.code(), Code::InvalidInput, "{error}");
        assert!(error.message().contains(part), "{error}");
    }
    let right = Tensor::from_vec("MATRIX", &[3, 4], vec![0.0_f32; 12]);
    assert!(run(&mut *backend, vec![right]).is_ok());
}

#[test]
fn a_run_that_fails_inside_the_graph_says_so_without_paths() {
    let mut backend = graph("pick");
    let error =
        run(&mut *backend, vec![Tensor::from_vec("INDEX", &[1, 1], vec![9_i64])]).unwrap_err();
    assert!(error.message().starts_with("model `sample` failed"), "{error}");
    assert!(error.message().contains("Gather"), "{error}");
    assert!(!error.message().contains("onnxruntime_src"), "{error}");
}

#[test]
fn a_run_stops_when_it_is_interrupted_and_the_next_one_is_whole() {
    let mut backend = graph("slow");
    let rounds = |count: i64| vec![Tensor::from_vec("ITERATIONS", &[1], vec![count])];
    let interrupt = backend.interrupt().expect("it can be interrupted");
    // Between two runs there is nothing to stop.
    interrupt();
    assert!(run(&mut *backend, rounds(1)).is_ok());
    let stopper = thread::spawn({
        let interrupt = Arc::clone(&interrupt);
        move || {
            thread::sleep(Duration::from_millis(100));
            interrupt();
            Instant::now()
        }
    });
    let error = run(&mut *backend, rounds(1 << 20)).unwrap_err();
    let ended_at = Instant::now();
    let stopped_at = stopper.join().unwrap();
    assert_eq!(error.code(), Code::Cancelled);
    assert!(ended_at - stopped_at < Duration::from_millis(300), "{:?}", ended_at - stopped_at);
    let outputs = run(&mut *backend, rounds(3)).unwrap();
    assert_eq!(&*outputs[0].to_slice::<i64>().unwrap(), [3]);
}

#[test]
fn a_tensor_that_the_graph_lacks_is_refused_with_those_it_has() {
    let mut signature = signature_of("add_sub");
    signature.outputs.push(TensorSpec::new("OUTPUT2", DataType::Int32, &[16]));
    let error = refused("add_sub", signature, &[]);
    assert!(error.message().contains("no output `OUTPUT2`"), "{error}");
    assert!(error.message().contains("`OUTPUT0`, `OUTPUT1`"), "{error}");

    let mut signature = signature_of("add_sub");
    signature.inputs.remove(1);
    let error = refused("add_sub", signature, &[]);
    assert!(error.message().contains("`INPUT1`"), "{error}");
}

#[test]
fn a_type_or_shape_that_the_graph_lacks_is_refused() {
    let mut signature = signature_of("add_sub");
    signature.inputs[0].datatype = DataType::Fp32;
    let error = refused("add_sub", signature, &[]);
    assert!(error.message().contains("TYPE_FP32"), "{error}");
    assert!(error.message().contains("TYPE_INT32"), "{error}");

    let mut signature = signature_of("add_sub");
    signature.inputs[0].dims = vec![3, 16];
    let error = refused("add_sub", signature, &[]);
    assert!(
        error.message().contains("[-1,3,16]") && error.message().contains("[-1,16]"),
        "{error}"
    );

    let mut signature = signature_of("no_batch");
    signature.max_batch_size = 8;
    signature.inputs[0].dims = vec![4];
    let error = refused("no_batch", signature, &[]);
    assert!(error.message().contains("`max_batch_size: 0`"), "{error}");
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let folder = Folder::with_text("this is not a model");
    let error = folder.signature(NAME).unwrap_err();
    assert!(error.message().contains("1/model.onnx` is not an ONNX model"), "{error}");
    let error = loaded(&folder, &model(NAME, Signature::default(), &[])).err().unwrap();
    assert!(error.message().contains("1/model.onnx` is not an ONNX model"), "{error}");
    let host = folder.version().display().to_string();
    assert!(!error.message().contains(&host), "{error}");

    let error = loaded(&Folder::with(&[]), &model(NAME, Signature::default(), &[])).err().unwrap();
    assert!(error.message().contains("1/model.onnx` does not exist"), "{error}");
}

#[test]
fn a_card_that_is_not_there_is_an_error_and_not_the_processor() {
    if std::path::Path::new("/dev/nvidia0").exists() {
        return;
    }
    let folder = Folder::of("add_sub");
    let model = model(NAME, signature_of("add_sub"), &[]);
    let error = folder.load_on(Device::Gpu(0), &model).err().unwrap();
    assert!(error.message().contains("asks for GPU 0"), "{error}");
    assert!(folder.load_on(Device::Auto, &model).is_ok());
}

#[test]
fn accelerators_and_levels_that_do_not_exist_are_refused() {
    let mut model = model(NAME, signature_of("add_sub"), &[]);
    let wire = Arc::make_mut(&mut model.wire);
    let optimization = wire.optimization.get_or_insert_default();
    let lists = optimization.execution_accelerators.get_or_insert_default();
    lists.gpu_execution_accelerator.resize_with(1, Default::default);
    lists.gpu_execution_accelerator[0].name = "tensorrt".into();
    lists.cpu_execution_accelerator.resize_with(1, Default::default);
    lists.cpu_execution_accelerator[0].name = "openvino".into();
    let error = loaded(&Folder::of("add_sub"), &model).err().unwrap();
    for name in ["tensorrt", "openvino"] {
        let text = format!("unknown execution provider `{name}`");
        assert!(error.message().contains(&text), "{error}");
    }

    let wire = Arc::make_mut(&mut model.wire);
    let optimization = wire.optimization.get_or_insert_default();
    optimization.graph.get_or_insert_default().level = 5;
    let error = loaded(&Folder::of("add_sub"), &model).err().unwrap();
    assert!(error.message().contains("not 5"), "{error}");
}

#[test]
fn the_usual_parameters_are_taken_and_wrong_ones_refused() {
    let taken = [
        ("intra_op_thread_count", "2"),
        ("inter_op_thread_count", "1"),
        ("execution_mode", "1"),
        ("enable_mem_arena", "0"),
        ("enable_mem_pattern", "0"),
        ("memory.enable_memory_arena_shrinkage", "cpu:0"),
        ("session.use_device_allocator_for_initializers", "1"),
    ];
    let folder = Folder::of("string_upper");
    let model = model(NAME, signature_of("string_upper"), &taken);
    let mut backend = loaded(&folder, &model).unwrap();
    let text = Tensor::from_strings("TEXT", &[1], &["ferris"]);
    // Shrinking needs an arena, which is off: the run itself says so.
    let outcome = run(&mut *backend, vec![text]);
    assert!(outcome.is_ok() || outcome.unwrap_err().message().contains("arena"));
    for (key, value) in
        [("intra_op_thread_count", "many"), ("execution_mode", "2"), ("enable_mem_arena", "maybe")]
    {
        let error = refused("string_upper", signature_of("string_upper"), &[(key, value)]);
        assert!(error.message().contains(key), "{error}");
    }
}
