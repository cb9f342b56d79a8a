//! How the requests of one model are batched and queued, as its configuration says.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use consort_config::{
    BATCHING, DynamicBatching, MAX_BATCH_TOKENS, Model, PADDING_MASK, Priorities, QueuePolicy,
    Scheduling,
};
use consort_stage::{DataType, Error, Request, Result, Signature, TensorSpec};

use super::exact::Exact;
use super::greedy::Greedy;
use super::{Entry, Likeness};
use crate::DEFAULT_QUEUE_SIZE;
use crate::assembly::{Layout, variable_axes};

/// The input that tells padding from content when the configuration names none: the name that
/// exporters of encoders give it.
const DEFAULT_MASK: &str = "attention_mask";

/// The padded tokens of a batch on a processor. all-MiniLM-L6-v2 on one thread takes 1.9 times as
/// long for a token in a run of 12 tokens as in one of 256; in larger runs it gains at most 3 % more,
/// and from 512 tokens on it loses as much. A longer run only keeps its callers waiting.
const CPU_TOKENS: usize = 256;

/// The padded tokens of a batch on a GPU, which earns from far larger ones.
const GPU_TOKENS: usize = 16_384;

/// How requests are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Each runs by itself.
    Alone,
    /// As Triton does with preferred sizes and a delay.
    Exact(Exact),
    /// Whatever waits when an instance is free.
    Greedy(Greedy),
}

/// How the requests of one model are batched and queued.
#[derive(Clone, Debug)]
pub struct Rules {
    pub(crate) manner: Manner,
    pub(crate) layout: Layout,
    pub(crate) max_rows: usize,
    pub(crate) preserves_order: bool,
    /// The cores that an instance has which has all of them; `None` where it computes elsewhere, or
    /// gains nothing from them.
    pub(crate) cores: Option<usize>,
    priorities: Priorities,
}

impl Rules {
    /// Every request runs by itself; at most `queue_size` wait.
    pub fn alone(signature: Arc<Signature>, queue_size: usize) -> Self {
        let default_policy =
            QueuePolicy { max_queue_size: NonZeroUsize::new(queue_size), ..QueuePolicy::default() };
        Self {
            manner: Manner::Alone,
            layout: Layout::new(signature, false),
            max_rows: 1,
            preserves_order: false,
            cores: None,
            priorities: Priorities { default_policy, ..Priorities::default() },
        }
    }

    /// The rules of a model; `is_gpu` says where it runs.
    ///
    /// `by_default` says whether its requests may share a run although nobody asked for it.
    /// Errors name the parameter that is wrong.
    pub fn of(model: &Model, is_gpu: bool, by_default: bool) -> Result<Self> {
        let stated = match &model.scheduling {
            Scheduling::Dynamic(batching) => Some(batching),
            _ => None,
        };
        let is_wanted = stated.is_some() || by_default;
        let batches = model.signature.is_batching()
            && model.settings.switch_or(BATCHING, is_wanted)?
            && !matches!(model.scheduling, Scheduling::Sequence(_));
        let layout = Layout::new(model.signature.clone(), has_mask(model)?).told_of(&model.ragged);
        let max_rows = if batches { model.signature.max_batch_size as usize } else { 1 };
        let manner = if batches { manner(model, stated, is_gpu)? } else { Manner::Alone };
        let priorities = stated.map(|batching| batching.priorities.clone()).unwrap_or_default();
        let preserves_order = stated.is_some_and(|batching| batching.preserve_ordering);
        Ok(Self { manner, layout, max_rows, preserves_order, cores: None, priorities })
    }

    /// The same for instances that share these cores, so that one which is alone has all of them.
    #[must_use]
    pub fn on_cores(self, cores: NonZeroUsize) -> Self {
        Self { cores: Some(cores.get()), ..self }
    }

    /// Whether what waits is run as soon as an instance is free, without any timer.
    pub fn runs_at_once(&self) -> bool {
        !matches!(self.manner, Manner::Exact(_))
    }

