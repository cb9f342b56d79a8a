//! Turns valid scheduler sections into the types of [`crate::scheduling`].

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use consort_protocol::batch_input::Kind as WireBatchInputKind;
use consort_protocol::model_queue_policy::TimeoutAction as WireTimeoutAction;
use consort_protocol::model_sequence_batching::control::Kind as WireControlKind;
use consort_protocol::model_sequence_batching::initial_state::StateData;
use consort_protocol::model_sequence_batching::{
    Control as WireControl, InitialState, State as WireState, StrategyChoice,
};
use consort_protocol::model_warmup::input::InputDataType;
use consort_protocol::{
    ModelConfig, ModelDynamicBatching, ModelQueuePolicy, ModelRateLimiter, ModelSequenceBatching,
    ModelWarmup,
};
use consort_stage::DataType;

use super::{at_least_one, datatype};
use crate::scheduling::{
    BatchInput, BatchInputKind, BatchOutput, Control, ControlKind, DynamicBatching, Filling,
    FillingData, Flag, Priorities, QueuePolicy, RaggedBatching, RateLimiter, Resource,
    SequenceBatching, State, Strategy, TimeoutAction, Warmup,
};

/// What a sequence batcher does whose configuration names no strategy, as Triton's.
const DEFAULT_STRATEGY: Strategy =
    Strategy::Direct { max_queue_delay: Duration::ZERO, minimum_slot_utilization: 0.0 };

pub(super) fn dynamic_batching(batching: &ModelDynamicBatching) -> DynamicBatching {
    let policies = batching.priority_queue_policy.iter();
    let default_policy = batching.default_queue_policy.as_ref();
    DynamicBatching {
        preferred_batch_sizes: sizes(&batching.preferred_batch_size),
        max_queue_delay: Duration::from_micros(batching.max_queue_delay_microseconds),
        preserve_ordering: batching.preserve_ordering,
        priorities: Priorities {
            levels: NonZeroU64::new(batching.priority_levels),
            default_level: batching.default_priority_level,
            default_policy: default_policy.map(queue_policy).unwrap_or_default(),
            policies: policies.map(|(level, policy)| (*level, queue_policy(policy))).collect(),
        },
    }
}

fn sizes(sizes: &[i32]) -> Vec<usize> {
    sizes.iter().filter_map(|size| usize::try_from(*size).ok()).collect()
}

fn queue_policy(policy: &ModelQueuePolicy) -> QueuePolicy {
    let timeout_us = policy.default_timeout_microseconds;
    QueuePolicy {
        timeout_action: match policy.timeout_action() {
            WireTimeoutAction::Reject => TimeoutAction::Reject,
            WireTimeoutAction::Delay => TimeoutAction::Delay,
        },
        default_timeout: (timeout_us > 0).then(|| Duration::from_micros(timeout_us)),
        allow_timeout_override: policy.allow_timeout_override,
        max_queue_size: NonZeroUsize::new(policy.max_queue_size as usize),
    }
}

pub(super) fn sequence_batching(batching: &ModelSequenceBatching) -> SequenceBatching {
    let controls = batching.control_input.iter().filter_map(|input| {
        let kind = control_kind(input.control.first()?)?;
        Some(Control { input: input.name.as_str().into(), kind })
    });
    SequenceBatching {
        max_idle: Duration::from_micros(batching.max_sequence_idle_microseconds),
        controls: controls.collect(),
        strategy: batching.strategy_choice.as_ref().map_or(DEFAULT_STRATEGY, strategy),
        states: batching.state.iter().filter_map(state).collect(),
        is_iterative: batching.iterative_sequence,
    }
}

fn strategy(choice: &StrategyChoice) -> Strategy {
    match choice {
        StrategyChoice::Direct(direct) => Strategy::Direct {
            max_queue_delay: Duration::from_micros(direct.max_queue_delay_microseconds),
            minimum_slot_utilization: direct.minimum_slot_utilization,
        },
        StrategyChoice::Oldest(oldest) => Strategy::Oldest {
            max_candidate_sequences: at_least_one(i64::from(oldest.max_candidate_sequences)),
            batching: DynamicBatching {
                preferred_batch_sizes: sizes(&oldest.preferred_batch_size),
                max_queue_delay: Duration::from_micros(oldest.max_queue_delay_microseconds),
                preserve_ordering: oldest.preserve_ordering,
                priorities: Priorities::default(),
            },
        },
    }
}

