//! A decoder over a cache that grows, which computes many rows in a run by padding the short ones.
//!
//! A prompt is fed alone, in a cache of its own. For its first token the sequence joins the batch:
//! the caches of all its rows, each behind padding that its mask hides. Every step adds a column.
//! Positions are counted by the mask, so a column may be hidden anywhere in a row. The batch is
//! put together anew when sequences join or leave, or when more than half of it is hidden.

mod gather;

use consort_stage::{Error, Result};
use ort::session::Session;
use ort::value::DynValue;

use self::gather::Source;
use super::cache::{Cache, Step};
use super::decoder::{Decoder, Row, Scores, Slot, Token, Wants};
use super::logits;
use super::serial::Parts;
use crate::run_error::RunError;

/// A session, the prompts that are fed, and the batch of those that give tokens.
pub(crate) struct Padded {
    session: Session,
    parts: Parts,
    /// The cache of each slot whose prompt is being fed.
    prompts: Vec<Option<Cache>>,
    batch: Batch,
    logits: Vec<f32>,
    places: Vec<usize>,
}

/// Sequences that are computed together.
struct Batch {
    /// Their keys and values, every row as wide as the others.
    cache: Cache,
    rows: Vec<BatchRow>,
}

/// One row of the batch.
struct BatchRow {
    /// Whose it is; `None` when the sequence has left.
    slot: Option<Slot>,
    /// Which of its columns are tokens of the sequence.
    mask: Vec<bool>,
    /// How many they are.
    length: usize,
}

impl Padded {
    /// A decoder over an open session on the processor.
    pub(crate) fn new(session: Session, parts: Parts) -> Result<Self> {
        let cache = Cache::new(&session, &parts.graph, &parts.memory)?;
        let prompts = std::iter::repeat_with(|| None).take(parts.slots).collect();
        let (logits, places) = (Vec::new(), Vec::new());
        let batch = Batch { cache, rows: Vec::new() };
        Ok(Self { session, parts, prompts, batch, logits, places })
    }

    /// Puts the batch together for a step over some rows, if it is not as it should be.
    fn arrange(&mut self, rows: &[Row]) -> Result<()> {
        let graph = &self.parts.graph;
        let joining = rows.iter().any(|row| !self.batch.holds(row.slot));
        if !joining && !self.batch.is_wasteful() {
            return Ok(());
        }
        let mut sources = self.batch.sources();
        let mut new: Vec<_> =
            self.batch.rows.iter().filter_map(|row| Some((row.slot?, row.length))).collect();
        for row in rows.iter().filter(|row| !self.batch.holds(row.slot)) {
            let cache = self.prompts[row.slot].as_ref().ok_or_else(not_begun)?;
            sources.push(Source::whole(cache.past(), cache.length()));
            new.push((row.slot, cache.length()));
        }
        let past = gather::gather(graph, &sources)?;
        for (slot, _) in &new {
            self.prompts[*slot] = None;
        }
        self.batch.cache.set_past(past);
        let width = new.iter().map(|(_, length)| *length).max().unwrap_or(0);
        let padded = |(slot, length)| BatchRow {
            slot: Some(slot),
            mask: (0..width).map(|column| column >= width - length).collect(),
            length,
        };
        self.batch.rows = new.into_iter().map(padded).collect();
        Ok(())
    }

    fn failed(&self, error: &ort::Error) -> Error {
        RunError::from(error).with_own_inputs().within(&self.parts.model)
    }
}

impl Batch {
    fn holds(&self, slot: Slot) -> bool {
        self.rows.iter().any(|row| row.slot == Some(slot))
    }

    /// Whether somebody has left, or more than half of the columns are hidden.
    fn is_wasteful(&self) -> bool {
        let all: usize = self.rows.iter().map(|row| row.mask.len()).sum();
        let seen: usize = self.rows.iter().map(|row| row.length).sum();
        self.rows.iter().any(|row| row.slot.is_none()) || 2 * seen < all
    }

