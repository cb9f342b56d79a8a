//! Draws tokens from all of a vocabulary where the logits of a run's rows lie, for rows whose
//! likeliest tokens are not enough. A graph of its own, which is run only after steps that have such
//! rows.

use consort_stage::Result;
use ort::session::Session;
use ort::value::TensorElementType;

use super::Size;
use super::finders::Asked;
use super::inputs::no_memory;
use super::prepared::{Logits, Prepared, rows_of};
use crate::llm::buffers::{BlockId, Buffers, Part};
use crate::llm::choosing::{INVERSE_TEMPERATURES, SCORES};
use crate::llm::decoder::{Drawn, Token, Uniforms, Wants};
use crate::llm::drawing::{self, CUMULATIVE, DRAWN, DRAWN_PROBABILITIES, UNIFORMS};

/// How many numbers the graph works with at once at most: 128 MB of each of a handful of tensors.
const MOST_NUMBERS: usize = 1 << 25;
/// How many runs of the model pass before another is tried where one failed: what was lacking may be
/// there again then, and till then nothing is lost on trying.
const RESTED: usize = 256;
/// How many random numbers a row has at most.
const MOST_UNIFORMS: usize = size_of::<Uniforms>() / size_of::<f32>();

/// The graph's session, and what was drawn.
pub(in crate::llm) struct Drawer {
    session: Session,
    size: Size,
    /// The processor's blocks: one over each row's temperature, its random numbers, and what they
    /// fell on. Behind those of all rows is room for a row that is drawn again.
    inverse_temperatures: BlockId,
    uniforms: BlockId,
    tokens: BlockId,
    probabilities: BlockId,
    cumulative: BlockId,
    /// How many numbers it works with at once at most.
    most_numbers: usize,
    /// The runs: from which place of the blocks on, over how many rows, and with how many random
    /// numbers.
    calls: Prepared<(usize, usize, usize)>,
    /// The random numbers of each row of the last run, and what they fell on; how many of each.
    asked: Vec<Uniforms>,
    count: usize,
    drawn: Vec<Drawn>,
    /// How many runs of the model pass until another is tried, since one failed, as for want of
    /// memory; and whether that has been said.
    rests: usize,
    is_reported: bool,
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
            inverse_temperatures: allocate(size_of::<f32>())?,
            uniforms: allocate(size_of::<Uniforms>())?,
            tokens: allocate(MOST_UNIFORMS * size_of::<i64>())?,
            probabilities: allocate(size_of::<Uniforms>())?,
            cumulative: allocate(size_of::<Uniforms>())?,
            most_numbers: MOST_NUMBERS,
            calls: Prepared::new(),
            asked: Vec::with_capacity(size.slots),
            count: 0,
            drawn: Vec::with_capacity(MOST_UNIFORMS),
            rests: 0,
            is_reported: false,
        })
    }

    /// Forgets what was drawn: the logits are those of another run.
    pub(in crate::llm) fn forget(&mut self) {
        self.count = 0;
        self.rests = self.rests.saturating_sub(1);
    }

    /// Finds what these random numbers, or the first of them, fall on in one of a run's rows, whose
    /// places are from `first` on; whether that could be done.
    ///
    /// All rows are drawn at once when the first of them asks. One that asks with other random
    /// numbers than it told is drawn again.
    pub(in crate::llm) fn draw(
        &mut self,
        buffers: &mut Buffers,
        logits: Logits,
        (asked, (first, rows)): Asked<'_>,
        (index, uniforms): (usize, Uniforms),
    ) -> bool {
        let row = asked.get(index).filter(|_| self.rests == 0);
        let Some((place, wants)) = row.copied() else {
            return false;
        };
        let Some((temperature, _)) = draw_of(wants) else {
            return false;
        };
        let most = self.most_uniforms(rows);
        let wanted = if matches!(wants, Wants::Free { .. }) { 1 } else { most };
        let drawn = if self.count < wanted {
            self.write_all(buffers, asked, (first, rows), wanted);
            self.run_all(buffers, logits, (first, rows), wanted)
        } else {
            Ok(())
        };
        let is_told = self.asked.get(place - first) == Some(&uniforms);
        let drawn = match drawn {
            Ok(()) if !is_told => {
                self.write(buffers, self.size.slots, (temperature, uniforms), most);
                self.run(buffers, logits, (place, 1), (self.size.slots, most))
            }
            other => other,
        };
        if let Err(error) = drawn {
            self.rest(&error);
            return false;
        }
        if is_told {
            self.read(buffers, self.start(place - first, self.count), self.count);
        } else {
            self.read(buffers, self.start(self.size.slots, most), most);
        }
        true
    }

    /// Draws nothing for a while, since a run has failed.
    fn rest(&mut self, error: &ort::Error) {
        if !std::mem::replace(&mut self.is_reported, true) {
            tracing::error!(
                "tokens cannot be drawn on the card; every logit is read instead, and drawing tried \
                 again every {RESTED} steps: {error}"
            );
        }
        self.count = 0;
        self.rests = RESTED;
    }

    /// What it found last.
    pub(in crate::llm) fn drawn(&self) -> &[Drawn] {
        &self.drawn
    }

    /// How many random numbers each of so many rows has: fewer of many, and a power of two, so that
    /// no row is given up sooner beside many others.
    fn most_uniforms(&self, rows: usize) -> usize {
        let numbers = rows.min(self.most_rows()) * drawing::width(self.size.vocabulary);
        let most = (self.most_numbers / numbers.max(1)).clamp(1, MOST_UNIFORMS);
        if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 }
    }

    /// How many rows a run has.
    fn most_rows(&self) -> usize {
        (self.most_numbers / drawing::width(self.size.vocabulary).max(1)).max(1)
    }

    /// Where the random numbers of a row begin, and what they fell on: those of all rows lie one
    /// behind the other, however many each has.
    fn start(&self, row: usize, count: usize) -> usize {
        if row == self.size.slots { row * MOST_UNIFORMS } else { row * count }
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
        self.asked.resize(rows, Uniforms::default());
        for row in 0..rows {
            self.write(buffers, row, (1.0, Uniforms::default()), count);
        }
        for (place, wants) in asked {
            if let Some((temperature, uniforms)) = draw_of(*wants) {
                self.asked[place - first] = uniforms;
                self.write(buffers, place - first, (temperature, uniforms), count);
            }
        }
    }

    fn write(
        &self,
        buffers: &mut Buffers,
        row: usize,
        (temperature, uniforms): (f32, Uniforms),
        count: usize,
    ) {
        buffers.slice_mut::<f32>(self.inverse_temperatures)[row] = temperature.recip();
        let start = self.start(row, count);
        let places = &mut buffers.slice_mut::<f32>(self.uniforms)[start..start + count];
        places.copy_from_slice(&uniforms[..count]);
    }

    /// Draws so many random numbers of each of some rows, as many rows at once as may be.
    fn run_all(
        &mut self,
        buffers: &mut Buffers,
        logits: Logits,
        (first, rows): (usize, usize),
        count: usize,
    ) -> ort::Result<()> {
        let most = self.most_rows();
        for row in (0..rows).step_by(most) {
            let part = (first + row, most.min(rows - row));
            self.run(buffers, logits, part, (row, count))?;
        }
        Ok(())
    }

    /// Draws so many random numbers of each of some rows, whose own begin at `row` of the blocks.
    fn run(
        &mut self,
        buffers: &mut Buffers,
        logits: Logits,
        (first, rows): (usize, usize),
        (row, count): (usize, usize),
    ) -> ort::Result<()> {
        let scores = rows_of(logits, (first, rows));
        let key = (row, rows, count);
        if let Some(call) = self.calls.over(buffers, &key, (first, &scores))? {
            return buffers.run(&mut self.session, call, None);
        }
        let start = self.start(row, count);
        let (float, wide) = (TensorElementType::Float32, TensorElementType::Int64);
        let inverse_temperatures =
            Part::new((self.inverse_temperatures, row * size_of::<f32>()), float, &[rows, 1]);
        let part = |block, element: TensorElementType, shape: &[usize]| {
            let offset = element.byte_size(start).unwrap_or(usize::MAX);
            Part::new((block, offset), element, shape)
        };
        let inputs = [
            (SCORES, scores),
            (INVERSE_TEMPERATURES, inverse_temperatures),
            (UNIFORMS, part(self.uniforms, float, &[rows, count])),
        ];
        let outputs = [
            (DRAWN, part(self.tokens, wide, &[rows, count])),
            (DRAWN_PROBABILITIES, part(self.probabilities, float, &[rows, count, 1])),
            (CUMULATIVE, part(self.cumulative, float, &[rows, count])),
        ];
        let call = self.calls.keep(key, buffers.prepare(&inputs, &outputs)?, first);
        buffers.run(&mut self.session, call, None)
    }

    /// Gathers what so many random numbers fell on, whose results begin at a place.
    fn read(&mut self, buffers: &mut Buffers, start: usize, count: usize) {
        let range = start..start + count;
        self.drawn.clear();
        let tokens = &buffers.slice_mut::<i64>(self.tokens)[range.clone()];
        let drawn =
            |token: &i64| Drawn { token: *token as Token, probability: 0.0, cumulative: 0.0 };
        self.drawn.extend(tokens.iter().map(drawn));
        let probabilities = &buffers.slice_mut::<f32>(self.probabilities)[range.clone()];
        for (drawn, probability) in self.drawn.iter_mut().zip(probabilities) {
            drawn.probability = *probability;
        }
        for (drawn, cumulative) in
            self.drawn.iter_mut().zip(&buffers.slice_mut::<f32>(self.cumulative)[range])
        {
            drawn.cumulative = *cumulative;
        }
    }
}

