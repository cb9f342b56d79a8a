//! Checks a configuration as far as that needs no other model; the texts are Triton's.

mod batch_tensors;
mod ensemble;
mod metrics;
mod scheduling;
mod sequence_states;
mod tensors;
mod warmup;

use consort_protocol::ModelConfig;
use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::model_instance_group::Kind;
use consort_protocol::model_version_policy::PolicyChoice;

use crate::backend::{self, ENSEMBLE};
use crate::report::Report;

/// Notes everything that is wrong with `config`.
pub(crate) fn check(config: &ModelConfig, report: &mut Report) {
    backend::check(config, report);
    check_versions(config, report);
    check_batch(config, report);
    tensors::check(config, report);
    batch_tensors::check(config, report);
    metrics::check(config, report);
    warmup::check(config, report);
    scheduling::check(config, report);
    if config.platform == ENSEMBLE {
        ensemble::check(config, report);
    } else {
        check_instances(config, report);
        check_is_no_ensemble(config, report);
    }
    check_cache(config, report);
}

fn check_versions(config: &ModelConfig, report: &mut Report) {
    let policy = config.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref());
    match policy {
        Some(PolicyChoice::Latest(latest))
            if latest.num_versions == 0
                && report.source.states("version_policy.latest.num_versions") =>
        {
            report.wrong(
                "version_policy.latest.num_versions",
                format!("'num_versions' must be positive for {}", config.name),
            );
        }
        Some(PolicyChoice::Specific(specific)) => {
            if specific.versions.is_empty() {
                let message = format!("must specify 'versions' to serve of {}", config.name);
                report.missing("version_policy.specific", message, None);
            }
            for (index, version) in specific.versions.iter().enumerate() {
                if *version < 1 {
                    let path = format!("version_policy.specific.versions[{index}]");
                    report.wrong(&path, format!("version {version} must be positive"));
                }
            }
        }
        _ => {}
    }
}

fn check_batch(config: &ModelConfig, report: &mut Report) {
    if config.max_batch_size < 0 {
        let message = format!("'max_batch_size' must be non-negative value for {}", config.name);
        report.wrong("max_batch_size", message);
    }
}

fn check_instances(config: &ModelConfig, report: &mut Report) {
    for (index, group) in config.instance_group.iter().enumerate() {
        let path = format!("instance_group[{index}]");
        let name = if group.name.is_empty() {
            format!("{}_{index}", config.name)
        } else {
            group.name.clone()
        };
        let place = format!("instance group {name} of model {}", config.name);
        if group.count < 0 {
            report.wrong(&format!("{path}.count"), format!("{place} has a negative count"));
        }
        if matches!(group.kind(), Kind::Cpu | Kind::Model) && !group.gpus.is_empty() {
            let kind = group.kind().as_str_name();
            let message = format!("{place} has kind {kind} but specifies one or more GPUs");
            report.wrong(&format!("{path}.gpus"), message);
        }
        if let Some(gpu) = group.gpus.iter().find(|gpu| **gpu < 0) {
            let message = format!("{place} specifies invalid or unsupported gpu id {gpu}");
            report.wrong(&format!("{path}.gpus"), message);
        }
    }
}

fn check_is_no_ensemble(config: &ModelConfig, report: &mut Report) {
    if matches!(config.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_))) {
        let message = format!(
            "ensemble scheduling cannot be set for model '{}' whose platform is not ensemble",
            config.name
        );
        report.wrong("ensemble_scheduling", message);
    }
}

fn check_cache(config: &ModelConfig, report: &mut Report) {
    if !config.response_cache.as_ref().is_some_and(|cache| cache.enable) {
        return;
    }
    let policy = config.model_transaction_policy.as_ref();
    let obstacle = match &config.scheduling_choice {
        Some(SchedulingChoice::SequenceBatching(_)) => "sequence batching scheduler",
        _ if policy.is_some_and(|policy| policy.decoupled) => "'decoupled' transaction policy",
        _ => return,
    };
    let message = format!(
        "Response Cache does not currently support model {} with {obstacle}. Please disable the \
         response cache.",
        config.name
    );
    report.wrong("response_cache", message);
}
