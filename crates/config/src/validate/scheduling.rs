//! Checks how a model's requests are batched and queued.

use std::collections::BTreeSet;

use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::model_queue_policy::TimeoutAction;
use consort_protocol::model_sequence_batching::{Control, StrategyChoice, control::Kind};
use consort_protocol::{DataType, ModelConfig, ModelDynamicBatching, ModelSequenceBatching};

use super::sequence_states;
use crate::report::Report;

/// Notes everything that is wrong with the scheduler that `config` chooses.
pub(super) fn check(config: &ModelConfig, report: &mut Report) {
    match &config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => {
            let path = "dynamic_batching";
            check_preferred(path, &batching.preferred_batch_size, config, report);
            check_priorities(batching, config, report);
            check_ordering(batching, config, report);
        }
        Some(SchedulingChoice::SequenceBatching(batching)) => {
            check_sequences(batching, config, report);
        }
        _ => {}
    }
}

fn check_preferred(path: &str, sizes: &[i32], config: &ModelConfig, report: &mut Report) {
    let (name, largest) = (&config.name, config.max_batch_size);
    for (index, size) in sizes.iter().enumerate() {
        let path = format!("{path}.preferred_batch_size[{index}]");
        if *size <= 0 {
            let message = format!("dynamic batching preferred size must be positive for {name}");
            report.wrong(&path, message);
        } else if *size > largest {
            let message =
                format!("dynamic batching preferred size must be <= max batch size for {name}");
            report.wrong_but(&path, message, Some(format!("{size} is more than {largest}")));
        }
    }
}

fn check_priorities(batching: &ModelDynamicBatching, config: &ModelConfig, report: &mut Report) {
    let (name, levels) = (&config.name, batching.priority_levels);
    if levels > 0 && !(1..=levels).contains(&batching.default_priority_level) {
        report.wrong(
            "dynamic_batching.default_priority_level",
            format!("default priority level must be in range [1, {levels}] for {name}"),
        );
    }
    for level in batching.priority_queue_policy.keys() {
        if !(1..=levels).contains(level) {
            report.wrong(
                &format!("dynamic_batching.priority_queue_policy[\"{level}\"]"),
                format!(
                    "priority queue policy must have priority level in range [1, {levels}] for \
                     {name}"
                ),
            );
        }
    }
}

fn check_ordering(batching: &ModelDynamicBatching, config: &ModelConfig, report: &mut Report) {
    if !batching.preserve_ordering {
        return;
    }
    let path = "dynamic_batching.preserve_ordering";
    if batching.priority_levels > 1 {
        let message = format!(
            "Only one priority level is allowed when 'preserve_ordering' is true for {}",
            config.name
        );
        report.wrong(path, message);
    }
    let mut policies =
        batching.default_queue_policy.iter().chain(batching.priority_queue_policy.values());
    if policies.any(|policy| policy.timeout_action() == TimeoutAction::Delay) {
        let message = format!(
            "Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true \
             for {}",
            config.name
        );
        report.wrong(path, message);
    }
}

fn check_sequences(batching: &ModelSequenceBatching, config: &ModelConfig, report: &mut Report) {
    let mut names = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for (index, input) in batching.control_input.iter().enumerate() {
        let path = format!("sequence_batching.control_input[{index}]");
        if input.name.is_empty() {
            let message =
                format!("sequence batching control tensor must have a name for {}", config.name);
            report.missing(&path, message, None);
        }
        if !names.insert(&input.name) || input.control.len() > 1 {
            let message = format!(
                "sequence batching control tensor '{}' is specified for multiple control kinds for \
                 {}",
                input.name, config.name
            );
            report.wrong(&path, message);
        }
        for (index, control) in input.control.iter().enumerate() {
            let path = format!("{path}.control[{index}]");
            if !kinds.insert(control.kind) {
                let kind = control.kind().as_str_name();
                let message = format!(
                    "sequence batching specifies multiple {kind} tensors for {}",
                    config.name
                );
                report.wrong(&path, message);
            }
            check_control(&path, control, config, report);
        }
    }
    check_strategy(batching, config, report);
    sequence_states::check(batching, config, report);
}

fn check_strategy(batching: &ModelSequenceBatching, config: &ModelConfig, report: &mut Report) {
    match &batching.strategy_choice {
        Some(StrategyChoice::Direct(direct))
            if !(0.0..=1.0).contains(&direct.minimum_slot_utilization) =>
        {
            let message = format!(
                "sequence batching minimum slot utilization must be in range [0.0, 1.0] for {}",
                config.name
            );
            report.wrong("sequence_batching.direct.minimum_slot_utilization", message);
        }
        Some(StrategyChoice::Oldest(oldest)) => {
            let path = "sequence_batching.oldest";
            // Without a word of it, it is 0, which is taken for 1.
            if oldest.max_candidate_sequences < 0 {
                let message =
                    format!("'max_candidate_sequences' must be positive for {}", config.name);
                report.wrong(&format!("{path}.max_candidate_sequences"), message);
            }
            check_preferred(path, &oldest.preferred_batch_size, config, report);
        }
        _ => {}
    }
}

fn check_control(path: &str, control: &Control, config: &ModelConfig, report: &mut Report) {
    let (kind, name) = (control.kind().as_str_name(), &config.name);
    let pairs = [
        ("int32_false_true", control.int32_false_true.len()),
        ("fp32_false_true", control.fp32_false_true.len()),
        ("bool_false_true", control.bool_false_true.len()),
    ];
    let given: Vec<_> = pairs.into_iter().filter(|(_, count)| *count > 0).collect();
    if control.kind() == Kind::ControlSequenceCorrid {
        check_correlation_id(path, control, config, report);
        if !given.is_empty() {
            let message = format!(
                "sequence batching must not specify either 'int32_false_true', 'fp32_false_true' \
                 or 'bool_false_true' for {kind} for {name}"
            );
            report.wrong(path, message);
        }
        return;
    }
    match given.as_slice() {
        [(_, 2)] => {}
        [(pair, _)] => report.wrong(
            &format!("{path}.{pair}"),
            format!(
                "sequence batching control '{pair}' must have exactly 2 entries for {kind} for \
                 {name}"
            ),
        ),
        _ => report.missing(
            path,
            format!(
                "sequence batching must specify either 'int32_false_true', 'fp32_false_true' or \
                 'bool_false_true' for {kind} for {name}"
            ),
            None,
        ),
    }
}

fn check_correlation_id(path: &str, control: &Control, config: &ModelConfig, report: &mut Report) {
    use DataType as Type;
    let allowed =
        [Type::TypeUint64, Type::TypeInt64, Type::TypeUint32, Type::TypeInt32, Type::TypeString];
    if !allowed.contains(&control.data_type()) {
        report.wrong(
            &format!("{path}.data_type"),
            format!(
                "unexpected data type for control CONTROL_SEQUENCE_CORRID for {}, allowed data \
                 types are TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING",
                config.name
            ),
        );
    }
}
