//! Draws tokens from all of a vocabulary where the logits of a run's rows lie, for rows whose
//! likeliest tokens are not enough. A graph of its own, which is run only after steps that have such
//! rows.

use std::collections::BTreeMap;

use consort_stage::Result;
use ort::session::Session;
use ort::value::TensorElementType;

use super::Size;
use super::finders::Asked;
use super::inputs::no_memory;
use crate::llm::buffers::{BlockId, Buffers, CallId, Part};
use crate::llm::choosing::{COOLNESS, SCORES};
use crate::llm::decoder::{Drawn, Lots, Token, Wants};
use crate::llm::drawing::{self, BEFORE, DRAWN, DRAWN_PROBABILITIES, LOTS};

/// How many numbers the graph works with at once at most: 128 MB of each of a handful of tensors.
const MOST_NUMBERS: usize = 1 << 25;
/// How many lots a row has at most.
const MOST_LOTS: usize = size_of::<Lots>() / size_of::<f32>();

/// Where the logits of a run's rows lie: the block, their type, and how many tokens there are.
pub(in crate::llm) type Logits = (BlockId, TensorElementType, usize);

/// The graph's session, and what was drawn.
pub(in crate::llm) struct Drawer {
    session: Session,
    size: Size,
    /// The processor's blocks: one over each row's temperature, its lots, and what they fell on.
    /// Behind those of all rows is room for a row that is drawn again.
    coolness: BlockId,
    lots: BlockId,
    tokens: BlockId,
    probabilities: BlockId,
    before: BlockId,
    /// The prepared runs: over how many rows, with how many lots, and whether again; and the first
    /// of the rows.
    calls: BTreeMap<(usize, usize, bool), (CallId, usize)>,
    /// The lots of each row of the last run, and what they fell on; how many of each.
    asked: Vec<Lots>,
    count: usize,
    drawn: Vec<Drawn>,
    /// Whether a run has failed, for want of memory, after which none is tried any more.
    is_broken: bool,
}

impl Drawer {
    /// One over a session of the graph that [`drawing::graph`] makes.
    pub(in crate::llm) fn new(buffers: &mut Buffers, session: Session, size: Size) -> Result<Self> {
        let mut allocate = |each: usize| {
            let bytes = (size.slots + 1) * each;
            buffers.allocate(bytes).ok_or_else(|| no_memory(size, bytes))
        };
        Ok(Self {
            session,
            size,
            coolness: allocate(size_of::<f32>())?,
            lots: allocate(size_of::<Lots>())?,
            tokens: allocate(MOST_LOTS * size_of::<i64>())?,
            probabilities: allocate(size_of::<Lots>())?,
            before: allocate(size_of::<Lots>())?,
            calls: BTreeMap::new(),
            asked: Vec::with_capacity(size.slots),
            count: 0,
            drawn: Vec::with_capacity(MOST_LOTS),
            is_broken: false,
        })
    }

    /// Forgets what was drawn: the logits are those of another run.
    pub(in crate::llm) fn forget(&mut self) {
        self.count = 0;
    }

    /// Finds what these lots, or the first of them, fall on in one of a run's rows, whose places
    /// are from `first` on; whether that could be done.
    ///
    /// All rows are drawn at once when the first of them asks. One that asks with other lots than it
    /// told is drawn again.
    pub(in crate::llm) fn draw(
        &mut self,
        buffers: &mut Buffers,
        logits: Logits,
        (asked, (first, rows)): Asked<'_>,
        (index, lots): (usize, Lots),
    ) -> bool {
        let row = asked.get(index).filter(|_| !self.is_broken);
        let Some((place, wants)) = row.copied() else {
            return false;
        };
        let Some((temperature, _)) = draw_of(wants) else {
            return false;
        };
        let most = self.most_lots(rows);
        let wanted = if matches!(wants, Wants::Free { .. }) { 1 } else { most };
        let drawn = if self.count < wanted {
            self.write_all(buffers, asked, (first, rows), wanted);
            self.run(buffers, logits, (first, rows), (wanted, false))
        } else {
            Ok(())
        };
        let is_told = self.asked.get(place - first) == Some(&lots);
        let drawn = match drawn {
            Ok(()) if !is_told => {
                self.write(buffers, self.size.slots, (temperature, lots), most);
                self.run(buffers, logits, (place, 1), (most, true))
            }
            other => other,
        };
        if let Err(error) = drawn {
            tracing::error!(
                "tokens cannot be drawn on the card, and every logit is read instead: {error}"
            );
            self.is_broken = true;
            return false;
        }
        if is_told {
            self.read(buffers, (place - first) * self.count, self.count);
        } else {
            self.read(buffers, self.size.slots * MOST_LOTS, most);
        }
        true
    }

