//! The statistics of one model version at one moment, as the statistics call reports them.

/// How often something happened and how long it took altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// How long altogether, in nanoseconds.
    pub ns: u64,
}

/// Everything that is known about one model version.
///
/// Queue and compute are counted for each request: a request that rode in a batch is given the
/// whole batch's time, which is what it waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests answered, with the time from reception to last response.
    pub success: Tally,
    /// Requests that ended without their answer.
    pub fail: Tally,
    /// Waiting for an instance.
    pub queue: Tally,
    /// Gathering inputs.
    pub compute_input: Tally,
    /// Inference itself.
    pub compute_infer: Tally,
    /// Scattering outputs.
    pub compute_output: Tally,
    /// Requests answered without a run, from the response cache or together with an equal one.
    pub cache_hit: Tally,
    /// Requests looked for in the response cache in vain.
    pub cache_miss: Tally,
    /// Inferences; a batch of n counts n.
    pub inference_count: u64,
    /// Executions; a batch counts once.
    pub execution_count: u64,
    /// When a request was last answered, in milliseconds since 1970; 0 when never.
    pub last_inference_ms: u64,
    /// Requests that wait for an instance now.
    pub pending: u64,
    /// The executions by batch size, in ascending order.
    pub batches: Vec<BatchSnapshot>,
    /// The responses of a decoupled model by their place, in ascending order.
    pub responses: Vec<ResponseSnapshot>,
}

/// The responses at one place of a decoupled model's answers; each duration is the time since the
/// response before, or since the request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseSnapshot {
    /// The place among the responses to one request, from 0.
    pub place: u64,
    /// Those with tensors.
    pub success: Tally,
    /// Errors that came in the place of a response.
    pub fail: Tally,
    /// Those without a tensor, such as one that only says that it is the last.
    pub empty: Tally,
    /// Responses that the caller did not wait for.
    pub cancel: Tally,
}

impl ResponseSnapshot {
    /// Whether nothing happened here.
    pub(crate) fn is_unused(&self) -> bool {
        let Self { success, fail, empty, cancel, .. } = self;
        [success, fail, empty, cancel].iter().all(|tally| tally.count == 0)
    }
}

/// The executions of one batch size; each counts once, however many requests rode in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSnapshot {
    /// The number of inferences in the batch.
    pub batch_size: u64,
    /// Gathering inputs.
    pub compute_input: Tally,
    /// Inference itself.
    pub compute_infer: Tally,
    /// Scattering outputs.
    pub compute_output: Tally,
}
