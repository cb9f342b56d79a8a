//! Checks the tensors that a sequence keeps from one request to the next, and their names.

use std::collections::BTreeSet;

use consort_protocol::model_sequence_batching::{InitialState, State};
use consort_protocol::{DataType, ModelConfig, ModelSequenceBatching};
use consort_stage::VARIABLE;

use crate::report::Report;

/// Notes everything that is wrong with the states of `batching`.
pub(super) fn check(batching: &ModelSequenceBatching, config: &ModelConfig, report: &mut Report) {
    check_hidden_inputs(batching, config, report);
    let mut outputs = BTreeSet::new();
    for (index, state) in batching.state.iter().enumerate() {
        let path = format!("sequence_batching.state[{index}]");
        check_state(&path, state, config, report);
        if !outputs.insert(&state.output_name) {
            let message = format!(
                "sequence batching state output '{}' is given twice for {}",
                state.output_name, config.name
            );
            report.wrong(&format!("{path}.output_name"), message);
        }
        check_public_output(&path, state, config, report);
    }
}

/// Callers must not be asked for what the server itself gives, nor two of those be one input.
fn check_hidden_inputs(
    batching: &ModelSequenceBatching,
    config: &ModelConfig,
    report: &mut Report,
) {
    let controls = batching.control_input.iter().enumerate();
    let controls = controls.map(|(index, control)| {
        (format!("sequence_batching.control_input[{index}].name"), &control.name)
    });
    let states = batching.state.iter().enumerate().map(|(index, state)| {
        (format!("sequence_batching.state[{index}].input_name"), &state.input_name)
    });
    let public: BTreeSet<_> = config.input.iter().map(|input| &input.name).collect();
    let mut seen = BTreeSet::new();
    for (path, name) in controls.chain(states) {
        let is_control = path.ends_with("].name");
        if public.contains(name) {
            let message = format!(
                "input '{name}' is given by the sequence batcher and must not be among the inputs \
                 of {}",
                config.name
            );
            report.wrong(&path, message);
        } else if !seen.insert(name) && !is_control {
            let message =
                format!("sequence batching input '{name}' is given twice for {}", config.name);
            report.wrong(&path, message);
        }
    }
}

fn check_state(path: &str, state: &State, config: &ModelConfig, report: &mut Report) {
    let name = &config.name;
    let lacks = [
        ("input_name", state.input_name.is_empty()),
        ("output_name", state.output_name.is_empty()),
        ("data_type", state.data_type() == DataType::TypeInvalid),
        ("dims", state.dims.is_empty()),
    ];
    for (field, _) in lacks.into_iter().filter(|(_, is_missing)| *is_missing) {
        let message = format!("sequence batching state must specify '{field}' for {name}");
        report.missing(path, message, None);
    }
    for (index, dim) in state.dims.iter().enumerate() {
        if *dim < 1 && *dim != VARIABLE {
            let message = format!(
                "sequence batching state '{}' dimension must be integer >= 1, or -1 to indicate a \
                 variable-size dimension for {name}",
                state.input_name
            );
            report.wrong(&format!("{path}.dims[{index}]"), message);
        }
    }
    if state.initial_state.len() > 1 {
        let message = format!(
            "sequence batching state '{}' can have one initial state at most for {name}",
            state.input_name
        );
        report.wrong(&format!("{path}.initial_state[1]"), message);
    }
    for (index, initial) in state.initial_state.iter().enumerate() {
        check_initial(&format!("{path}.initial_state[{index}]"), initial, state, report);
    }
}

fn check_initial(path: &str, initial: &InitialState, state: &State, report: &mut Report) {
    let name = &state.input_name;
    if initial.data_type != state.data_type {
        let message = format!(
            "initial state of '{name}' is {}, where the state is {}",
            initial.data_type().as_str_name(),
            state.data_type().as_str_name()
        );
        report.wrong(&format!("{path}.data_type"), message);
    }
    let fits = initial.dims.len() == state.dims.len()
        && initial
            .dims
            .iter()
            .zip(&state.dims)
            .all(|(size, dim)| *size >= 1 && (*dim == VARIABLE || size == dim));
    if !fits {
        let message = format!(
            "initial state of '{name}' has dims {:?}, which must be sizes that fit the state's {:?}",
            initial.dims, state.dims
        );
        report.wrong(&format!("{path}.dims"), message);
    }
    if initial.state_data.is_none() {
        let help = "write `zero_data: true` or `data_file: \"…\"`";
        let message = format!("initial state of '{name}' must specify its data");
        report.missing(path, message, Some(help.into()));
    }
}

/// A state may be shown to callers too, as what it is.
fn check_public_output(path: &str, state: &State, config: &ModelConfig, report: &mut Report) {
    let public = config.output.iter().find(|output| output.name == state.output_name);
    let Some(public) = public else { return };
    if public.data_type != state.data_type {
        let message = format!(
            "state output '{}' is {}, where the model output is {} for {}",
            state.output_name,
            state.data_type().as_str_name(),
            public.data_type().as_str_name(),
            config.name
        );
        report.wrong(&format!("{path}.data_type"), message);
    }
}