    /// What it found last.
    pub(in crate::llm) fn drawn(&self) -> &[Drawn] {
        &self.drawn
    }

    /// How many lots each of so many rows has: fewer of many, and a power of two, so that no row is
    /// given up sooner beside many others.
    fn most_lots(&self, rows: usize) -> usize {
        let numbers = rows * drawing::width(self.size.vocabulary);
        let most = (MOST_NUMBERS / numbers.max(1)).clamp(1, MOST_LOTS);
        if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 }
    }

    fn write_all(
        &mut self,
        buffers: &mut Buffers,
        asked: &[(usize, Wants)],
        (first, rows): (usize, usize),
        count: usize,
    ) {
        self.count = count;
        self.asked.clear();
        self.asked.resize(rows, Lots::default());
        for row in 0..rows {
            self.write(buffers, row, (1.0, Lots::default()), count);
        }
        for (place, wants) in asked {
            if let Some((temperature, lots)) = draw_of(*wants) {
                self.asked[place - first] = lots;
                self.write(buffers, place - first, (temperature, lots), count);
            }
        }
    }

    fn write(
        &self,
        buffers: &mut Buffers,
        row: usize,
        (temperature, lots): (f32, Lots),
        count: usize,
    ) {
        buffers.slice_mut::<f32>(self.coolness)[row] = temperature.recip();
        // Those of all rows lie one behind the other, however many each has.
        let start = if row == self.size.slots { row * MOST_LOTS } else { row * count };
        let places = &mut buffers.slice_mut::<f32>(self.lots)[start..start + count];
        places.copy_from_slice(&lots[..count]);
    }

    fn run(
        &mut self,
        buffers: &mut Buffers,
        (block, element, vocabulary): Logits,
        (first, rows): (usize, usize),
        (count, is_again): (usize, bool),
    ) -> ort::Result<()> {
        let offset = element.byte_size(first * vocabulary).unwrap_or(usize::MAX);
        let scores = Part::new((block, offset), element, &[rows, vocabulary]);
        let key = (rows, count, is_again);
        if let Some((call, before)) = self.calls.get_mut(&key) {
            if *before != first {
                buffers.set_input(*call, 0, &scores)?;
                *before = first;
            }
            return buffers.run(&mut self.session, *call, None);
        }
        let row = if is_again { self.size.slots } else { 0 };
        let (float, wide) = (TensorElementType::Float32, TensorElementType::Int64);
        let coolness = Part::new((self.coolness, row * size_of::<f32>()), float, &[rows, 1]);
        let part = |block, element: TensorElementType, shape: &[usize]| {
            let offset = element.byte_size(row * MOST_LOTS).unwrap_or(usize::MAX);
            Part::new((block, offset), element, shape)
        };
        let inputs = [
            (SCORES, scores),
            (COOLNESS, coolness),
            (LOTS, part(self.lots, float, &[rows, count])),
        ];
        let outputs = [
            (DRAWN, part(self.tokens, wide, &[rows, count])),
            (DRAWN_PROBABILITIES, part(self.probabilities, float, &[rows, count, 1])),
            (BEFORE, part(self.before, float, &[rows, count])),
        ];
        let call = buffers.prepare(&inputs, &outputs)?;
        self.calls.insert(key, (call, first));
        buffers.run(&mut self.session, call, None)
    }

    /// Gathers what so many lots fell on, whose results begin at a place.
    fn read(&mut self, buffers: &mut Buffers, start: usize, count: usize) {
        let range = start..start + count;
        self.drawn.clear();
        let tokens = &buffers.slice_mut::<i64>(self.tokens)[range.clone()];
        let drawn = |token: &i64| Drawn { token: *token as Token, probability: 0.0, before: 0.0 };
        self.drawn.extend(tokens.iter().map(drawn));
        let probabilities = &buffers.slice_mut::<f32>(self.probabilities)[range.clone()];
        for (drawn, probability) in self.drawn.iter_mut().zip(probabilities) {
            drawn.probability = *probability;
        }
        for (drawn, before) in
            self.drawn.iter_mut().zip(&buffers.slice_mut::<f32>(self.before)[range])
        {
            drawn.before = *before;
        }
    }
}

/// The temperature at which a row is drawn, and its lots; `None` for one that is not.
fn draw_of(wants: Wants) -> Option<(f32, Lots)> {
    match wants {
        Wants::Draw { temperature, lots } | Wants::Free { temperature, lots } => {
            Some((temperature, lots))
        }
        Wants::Likeliest | Wants::Top(_) | Wants::Logits => None,
    }
}
