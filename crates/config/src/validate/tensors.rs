//! Checks a model's inputs and outputs.

use std::collections::BTreeSet;

use consort_protocol::model_input::Format;
use consort_protocol::{DataType, ModelConfig, ModelTensorReshape};
use consort_stage::VARIABLE;

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

impl Described<'_> {
    /// What messages call it.
    fn shown(&self) -> String {
        let Self { side, name, .. } = self;
        if name.is_empty() { format!("model {side}") } else { format!("model {side} '{name}'") }
    }
}

/// Notes everything that is wrong with the inputs and outputs of `config`.
pub(super) fn check(config: &ModelConfig, report: &mut Report) {
    let tensors = tensors(config);
    for tensor in &tensors {
        check_tensor(tensor, config, report);
    }
    check_names(&tensors, report);
    check_formats(config, report);
    if config.output.is_empty() {
        let message = format!(
            "model configuration must contain at least one output, none were specified for '{}'",
            config.name
        );
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
    let (path, shown) = (&tensor.path, tensor.shown());
    if tensor.name.is_empty() {
        report.missing(path, format!("{shown} must specify 'name' for {}", config.name), None);
    }
    if tensor.data_type == DataType::TypeInvalid {
        report.missing(path, format!("{shown} must specify 'data_type' for {}", config.name), None);
    }
    if tensor.dims.is_empty() {
        report.missing(path, format!("{shown} must specify 'dims' for {}", config.name), None);
    }
    check_sizes(tensor, "dims", config, report);
    if tensor.reshape.is_some() {
        check_sizes(tensor, "reshape.shape", config, report);
        check_reshape(tensor, config, report);
    }
    if tensor.is_shape_tensor && config.backend != "tensorrt" {
        let message =
            format!("shape tensors are only supported for TensorRT platform for {}", config.name);
        report.wrong(&format!("{path}.is_shape_tensor"), message);
    }
}

/// Checks each dimension in `dims` or in `reshape.shape`.
fn check_sizes(tensor: &Described<'_>, field: &str, config: &ModelConfig, report: &mut Report) {
    let reshape = tensor.reshape.map_or(&[][..], |reshape| &reshape.shape);
    let (dims, noun) =
        if field == "dims" { (tensor.dims, "dimension") } else { (reshape, "reshape dimensions") };
    for (index, dim) in dims.iter().enumerate() {
        if *dim < 1 && *dim != VARIABLE {
            report.wrong_but(
                &format!("{}.{field}[{index}]", tensor.path),
                format!(
                    "{} {noun} must be integer >= 1, or -1 to indicate a variable-size dimension \
                     for {}",
                    tensor.shown(),
                    config.name
                ),
                Some(format!("it is {dim}")),
            );
        }
    }
}

fn check_reshape(tensor: &Described<'_>, config: &ModelConfig, report: &mut Report) {
    let path = format!("{}.reshape", tensor.path);
    let shape = tensor.reshape.map_or(&[][..], |reshape| &reshape.shape);
    let (dims, reshaped) = (sizes(tensor.dims), sizes(shape));
    let what = if shape.is_empty() && config.max_batch_size == 0 && report.source.states(&path) {
        // One completed from the model file may be a scalar whatever a configuration may say.
        "cannot have empty reshape for non-batching model as scalar tensors are not supported"
    } else if tensor.dims.is_empty() || dims == reshaped {
        return;
    } else if dims.len() == reshaped.len() || dims.len() == 1 || reshaped.len() == 1 {
        "has different size for dims and reshape"
    } else {
        "has different number of variable-size dimensions for dims and reshape"
    };
    report.wrong(&path, format!("{} {what} for {}", tensor.shown(), config.name));
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
            let message = format!(
                "model input '{}' NHWC/NCHW require 3 dims for {}",
                input.name, config.name
            );
            report.wrong(&format!("input[{index}].format"), message);
        }
    }
}
