//! Finds the likeliest tokens of a run's rows where their logits lie, so that those come back and
//! not a vocabulary. A graph of its own, which is run only after steps that have such rows.

use std::collections::BTreeMap;

use consort_stage::Result;
use ort::session::Session;
use ort::value::TensorElementType;

use super::Size;
use super::drawer::Logits;
use super::inputs::no_memory;
use crate::llm::buffers::{BlockId, Buffers, CallId, Part};
use crate::llm::choosing::{
    COOLNESS, COUNT, LARGEST_SCORES, MOST, MOST_OF_ALL, PROBABILITIES, SCORES, TOP_TOKENS,
};
use crate::llm::decoder::{Scores, Token, Wants};

/// The graph's session, and what it found.
pub(in crate::llm) struct Picker {
    session: Session,
    /// The processor's blocks for what is found.
    largest: BlockId,
    tokens: BlockId,
    probabilities: BlockId,
    /// One over each row's temperature.
    coolness: BlockId,
    /// The numbers of tokens that may be found: the usual one, and the largest.
    counts: BlockId,
    /// How many are found of each row in the next run, and were in the last.
    count: usize,
    most: usize,
    /// The prepared runs over so many rows that find so many tokens, and the first of the rows.
    calls: BTreeMap<(usize, usize), (CallId, usize)>,
    found: Vec<(Token, f32)>,
}

impl Picker {
    /// One over a session of the graph that [`top`](crate::llm::choosing::top) makes.
    pub(in crate::llm) fn new(buffers: &mut Buffers, session: Session, size: Size) -> Result<Self> {
        let most = MOST_OF_ALL.min(size.vocabulary);
        let numbers = size.slots * most;
        let mut allocate =
            |bytes: usize| buffers.allocate(bytes).ok_or_else(|| no_memory(size, bytes));
        let largest = allocate(numbers * size_of::<f32>())?;
        let tokens = allocate(numbers * size_of::<i64>())?;
        let probabilities = allocate(numbers * size_of::<f32>())?;
        let coolness = allocate(size.slots * size_of::<f32>())?;
        let counts = allocate(2 * size_of::<i64>())?;
        buffers.slice_mut::<i64>(counts)[..2].copy_from_slice(&[MOST as i64, most as i64]);
        Ok(Self {
            session,
            largest,
            tokens,
            probabilities,
            coolness,
            counts,
            count: MOST,
            most,
            calls: BTreeMap::new(),
            found: Vec::new(),
        })
    }

    /// Whether it finds what is wanted.
    pub(in crate::llm) fn serves(&self, wants: Wants) -> bool {
        match wants {
            Wants::Top(most) => most <= self.most,
            Wants::Draw { .. } => true,
            Wants::Likeliest | Wants::Free { .. } | Wants::Logits => false,
        }
    }

    /// Notes what is wanted of rows of the next run, by their places from the first of it on.
    pub(in crate::llm) fn ask(
        &mut self,
        buffers: &mut Buffers,
        wanted: impl Iterator<Item = (usize, Wants)>,
    ) {
        let coolness = buffers.slice_mut::<f32>(self.coolness);
        coolness.fill(1.0);
        self.count = MOST;
        for (place, wants) in wanted {
            if matches!(wants, Wants::Top(most) if most > MOST && most <= self.most) {
                self.count = self.most;
            }
            if let Wants::Draw { temperature, .. } = wants
                && let Some(coolness) = coolness.get_mut(place)
            {
                *coolness = temperature.recip();
            }
        }
    }

    /// Finds the likeliest tokens of so many rows of logits, from the first on.
    pub(in crate::llm) fn find(
        &mut self,
        buffers: &mut Buffers,
        logits: Logits,
        (first, count): (usize, usize),
    ) -> ort::Result<()> {
        let (block, element, vocabulary) = logits;
        let offset = element.byte_size(first * vocabulary).unwrap_or(usize::MAX);
        let scores = Part::new((block, offset), element, &[count, vocabulary]);
        let key = (count, self.count);
        if let Some((call, before)) = self.calls.get_mut(&key) {
            if *before != first {
                buffers.set_input(*call, 0, &scores)?;
                *before = first;
            }
            return buffers.run(&mut self.session, *call, None);
        }
        let part = |block, element, width| Part::new((block, 0), element, &[count, width]);
        let (float, wide) = (TensorElementType::Float32, TensorElementType::Int64);
        let place = if self.count == MOST { 0 } else { size_of::<i64>() };
        let inputs = [
            (SCORES, scores),
            (COOLNESS, part(self.coolness, float, 1)),
            (COUNT, Part::new((self.counts, place), wide, &[1])),
        ];
        let outputs = [
            (LARGEST_SCORES, part(self.largest, float, self.count)),
            (TOP_TOKENS, part(self.tokens, wide, self.count)),
            (PROBABILITIES, part(self.probabilities, float, self.count)),
        ];
        let call = buffers.prepare(&inputs, &outputs)?;
        self.calls.insert(key, (call, first));
        buffers.run(&mut self.session, call, None)
    }

    /// What was found for one of the rows.
    pub(in crate::llm) fn row(
        &mut self,
        buffers: &mut Buffers,
        (index, wants): (usize, Wants),
    ) -> Scores<'_> {
        // What is drawn depends on how many are seen, and so not on what others ask for.
        let seen = if matches!(wants, Wants::Draw { .. }) { MOST } else { self.count };
        let row = index * self.count..index * self.count + seen;
        let tokens = buffers.slice_mut::<i64>(self.tokens).get(row.clone()).unwrap_or_default();
        self.found.clear();
        self.found.extend(tokens.iter().map(|token| (*token as Token, 0.0)));
        let is_drawn = matches!(wants, Wants::Draw { .. });
        let numbers = if is_drawn { self.probabilities } else { self.largest };
        let numbers = buffers.slice_mut::<f32>(numbers).get(row).unwrap_or_default();
        for ((_, found), number) in self.found.iter_mut().zip(numbers) {
            *found = *number;
        }
        if is_drawn {
            return Scores::Draw(&self.found);
        }
        Scores::Top(&self.found)
    }
}