/// The temperature at which a row is drawn, and its random numbers; `None` for one that is not.
fn draw_of(wants: Wants) -> Option<(f32, Uniforms)> {
    match wants {
        Wants::Draw { temperature, uniforms } | Wants::Free { temperature, uniforms } => {
            Some((temperature, uniforms))
        }
        Wants::Likeliest | Wants::Top(_) | Wants::Logits => None,
    }
}

#[cfg(test)]
mod tests {
    use ort::session::builder::SessionBuilder;

    use super::*;
    use crate::runtime::Runtime;

    const SIZE: Size = Size { slots: 5, context: 8, prefill_tokens: 8, vocabulary: 300 };
    const FLOAT: TensorElementType = TensorElementType::Float32;

    fn drawer(most_numbers: usize) -> (Buffers, Drawer, Logits) {
        let environment = &Runtime::get().expect("run `cargo xtask setup`").environment;
        let model = drawing::graph(FLOAT, SIZE.vocabulary).unwrap();
        let session = SessionBuilder::new(environment).unwrap().commit_from_memory(&model).unwrap();
        let mut buffers = Buffers::new().unwrap();
        let numbers = SIZE.slots * SIZE.vocabulary;
        let block = buffers.allocate(numbers * size_of::<f32>()).unwrap();
        let logits = buffers.slice_mut::<f32>(block).iter_mut().enumerate();
        logits.for_each(|(index, logit)| *logit = (index * 7 % 31) as f32 / 10.0);
        let drawer = Drawer::new(&mut buffers, session, SIZE).unwrap();
        (buffers, Drawer { most_numbers, ..drawer }, (block, FLOAT, SIZE.vocabulary))
    }

