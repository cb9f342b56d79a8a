//! Chooses the decoder for a graph and where it runs, and how many sequences it can hold.

use std::num::NonZeroUsize;
use std::sync::Arc;

use consort_repository::Instance;
use consort_stage::{Error, Result};

use super::Opened;
use super::parameters::Parameters;
use crate::gpus;
use crate::llm::{
    Carrying, Decoder, Graph, Grown, GrownSessions, Home, Limits, Memory, Padded, Parts, Runs,
    Serial, Shared, Size,
};
use crate::memory;
use crate::provider::Provider;

/// How many sequences are worked on at once on a processor, where a step over so many costs about
/// four times what a step over one does.
const MAX_ACTIVE_REQUESTS: NonZeroUsize = NonZeroUsize::new(16).expect("sixteen is not zero");
/// The same on a card, where a step over so many costs little more than a step over one.
const MAX_ACTIVE_REQUESTS_ON_CARD: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");
/// The same where they are computed one after the other.
const MAX_ACTIVE_REQUESTS_IN_TURN: NonZeroUsize = NonZeroUsize::new(4).expect("it is not zero");
/// The caches take one part in so many of what is free on the card once the weights are there: the
/// rest is for what runs need, and for models that are loaded later.
const SHARE_OF_CARD: usize = 2;
/// What the caches of all of them take at most when the configuration does not say how many there
/// are: an eighth of a small machine's memory. Pages that no sequence reached are never taken.
const MOST_CACHE: usize = 1 << 30;
/// How much of a prompt is fed at a time: long enough for large products, short enough that the
/// other sequences, and a caller that goes away, wait for tens of milliseconds and not more.
const PREFILL_CHUNK_SIZE: NonZeroUsize = NonZeroUsize::new(128).expect("it is not zero");
/// The same on a card, which is idle with less.
const PREFILL_CHUNK_SIZE_ON_CARD: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// How the sequences of a decoder are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Together, in one cache that is written in place.
    InPlace,
    /// Together, from one cache into another and back.
    ToAndFro,
    /// Together, in a cache that the processor allocates for each step.
    Padded,
    /// One after the other.
    InTurn,
}

/// The decoder that a graph needs where its session runs.
pub(super) fn decoder(
    instance: &Instance<'_>,
    opened: Opened,
    (limits, runs): (&Limits, &Arc<Runs>),
) -> Result<Box<dyn Decoder>> {
    let Opened { session, provider, parameters, graph, captures, finders, pads, joiner, .. } =
        opened;
    let is_on_card = provider != Provider::Cpu;
    let way = match graph.carrying {
        Carrying::SharedBuffer if !is_on_card || graph.chooses => Way::InPlace,
        _ if joiner.is_some() => Way::ToAndFro,
        _ if is_on_card || !pads => Way::InTurn,
        _ => Way::Padded,
    };
    let slots = slots(instance, &parameters, (&graph, limits.context), (provider, way))?;
    let chunk = if is_on_card { PREFILL_CHUNK_SIZE_ON_CARD } else { PREFILL_CHUNK_SIZE };
    let prefill_tokens = parameters.prefill_tokens.unwrap_or(chunk).get();
    let prefill_tokens = prefill_tokens.min(limits.context);
    let name = Arc::clone(&instance.model.name);
    let vocabulary = limits.vocabulary;
    let size = Size { slots, context: limits.context, prefill_tokens, vocabulary };
    let home = match provider {
        Provider::Cpu => Home::Processor,
        Provider::Cuda(index) => Home::Card { index, captures },
    };
    if way == Way::InPlace {
        let parts = (name, graph, Arc::clone(runs));
        return Ok(Box::new(Shared::new((session, finders), parts, size, home)?));
    }
    if let Some(joiner) = joiner {
        let sessions = GrownSessions { decoder: session, joiner, finders };
        let parts = (name, graph, Arc::clone(runs));
        return Ok(Box::new(Grown::new(sessions, parts, size, home)?));
    }
    let memory = Memory::new(provider, limits.context)?;
    let runs = Arc::clone(runs);
    let parts = Parts { model: name, runs, graph, memory, slots, prefill_tokens, vocabulary };
    if way == Way::InTurn {
        Ok(Box::new(Serial::new(session, parts)))
    } else {
        Ok(Box::new(Padded::new(session, parts)?))
    }
}

/// How many sequences have a cache at once: as many as the configuration says, else as many as
/// are worth it and fit the memory that nobody would mind.
fn slots(
    instance: &Instance<'_>,
    parameters: &Parameters,
    (graph, context): (&Graph, usize),
    (provider, way): (Provider, Way),
) -> Result<usize> {
    let free = free_memory(provider);
    let (usual, share) = match provider {
        Provider::Cpu => (MAX_ACTIVE_REQUESTS, None),
        Provider::Cuda(_) if way == Way::InTurn => (MAX_ACTIVE_REQUESTS_IN_TURN, None),
        Provider::Cuda(_) => (MAX_ACTIVE_REQUESTS_ON_CARD, free.map(|free| free / SHARE_OF_CARD)),
    };
    let times = if way == Way::ToAndFro { 2 } else { 1 };
    let each = graph.cache_bytes(context).saturating_mul(times).max(1);
    // A card gives its memory out when it is asked; the processor's counts as free until texts
    // reach it, so that all instances count on the same.
    let sharers = if provider == Provider::Cpu { sharers(instance) } else { 1 };
    let free = free.map(|free| free / sharers);
    let most = parameters.max_cache_bytes.unwrap_or(share.unwrap_or(MOST_CACHE));
    let room = most.min(free.unwrap_or(most));
    let fitting = usual.get().min(room / each).max(1);
    let slots = parameters.slots.unwrap_or(fitting);
    let wanted = slots.saturating_mul(each);
    if parameters.max_cache_bytes.is_some() && wanted > most {
        return Err(Error::invalid(format!(
            "`max_active_requests` is {slots}, and each takes {each} bytes of cache, more than \
             `max_cache_bytes` together; lower it or `max_sequence_length`"
        )));
    }
    match free.filter(|free| wanted > *free) {
        None => Ok(slots),
        Some(free) => Err(Error::unavailable(format!(
            "`max_active_requests` is {slots} and `max_sequence_length` {context}, for which the \
             caches need {} MB of memory, and {} MB are free for each instance; make either smaller",
            wanted >> 20,
            free >> 20
        ))),
    }
}

/// How much memory is free where the caches go, where anyone tells.
fn free_memory(provider: Provider) -> Option<usize> {
    match provider {
        Provider::Cpu => memory::free(),
        Provider::Cuda(index) => gpus::free_memory(index),
    }
}

/// How many instances of the model there are in the memory of this one.
fn sharers(instance: &Instance<'_>) -> usize {
    let groups = instance.model.instances.iter();
    let counts = groups.map(|group| {
        let devices = group.devices.iter().filter(|device| **device == instance.device);
        group.count.get().saturating_mul(devices.count())
    });
    counts.fold(0, usize::saturating_add).max(1)
}
