//! A decoder over one cache of full length for all sequences, which computes many rows in a run.
//!
//! `GroupQueryAttention` writes each row's new keys and values into the cache in place, behind the
//! tokens that the row's mask counts. Rows are neighbours in the cache, so any range of them is a
//! tensor of its own: a prompt is fed straight into its row, and a step runs over the rows from
//! the first to the last that has a sequence. Nothing is copied or allocated from step to step.
//!
//! On a card it is the same, in the card's memory: what a step is told goes there in one copy, and
//! the tokens that it chose come back in another.

pub(super) mod capture;
pub(super) mod drawer;
pub(super) mod finders;
mod inputs;
mod packed;
pub(super) mod picker;
pub(super) mod prepared;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use consort_stage::{Error, Result};
use ort::session::Session;

use self::capture::Capture;
pub(crate) use self::finders::FinderSessions;
use self::finders::Finders;
use self::inputs::{Blocked, Blocks, Shapes};
pub(super) use self::inputs::{at_home, no_memory};
use self::prepared::Logits;
use super::adapters::AdapterId;
use super::buffers::{Buffers, CallId, Part};
use super::decoder::{
    Decoder, Piece, Row, Scores, Slot, Token, Uniforms, Wants, not_begun, not_run,
};
use super::graph::Graph;
use super::logits;
use super::rows::{Copy, Rows};
use super::runs::Runs;
use super::stripes::Stripes;
use crate::run_error::RunError;

/// The mask of a step is as wide as its longest row, rounded up to this, so that most steps have
/// the shapes of the one before.
const MASK_STEP: usize = 64;

/// A session, its cache and what lies in it.
pub(crate) struct Shared {
    // Before the sessions, whose card its memory is on.
    buffers: Buffers,
    session: Session,
    model: Arc<str>,
    graph: Graph,
    size: Size,
    blocks: Blocks,
    cache: Vec<Stripes>,
    /// The runs that were prepared, by their first row and how many they have.
    calls: BTreeMap<(usize, usize), (CallId, Shapes)>,
    capture: Option<Capture>,
    finders: Option<Finders>,
    rows: Rows,
    runs: Arc<Runs>,
    /// The token that each row is fed next.
    next: Vec<Token>,
    /// Where in the last run each of the rows asked for was, and what was wanted of it.
    asked: Vec<(usize, Wants)>,
    /// The first place of the last run whose choice was fetched, and how many there are.
    places: (usize, usize),
    /// The logits of a row where the graph's have half the width.
    widened: Vec<f32>,
}

/// Where a [`Shared`] keeps its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the processor's memory.
    Processor,
    /// On the card with this index; whether steps are captured there, to be launched as one.
    Card { index: u32, captures: bool },
}

/// How large a [`Shared`] is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// How many sequences it can hold.
    pub(crate) slots: usize,
    /// How many tokens each can have.
    pub(crate) context: usize,
    /// How many tokens of a prompt are fed at once.
    pub(crate) prefill_tokens: usize,
    /// How many tokens there are.
    pub(crate) vocabulary: usize,
}

impl Shared {
    /// A decoder over an open session, and those that find tokens if the graph leaves its logits on
    /// a card; takes all its memory now.
    pub(crate) fn new(
        (session, finders): (Session, Option<FinderSessions>),
        (model, graph, runs): (Arc<str>, Graph, Arc<Runs>),
        size: Size,
        home: Home,
    ) -> Result<Self> {
        let mut buffers = match home {
            Home::Processor => Buffers::new()?,
            Home::Card { index, .. } => Buffers::with_card(&session, index)?,
        };
        let cache = Stripes::of_cache(&graph, size.slots, size.context);
        let blocks = Blocks::allocate(&mut buffers, &graph, &cache, size)?;
        let finders =
            finders.map(|sessions| Finders::new(&mut buffers, sessions, size)).transpose()?;
        let captures = matches!(home, Home::Card { captures: true, .. });
        Ok(Self {
            buffers,
            session,
            model,
            graph,
            size,
            blocks,
            cache,
            calls: BTreeMap::new(),
            capture: captures.then(|| Capture::new(size)),
            finders,
            rows: Rows::new(size.slots, size.context, captures),
            runs,
            next: vec![0; size.slots],
            asked: Vec::with_capacity(size.slots),
            places: (0, 0),
            widened: Vec::new(),
        })
    }

    /// Runs the graph over some rows, whose tokens, mask and positions are in their blocks.
    fn run(&mut self, rows: &Range<usize>, shapes: Shapes, kind: capture::Kind) -> Result<()> {
        let run = self.try_run(rows, shapes, kind);
        run.map_err(|error| self.failed(&error))
    }

