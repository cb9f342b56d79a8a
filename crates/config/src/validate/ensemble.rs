//! Checks what can be checked of an ensemble without its models.

use std::collections::BTreeMap;

use consort_protocol::ModelConfig;
use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::model_ensembling::Step;

use crate::report::Report;
use crate::source::entry;

/// Notes everything that is wrong with an ensemble.
pub(super) fn check(config: &ModelConfig, report: &mut Report) {
    let name = &config.name;
    check_absent(config, report);
    let Some(SchedulingChoice::EnsembleScheduling(ensemble)) = &config.scheduling_choice else {
        let message = format!(
            "ensemble scheduling must be set for ensemble {name} whose platform is ensemble"
        );
        report.missing("", message, Some("write `ensemble_scheduling { step [ … ] }`".into()));
        return;
    };
    if ensemble.step.is_empty() {
        let message = format!("must specify 'step' for ensemble '{name}'");
        report.missing("ensemble_scheduling", message, None);
    }
    let mut written: BTreeMap<&str, String> = BTreeMap::new();
    for input in &config.input {
        written.insert(&input.name, "it is an input of the ensemble already".into());
    }
    for (index, step) in ensemble.step.iter().enumerate() {
        let path = format!("ensemble_scheduling.step[{index}]");
        check_step(&path, step, &format!("in step {index} of ensemble '{name}'"), report);
        for (model_tensor, tensor) in &step.output_map {
            let here = format!("step {index} writes it already");
            if let Some(already) = written.insert(tensor, here) {
                let message = format!(
                    "ensemble tensor '{tensor}' can appear in an output map only once for \
                     ensemble '{name}' step {index}"
                );
                let path = entry(&format!("{path}.output_map"), model_tensor);
                report.wrong_but(&path, message, Some(already));
            }
        }
    }
}

fn check_step(path: &str, step: &Step, place: &str, report: &mut Report) {
    if step.model_name.is_empty() {
        report.missing(path, format!("must specify 'model_name' {place}"), None);
    }
    if step.model_version < -1 {
        let message = format!("'model_version' must be -1 or a version, {place}");
        report.wrong(&format!("{path}.model_version"), message);
    }
    for (field, map) in [("input_map", &step.input_map), ("output_map", &step.output_map)] {
        if map.is_empty() {
            let help =
                format!("write `{field} {{ key: \"of the model\" value: \"of the ensemble\" }}`");
            report.missing(path, format!("must specify '{field}' {place}"), Some(help));
        }
        for (key, value) in map {
            if key.is_empty() || value.is_empty() {
                let message = format!("'{field}' has a 'key' or 'value' that is empty {place}");
                report.wrong(&entry(&format!("{path}.{field}"), key), message);
            }
        }
    }
}

/// What only models of their own have.
fn check_absent(config: &ModelConfig, report: &mut Report) {
    let name = &config.name;
    if !config.instance_group.is_empty() {
        let message = format!("instance group should not be specified for ensemble '{name}'");
        report.wrong("instance_group", message);
    }
    if config.optimization.is_some() {
        let message = format!("optimization should not be specified for ensemble '{name}'");
        report.wrong("optimization", message);
    }
    if !config.model_warmup.is_empty() {
        let message = format!("model_warmup can not be specified for ensemble '{name}'");
        report.wrong("model_warmup", message);
    }
}
