//! Finds the likeliest tokens of a run's rows where their logits lie, so that those come back and
//! not a vocabulary. A graph of its own, which is run only after steps that have such rows.

use std::collections::BTreeMap;

use consort_stage::Result;
use ort::session::Session;
use ort::value::TensorElementType;

use super::Size;
use super::inputs::no_memory;
use crate::llm::buffers::{BlockId, Buffers, CallId, Part};
use crate::llm::choosing::{LARGEST_SCORES, MOST, SCORES, TOP_TOKENS};
use crate::llm::decoder::{Token, Wants};

/// The graph's session, and what it found.
pub(super) struct Picker {
    session: Session,
    /// The processor's blocks for what is found.
    largest: BlockId,
    tokens: BlockId,
    /// The prepared runs over so many rows, and the first of them.
    calls: BTreeMap<usize, (CallId, usize)>,
    found: Vec<(Token, f32)>,
}

impl Picker {
    /// One over a session of the graph that [`top`](crate::llm::choosing::top) makes.
    pub(super) fn new(buffers: &mut Buffers, session: Session, size: Size) -> Result<Self> {
        let numbers = size.slots * MOST;
        let mut allocate =
            |bytes: usize| buffers.allocate(bytes).ok_or_else(|| no_memory(size, bytes));
        let largest = allocate(numbers * size_of::<f32>())?;
        let tokens = allocate(numbers * size_of::<i64>())?;
        Ok(Self { session, largest, tokens, calls: BTreeMap::new(), found: Vec::new() })
    }

    /// Whether it finds what is wanted.
    pub(super) fn serves(wants: Wants) -> bool {
        matches!(wants, Wants::Top(most) if most <= MOST)
    }

    /// Finds the likeliest tokens of so many rows of logits, from the first on.
    pub(super) fn find(
        &mut self,
        buffers: &mut Buffers,
        logits: (BlockId, TensorElementType, usize),
        (first, count): (usize, usize),
    ) -> ort::Result<()> {
        let (block, element, vocabulary) = logits;
        let scores = Part {
            block,
            offset: element.byte_size(first * vocabulary).unwrap_or(usize::MAX),
            element,
            shape: vec![count as i64, vocabulary as i64],
        };
        if let Some((call, before)) = self.calls.get_mut(&count) {
            if *before != first {
                buffers.set_input(*call, 0, &scores)?;
                *before = first;
            }
            return buffers.run(&mut self.session, *call, None);
        }
        let part = |block, element| Part {
            block,
            offset: 0,
            element,
            shape: vec![count as i64, MOST as i64],
        };
        let largest = part(self.largest, TensorElementType::Float32);
        let tokens = part(self.tokens, TensorElementType::Int64);
        let outputs = [(LARGEST_SCORES, largest), (TOP_TOKENS, tokens)];
        let call = buffers.prepare(&[(SCORES, scores)], &outputs)?;
        self.calls.insert(count, (call, first));
        buffers.run(&mut self.session, call, None)
    }

    /// What was found for one of the rows, from the likeliest down.
    pub(super) fn row(&mut self, buffers: &mut Buffers, index: usize) -> &[(Token, f32)] {
        let row = index * MOST..(index + 1) * MOST;
        let tokens = buffers.slice_mut::<i64>(self.tokens).get(row.clone()).unwrap_or_default();
        self.found.clear();
        self.found.extend(tokens.iter().map(|token| (*token as Token, 0.0)));
        let largest = buffers.slice_mut::<f32>(self.largest).get(row).unwrap_or_default();
        for ((_, found), logit) in self.found.iter_mut().zip(largest) {
            *found = *logit;
        }
        &self.found
    }
}