    /// Where the tokens of the sequences that are still here lie.
    fn sources(&self) -> Vec<Source<'_>> {
        let rows = self.rows.iter().enumerate().filter(|(_, row)| row.slot.is_some());
        rows.map(|(index, row)| Source::of_row(self.cache.past(), index, &row.mask)).collect()
    }

    /// The inputs of a step that feeds some of the rows a token, and the others nothing.
    fn step(&self, fed: &[Option<Token>]) -> Step {
        let mask = self.rows.iter().zip(fed).flat_map(|(row, token)| {
            let seen = row.mask.iter().copied().chain([token.is_some()]);
            seen.map(i64::from)
        });
        Step {
            rows: self.rows.len(),
            tokens: fed.iter().map(|token| i64::from(token.unwrap_or(0))).collect(),
            mask: mask.collect(),
            positions: self.rows.iter().map(|row| row.length as i64).collect(),
            has_past: true,
        }
    }

    /// Notes that a step was run.
    fn extend(&mut self, fed: &[Option<Token>]) {
        for (row, token) in self.rows.iter_mut().zip(fed) {
            row.mask.push(token.is_some());
            row.length += usize::from(token.is_some());
        }
    }
}

impl Decoder for Padded {
    fn slots(&self) -> usize {
        self.prompts.len()
    }

    fn max_rows(&self) -> usize {
        self.prompts.len()
    }

    fn prefill_tokens(&self) -> usize {
        match self.parts.graph.cache_branch {
            // A graph with a branch for the first step takes the whole prompt in it.
            Some(_) => usize::MAX,
            None => self.parts.prefill_tokens,
        }
    }

    fn begin(&mut self, slot: Slot, _prompt: &[Token]) -> Result<usize> {
        let Parts { graph, memory, .. } = &self.parts;
        self.prompts[slot] = Some(Cache::new(&self.session, graph, memory)?);
        Ok(0)
    }

    fn prefill(&mut self, slot: Slot, tokens: &[Token], wants: Option<Wants>) -> Result<()> {
        let Parts { graph, memory, vocabulary, .. } = &self.parts;
        let cache = self.prompts[slot].as_mut().ok_or_else(not_begun)?;
        let fed = cache.feed(&mut self.session, graph, memory, tokens);
        let fed: DynValue = fed.map_err(|error| self.failed(&error))?;
        self.logits.clear();
        self.places.clear();
        if wants.is_some() {
            self.places.push(0);
            logits::read_last(&fed, 1, *vocabulary, &mut self.logits)?;
        }
        Ok(())
    }

    fn decode(&mut self, rows: &[Row]) -> Result<()> {
        self.arrange(rows)?;
        let token = |row: &BatchRow| {
            let asked = rows.iter().find(|asked| Some(asked.slot) == row.slot);
            asked.map(|asked| asked.token)
        };
        let fed: Vec<_> = self.batch.rows.iter().map(token).collect();
        let step = self.batch.step(&fed);
        let Parts { graph, memory, vocabulary, .. } = &self.parts;
        let run = self.batch.cache.run(&mut self.session, graph, memory, step);
        let run = run.map_err(|error| self.failed(&error))?;
        self.batch.extend(&fed);
        self.logits.clear();
        logits::read_last(&run, fed.len(), *vocabulary, &mut self.logits)?;
        let place = |row: &Row| self.batch.rows.iter().position(|it| it.slot == Some(row.slot));
        self.places.clear();
        self.places.extend(rows.iter().filter_map(place));
        Ok(())
    }

    fn scores(&mut self, index: usize) -> Result<Scores<'_>> {
        let vocabulary = self.parts.vocabulary;
        let start = self.places[index] * vocabulary;
        Ok(Scores::Logits(&mut self.logits[start..start + vocabulary]))
    }

    fn release(&mut self, slot: Slot) {
        self.prompts[slot] = None;
        for row in self.batch.rows.iter_mut().filter(|row| row.slot == Some(slot)) {
            row.slot = None;
        }
    }
}

fn not_begun() -> Error {
    Error::internal("a slot was fed before it was begun")
}