    /// How many requests of a level may wait.
    pub(crate) fn capacity(&self, level: u64) -> usize {
        size(self.priorities.policy(level))
    }

    /// How many requests may wait at the level that takes the fewest.
    pub(crate) fn least_capacity(&self) -> usize {
        let Priorities { default_policy, policies, .. } = &self.priorities;
        policies.values().map(size).fold(size(default_policy), usize::min)
    }

    /// What there is to know of a request that comes at `now`.
    pub(crate) fn entry(&self, request: &Request, now: Instant) -> Entry {
        let level = self.priorities.level(request.priority());
        let policy = self.priorities.policy(level);
        let own = request.queue_timeout().filter(|_| policy.allow_timeout_override);
        let timeout = own.into_iter().chain(policy.default_timeout).min();
        // Whatever runs alone need not be compared with anything.
        let is_batched = self.manner != Manner::Alone;
        let length = is_batched.then(|| self.layout.length(request)).flatten();
        let likeness = is_batched.then(|| Likeness::of(request, &self.layout, length));
        Entry {
            rows: self.layout.rows(request),
            length: length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
            likeness: likeness.unwrap_or_default(),
            level,
            queued_at: now,
            timeout: timeout.map(|timeout| (now + timeout, policy.timeout_action)),
            deadline: request.context.deadline,
        }
    }
}

/// How many requests may wait by this policy.
fn size(policy: &QueuePolicy) -> usize {
    policy.max_queue_size.map_or(DEFAULT_QUEUE_SIZE, NonZeroUsize::get)
}

/// Triton's rules where the configuration has tuned anything, or else whatever waits at once.
fn manner(model: &Model, stated: Option<&DynamicBatching>, is_gpu: bool) -> Result<Manner> {
    let largest = model.signature.max_batch_size as usize;
    let is_tuned = |batching: &&DynamicBatching| {
        let preferred = &batching.preferred_batch_sizes;
        !batching.max_queue_delay.is_zero() || preferred.iter().any(|size| *size != largest)
    };
    if let Some(batching) = stated.filter(is_tuned) {
        let preferred = batching.preferred_batch_sizes.clone();
        return Ok(Manner::Exact(Exact { preferred, delay: batching.max_queue_delay }));
    }
    let default = if is_gpu { GPU_TOKENS } else { CPU_TOKENS };
    let tokens = model.settings.parse_or::<usize>(MAX_BATCH_TOKENS, default)?;
    Ok(Manner::Greedy(Greedy { max_tokens: tokens }))
}

