//! A decoder that computes one sequence at a time, each with a cache of its own.

use std::sync::Arc;

use consort_stage::Result;
use ort::session::Session;

use super::adapters::AdapterId;
use super::cache::{Cache, Memory};
use super::decoder::{Decoder, Row, Scores, Slot, Token, Wants};
use super::graph::Graph;
use super::logits;
use super::runs::Runs;
use crate::run_error::RunError;

/// A session and the caches of the sequences it may have.
pub(crate) struct Serial {
    session: Session,
    model: Arc<str>,
    graph: Graph,
    memory: Memory,
    runs: Arc<Runs>,
    /// Made when a slot is first used, and kept for the next sequence in it.
    caches: Vec<Option<Cache>>,
    prefill_tokens: usize,
    vocabulary: usize,
    logits: Vec<f32>,
}

/// What a [`Serial`] is made of beside its session.
pub(crate) struct Parts {
    pub(crate) model: Arc<str>,
    pub(crate) runs: Arc<Runs>,
    pub(crate) graph: Graph,
    pub(crate) memory: Memory,
    pub(crate) slots: usize,
    pub(crate) prefill_tokens: usize,
    pub(crate) vocabulary: usize,
}

impl Serial {
    /// A decoder over an open session.
    pub(crate) fn new(session: Session, parts: Parts) -> Self {
        Self {
            session,
            model: parts.model,
            // A graph with a branch for the first step takes the whole prompt in it.
            prefill_tokens: match parts.graph.cache_branch {
                Some(_) => usize::MAX,
                None => parts.prefill_tokens,
            },
            graph: parts.graph,
            memory: parts.memory,
            runs: parts.runs,
            caches: std::iter::repeat_with(|| None).take(parts.slots).collect(),
            vocabulary: parts.vocabulary,
            logits: Vec::new(),
        }
    }

    fn feed(&mut self, slot: Slot, tokens: &[Token]) -> Result<()> {
        let cache = match &mut self.caches[slot] {
            Some(cache) => cache,
            empty => empty.insert(Cache::new(&self.session, &self.graph, &self.memory)?),
        };
        let logits = cache
            .feed(&mut self.session, &self.graph, (&self.memory, &self.runs), tokens)
            .map_err(|error| RunError::from(&error).with_own_inputs().within(&self.model))?;
        self.logits.clear();
        logits::read_last(&logits, 1, self.vocabulary, &mut self.logits)
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
        self.prefill_tokens
    }

    fn begin(&mut self, _: Slot, _: &[Token], _: AdapterId) -> Result<usize> {
        Ok(0)
    }

    fn prefill(&mut self, slot: Slot, tokens: &[Token], _wants: Option<Wants>) -> Result<()> {
        self.feed(slot, tokens)
    }

    fn decode(&mut self, rows: &[Row]) -> Result<()> {
        rows.iter().try_for_each(|row| self.feed(row.slot, &[row.token]))
    }

    fn scores(&mut self, _index: usize) -> Result<Scores<'_>> {
        Ok(Scores::Logits(&mut self.logits))
    }

    fn release(&mut self, slot: Slot) {
        let cache = &mut self.caches[slot];
        if cache.as_mut().is_some_and(|cache| cache.clear(&self.graph).is_err()) {
            *cache = None;
        }
    }
}
