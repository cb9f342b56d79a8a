//! Checks a model's inputs and outputs.

use std::collections::BTreeSet;

use consort_protocol::model_input::Format;
use consort_protocol::{BatchInput, DataType, ModelConfig, ModelTensorReshape};
use consort_stage::VARIABLE;

use crate::nearest::did_you_mean;
use crate::report::Report;

/// An input or output, whichever it is.
struct Described<'a> {
    /// `input` or `output`.
    side: &'static str,
    path: String,
    name: &'a str,
    data_type: DataType,
    dims: &'a [i64],
    reshape: Option<&'a ModelTensorReshape>,
    is_shape_tensor: bool,
}

/// Notes everything that is wrong with the inputs and outputs of `config`.
pub(super) fn check(config: &ModelConfig, report: &mut Report) {
    let tensors = tensors(config);
    for tensor in &tensors {
        check_tensor(tensor, config, report);
    }
    check_names(&tensors, report);
    check_formats(config, report);
    check_batch_inputs(config, report);
    if config.output.is_empty() {
        let message = format!("must specify 'output' for '{}'", config.name);
        let help = "write `output [ { name: \"…\" data_type: TYPE_… dims: [ … ] } ]`";
        report.missing("", message, Some(help.into()));
    }
}

fn tensors(config: &ModelConfig) -> Vec<Described<'_>> {
    let inputs = config.input.iter().enumerate().map(|(index, input)| Described {
        side: "input",
        path: format!("input[{index}]"),
        name: &input.name,
        data_type: input.data_type(),
        dims: &input.dims,
        reshape: input.reshape.as_ref(),
        is_shape_tensor: input.is_shape_tensor,
    });
    let outputs = config.output.iter().enumerate().map(|(index, output)| Described {
        side: "output",
        path: format!("output[{index}]"),
        name: &output.name,
        data_type: output.data_type(),
        dims: &output.dims,
        reshape: output.reshape.as_ref(),
        is_shape_tensor: output.is_shape_tensor,
    });
    inputs.chain(outputs).collect()
}

fn check_tensor(tensor: &Described<'_>, config: &ModelConfig, report: &mut Report) {
    let Described { side, path, name, dims, .. } = tensor;
    if name.is_empty() {
        report.missing(path, format!("model {side} must specify 'name'"), None);
    }
    let shown =
        if name.is_empty() { format!("model {side}") } else { format!("model {side} '{name}'") };
    if tensor.data_type == DataType::TypeInvalid {
        report.missing(path, format!("{shown} must specify 'data_type'"), None);
    }
    if dims.is_empty() {
        report.missing(path, format!("{shown} must specify 'dims'"), None);
    }
    check_sizes(&format!("{path}.dims"), dims, &format!("{shown} dimension"), report);
    if let Some(reshape) = tensor.reshape {
        let shape = &reshape.shape;
        let path = format!("{path}.reshape.shape");
        check_sizes(&path, shape, &format!("{shown} reshape dimensions"), report);
        check_reshape(tensor, shape, config.max_batch_size > 0, report);
    }
    if tensor.is_shape_tensor && config.backend != "tensorrt" {
        let message = format!("shape tensors are only supported for TensorRT platform, '{name}'");
        report.wrong(&format!("{path}.is_shape_tensor"), message);
    }
}

fn check_sizes(path: &str, dims: &[i64], shown: &str, report: &mut Report) {
    for (index, dim) in dims.iter().enumerate() {
        if *dim < 1 && *dim != VARIABLE {
            report.wrong(
                &format!("{path}[{index}]"),
                format!(
                    "{shown} must be integer >= 1, or -1 to indicate a variable-size dimension, \
                     not {dim}"
                ),
            );
        }
    }
}

fn check_reshape(tensor: &Described<'_>, shape: &[i64], is_batching: bool, report: &mut Report) {
    let path = format!("{}.reshape", tensor.path);
    let shown = format!("model {} '{}'", tensor.side, tensor.name);
    // A tensor completed from the model file may be a scalar whatever the configuration allows.
    if shape.is_empty() && !is_batching && report.source.states(&path) {
        let message = format!(
            "{shown} cannot have empty reshape for non-batching model as scalar tensors are not \
             supported"
        );
        report.wrong(&path, message);
    } else if !tensor.dims.is_empty() && sizes(tensor.dims) != sizes(shape) {
        report.wrong(&path, format!("{shown} has different size for dims and reshape"));
    }
}

/// The number of elements between one variable dimension and the next.
fn sizes(dims: &[i64]) -> Vec<i64> {
    let between = dims.split(|dim| *dim == VARIABLE);
    between.map(|dims| dims.iter().fold(1_i64, |size, dim| size.saturating_mul(*dim))).collect()
}

fn check_names(tensors: &[Described<'_>], report: &mut Report) {
    let mut seen = BTreeSet::new();
    for tensor in tensors.iter().filter(|tensor| !tensor.name.is_empty()) {
        if !seen.insert((tensor.side, tensor.name)) {
            let message = format!("model {} '{}' is given twice", tensor.side, tensor.name);
            report.wrong(&format!("{}.name", tensor.path), message);
        }
    }
}

fn check_formats(config: &ModelConfig, report: &mut Report) {
    for (index, input) in config.input.iter().enumerate() {
        let is_image = matches!(input.format(), Format::Nhwc | Format::Nchw);
        if is_image && input.dims.len() != 3 && !input.dims.is_empty() {
            let message = format!("model input '{}' NHWC/NCHW require 3 dims", input.name);
            report.wrong(&format!("input[{index}].format"), message);
        }
    }
}

fn check_batch_inputs(config: &ModelConfig, report: &mut Report) {
    for (index, batch_input) in config.batch_input.iter().enumerate() {
        let path = format!("batch_input[{index}]");
        check_batch_input(&path, batch_input, report);
        check_sources(&path, &batch_input.source_input, config, report);
    }
    for (index, batch_output) in config.batch_output.iter().enumerate() {
        let path = format!("batch_output[{index}]");
        if batch_output.source_input.len() != 1 {
            let count = batch_output.source_input.len();
            let kind = batch_output.kind().as_str_name();
            report.wrong(
                &path,
                format!("batch output kind '{kind}' expects 1 source input, got {count}"),
            );
        }
        check_sources(&path, &batch_output.source_input, config, report);
    }
}

fn check_batch_input(path: &str, batch_input: &BatchInput, report: &mut Report) {
    let count = batch_input.source_input.len();
    if count != 1 {
        let kind = batch_input.kind().as_str_name();
        let message = format!("batch input kind '{kind}' expects 1 source input, got {count}");
        report.wrong(path, message);
    }
    if batch_input.target_name.is_empty() {
        report.missing(path, "batch input must specify 'target_name'", None);
    }
    match batch_input.data_type() {
        DataType::TypeInt32 | DataType::TypeFp32 => {}
        DataType::TypeInvalid => {
            report.missing(path, "batch input data type must be TYPE_INT32 or TYPE_FP32", None);
        }
        other => report.wrong(
            &format!("{path}.data_type"),
            format!(
                "batch input data type must be TYPE_INT32 or TYPE_FP32, not {}",
                other.as_str_name()
            ),
        ),
    }
}

fn check_sources(path: &str, sources: &[String], config: &ModelConfig, report: &mut Report) {
    for (index, source) in sources.iter().enumerate() {
        let names = config.input.iter().map(|input| input.name.as_str());
        if names.clone().all(|name| name != source) {
            let help = did_you_mean(source, names);
            let message = format!("unknown source input name '{source}'");
            report.wrong_but(&format!("{path}.source_input[{index}]"), message, help);
        }
    }
}
