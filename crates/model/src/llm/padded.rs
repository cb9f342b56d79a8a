//! A decoder over a cache that grows, which computes many rows in a run by padding the short ones.
//!
//! A prompt is fed alone, in a cache of its own. For its first token the sequence joins the batch:
//! the caches of all its rows, each behind padding that its mask hides. Every step adds a column.
//! Positions are counted by the mask, so a column may be hidden anywhere in a row. The batch is
//! put together anew when sequences join or leave, or when more than half of it is hidden.
//! A prompt that begins like another, or like a text that has ended, copies that part.

mod gather;
mod kept;

use consort_stage::{Error, Result};
use ort::session::Session;
use ort::value::DynValue;

use self::gather::Source;
use self::kept::{Kept, Text};
use super::adapters::AdapterId;
use super::cache::{Cache, Step};
use super::decoder::{Decoder, Piece, Row, Scores, Slot, Token, not_begun};
use super::logits;
use super::rows::{FEWEST_REUSED, common};
use super::serial::Parts;
use super::told::Told;
use crate::run_error::RunError;

/// A session, the prompts that are fed, and the batch of those that give tokens.
pub(crate) struct Padded {
    session: Session,
    parts: Parts,
    /// What each slot holds whose prompt is being fed.
    prompts: Vec<Option<Prompt>>,
    batch: Batch,
    /// What texts that have ended left, as many as slots are free.
    kept: Kept,
    logits: Vec<f32>,
    places: Vec<usize>,
    told: Told,
}

/// A prompt that is being fed.
struct Prompt {
    cache: Cache,
    /// What was fed of it.
    tokens: Vec<Token>,
    adapter: AdapterId,
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
    /// Those.
    tokens: Vec<Token>,
    adapter: AdapterId,
}

impl Padded {
    /// A decoder over an open session on the processor.
    pub(crate) fn new(session: Session, parts: Parts) -> Result<Self> {
        let cache = Cache::new(&session, &parts.graph, &parts.memory)?;
        let prompts = std::iter::repeat_with(|| None).take(parts.slots).collect();
        let (logits, places) = (Vec::new(), Vec::new());
        let batch = Batch { cache, rows: Vec::new() };
        let kept = Kept::new(!parts.graph.takes_prompts_whole());
        Ok(Self { session, parts, prompts, batch, kept, logits, places, told: Told::default() })
    }

    /// Puts the batch together for a step over some rows, if it is not as it should be.
    fn arrange(&mut self, rows: &[Row]) -> Result<()> {
        let graph = &self.parts.graph;
        let joining = rows.iter().any(|row| !self.batch.holds(row.slot));
        if !joining && !self.batch.is_wasteful() {
            return Ok(());
        }
        let mut sources = self.batch.sources();
        let joining: Vec<_> =
            rows.iter().map(|row| row.slot).filter(|slot| !self.batch.holds(*slot)).collect();
        for slot in &joining {
            let prompt = self.prompts[*slot].as_ref().ok_or_else(not_begun)?;
            sources.push(Source::whole(prompt.cache.past(), prompt.cache.length()));
        }
        let past = gather::gather(graph, &sources)?;
        let prompts =
            joining.into_iter().filter_map(|slot| Some((slot, self.prompts[slot].take()?)));
        let joining = prompts.map(|(slot, prompt)| BatchRow {
            slot: Some(slot),
            mask: Vec::new(),
            tokens: prompt.tokens,
            adapter: prompt.adapter,
        });
        let rows = &mut self.batch.rows;
        rows.retain(|row| row.slot.is_some());
        rows.extend(joining);
        let width = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        for row in rows {
            let hidden = width - row.tokens.len();
            row.mask = (0..width).map(|column| column >= hidden).collect();
        }
        self.batch.cache.set_past(past, width);
        Ok(())
    }

    /// How many slots have a sequence.
    fn taken(&self) -> usize {
        let rows = self.batch.rows.iter().filter(|row| row.slot.is_some());
        rows.count() + self.prompts.iter().flatten().count()
    }