fn control_kind(control: &WireControl) -> Option<ControlKind> {
    Some(match control.kind() {
        WireControlKind::ControlSequenceStart => ControlKind::Start(flag(control)?),
        WireControlKind::ControlSequenceReady => ControlKind::Ready(flag(control)?),
        WireControlKind::ControlSequenceEnd => ControlKind::End(flag(control)?),
        WireControlKind::ControlSequenceCorrid => {
            ControlKind::CorrelationId(datatype(control.data_type())?)
        }
    })
}

fn flag(control: &WireControl) -> Option<Flag> {
    if let [no, yes] = control.int32_false_true[..] {
        return Some(Flag::Int32([no, yes]));
    }
    if let [no, yes] = control.fp32_false_true[..] {
        return Some(Flag::Fp32([no, yes]));
    }
    let [no, yes] = control.bool_false_true[..] else { return None };
    Some(Flag::Bool([no, yes]))
}

fn state(state: &WireState) -> Option<State> {
    Some(State {
        input: state.input_name.as_str().into(),
        output: state.output_name.as_str().into(),
        datatype: datatype(state.data_type())?,
        dims: state.dims.clone(),
        initial: state.initial_state.first().and_then(initial_state),
    })
}

fn initial_state(initial: &InitialState) -> Option<Filling> {
    let data = match &initial.state_data {
        Some(StateData::DataFile(file)) => FillingData::File(file.clone()),
        Some(StateData::ZeroData(_)) | None => FillingData::Zero,
    };
    Some(Filling { datatype: datatype(initial.data_type())?, dims: initial.dims.clone(), data })
}

pub(super) fn warmup(warmup: &ModelWarmup) -> Warmup {
    let inputs = warmup.inputs.iter().filter_map(|(name, input)| {
        let data = match &input.input_data_type {
            Some(InputDataType::InputDataFile(file)) => FillingData::File(file.clone()),
            Some(InputDataType::RandomData(_)) => FillingData::Random,
            Some(InputDataType::ZeroData(_)) | None => FillingData::Zero,
        };
        let datatype = datatype(input.data_type())?;
        Some((name.as_str().into(), Filling { datatype, dims: input.dims.clone(), data }))
    });
    Warmup {
        name: warmup.name.clone(),
        batch_size: NonZeroUsize::new(warmup.batch_size as usize),
        count: at_least_one(i64::from(warmup.count)),
        inputs: inputs.collect(),
    }
}

pub(super) fn ragged_batching(config: &ModelConfig) -> RaggedBatching {
    let names = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
    let inputs = config.batch_input.iter().filter_map(|input| {
        Some(BatchInput {
            kind: batch_input_kind(input.kind()),
            targets: names(&input.target_name),
            datatype: datatype(input.data_type()).unwrap_or(DataType::Fp32),
            source: input.source_input.first()?.as_str().into(),
        })
    });
    let outputs = config.batch_output.iter().filter_map(|output| {
        let source = output.source_input.first()?.as_str().into();
        Some(BatchOutput { targets: names(&output.target_name), source })
    });
    RaggedBatching { inputs: inputs.collect(), outputs: outputs.collect() }
}

fn batch_input_kind(kind: WireBatchInputKind) -> BatchInputKind {
    match kind {
        WireBatchInputKind::BatchElementCount => BatchInputKind::ElementCount,
        WireBatchInputKind::BatchAccumulatedElementCount => BatchInputKind::AccumulatedElementCount,
        WireBatchInputKind::BatchAccumulatedElementCountWithZero => {
            BatchInputKind::AccumulatedElementCountWithZero
        }
        WireBatchInputKind::BatchMaxElementCountAsShape => BatchInputKind::MaxElementCountAsShape,
        WireBatchInputKind::BatchItemShape => BatchInputKind::ItemShape,
        WireBatchInputKind::BatchItemShapeFlatten => BatchInputKind::ItemShapeFlatten,
    }
}

pub(super) fn rate_limiter(limiter: &ModelRateLimiter) -> RateLimiter {
    let resources = limiter.resources.iter().map(|resource| Resource {
        name: resource.name.as_str().into(),
        is_global: resource.global,
        count: resource.count,
    });
    RateLimiter { resources: resources.collect(), priority: limiter.priority }
}
