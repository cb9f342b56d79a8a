//! Turns a complete and valid configuration into the types the rest of Consort uses.

mod scheduling;

use std::num::NonZeroUsize;
use std::sync::Arc;

use consort_ensemble::{Edge, Spec, StepSpec};
use consort_protocol::model_config::SchedulingChoice;
use consort_protocol::model_ensembling::Step;
use consort_protocol::model_instance_group::Kind;
use consort_protocol::model_version_policy::PolicyChoice;
use consort_protocol::{
    DataType as WireType, ModelConfig, ModelEnsembling, ModelInstanceGroup, ModelTensorReshape,
};
use consort_stage::{DataType, Signature, TensorSpec};

use crate::backend::ENSEMBLE;
use crate::model::{Device, InstanceGroup, Model, Settings, VersionPolicy};
use crate::scheduling::Scheduling;
use crate::source::Source;

/// The model that a valid configuration describes.
pub(crate) fn model(config: ModelConfig, source: Arc<Source>) -> Model {
    let is_ensemble = config.platform == ENSEMBLE;
    let backend = if is_ensemble { ENSEMBLE } else { &config.backend };
    let signature = Arc::new(signature(&config));
    let parameters = config.parameters.iter();
    Model {
        name: config.name.as_str().into(),
        backend: backend.into(),
        versions: version_policy(&config),
        file_name: config.default_model_filename.clone(),
        instances: config.instance_group.iter().map(instance_group).collect(),
        scheduling: choose_scheduling(&config, &signature),
        ragged: scheduling::ragged_batching(&config),
        warmup: config.model_warmup.iter().map(scheduling::warmup).collect(),
        caches_responses: config.response_cache.as_ref().is_some_and(|cache| cache.enable),
        settings: Settings::new(
            parameters.map(|(key, value)| (key.clone(), value.string_value.clone())),
        )
        .read_from(&source),
        signature,
        wire: Arc::new(config),
        source,
    }
}

/// Which versions a configuration serves; the latest alone when it does not say.
pub(crate) fn version_policy(config: &ModelConfig) -> VersionPolicy {
    let policy = config.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref());
    match policy {
        Some(PolicyChoice::All(_)) => VersionPolicy::All,
        Some(PolicyChoice::Specific(specific)) => {
            let versions = specific.versions.iter();
            VersionPolicy::Specific(versions.filter_map(|one| u64::try_from(*one).ok()).collect())
        }
        Some(PolicyChoice::Latest(latest)) => {
            VersionPolicy::Latest(at_least_one(i64::from(latest.num_versions)))
        }
        None => VersionPolicy::Latest(NonZeroUsize::MIN),
    }
}

fn at_least_one(count: i64) -> NonZeroUsize {
    let count = usize::try_from(count).ok().and_then(NonZeroUsize::new);
    count.unwrap_or(NonZeroUsize::MIN)
}

fn signature(config: &ModelConfig) -> Signature {
    let reshape = |reshape: &Option<ModelTensorReshape>| {
        reshape.as_ref().map(|reshape| reshape.shape.clone())
    };
    let inputs = config.input.iter().filter_map(|input| {
        Some(TensorSpec {
            reshape: reshape(&input.reshape),
            is_optional: input.optional,
            is_ragged: input.allow_ragged_batch,
            ..TensorSpec::new(&input.name, datatype(input.data_type())?, &input.dims)
        })
    });
    let cut: Vec<_> = config.batch_output.iter().flat_map(|output| &output.target_name).collect();
    let outputs = config.output.iter().filter_map(|output| {
        Some(TensorSpec {
            is_ragged: cut.contains(&&output.name),
            reshape: reshape(&output.reshape),
            ..TensorSpec::new(&output.name, datatype(output.data_type())?, &output.dims)
        })
    });
    let policy = config.model_transaction_policy.as_ref();
    Signature {
        max_batch_size: i64::from(config.max_batch_size),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        is_decoupled: policy.is_some_and(|policy| policy.decoupled),
    }
}

fn datatype(wire: WireType) -> Option<DataType> {
    DataType::from_config_name(wire.as_str_name())
}

fn instance_group(group: &ModelInstanceGroup) -> InstanceGroup {
    let devices = match group.kind() {
        Kind::Cpu => vec![Device::Cpu],
        Kind::Gpu => {
            let gpus = group.gpus.iter();
            gpus.filter_map(|gpu| u32::try_from(*gpu).ok()).map(Device::Gpu).collect()
        }
        Kind::Auto | Kind::Model => vec![Device::Auto],
    };
    let limiter = group.rate_limiter.as_ref();
    InstanceGroup {
        name: group.name.clone(),
        count: at_least_one(i64::from(group.count)),
        devices,
        rate_limiter: limiter.map(scheduling::rate_limiter).unwrap_or_default(),
        is_passive: group.passive,
    }
}

fn choose_scheduling(config: &ModelConfig, signature: &Signature) -> Scheduling {
    match &config.scheduling_choice {
        None => Scheduling::Direct,
        Some(SchedulingChoice::DynamicBatching(batching)) => {
            Scheduling::Dynamic(scheduling::dynamic_batching(batching))
        }
        Some(SchedulingChoice::SequenceBatching(batching)) => {
            Scheduling::Sequence(scheduling::sequence_batching(batching))
        }
        Some(SchedulingChoice::EnsembleScheduling(ensemble)) => {
            Scheduling::Ensemble(Arc::new(spec(config, ensemble, signature)))
        }
    }
}

fn spec(config: &ModelConfig, ensemble: &ModelEnsembling, signature: &Signature) -> Spec {
    Spec {
        name: config.name.as_str().into(),
        signature: signature.clone(),
        steps: ensemble.step.iter().map(step_spec).collect(),
        max_inflight_requests: ensemble.max_inflight_requests,
    }
}

fn step_spec(step: &Step) -> StepSpec {
    let edge = |(model_tensor, ensemble_tensor): (&String, &String)| Edge {
        model_tensor: model_tensor.as_str().into(),
        ensemble_tensor: ensemble_tensor.as_str().into(),
    };
    StepSpec {
        model: step.model_name.as_str().into(),
        // -1 is the latest, and so is a version that is not stated.
        version: u64::try_from(step.model_version).ok().filter(|version| *version > 0),
        inputs: step.input_map.iter().map(edge).collect(),
        outputs: step.output_map.iter().map(edge).collect(),
    }
}