    fn try_run(
        &mut self,
        rows: &Range<usize>,
        shapes: Shapes,
        kind: capture::Kind,
    ) -> ort::Result<()> {
        self.blocks.send(&mut self.buffers, shapes)?;
        let call = self.call(rows, shapes)?;
        let (current, has_adapter) = self.runs.options()?;
        let options = match &mut self.capture {
            Some(capture) if !has_adapter => {
                let options = Arc::clone(capture.options(shapes, kind)?);
                // A step that is stopped while it is captured could not be captured again.
                if kind == capture::Kind::Prompt {
                    self.runs.adopt(&options);
                }
                options
            }
            _ => current,
        };
        self.buffers.run(&mut self.session, call, Some(&options))
    }

    /// The prepared run over some rows, with tensors of these shapes.
    fn call(&mut self, rows: &Range<usize>, shapes: Shapes) -> ort::Result<CallId> {
        let key = (rows.start, rows.len());
        if let Some((call, before)) = self.calls.get(&key)
            && *before == shapes
        {
            return Ok(*call);
        }
        let (mut inputs, mut outputs) = self.blocks.parts(&self.graph, self.size, shapes);
        if let Some((call, before)) = self.calls.get_mut(&key) {
            self.buffers.set(*call, &inputs, &outputs)?;
            *before = shapes;
            return Ok(*call);
        }
        for (tensor, stripes) in self.graph.cache.iter().zip(&self.cache) {
            let part = stripes.part(self.blocks.cache, rows);
            inputs.push((&tensor.past, part.clone()));
            outputs.push((&tensor.present, part));
        }
        let call = self.buffers.prepare(&inputs, &outputs)?;
        self.calls.insert(key, (call, shapes));
        Ok(call)
    }

    /// Copies what one row holds to another.
    fn copy(&mut self, copy: Copy) -> Result<()> {
        if !self.graph.chooses {
            let bytes = self.buffers.slice_mut::<u8>(self.blocks.cache);
            for stripes in &self.cache {
                stripes.copy(bytes, copy);
            }
            return Ok(());
        }
        let pairs = self.cache.iter().flat_map(|stripes| stripes.pairs(self.blocks.cache, copy));
        let pairs: Vec<_> = pairs.collect();
        self.buffers.copy_now(&pairs).map_err(|error| self.failed(&error))
    }

    /// Writes the inputs of a step over some rows, each fed its next token.
    fn write_step(&mut self, span: &Range<usize>) -> Shapes {
        let held = |row: usize| self.rows.tokens(row).len().min(self.size.context - 1);
        let longest = span.clone().map(|row| held(row) + 1).max().unwrap_or(1);
        let width = match &self.capture {
            Some(_) => capture::width(longest),
            None => longest.next_multiple_of(MASK_STEP),
        };
        let shapes = Shapes { rows: span.len(), sequence: 1, width: width.min(self.size.context) };
        for row in span.clone() {
            let place = (row - span.start, shapes);
            let token = (&self.next[row..=row], held(row));
            self.blocks.write(&mut self.buffers, &self.graph, place, token);
        }
        shapes
    }

    /// Brings the choices of so many rows of a run, from the first on, to the processor, as far as
    /// they are wanted.
    fn fetch(&mut self, places: (usize, usize)) -> Result<()> {
        self.places = places;
        let fetched = self.try_fetch();
        fetched.map_err(|error| self.failed(&error))
    }

    fn try_fetch(&mut self) -> ort::Result<()> {
        let logits = self.logits_part();
        let Blocked::Packed(packed) = &mut self.blocks.integers else {
            return Ok(());
        };
        if self.asked.iter().any(|(_, wants)| *wants == Wants::Likeliest) {
            packed.fetch(&mut self.buffers, self.places)?;
        }
        match &mut self.finders {
            Some(finders) => finders.find(&mut self.buffers, logits, (&self.asked, self.places)),
            None => Ok(()),
        }
    }

    /// Where the logits of the last run lie.
    fn logits_part(&self) -> Logits {
        (self.blocks.logits, self.graph.logits.element, self.size.vocabulary)
    }

    /// All logits at a place of the last run.
    fn logits_at(&mut self, place: usize) -> Result<&mut [f32]> {
        let Size { vocabulary, .. } = self.size;
        let element = self.graph.logits.element;
        let Blocked::Packed(packed) = &self.blocks.integers else {
            let logits = (element, place * vocabulary..(place + 1) * vocabulary);
            let (buffers, block) = (&mut self.buffers, self.blocks.logits);
            return logits::read(buffers, block, logits, &mut self.widened);
        };
        let offset = element.byte_size(place * vocabulary).unwrap_or(usize::MAX);
        let from = Part::new((self.blocks.logits, offset), element, &[vocabulary]);
        let block = packed.fetch_row(&mut self.buffers, from);
        let block = block.map_err(|error| self.failed(&error))?;
        let logits = (element, 0..vocabulary);
        logits::read(&mut self.buffers, block, logits, &mut self.widened)
    }

