//! What the core of the sequence batcher is told and what it answers.

use std::time::Instant;

use consort_stage::{CorrelationId, SequencePlace};

use super::line::{Form, Kept};

/// A request as it comes.
#[derive(Debug)]
pub(crate) struct Arrival<T> {
    /// Its sequence, and where in it.
    pub(crate) place: SequencePlace,
    /// What it asks.
    pub(crate) request: T,
    /// The sizes in which requests of one batch are alike.
    pub(crate) form: Form,
    /// When its sequence must have a slot.
    pub(crate) times_out_at: Option<Instant>,
    /// When it must have been answered.
    pub(crate) deadline: Option<Instant>,
}

/// Finds a request again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) id: CorrelationId,
    pub(super) number: u64,
}

/// What became of an arrival that was taken in.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Finds the request again.
    pub(crate) key: Key,
    /// Whether its start cut off a sequence that had not ended.
    pub(crate) cuts_off: bool,
}

/// Why a request is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its sequence is not known and it does not start one.
    NotStarted,
    /// Too many requests wait.
    Full,
    /// No request is taken in any more.
    Closed,
}

/// Why a request that was taken in will not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// Its sequence got no slot in time.
    NoSlot,
    /// Its deadline has passed.
    Deadline,
}

/// A request on its way to the backend.
#[derive(Debug)]
pub(crate) struct Row<T, S> {
    /// Its sequence.
    pub(crate) id: CorrelationId,
    /// What it asks.
    pub(crate) request: T,
    /// Whether its sequence begins with it.
    pub(crate) is_start: bool,
    /// Whether its sequence ends with it.
    pub(crate) is_end: bool,
    /// What its sequence kept; `None` at its beginning.
    pub(crate) kept: Option<Kept<S>>,
}

/// What an instance does next.
#[derive(Debug)]
pub(crate) enum Decision<T, S> {
    /// Run these rows and say `finish`; `None` is the row of a silent or empty slot.
    Run(Vec<Option<Row<T, S>>>),
    /// Ask again when woken, and then at the latest.
    Wait(Option<Instant>),
    /// Nothing will come any more.
    Stop,
}