    fn asked() -> Vec<(usize, Wants)> {
        let wants = |place: usize| {
            let number = place as f32 / 10.0;
            let uniforms = [number, 0.9 - number, number / 2.0, 0.5];
            Wants::Draw { temperature: 1.0 - number, uniforms }
        };
        (0..SIZE.slots).map(|place| (place, wants(place))).collect()
    }

    /// What the random numbers of each row fall on, the first of them.
    fn drawn(buffers: &mut Buffers, drawer: &mut Drawer, logits: Logits) -> Vec<Drawn> {
        let asked = asked();
        drawer.forget();
        let draw = |index: usize| {
            let (_, uniforms) = draw_of(asked[index].1).unwrap();
            let rows = (asked.as_slice(), (0, SIZE.slots));
            drawer.draw(buffers, logits, rows, (index, uniforms)).then(|| drawer.drawn()[0])
        };
        (0..SIZE.slots).map_while(draw).collect()
    }

    #[test]
    fn rows_are_drawn_in_runs_that_work_with_no_more_numbers_than_may_be() {
        let width = drawing::width(SIZE.vocabulary);
        let (mut buffers, mut whole, logits) = drawer(MOST_NUMBERS);
        let expected = drawn(&mut buffers, &mut whole, logits);
        assert_eq!((expected.len(), whole.calls.keys().len()), (SIZE.slots, 1));
        for (rows, uniforms) in [(1, 1), (2, 1), (3, 1), (5, 2), (5, 4)] {
            let (mut buffers, mut drawer, logits) = drawer(rows * uniforms * width);
            assert_eq!(drawn(&mut buffers, &mut drawer, logits), expected, "{rows} rows");
            assert!(
                drawer
                    .calls
                    .keys()
                    .all(|(_, rows, count)| { rows * count * width <= drawer.most_numbers })
            );
            assert_eq!(drawer.calls.keys().len(), SIZE.slots.div_ceil(rows));
        }
    }

    #[test]
    fn after_a_run_that_failed_others_are_tried_again() {
        let (mut buffers, mut drawer, logits) = drawer(MOST_NUMBERS);
        // Rows of three tokens make no blocks.
        let (asked, unfit) = (asked(), (logits.0, FLOAT, 3));
        let (_, uniforms) = draw_of(asked[0].1).unwrap();
        assert!(!drawer.draw(&mut buffers, unfit, (&asked[..2], (0, 2)), (0, uniforms)));
        for _ in 1..RESTED {
            assert!(drawn(&mut buffers, &mut drawer, logits).is_empty());
        }
        assert_eq!(drawn(&mut buffers, &mut drawer, logits).len(), SIZE.slots);
    }
}
