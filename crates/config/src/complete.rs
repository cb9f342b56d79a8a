//! Fills in what a configuration leaves out from what the model file says of its tensors.

mod fit;

use std::collections::BTreeSet;

use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::{
    DataType as WireType, ModelConfig, ModelDynamicBatching, ModelInput, ModelOutput,
    ModelTensorReshape, ModelTransactionPolicy,
};
use consort_stage::{DataType, ShapeText, Signature, TensorSpec, VARIABLE};

use crate::report::Report;

/// The batch that a model which could batch is given without being asked; Triton's own default.
const DEFAULT_MAX_BATCH_SIZE: i32 = 4;

/// Completes `config`, noting where it contradicts `file`.
pub(crate) fn complete(config: &mut ModelConfig, file: &Signature, report: &mut Report) {
    if file.is_decoupled && config.model_transaction_policy.is_none() {
        config.model_transaction_policy = Some(ModelTransactionPolicy { decoupled: true });
    }
    if config.max_batch_size > 0 {
        check_batching(config, file, report);
    } else if !report.source.states("max_batch_size") {
        choose_batching(config, file);
    }
    let file = File {
        signature: file,
        model: config.name.clone(),
        is_batching: config.max_batch_size > 0,
    };
    fit::inputs(&file, &mut config.input, report);
    fit::outputs(&file, config, report);
    // What a request may leave out is served when the configuration asks for it.
    let made = names_made(config);
    let is_new = |spec: &&TensorSpec| {
        !spec.is_optional
            && config.input.iter().all(|input| *input.name != *spec.name)
            && !made.contains(&*spec.name)
    };
    let inputs: Vec<_> = file.signature.inputs.iter().filter(is_new).collect();
    config.input.extend(inputs.into_iter().map(|spec| file.input(spec)));
    // Outputs that the configuration does not name are outputs that nobody wants.
    if config.output.is_empty() {
        let outputs = file.signature.outputs.iter();
        let outputs = outputs.filter(|spec| !made.contains(&*spec.name));
        config.output = outputs.map(|spec| file.output(spec)).collect();
    }
}

/// The tensors that the server itself gives and takes, which callers do not see: those made for a
/// batch, and those of the sequence batcher.
fn names_made(config: &ModelConfig) -> BTreeSet<String> {
    let of_batches = config.batch_input.iter().flat_map(|made| &made.target_name).cloned();
    let Some(SchedulingChoice::SequenceBatching(batching)) = &config.scheduling_choice else {
        return of_batches.collect();
    };
    let controls = batching.control_input.iter().map(|control| &control.name);
    let states = batching.state.iter().flat_map(|state| [&state.input_name, &state.output_name]);
    of_batches.chain(controls.chain(states).cloned()).collect()
}

/// The names of the tensors whose rows the server joins and cuts apart itself, so that the model has
/// them in shapes of its own.
fn names_ragged(config: &ModelConfig) -> BTreeSet<&str> {
    let inputs = config.input.iter().filter(|input| input.allow_ragged_batch);
    let made = config.batch_input.iter().flat_map(|made| &made.target_name);
    let cut = config.batch_output.iter().flat_map(|cut| &cut.target_name);
    inputs.map(|input| &input.name).chain(made).chain(cut).map(String::as_str).collect()
}

/// Notes the tensors that keep the model from batching, which the configuration wants it to.
fn check_batching(config: &ModelConfig, file: &Signature, report: &mut Report) {
    let ragged = names_ragged(config);
    let is_whole = |spec: &&TensorSpec| !ragged.contains(&*spec.name) && !can_batch(file, spec);
    for spec in required(file).filter(is_whole) {
        report.wrong(
            "max_batch_size",
            format!(
                "model '{}', tensor '{}': for the model to support batching the shape should have \
                 at least 1 dimension and the first dimension must be -1; but shape expected by \
                 the model is {}",
                config.name,
                spec.name,
                ShapeText(&file.full_shape(spec))
            ),
        );
    }
}

/// Chooses a batch size where the file allows one and the configuration leaves it open.
fn choose_batching(config: &mut ModelConfig, file: &Signature) {
    if file.outputs.is_empty()
        || !required(file).all(|spec| can_batch(file, spec))
        || states_whole_shape(config, file)
    {
        return;
    }
    config.max_batch_size = if file.is_batching() {
        i32::try_from(file.max_batch_size).unwrap_or(i32::MAX)
    } else {
        DEFAULT_MAX_BATCH_SIZE
    };
    if config.max_batch_size > 1 && config.scheduling_choice.is_none() {
        let batching = ModelDynamicBatching::default();
        config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(batching));
    }
}

fn tensors(file: &Signature) -> impl Iterator<Item = &TensorSpec> {
    file.inputs.iter().chain(&file.outputs)
}

/// Those that every request has: a constant that it may replace is the same for a whole batch.
fn required(file: &Signature) -> impl Iterator<Item = &TensorSpec> {
    tensors(file).filter(|spec| !spec.is_optional)
}

fn can_batch(file: &Signature, spec: &TensorSpec) -> bool {
    file.full_shape(spec).first() == Some(&VARIABLE)
}

/// Whether the configuration states a tensor with all its dimensions, so without batching.
fn states_whole_shape(config: &ModelConfig, file: &Signature) -> bool {
    let inputs = config.input.iter().map(|input| (&input.name, input.dims.len()));
    let outputs = config.output.iter().map(|output| (&output.name, output.dims.len()));
    inputs.chain(outputs).any(|(name, rank)| {
        let spec = tensors(file).find(|spec| *spec.name == **name);
        rank > 0 && spec.is_some_and(|spec| file.full_shape(spec).len() == rank)
    })
}

/// The model file's own account of its tensors, for a model that is to batch or not.
struct File<'a> {
    signature: &'a Signature,
    model: String,
    is_batching: bool,
}

impl File<'_> {
    /// The dimensions as a configuration states them; a scalar is shown to callers as `[1]`.
    fn dims(&self, spec: &TensorSpec) -> (Vec<i64>, Option<ModelTensorReshape>) {
        let mut dims = self.signature.full_shape(spec);
        if self.is_batching && !dims.is_empty() {
            dims.remove(0);
        }
        if dims.is_empty() {
            return (vec![1], Some(ModelTensorReshape { shape: Vec::new() }));
        }
        (dims, None)
    }

    fn input(&self, spec: &TensorSpec) -> ModelInput {
        let (dims, reshape) = self.dims(spec);
        ModelInput {
            name: spec.name.as_ref().into(),
            data_type: wire_type(spec.datatype).into(),
            dims,
            reshape,
            ..ModelInput::default()
        }
    }

    fn output(&self, spec: &TensorSpec) -> ModelOutput {
        let (dims, reshape) = self.dims(spec);
        ModelOutput {
            name: spec.name.as_ref().into(),
            data_type: wire_type(spec.datatype).into(),
            dims,
            reshape,
            ..ModelOutput::default()
        }
    }
}

/// A type as `model_config.proto` numbers it.
fn wire_type(datatype: DataType) -> WireType {
    WireType::from_str_name(datatype.config_name()).unwrap_or_default()
}