    /// The keys and values of the longest beginning of a prompt that any text here has, and how
    /// many tokens those are; `None` when it is not worth it.
    fn beginning(
        &self,
        prompt: &[Token],
        adapter: AdapterId,
    ) -> Result<Option<(Vec<DynValue>, usize)>> {
        if !self.kept.is_of_use() {
            return Ok(None);
        }
        let most = &prompt[..prompt.len().saturating_sub(1)];
        let shared =
            |tokens: &[Token], other| if other == adapter { common(tokens, most) } else { 0 };
        let kept = self.kept.texts().map(|text| {
            let source = Source::whole(&text.past, text.tokens.len());
            (shared(&text.tokens, text.adapter), source)
        });
        let prompts = self.prompts.iter().flatten().map(|prompt| {
            let source = Source::whole(prompt.cache.past(), prompt.cache.length());
            (shared(&prompt.tokens, prompt.adapter), source)
        });
        let rows = self.batch.rows.iter().enumerate().map(|(index, row)| {
            let source = Source::of_row(self.batch.cache.past(), index, &row.mask);
            (shared(&row.tokens, row.adapter), source)
        });
        let best = kept.chain(prompts).chain(rows).max_by_key(|(tokens, _)| *tokens);
        let Some((tokens, source)) = best.filter(|(tokens, _)| *tokens >= FEWEST_REUSED) else {
            return Ok(None);
        };
        Ok(Some((gather::gather(&self.parts.graph, &[source.first(tokens)])?, tokens)))
    }

    /// Keeps what the text of a row leaves, while there is room.
    fn keep(&mut self, row: usize) {
        let BatchRow { mask, tokens, adapter, .. } = &mut self.batch.rows[row];
        if !self.kept.takes(tokens.len()) {
            return;
        }
        let source = Source::of_row(self.batch.cache.past(), row, mask);
        if let Ok(past) = gather::gather(&self.parts.graph, &[source]) {
            let (tokens, adapter) = (std::mem::take(tokens), *adapter);
            self.kept.keep(Text { past, tokens, adapter });
        }
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
        let seen: usize = self.rows.iter().map(|row| row.tokens.len()).sum();
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
            positions: self.rows.iter().map(|row| row.tokens.len() as i64).collect(),
            has_past: true,
        }
    }

    /// Notes that a step was run.
    fn extend(&mut self, fed: &[Option<Token>]) {
        for (row, token) in self.rows.iter_mut().zip(fed) {
            row.mask.push(token.is_some());
            row.tokens.extend(token);
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
        self.parts.prefill_tokens()
    }

    fn told_tokens(&self, most: usize) -> usize {
        self.parts.told_tokens(most)
    }

    fn begin(&mut self, slot: Slot, prompt: &[Token], adapter: AdapterId) -> Result<usize> {
        let Parts { graph, memory, .. } = &self.parts;
        let mut cache = Cache::new(&self.session, graph, memory)?;
        let held = self.beginning(prompt, adapter)?.map_or(0, |(past, tokens)| {
            cache.set_past(past, tokens);
            tokens
        });
        self.prompts[slot] = Some(Prompt { cache, tokens: prompt[..held].to_vec(), adapter });
        self.kept.shrink_to(self.prompts.len() - self.taken());
        Ok(held)
    }

    fn prefill(&mut self, slot: Slot, piece: Piece<'_>) -> Result<()> {
        let tokens = piece.tokens;
        let Parts { graph, memory, runs, vocabulary, .. } = &self.parts;
        let prompt = self.prompts[slot].as_mut().ok_or_else(not_begun)?;
        let fed = prompt.cache.feed(&mut self.session, graph, (memory, runs), tokens);
        if fed.is_ok() {
            prompt.tokens.extend_from_slice(tokens);
        }
        let fed: DynValue = fed.map_err(|error| self.failed(&error))?;
        self.logits.clear();
        self.places.clear();
        if piece.wants.is_some() {
            self.places.push(0);
            logits::read_last(&fed, 1, *vocabulary, &mut self.logits)?;
        }
        self.told.keep(fed, piece);
        Ok(())
    }

    fn logits_behind(&mut self, place: usize) -> Result<&[f32]> {
        self.told.row(place, self.parts.vocabulary)
    }

    fn forget_told(&mut self) {
        self.told.clear();
    }

    fn decode(&mut self, rows: &[Row]) -> Result<()> {
        self.arrange(rows)?;
        let token = |row: &BatchRow| {
            let asked = rows.iter().find(|asked| Some(asked.slot) == row.slot);
            asked.map(|asked| asked.token)
        };
        let fed: Vec<_> = self.batch.rows.iter().map(token).collect();
        let step = self.batch.step(&fed);
        let Parts { graph, memory, runs, vocabulary, .. } = &self.parts;
        let run = self.batch.cache.run(&mut self.session, graph, (memory, runs), step);
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
        self.told.clear();
        if let Some(Prompt { cache, tokens, adapter }) = self.prompts[slot].take()
            && self.kept.takes(tokens.len())
        {
            self.kept.keep(Text { past: cache.into_past(), tokens, adapter });
        }
        if let Some(row) = self.batch.rows.iter().position(|row| row.slot == Some(slot)) {
            self.keep(row);
            self.batch.rows[row].slot = None;
        }
        self.kept.shrink_to(self.prompts.len() - self.taken());
    }
}
