//! Checks the requests that run before a model is called ready.

use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::model_warmup::Input;
use consort_protocol::{DataType, ModelConfig, ModelInput, ModelWarmup};

use crate::nearest::did_you_mean;
use crate::report::Report;
use crate::source::{entry, field};

/// Notes everything that is wrong with `model_warmup`.
pub(super) fn check(config: &ModelConfig, report: &mut Report) {
    for (index, sample) in config.model_warmup.iter().enumerate() {
        let path = format!("model_warmup[{index}]");
        check_batch(&path, sample, config, report);
        for (name, input) in &sample.inputs {
            let path = entry(&field(&path, "inputs"), name);
            check_data(&path, name, input, report);
            check_fit(&path, name, input, config, report);
        }
        check_complete(&path, sample, config, report);
    }
}

fn check_batch(path: &str, sample: &ModelWarmup, config: &ModelConfig, report: &mut Report) {
    let largest = u32::try_from(config.max_batch_size).unwrap_or(0).max(1);
    if sample.batch_size > largest {
        let message = format!(
            "warmup setting '{}' has batch size {}, but the largest for {} is {largest}",
            sample.name, sample.batch_size, config.name
        );
        report.wrong(&field(path, "batch_size"), message);
    }
}

/// Whether the elements of an input can be made.
fn check_data(path: &str, name: &str, input: &Input, report: &mut Report) {
    if input.input_data_type.is_none() {
        report.wrong_but(
            path,
            format!("warmup setting expects input '{name}' to have input_data_type set"),
            Some("write `zero_data: true`, `random_data: true` or `input_data_file: \"…\"`".into()),
        );
    }
    for (index, dim) in input.dims.iter().enumerate() {
        if *dim < 0 {
            let message = format!(
                "warmup setting expects all variable-size dimensions are specified for input \
                 '{name}'"
            );
            report.wrong(&format!("{path}.dims[{index}]"), message);
        }
    }
}

/// Whether an input is one of the model's.
fn check_fit(path: &str, name: &str, input: &Input, config: &ModelConfig, report: &mut Report) {
    let Some(spec) = config.input.iter().find(|spec| spec.name == name) else {
        if !config.input.is_empty() && !made_by_the_server(config).any(|made| made == name) {
            let help = did_you_mean(name, config.input.iter().map(|spec| spec.name.as_str()));
            let message = format!("warmup input '{name}' is no input of {}", config.name);
            report.wrong_but(path, message, help);
        }
        return;
    };
    if input.data_type() != spec.data_type() && spec.data_type() != DataType::TypeInvalid {
        let message = format!(
            "warmup input '{name}' is {}, but {} expects {}",
            input.data_type().as_str_name(),
            config.name,
            spec.data_type().as_str_name()
        );
        report.wrong(&field(path, "data_type"), message);
    }
    if !has_room_for(spec, &input.dims) {
        let message = format!(
            "warmup input '{name}' has dims {:?}, but {} expects {:?}, batch dimension left out",
            input.dims, config.name, spec.dims
        );
        report.wrong(&field(path, "dims"), message);
    }
}

fn has_room_for(spec: &ModelInput, dims: &[i64]) -> bool {
    // A negative dimension is another mistake, and its own message.
    let fits = |(stated, given): (&i64, &i64)| *stated < 0 || *given < 0 || stated == given;
    spec.dims.is_empty() || spec.dims.len() == dims.len() && spec.dims.iter().zip(dims).all(fits)
}

/// The inputs that the server gives to a model by itself, which a sample may give too.
fn made_by_the_server(config: &ModelConfig) -> impl Iterator<Item = &str> {
    let sequence = match &config.scheduling_choice {
        Some(SchedulingChoice::SequenceBatching(batching)) => Some(batching),
        _ => None,
    };
    let controls = sequence.into_iter().flat_map(|batching| &batching.control_input);
    let states = sequence.into_iter().flat_map(|batching| &batching.state);
    let batch = config.batch_input.iter().flat_map(|input| &input.target_name);
    let controls = controls.map(|control| control.name.as_str());
    let states = states.map(|state| state.input_name.as_str());
    controls.chain(states).chain(batch.map(String::as_str))
}

fn check_complete(path: &str, sample: &ModelWarmup, config: &ModelConfig, report: &mut Report) {
    let is_given = |input: &&ModelInput| sample.inputs.contains_key(&input.name);
    let missing = config.input.iter().filter(|input| !input.optional && !is_given(input));
    for input in missing {
        let message = format!(
            "warmup setting '{}' lacks the input '{}' that {} requires",
            sample.name, input.name, config.name
        );
        report.missing(path, message, None);
    }
}
