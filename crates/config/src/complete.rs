//! Fills in what a configuration leaves out from what the model file says of its tensors.

use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::{
    DataType as WireType, ModelConfig, ModelDynamicBatching, ModelInput, ModelOutput,
    ModelTensorReshape, ModelTransactionPolicy,
};
use consort_stage::{DataType, ShapeText, Signature, TensorSpec, VARIABLE};

use crate::nearest::did_you_mean;
use crate::report::Report;

/// The batch that a model which could batch is given without being asked; Triton's own default.
const DEFAULT_MAX_BATCH_SIZE: i32 = 4;

/// Completes `config`, noting where it contradicts `file`.
pub(crate) fn complete(config: &mut ModelConfig, file: &Signature, report: &mut Report) {
    let file = File { signature: file, name: config.name.clone() };
    if file.signature.is_decoupled && config.model_transaction_policy.is_none() {
        config.model_transaction_policy = Some(ModelTransactionPolicy { decoupled: true });
    }
    file.settle_batching(config, report);
    let is_batching = config.max_batch_size > 0;
    for (index, input) in config.input.iter_mut().enumerate() {
        file.fit(Side::Input, index, Stated::of_input(input), is_batching, report);
    }
    for (index, output) in config.output.iter_mut().enumerate() {
        file.fit(Side::Output, index, Stated::of_output(output), is_batching, report);
    }
    let is_new = |spec: &&TensorSpec| config.input.iter().all(|input| *input.name != *spec.name);
    let inputs: Vec<_> = file.signature.inputs.iter().filter(is_new).collect();
    let inputs: Vec<_> = inputs.into_iter().map(|spec| file.input(spec, is_batching)).collect();
    config.input.extend(inputs);
    // Outputs that the configuration does not name are outputs that nobody wants.
    if config.output.is_empty() {
        let outputs = file.signature.outputs.iter();
        config.output = outputs.map(|spec| file.output(spec, is_batching)).collect();
    }
}

/// Which of a model's tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// A tensor as the configuration states it.
struct Stated<'a> {
    name: &'a str,
    data_type: &'a mut i32,
    dims: &'a mut Vec<i64>,
    reshape: &'a mut Option<ModelTensorReshape>,
}

impl<'a> Stated<'a> {
    fn of_input(input: &'a mut ModelInput) -> Self {
        let ModelInput { name, data_type, dims, reshape, .. } = input;
        Self { name, data_type, dims, reshape }
    }

    fn of_output(output: &'a mut ModelOutput) -> Self {
        let ModelOutput { name, data_type, dims, reshape, .. } = output;
        Self { name, data_type, dims, reshape }
    }
}

/// The model file's own account of its tensors.
struct File<'a> {
    signature: &'a Signature,
    name: String,
}