    fn failed(&self, error: &ort::Error) -> Error {
        RunError::from(error).with_own_inputs().within(&self.model)
    }

    fn row_of(&self, slot: Slot) -> Result<usize> {
        self.rows.row(slot).ok_or_else(not_begun)
    }
}

impl Decoder for Shared {
    fn slots(&self) -> usize {
        self.size.slots
    }

    fn max_rows(&self) -> usize {
        self.size.slots
    }

    fn prefill_tokens(&self) -> usize {
        self.size.prefill_tokens
    }

    fn told_tokens(&self, most: usize) -> usize {
        if self.graph.logits.is_last_only { 1 } else { self.size.prefill_tokens.min(most) }
    }

    fn begin(&mut self, slot: Slot, prompt: &[Token], adapter: AdapterId) -> Result<usize> {
        let (held, copy) = self
            .rows
            .begin(slot, prompt, adapter)
            .ok_or_else(|| Error::internal("a slot was begun while every row was taken"))?;
        if let Some(copy) = copy {
            self.copy(copy)?;
        }
        Ok(held)
    }

    fn prefill(&mut self, slot: Slot, piece: Piece<'_>) -> Result<()> {
        let Piece { tokens, wants, .. } = piece;
        let row = self.row_of(slot)?;
        let held = self.rows.tokens(row).len();
        let shapes = Shapes { rows: 1, sequence: tokens.len(), width: held + tokens.len() };
        self.blocks.write(&mut self.buffers, &self.graph, (0, shapes), (tokens, held));
        self.run(&(row..row + 1), shapes, capture::Kind::Prompt)?;
        self.rows.extend(row, tokens);
        let last = if self.graph.logits.is_last_only { 0 } else { tokens.len() - 1 };
        self.asked.clear();
        self.asked.extend(wants.map(|wants| (last, wants)));
        self.fetch((last, 1))
    }

    fn logits_behind(&mut self, place: usize) -> Result<&[f32]> {
        // The logits of all that were fed are in their block until the next run.
        self.logits_at(place).map(|logits| &*logits)
    }

    fn decode(&mut self, rows: &[Row]) -> Result<()> {
        let slots = rows.iter().map(|row| row.slot);
        while let Some(copy) = self.rows.close_gap(&slots) {
            self.copy(copy)?;
        }
        let mut span = self.rows.span(&slots);
        if let Some(capture) = &self.capture {
            span.end = capture.rows(span.end);
        }
        self.asked.clear();
        self.next.fill(0);
        for row in rows {
            let place = self.row_of(row.slot)?;
            self.next[place] = row.token;
            self.asked.push((place - span.start, row.wants));
        }
        let shapes = self.write_step(&span);
        self.run(&span, shapes, capture::Kind::Step)?;
        for row in rows {
            let place = self.row_of(row.slot)?;
            self.rows.extend(place, &[row.token]);
        }
        self.fetch((0, span.len()))
    }

    fn scores(&mut self, index: usize) -> Result<Scores<'_>> {
        let (place, wants) = *self.asked.get(index).ok_or_else(not_run)?;
        let Blocked::Packed(packed) = &self.blocks.integers else {
            return self.logits_at(place).map(Scores::Logits);
        };
        if wants == Wants::Likeliest {
            let chosen = packed.chosen(&mut self.buffers, place - self.places.0);
            return Ok(Scores::Likeliest(chosen));
        }
        let logits = self.logits_part();
        let asked = (self.asked.as_slice(), self.places);
        let has = |finders: &mut Finders| finders.has(&mut self.buffers, logits, asked, index);
        if !self.finders.as_mut().is_some_and(has) {
            return self.logits_at(place).map(Scores::Logits);
        }
        let finders = self.finders.as_mut().ok_or_else(not_run)?;
        Ok(finders.scores(&mut self.buffers, (place - self.places.0, wants)))
    }

    fn draw(&mut self, index: usize, uniforms: Uniforms) -> Result<Option<Scores<'_>>> {
        let logits = self.logits_part();
        let asked = (self.asked.as_slice(), self.places);
        let drawn =
            |finders| Finders::draw(finders, &mut self.buffers, logits, asked, (index, uniforms));
        Ok(self.finders.as_mut().and_then(drawn))
    }

    fn logits(&mut self, index: usize) -> Result<Scores<'_>> {
        let place = self.asked.get(index).map(|(place, _)| *place);
        self.logits_at(place.ok_or_else(not_run)?).map(Scores::Logits)
    }

    fn release(&mut self, slot: Slot) {
        self.rows.release(slot);
    }
}