/// Whether the model has an input to tell padding by.
///
/// By its name alone an input is taken for a mask only among whole numbers: encoders of tokens
/// answer token by token, where those of sound or images may shorten what they are given.
fn has_mask(model: &Model) -> Result<bool> {
    let inputs = &model.signature.inputs;
    let Some(name) = model.settings.get(PADDING_MASK) else {
        let is_token =
            |spec: &TensorSpec| matches!(spec.datatype, DataType::Int32 | DataType::Int64);
        let mut variable = inputs.iter().filter(|spec| variable_axes(spec).next().is_some());
        return Ok(model.signature.input(DEFAULT_MASK).is_some() && variable.all(is_token));
    };
    if name.is_empty() || model.signature.input(name).is_some() {
        return Ok(!name.is_empty());
    }
    Err(Error::invalid(format!(
        "parameter `{PADDING_MASK}` names `{name}`, which is not an input of the model"
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use consort_config::{Settings, TimeoutAction};
    use consort_stage::Parameter;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn model(datatype: DataType, settings: &[(&str, &str)]) -> Model {
        let inputs = ["ids", "attention_mask"].map(|name| TensorSpec::new(name, datatype, &[-1]));
        let signature =
            Signature { max_batch_size: 8, inputs: inputs.to_vec(), ..Signature::default() };
        let settings = settings.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        Model { settings: Settings::new(settings), ..Model::plain("sample", signature) }
    }

    fn batching(preferred: usize, max_queue_delay: Duration) -> DynamicBatching {
        let preferred_batch_sizes = vec![preferred];
        DynamicBatching { preferred_batch_sizes, max_queue_delay, ..DynamicBatching::default() }
    }

    fn manner_of(scheduling: Scheduling, settings: &[(&str, &str)]) -> Manner {
        let model = Model { scheduling, ..model(DataType::Int64, settings) };
        Rules::of(&model, false, true).unwrap().manner
    }

    #[test]
    fn triton_s_rules_hold_once_something_is_tuned() {
        let dynamic = |preferred, delay| Scheduling::Dynamic(batching(preferred, delay));
        let greedy = Manner::Greedy(Greedy { max_tokens: CPU_TOKENS });
        assert_eq!(manner_of(Scheduling::Direct, &[]), greedy);
        assert_eq!(manner_of(dynamic(8, Duration::ZERO), &[]), greedy);
        for tuned in [dynamic(4, Duration::ZERO), dynamic(8, MS)] {
            assert!(matches!(manner_of(tuned, &[]), Manner::Exact(_)));
        }
        let own = manner_of(Scheduling::Direct, &[(MAX_BATCH_TOKENS, "99")]);
        assert_eq!(own, Manner::Greedy(Greedy { max_tokens: 99 }));
    }

    #[test]
    fn nothing_is_batched_that_must_not_be() {
        let dynamic = Scheduling::Dynamic(batching(4, MS));
        assert_eq!(manner_of(dynamic, &[(BATCHING, "false")]), Manner::Alone);
        let tokenizer = Rules::of(&model(DataType::Int64, &[]), false, false).unwrap();
        assert_eq!(tokenizer.manner, Manner::Alone);
        let single = Model::plain("sample", Signature::default());
        assert_eq!(Rules::of(&single, false, true).unwrap().manner, Manner::Alone);
    }

    #[test]
    fn a_mask_is_known_by_its_name_among_tokens_or_by_the_configuration() {
        let pads = |datatype, settings| {
            Rules::of(&model(datatype, settings), false, true).map(|rules| rules.layout.pads())
        };
        assert!(pads(DataType::Int64, &[]).unwrap());
        assert!(!pads(DataType::Int64, &[(PADDING_MASK, "")]).unwrap());
        assert!(!pads(DataType::Fp32, &[]).unwrap());
        assert!(pads(DataType::Fp32, &[(PADDING_MASK, "attention_mask")]).unwrap());
        let error = pads(DataType::Fp32, &[(PADDING_MASK, "absent")]).unwrap_err();
        assert!(error.message().contains("`padding_mask` names `absent`"), "{error}");
    }

    #[test]
    fn a_request_may_shorten_its_time_only_where_that_is_allowed() {
        let waits = |allow_timeout_override, own: u64| {
            let default_policy = QueuePolicy {
                default_timeout: Some(5 * MS),
                allow_timeout_override,
                ..QueuePolicy::default()
            };
            let priorities = Priorities { default_policy, ..Priorities::default() };
            let batching = DynamicBatching { priorities, ..batching(8, Duration::ZERO) };
            let scheduling = Scheduling::Dynamic(batching);
            let model = Model { scheduling, ..model(DataType::Int64, &[]) };
            let mut request = Request::default();
            request.parameters.insert("timeout".into(), Parameter::Uint(own));
            let now = Instant::now();
            let entry = Rules::of(&model, false, true).unwrap().entry(&request, now);
            let (at, action) = entry.timeout.unwrap();
            assert_eq!(action, TimeoutAction::Reject);
            at - now
        };
        assert_eq!(waits(false, 1000), 5 * MS);
        assert_eq!(waits(true, 1000), MS);
        assert_eq!(waits(true, 9000), 5 * MS);
    }
}
