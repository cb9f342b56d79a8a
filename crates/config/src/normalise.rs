//! Fills in the defaults that clients see in a model's configuration.

use std::fs;

use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::model_instance_group::Kind;
use consort_protocol::model_optimization_policy::PinnedMemoryBuffer;
use consort_protocol::model_sequence_batching::StrategyChoice;
use consort_protocol::model_version_policy::{Latest, PolicyChoice};
use consort_protocol::{ModelConfig, ModelInstanceGroup, ModelVersionPolicy};

use crate::backend::ENSEMBLE;

/// How long a sequence may stay silent before its slot is given away.
const DEFAULT_SEQUENCE_IDLE_US: u64 = 1_000_000;

/// Instances of an ONNX model on a processor: while one copies tensors, the other computes.
const ONNXRUNTIME_CPU_INSTANCES: i32 = 2;

/// Fills in every default that does not depend on the model file.
pub(crate) fn fill_defaults(config: &mut ModelConfig) {
    fill_version_policy(config);
    fill_scheduling(config);
    if config.platform == ENSEMBLE {
        config.model_transaction_policy.get_or_insert_default();
        return;
    }
    let optimization = config.optimization.get_or_insert_default();
    let enabled = || PinnedMemoryBuffer { enable: true };
    optimization.input_pinned_memory.get_or_insert_with(enabled);
    optimization.output_pinned_memory.get_or_insert_with(enabled);
    fill_instances(config, count_gpus());
}

fn fill_version_policy(config: &mut ModelConfig) {
    let policy = config.version_policy.get_or_insert_with(ModelVersionPolicy::default);
    let choice = policy.policy_choice.get_or_insert(PolicyChoice::Latest(Latest::default()));
    if let PolicyChoice::Latest(latest) = choice {
        latest.num_versions = latest.num_versions.max(1);
    }
}

fn fill_scheduling(config: &mut ModelConfig) {
    let largest = config.max_batch_size;
    let fill_preferred = |preferred: &mut Vec<i32>| {
        if preferred.is_empty() && largest > 0 {
            preferred.push(largest);
        }
    };
    match &mut config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => {
            fill_preferred(&mut batching.preferred_batch_size);
        }
        Some(SchedulingChoice::SequenceBatching(batching)) => {
            if batching.max_sequence_idle_microseconds == 0 {
                batching.max_sequence_idle_microseconds = DEFAULT_SEQUENCE_IDLE_US;
            }
            if let Some(StrategyChoice::Oldest(oldest)) = &mut batching.strategy_choice {
                fill_preferred(&mut oldest.preferred_batch_size);
            }
        }
        _ => {}
    }
}

fn fill_instances(config: &mut ModelConfig, gpus: i32) {
    if config.instance_group.is_empty() {
        let name = config.name.clone();
        config.instance_group.push(ModelInstanceGroup { name, ..ModelInstanceGroup::default() });
    }
    let is_onnx = config.backend == "onnxruntime";
    for (index, group) in config.instance_group.iter_mut().enumerate() {
        if group.name.is_empty() {
            group.name = format!("{}_{index}", config.name);
        }
        let kind = settled_kind(group, gpus);
        group.set_kind(kind);
        if kind == Kind::Gpu && group.gpus.is_empty() {
            // Without any, the first is asked for, and its absence is the backend's to explain.
            group.gpus = (0..gpus.max(1)).collect();
        }
        if group.count == 0 {
            let on_processor = is_onnx && kind == Kind::Cpu;
            group.count = if on_processor { ONNXRUNTIME_CPU_INSTANCES } else { 1 };
        }
    }
}

/// What `KIND_AUTO` comes to on a machine with so many GPUs; it stays open where there are some,
/// because whether the backend can use them is only known when it loads.
fn settled_kind(group: &ModelInstanceGroup, gpus: i32) -> Kind {
    match group.kind() {
        Kind::Auto if !group.gpus.is_empty() => Kind::Gpu,
        Kind::Auto if gpus == 0 => Kind::Cpu,
        kind => kind,
    }
}

/// The NVIDIA devices of this machine.
fn count_gpus() -> i32 {
    let Ok(devices) = fs::read_dir("/dev") else { return 0 };
    let is_gpu = |name: &str| {
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let names = devices.flatten().map(|entry| entry.file_name());
    let count = names.filter(|name| name.to_str().is_some_and(is_gpu)).count();
    i32::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(group: ModelInstanceGroup, gpus: i32) -> (Kind, i32, Vec<i32>) {
        let mut config = ModelConfig {
            name: "m".into(),
            backend: "onnxruntime".into(),
            instance_group: vec![group],
            ..ModelConfig::default()
        };
        fill_instances(&mut config, gpus);
        let group = &config.instance_group[0];
        (group.kind(), group.count, group.gpus.clone())
    }

    #[test]
    fn instances_go_where_the_machine_has_room() {
        let on = |kind| ModelInstanceGroup { kind: kind as i32, ..Default::default() };
        assert_eq!(kinds(on(Kind::Auto), 0), (Kind::Cpu, 2, vec![]));
        assert_eq!(kinds(on(Kind::Auto), 2), (Kind::Auto, 1, vec![]));
        assert_eq!(kinds(on(Kind::Gpu), 2), (Kind::Gpu, 1, vec![0, 1]));
        assert_eq!(kinds(on(Kind::Gpu), 0), (Kind::Gpu, 1, vec![0]));
        let second = ModelInstanceGroup { gpus: vec![1], ..Default::default() };
        assert_eq!(kinds(second, 2), (Kind::Gpu, 1, vec![1]));
    }
}
