//! Checks the tensors that the server itself makes for a batch or cuts out of one.

use std::collections::BTreeSet;

use consort_protocol::{BatchInput, BatchOutput, DataType, ModelConfig};
use consort_stage::VARIABLE;

use crate::nearest::did_you_mean;
use crate::report::Report;

/// Notes everything that is wrong with `batch_input` and `batch_output`.
pub(super) fn check(config: &ModelConfig, report: &mut Report) {
    for (index, batch_input) in config.batch_input.iter().enumerate() {
        let path = format!("batch_input[{index}]");
        check_batches(&path, config, report);
        check_batch_input(&path, batch_input, report);
        check_made(&path, &batch_input.target_name, config, report);
        check_sources(&path, &batch_input.source_input, config, report);
    }
    check_outputs(config, report);
}

fn check_outputs(config: &ModelConfig, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for (index, batch_output) in config.batch_output.iter().enumerate() {
        let path = format!("batch_output[{index}]");
        check_batches(&path, config, report);
        for (index, target) in batch_output.target_name.iter().enumerate() {
            check_target(&format!("{path}.target_name[{index}]"), target, config, report);
            if !seen.insert(target) {
                let message = format!("target output name '{target}' can only be specified once");
                report.wrong(&format!("{path}.target_name[{index}]"), message);
            }
        }
        if batch_output.source_input.len() != 1 {
            let count = batch_output.source_input.len();
            let kind = batch_output.kind().as_str_name();
            report.wrong(
                &path,
                format!("batch output kind '{kind}' expects 1 source input, got {count}"),
            );
        }
        check_sources(&path, &batch_output.source_input, config, report);
        check_cut(&path, batch_output, config, report);
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

/// What the server makes, callers must not send, and nothing is made twice.
fn check_made(path: &str, targets: &[String], config: &ModelConfig, report: &mut Report) {
    let made = config.batch_input.iter().flat_map(|input| &input.target_name);
    for (index, target) in targets.iter().enumerate() {
        let path = format!("{path}.target_name[{index}]");
        if config.input.iter().any(|input| input.name == *target) {
            let help = format!("take '{target}' out of `input`");
            let message = format!("batch input '{target}' is also an input of the model");
            report.wrong_but(&path, message, Some(help));
        }
        if made.clone().filter(|name| *name == target).count() > 1 {
            report.wrong(&path, format!("batch input '{target}' can only be specified once"));
        }
    }
}

/// Whether there is a batch for the server to say something about.
fn check_batches(path: &str, config: &ModelConfig, report: &mut Report) {
    if config.max_batch_size == 0 {
        let help = "let the model batch, or leave it out";
        let message = format!("needs a `max_batch_size` above 0, which {} lacks", config.name);
        report.wrong_but(path, message, Some(help.into()));
    }
}

/// Every variable dimension of a target is that of the source at the same place.
fn check_cut(path: &str, output: &BatchOutput, config: &ModelConfig, report: &mut Report) {
    let source = output.source_input.first();
    let source = config.input.iter().find(|input| Some(&input.name) == source);
    let Some(rank) = source.map(|source| source.dims.len()) else { return };
    for (index, target) in output.target_name.iter().enumerate() {
        let Some(found) = config.output.iter().find(|output| output.name == *target) else {
            continue;
        };
        if found.dims.iter().skip(rank).any(|dim| *dim == VARIABLE) {
            let source = &output.source_input[0];
            let message = format!(
                "output '{target}' has a variable dimension beyond the {rank} of its source \
                 input '{source}'"
            );
            report.wrong(&format!("{path}.target_name[{index}]"), message);
        }
    }
}

fn check_target(path: &str, target: &str, config: &ModelConfig, report: &mut Report) {
    let names = config.output.iter().map(|output| output.name.as_str());
    if names.clone().all(|name| name != target) {
        let help = did_you_mean(target, names);
        report.wrong_but(path, format!("unknown target output name '{target}'"), help);
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