impl File<'_> {
    fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        self.signature.inputs.iter().chain(&self.signature.outputs)
    }

    /// The file's dimensions for a tensor, a batch dimension included.
    fn shape(&self, spec: &TensorSpec) -> Vec<i64> {
        self.signature.full_shape(spec)
    }

    /// Chooses a batch size when the configuration does not, and checks one that it chose.
    fn settle_batching(&self, config: &mut ModelConfig, report: &mut Report) {
        let can_batch = |spec: &TensorSpec| self.shape(spec).first() == Some(&VARIABLE);
        if config.max_batch_size > 0 {
            for spec in self.tensors().filter(|spec| !can_batch(spec)) {
                report.wrong(
                    "max_batch_size",
                    format!(
                        "model '{}', tensor '{}': for the model to support batching the shape \
                         should have at least 1 dimension and the first dimension must be -1; but \
                         shape expected by the model is {}",
                        self.name,
                        spec.name,
                        ShapeText(&self.shape(spec))
                    ),
                );
            }
            return;
        }
        let is_open = !report.source.states("max_batch_size");
        if !is_open || !self.tensors().all(can_batch) || self.is_stated_with_batch(config) {
            return;
        }
        let stated = i32::try_from(self.signature.max_batch_size).unwrap_or(i32::MAX);
        config.max_batch_size = if stated > 0 { stated } else { DEFAULT_MAX_BATCH_SIZE };
        if config.scheduling_choice.is_none() && self.signature.max_batch_size == 0 {
            let batching = ModelDynamicBatching::default();
            config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(batching));
        }
    }

    /// Whether the configuration states a tensor with all its dimensions, so without batching.
    fn is_stated_with_batch(&self, config: &ModelConfig) -> bool {
        let inputs = config.input.iter().map(|input| (&input.name, input.dims.len()));
        let outputs = config.output.iter().map(|output| (&output.name, output.dims.len()));
        inputs.chain(outputs).any(|(name, rank)| {
            let spec = self.tensors().find(|spec| *spec.name == **name);
            rank > 0 && spec.is_some_and(|spec| self.shape(spec).len() == rank)
        })
    }

    fn fit(
        &self,
        side: Side,
        index: usize,
        stated: Stated<'_>,
        is_batching: bool,
        report: &mut Report,
    ) {
        let specs = match side {
            Side::Input => &self.signature.inputs,
            Side::Output => &self.signature.outputs,
        };
        let path = format!("{}[{index}]", side.name());
        let Some(spec) = specs.iter().find(|spec| *spec.name == *stated.name) else {
            if !stated.name.is_empty() {
                self.unknown(side, &path, stated.name, report);
            }
            return;
        };
        self.fit_type(&path, &stated, spec, report);
        let (dims, reshape) = self.config_dims(spec, is_batching);
        if stated.dims.is_empty() {
            *stated.dims = dims;
            if stated.reshape.is_none() {
                *stated.reshape = reshape;
            }
        } else {
            self.fit_dims(&path, &stated, spec, is_batching, report);
        }
        if *stated.data_type == 0 {
            *stated.data_type = wire_type(spec.datatype);
        }
    }

    fn fit_type(&self, path: &str, stated: &Stated<'_>, spec: &TensorSpec, report: &mut Report) {
        let wanted = wire_type(spec.datatype);
        if ![0, wanted].contains(stated.data_type) {
            let stated = WireType::try_from(*stated.data_type).unwrap_or_default();
            report.wrong(
                &format!("{path}.data_type"),
                format!(
                    "model '{}', tensor '{}': the model expects data type {}, but the \
                     configuration says {}",
                    self.name,
                    spec.name,
                    spec.datatype.config_name(),
                    stated.as_str_name()
                ),
            );
        }
    }

    fn fit_dims(
        &self,
        path: &str,
        stated: &Stated<'_>,
        spec: &TensorSpec,
        is_batching: bool,
        report: &mut Report,
    ) {
        let dims = stated.reshape.as_ref().map_or(&*stated.dims, |reshape| &reshape.shape);
        let full: Vec<i64> =
            is_batching.then_some(VARIABLE).into_iter().chain(dims.iter().copied()).collect();
        let wanted = self.shape(spec);
        let agrees = |(wanted, stated): (&i64, &i64)| *wanted == VARIABLE || wanted == stated;
        if wanted.len() == full.len() && wanted.iter().zip(&full).all(agrees) {
            return;
        }
        let batch = if is_batching { ", batch dimension included" } else { "" };
        report.wrong(
            &format!("{path}.dims"),
            format!(
                "model '{}', tensor '{}': the model expects shape {}, but the configuration says \
                 {}{batch}",
                self.name,
                spec.name,
                ShapeText(&wanted),
                ShapeText(&full)
            ),
        );
    }

    fn unknown(&self, side: Side, path: &str, name: &str, report: &mut Report) {
        let specs = match side {
            Side::Input => &self.signature.inputs,
            Side::Output => &self.signature.outputs,
        };
        let names: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
        let help = did_you_mean(name, names.iter().copied())
            .unwrap_or_else(|| format!("its {}s are: {}", side.name(), names.join(", ")));
        let message = format!("the model file has no {} '{name}'", side.name());
        report.wrong_but(&format!("{path}.name"), message, Some(help));
    }

    /// The dimensions as a configuration states them; a scalar is shown to callers as `[1]`.
    fn config_dims(
        &self,
        spec: &TensorSpec,
        is_batching: bool,
    ) -> (Vec<i64>, Option<ModelTensorReshape>) {
        let dims = self.shape(spec).split_off(usize::from(is_batching).min(self.shape(spec).len()));
        if dims.is_empty() {
            return (vec![1], Some(ModelTensorReshape { shape: Vec::new() }));
        }
        (dims, None)
    }

    fn input(&self, spec: &TensorSpec, is_batching: bool) -> ModelInput {
        let (dims, reshape) = self.config_dims(spec, is_batching);
        ModelInput {
            name: spec.name.as_ref().into(),
            data_type: wire_type(spec.datatype),
            dims,
            reshape,
            optional: spec.is_optional,
            ..ModelInput::default()
        }
    }

    fn output(&self, spec: &TensorSpec, is_batching: bool) -> ModelOutput {
        let (dims, reshape) = self.config_dims(spec, is_batching);
        ModelOutput {
            name: spec.name.as_ref().into(),
            data_type: wire_type(spec.datatype),
            dims,
            reshape,
            ..ModelOutput::default()
        }
    }
}

/// The number of a type in `model_config.proto`.
fn wire_type(datatype: DataType) -> i32 {
    WireType::from_str_name(datatype.config_name()).unwrap_or_default().into()
}
