//! What a configuration's `parameters` say of a language model, read before its graph is.

use std::num::NonZeroUsize;

use consort_config::{Model, Setting, Settings};
use consort_stage::{Error, Result};

/// How many tokens a request gets that does not say; enough to see that it works.
const DEFAULT_MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(128).expect("it is not zero");
/// How many bytes of logits a request may want: as many as a message over HTTP may have.
const MAX_LOGITS_BYTES: usize = 64 << 20;
/// How many sequences a configuration may ask for: more than any machine computes at once, and few
/// enough to be counted before there is memory for any.
const MOST_ACTIVE_REQUESTS: usize = 1 << 16;

/// The parameters of a language model; `None` where what they are depends on the graph or on where it
/// runs, and the configuration leaves it to that.
pub(super) struct Parameters {
    pub(super) shares_buffer: Option<bool>,
    pub(super) chooses_in_graph: Option<bool>,
    pub(super) captures: bool,
    pub(super) slots: Option<usize>,
    pub(super) max_cache_bytes: Option<usize>,
    pub(super) prefill_tokens: Option<NonZeroUsize>,
    pub(super) context: Option<NonZeroUsize>,
    pub(super) end_id: Option<u32>,
    pub(super) default_max_tokens: NonZeroUsize,
    pub(super) max_logits_bytes: usize,
}

impl Parameters {
    /// Reads them; errors for a value that is none of its parameter's.
    pub(super) fn read(model: &Model) -> Result<Self> {
        let settings = &model.settings;
        let switch = |key| settings.get(key).map(|_| settings.switch_or(key, false)).transpose();
        Ok(Self {
            shares_buffer: switch("past_present_share_buffer")?,
            chooses_in_graph: switch("choose_in_graph")?,
            captures: settings.switch_or("cuda_graphs", true)?,
            slots: slots(settings)?,
            max_cache_bytes: stated(settings, "max_cache_bytes", 0)?,
            prefill_tokens: stated(settings, "prefill_chunk_size", NonZeroUsize::MIN)?,
            context: stated(settings, "max_sequence_length", NonZeroUsize::MIN)?,
            end_id: stated(settings, "end_id", 0)?,
            default_max_tokens: settings.parse_or("default_max_tokens", DEFAULT_MAX_TOKENS)?,
            max_logits_bytes: settings.parse_or("max_logits_bytes", MAX_LOGITS_BYTES)?,
        })
    }
}

/// The value under `key`, where there is one; the other stands in for none.
fn stated<T: Setting>(settings: &Settings, key: &str, other: T) -> Result<Option<T>> {
    settings.get(key).map(|_| settings.parse_or(key, other)).transpose()
}

fn slots(settings: &Settings) -> Result<Option<usize>> {
    let slots = stated(settings, "max_active_requests", NonZeroUsize::MIN)?.map(NonZeroUsize::get);
    match slots.filter(|slots| *slots > MOST_ACTIVE_REQUESTS) {
        None => Ok(slots),
        Some(slots) => Err(Error::invalid(format!(
            "`max_active_requests` is {slots}, more than {MOST_ACTIVE_REQUESTS}"
        ))),
    }
}
