//! How requests reach a model's instances: the checked scheduler sections of a configuration.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use consort_stage::{DataType, TensorSpec, VARIABLE};

/// How requests reach the instances.
#[derive(Clone, Debug, PartialEq)]
pub enum Scheduling {
    /// The configuration says nothing.
    Direct,
    /// Requests are batched (`dynamic_batching`).
    Dynamic(DynamicBatching),
    /// Requests belong to sequences (`sequence_batching`).
    Sequence(SequenceBatching),
    /// The steps of an ensemble.
    Ensemble(Arc<consort_ensemble::Spec>),
}

/// The checked `dynamic_batching` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicBatching {
    /// Batch sizes worth waiting for, in the configuration's order.
    pub preferred_batch_sizes: Vec<usize>,
    /// How long the oldest request may wait for a preferred size.
    pub max_queue_delay: Duration,
    /// Whether responses leave in the order in which their requests came.
    pub preserve_ordering: bool,
    /// The levels of priority and how each one's requests are queued.
    pub priorities: Priorities,
}

/// The priority levels of a model, 1 being served first, each with its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Priorities {
    /// How many levels there are; `None` when every request is alike.
    pub levels: Option<NonZeroU64>,
    /// The level of a request that names none, or one that does not exist.
    pub default_level: u64,
    /// How requests of a level that `policies` does not name are queued.
    pub default_policy: QueuePolicy,
    /// How requests of some levels are queued.
    pub policies: BTreeMap<u64, QueuePolicy>,
}

impl Priorities {
    /// The level of a request that asks for `priority`, which is 0 when it does not ask.
    pub fn level(&self, priority: u64) -> u64 {
        let levels = self.levels.map_or(0, NonZeroU64::get);
        if (1..=levels).contains(&priority) { priority } else { self.default_level }
    }

    /// How the requests of a level are queued.
    pub fn policy(&self, level: u64) -> &QueuePolicy {
        self.policies.get(&level).unwrap_or(&self.default_policy)
    }
}

/// What becomes of requests that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// What happens to a request that has waited too long.
    pub timeout_action: TimeoutAction,
    /// How long a request may wait; `None` for as long as it takes.
    pub default_timeout: Option<Duration>,
    /// Whether a request may shorten its own time.
    pub allow_timeout_override: bool,
    /// How many may wait; `None` for the scheduler's default.
    pub max_queue_size: Option<NonZeroUsize>,
}

/// What happens to a request that has waited too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It is refused.
    #[default]
    Reject,
    /// It is served after all others.
    Delay,
}

/// The checked `sequence_batching` section.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceBatching {
    /// How long a sequence may stay silent before its place is given away.
    pub max_idle: Duration,
    /// The inputs that tell the backend about the sequence, by kind.
    pub controls: Vec<Control>,
    /// How sequences share the batch.
    pub strategy: Strategy,
    /// The tensors kept from one request of a sequence to the next.
    pub states: Vec<State>,
    /// Whether the backend may ask for a request to be run again (`iterative_sequence`).
    pub is_iterative: bool,
}

impl SequenceBatching {
    /// The inputs that the backend is given beside those of its callers.
    pub fn inputs(&self) -> impl Iterator<Item = TensorSpec> {
        let controls = self.controls.iter().map(|control| {
            let datatype = control.kind.datatype();
            TensorSpec::new(&control.input, datatype, &[1])
        });
        let state = |state: &State| TensorSpec::new(&state.input, state.datatype, &state.dims);
        controls.chain(self.states.iter().map(state))
    }

    /// The outputs that it gives for the next request; callers may see them too.
    pub fn outputs(&self) -> impl Iterator<Item = TensorSpec> {
        let state = |state: &State| TensorSpec::new(&state.output, state.datatype, &state.dims);
        self.states.iter().map(state)
    }
}

/// One input that tells the backend about a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// The input's name.
    pub input: Arc<str>,
    /// What it tells.
    pub kind: ControlKind,
}

/// What a control input tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ControlKind {
    /// Whether the request is the first of its sequence.
    Start(Flag),
    /// Whether the batch row holds a request at all.
    Ready(Flag),
    /// Whether the request is the last of its sequence.
    End(Flag),
    /// The sequence's id, in this type.
    CorrelationId(DataType),
}

impl ControlKind {
    /// The type of the input's elements.
    fn datatype(self) -> DataType {
        match self {
            Self::Start(flag) | Self::Ready(flag) | Self::End(flag) => match flag {
                Flag::Int32(_) => DataType::Int32,
                Flag::Fp32(_) => DataType::Fp32,
                Flag::Bool(_) => DataType::Bool,
            },
            Self::CorrelationId(datatype) => datatype,
        }
    }
}

