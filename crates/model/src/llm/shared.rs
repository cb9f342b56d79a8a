//! A decoder over one cache of full length for all sequences, which computes many rows in a run.
//!
//! `GroupQueryAttention` writes each row's new keys and values into the cache in place, behind the
//! tokens that the row's mask counts. Rows are neighbours in the cache, so any range of them is a
//! tensor of its own: a prompt is fed straight into its row, and a step runs over the rows from
//! the first to the last that has a sequence. Nothing is copied or allocated from step to step.

mod inputs;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use consort_stage::{Error, Result};
use ort::session::Session;

use self::inputs::{Blocks, Shapes};
use super::buffers::{Buffers, CallId};
use super::decoder::{Decoder, Logits, Row, Slot, Token};
use super::graph::Graph;
use super::logits;
use super::rows::{Copy, Rows};
use super::stripes::Stripes;
use crate::run_error::RunError;

/// The mask of a step is as wide as its longest row, rounded up to this, so that most steps have
/// the shapes of the one before.
const MASK_STEP: usize = 64;

/// A session, its cache and what lies in it.
pub(crate) struct Shared {
    session: Session,
    model: Arc<str>,
    graph: Graph,
    size: Size,
    buffers: Buffers,
    blocks: Blocks,
    cache: Vec<Stripes>,
    /// The runs that were prepared, by their first row and how many they have.
    calls: BTreeMap<(usize, usize), (CallId, Shapes)>,
    rows: Rows,
    /// The token that each row is fed next.
    next: Vec<Token>,
    /// Where in the last run each of the rows asked for was.
    places: Vec<usize>,
    /// The logits of the last run where the graph's have half the width.
    widened: Vec<f32>,
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
    /// A decoder over an open session on the processor; takes all its memory now.
    pub(crate) fn new(session: Session, model: Arc<str>, graph: Graph, size: Size) -> Result<Self> {
        let mut buffers = Buffers::new()?;
        let cache = Stripes::of_cache(&graph, size.slots, size.context);
        let blocks = Blocks::allocate(&mut buffers, &graph, &cache, size)?;
        Ok(Self {
            session,
            model,
            graph,
            size,
            buffers,
            blocks,
            cache,
            calls: BTreeMap::new(),
            rows: Rows::new(size.slots, size.context),
            next: vec![0; size.slots],
            places: Vec::with_capacity(size.slots),
            widened: Vec::new(),
        })
    }

    /// Runs the graph over some rows, whose tokens, mask and positions are in their blocks.
    fn run(&mut self, rows: &Range<usize>, shapes: Shapes) -> Result<()> {
        let run = self.call(rows, shapes);
        let run = run.and_then(|call| self.buffers.run(&mut self.session, call));
        run.map_err(|error| RunError::from(&error).with_own_inputs().within(&self.model))
    }

    /// The prepared run over some rows, with tensors of these shapes.
    fn call(&mut self, rows: &Range<usize>, shapes: Shapes) -> ort::Result<CallId> {
        let key = (rows.start, rows.len());
        if let Some((call, before)) = self.calls.get(&key)
            && *before == shapes
        {
            return Ok(*call);
        }
        let (mut inputs, logits) = self.blocks.parts(&self.graph, self.size, shapes);
        if let Some((call, before)) = self.calls.get_mut(&key) {
            for (index, (_, part)) in inputs.iter().enumerate() {
                self.buffers.set_input(*call, index, part)?;
            }
            self.buffers.set_output(*call, 0, &logits.1)?;
            *before = shapes;
            return Ok(*call);
        }
        let mut outputs = vec![logits];
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
    fn copy(&mut self, copy: Copy) {
        let bytes = self.buffers.slice_mut::<u8>(self.blocks.cache);
        for stripes in &self.cache {
            stripes.copy(bytes, copy);
        }
    }

    /// Writes the inputs of a step over some rows, each fed its next token.
    fn write_step(&mut self, span: &Range<usize>) -> Shapes {
        let held = |row: usize| self.rows.tokens(row).len().min(self.size.context - 1);
        let longest = span.clone().map(|row| held(row) + 1).max().unwrap_or(1);
        let width = longest.next_multiple_of(MASK_STEP).min(self.size.context);
        for row in span.clone() {
            let place = (row - span.start, width);
            let token = (self.next[row], held(row));
            self.blocks.write_row(&mut self.buffers, &self.graph, place, token);
        }
        Shapes { rows: span.len(), sequence: 1, width }
    }

    fn row_of(&self, slot: Slot) -> Result<usize> {
        self.rows.row(slot).ok_or_else(|| Error::internal("a slot was fed before it was begun"))
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

    fn begin(&mut self, slot: Slot, prompt: &[Token]) -> Result<usize> {
        let (held, copy) = self
            .rows
            .begin(slot, prompt)
            .ok_or_else(|| Error::internal("a slot was begun while every row was taken"))?;
        if let Some(copy) = copy {
            self.copy(copy);
        }
        Ok(held)
    }

    fn prefill(&mut self, slot: Slot, tokens: &[Token]) -> Result<&mut [f32]> {
        let row = self.row_of(slot)?;
        let held = self.rows.tokens(row).len();
        let shapes = Shapes { rows: 1, sequence: tokens.len(), width: held + tokens.len() };
        self.blocks.write_prompt(&mut self.buffers, &self.graph, tokens, held);
        self.run(&(row..row + 1), shapes)?;
        self.rows.extend(row, tokens);
        let last = if self.graph.logits.is_last_only { 0 } else { tokens.len() - 1 };
        let (block, element) = (self.blocks.logits, self.graph.logits.element);
        let range = last * self.size.vocabulary..(last + 1) * self.size.vocabulary;
        logits::read(&mut self.buffers, block, (element, range), &mut self.widened)
    }

    fn decode(&mut self, rows: &[Row]) -> Result<Logits<'_>> {
        let slots = rows.iter().map(|row| row.slot);
        while let Some(copy) = self.rows.close_gap(&slots) {
            self.copy(copy);
        }
        let span = self.rows.span(&slots);
        self.places.clear();
        self.next.fill(0);
        for row in rows {
            let place = self.row_of(row.slot)?;
            self.next[place] = row.token;
            self.places.push(place - span.start);
        }
        let shapes = self.write_step(&span);
        self.run(&span, shapes)?;
        for row in rows {
            let place = self.row_of(row.slot)?;
            self.rows.extend(place, &[row.token]);
        }
        let vocabulary = self.size.vocabulary;
        let (block, element) = (self.blocks.logits, self.graph.logits.element);
        let range = 0..span.len() * vocabulary;
        let values = logits::read(&mut self.buffers, block, (element, range), &mut self.widened)?;
        Ok(Logits { values, vocabulary, places: &self.places })
    }

    fn release(&mut self, slot: Slot) {
        self.rows.release(slot);
    }
}
