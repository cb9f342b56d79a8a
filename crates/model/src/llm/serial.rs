//! A decoder that computes one sequence at a time, each with a cache of its own.

use std::sync::Arc;

use consort_stage::Result;
use ort::session::Session;
use ort::value::DynValue;

use super::adapters::AdapterId;
use super::cache::{Cache, Memory};
use super::decoder::{Decoder, Piece, Row, Scores, Slot, Token};
use super::graph::Graph;
use super::logits;
use super::runs::Runs;
use super::told::Told;
use crate::run_error::RunError;

/// A session and the caches of the sequences it may have.
pub(crate) struct Serial {
    session: Session,
    parts: Parts,
    /// Made when a slot is first used, and kept for the next sequence in it.
    caches: Vec<Option<Cache>>,
    logits: Vec<f32>,
    told: Told,
}

/// What a decoder over a session is made of beside it, where sequences have caches of their own.
pub(crate) struct Parts {
    pub(crate) model: Arc<str>,
    pub(crate) runs: Arc<Runs>,
    pub(crate) graph: Graph,
    pub(crate) memory: Memory,
    pub(crate) slots: usize,
    pub(crate) prefill_tokens: usize,
    pub(crate) vocabulary: usize,
}

impl Parts {
    /// How many tokens of a prompt are fed at once.
    pub(super) fn prefill_tokens(&self) -> usize {
        if self.graph.takes_prompts_whole() { usize::MAX } else { self.prefill_tokens }
    }

    /// The same where the logits behind each are wanted.
    pub(super) fn told_tokens(&self, most: usize) -> usize {
        match self.prefill_tokens() {
            _ if self.graph.logits.is_last_only => 1,
            usize::MAX => usize::MAX,
            tokens => tokens.min(most),
        }
    }
}

impl Serial {
    /// A decoder over an open session.
    pub(crate) fn new(session: Session, parts: Parts) -> Self {
        let caches = std::iter::repeat_with(|| None).take(parts.slots).collect();
        Self { session, parts, caches, logits: Vec::new(), told: Told::default() }
    }

    /// Feeds tokens to a slot and gives the logits of the run.
    fn feed(&mut self, slot: Slot, tokens: &[Token]) -> Result<DynValue> {
        let Parts { model, graph, memory, runs, vocabulary, .. } = &self.parts;
        let cache = match &mut self.caches[slot] {
            Some(cache) => cache,
            empty => empty.insert(Cache::new(&self.session, graph, memory)?),
        };
        let logits = cache
            .feed(&mut self.session, graph, (memory, runs), tokens)
            .map_err(|error| RunError::from(&error).with_own_inputs().within(model))?;
        self.logits.clear();
        logits::read_last(&logits, 1, *vocabulary, &mut self.logits)?;
        Ok(logits)
    }
}

impl Decoder for Serial {
    fn slots(&self) -> usize {
        self.caches.len()
    }

    fn max_rows(&self) -> usize {
        1
    }

    fn prefill_tokens(&self) -> usize {
        self.parts.prefill_tokens()
    }

    fn told_tokens(&self, most: usize) -> usize {
        self.parts.told_tokens(most)
    }

    fn begin(&mut self, _: Slot, _: &[Token], _: AdapterId) -> Result<usize> {
        Ok(0)
    }

    fn prefill(&mut self, slot: Slot, piece: Piece<'_>) -> Result<()> {
        let logits = self.feed(slot, piece.tokens)?;
        self.told.keep(logits, piece);
        Ok(())
    }

    fn logits_behind(&mut self, place: usize) -> Result<&[f32]> {
        self.told.row(place, self.parts.vocabulary)
    }

    fn forget_told(&mut self) {
        self.told.clear();
    }

    fn decode(&mut self, rows: &[Row]) -> Result<()> {
        rows.iter().try_for_each(|row| self.feed(row.slot, &[row.token]).map(drop))
    }

    fn scores(&mut self, _index: usize) -> Result<Scores<'_>> {
        Ok(Scores::Logits(&mut self.logits))
    }

    fn release(&mut self, slot: Slot) {
        let cache = &mut self.caches[slot];
        if cache.as_mut().is_some_and(|cache| cache.clear(&self.parts.graph).is_err()) {
            *cache = None;
        }
    }
}