/// The values that stand for false and true.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant says all there is to say")]
pub enum Flag {
    Int32([i32; 2]),
    Fp32([f32; 2]),
    Bool([bool; 2]),
}

/// How sequences share the batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// Every sequence keeps one row of one instance's batch.
    Direct {
        /// How long the oldest request may wait for other rows to fill.
        max_queue_delay: Duration,
        /// The share of filled rows that is worth no wait, from 0 to 1.
        minimum_slot_utilization: f32,
    },
    /// The longest waiting requests of the live sequences are batched.
    Oldest {
        /// How many sequences may be live at once.
        max_candidate_sequences: NonZeroUsize,
        /// How the requests of the live sequences are batched.
        batching: DynamicBatching,
    },
}

/// A tensor kept from one request of a sequence to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The input that is given the tensor.
    pub input: Arc<str>,
    /// The output that the next request is given.
    pub output: Arc<str>,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its dimensions without the batch dimension.
    pub dims: Vec<i64>,
    /// What a sequence begins with; zeros of `dims`, variable ones taken as 1, when there is none.
    pub initial: Option<Filling>,
}

/// A tensor that the server makes up or reads from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filling {
    /// The type of its elements.
    pub datatype: DataType,
    /// Its dimensions without the batch dimension.
    pub dims: Vec<i64>,
    /// Its elements.
    pub data: FillingData,
}

/// The elements of a tensor that the server makes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FillingData {
    /// All zero; empty strings.
    Zero,
    /// Whatever comes.
    Random,
    /// Those of a file, seen from the folder that belongs to the section (`warmup/`, `initial_state/`).
    File(String),
}

/// One entry of `model_warmup`: requests that run before the model is called ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// Its name.
    pub name: String,
    /// The batch size of its requests; `None` for a model that does not batch.
    pub batch_size: Option<NonZeroUsize>,
    /// How many times it runs on each instance.
    pub count: NonZeroUsize,
    /// Its inputs by name.
    pub inputs: BTreeMap<Arc<str>, Filling>,
}

/// What the server tells a model about requests of different shapes in one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaggedBatching {
    /// The inputs that the server makes (`batch_input`).
    pub inputs: Vec<BatchInput>,
    /// The outputs that the server cuts by the shape of an input (`batch_output`).
    pub outputs: Vec<BatchOutput>,
}

impl RaggedBatching {
    /// The inputs that the backend is given beside those of its callers; one without a batch
    /// dimension is ragged.
    pub fn made_inputs(&self) -> impl Iterator<Item = TensorSpec> {
        self.inputs.iter().flat_map(|input| {
            let is_ragged = input.kind != BatchInputKind::ItemShape;
            let spec = move |name: &Arc<str>| TensorSpec {
                is_ragged,
                ..TensorSpec::new(name, input.datatype, &[VARIABLE])
            };
            input.targets.iter().map(spec)
        })
    }
}

/// An input that the server computes from a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchInput {
    /// What it holds.
    pub kind: BatchInputKind,
    /// The model's inputs that are given it.
    pub targets: Vec<Arc<str>>,
    /// The type of its elements, `Int32` or `Fp32`.
    pub datatype: DataType,
    /// The input it speaks about.
    pub source: Arc<str>,
}

/// What a batch input holds; the names are Triton's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchInputKind {
    /// The elements of each request.
    ElementCount,
    /// The elements up to and with each request.
    AccumulatedElementCount,
    /// The same with a zero before.
    AccumulatedElementCountWithZero,
    /// The largest element count, as the length of a tensor without meaningful elements.
    MaxElementCountAsShape,
    /// The shape of each row of each request, one row each.
    ItemShape,
    /// The same shapes behind one another.
    ItemShapeFlatten,
}

/// An output that is cut into requests along the shape of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOutput {
    /// The model's outputs that are cut.
    pub targets: Vec<Arc<str>>,
    /// The input whose shape says where.
    pub source: Arc<str>,
}

/// What an instance needs before it may run (`rate_limiter`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimiter {
    /// What it needs.
    pub resources: Vec<Resource>,
    /// Its weight against other instances that wait: one of priority 2 gets half the turns of one
    /// of priority 1; 0 counts as 1.
    pub priority: u32,
}

/// So much of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The resource's name.
    pub name: Arc<str>,
    /// Whether all devices share it.
    pub is_global: bool,
    /// How much of it.
    pub count: u32,
}
