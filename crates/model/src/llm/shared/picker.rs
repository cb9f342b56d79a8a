//! Finds the likeliest tokens of a run's rows where their logits lie, so that those come back and
//! not a vocabulary. A graph of its own, which is run only after steps that have such rows.

use consort_stage::Result;
use ort::session::Session;
use ort::value::TensorElementType;

use super::Size;
use super::inputs::no_memory;
use super::prepared::{Logits, Prepared, rows_of};
use crate::llm::buffers::{BlockId, Buffers, Part};
use crate::llm::choosing::{
    COUNT, INVERSE_TEMPERATURES, LARGEST_SCORES, MOST, MOST_OF_ALL, PROBABILITIES, SCORES,
    TOP_TOKENS,
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
    inverse_temperatures: BlockId,
    /// The numbers of tokens that may be found: the usual one, and the largest.
    counts: BlockId,
    /// How many are found of each row in the next run, and were in the last.
    count: usize,
    most: usize,
    /// The runs over so many rows that find so many tokens.
    calls: Prepared<(usize, usize)>,
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
        let inverse_temperatures = allocate(size.slots * size_of::<f32>())?;
        let counts = allocate(2 * size_of::<i64>())?;
        buffers.slice_mut::<i64>(counts)[..2].copy_from_slice(&[MOST as i64, most as i64]);
        Ok(Self {
            session,
            largest,
            tokens,
            probabilities,
            inverse_temperatures,
            counts,
            count: MOST,
            most,
            calls: Prepared::new(),
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
        let inverse_temperatures = buffers.slice_mut::<f32>(self.inverse_temperatures);
        inverse_temperatures.fill(1.0);
        self.count = MOST;
        for (place, wants) in wanted {
            if matches!(wants, Wants::Top(most) if most > MOST && most <= self.most) {
                self.count = self.most;
            }
            if let Wants::Draw { temperature, .. } = wants
                && let Some(inverse) = inverse_temperatures.get_mut(place)
            {
                *inverse = temperature.recip();
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
        let scores = rows_of(logits, (first, count));
        let key = (count, self.count);
        if let Some(call) = self.calls.over(buffers, &key, (first, &scores))? {
            return buffers.run(&mut self.session, call, None);
        }
        let part = |block, element, width| Part::new((block, 0), element, &[count, width]);
        let (float, wide) = (TensorElementType::Float32, TensorElementType::Int64);
        let place = if self.count == MOST { 0 } else { size_of::<i64>() };
        let inputs = [
            (SCORES, scores),
            (INVERSE_TEMPERATURES, part(self.inverse_temperatures, float, 1)),
            (COUNT, Part::new((self.counts, place), wide, &[1])),
        ];
        let outputs = [
            (LARGEST_SCORES, part(self.largest, float, self.count)),
            (TOP_TOKENS, part(self.tokens, wide, self.count)),
            (PROBABILITIES, part(self.probabilities, float, self.count)),
        ];
        let call = self.calls.keep(key, buffers.prepare(&inputs, &outputs)?, first);
        buffers.run(&mut self.session, call, None)
    }

    /// What was found for one of the rows.
    pub(in crate::llm) fn row(
        &mut self,
        buffers: &mut Buffers,
        (index, wants): (usize, Wants),
    ) -> Scores<'_> {
        let row = index * self.count..(index + 1) * self.count;
        let tokens = buffers.slice_mut::<i64>(self.tokens).get(row.clone()).unwrap_or_default();
        self.found.clear();
        self.found.extend(tokens.iter().map(|token| (*token as Token, 0.0)));
        let is_drawn = matches!(wants, Wants::Draw { .. });
        let numbers = if is_drawn { self.probabilities } else { self.largest };
        let numbers = buffers.slice_mut::<f32>(numbers).get(row).unwrap_or_default();
        for ((_, found), number) in self.found.iter_mut().zip(numbers) {
            *found = *number;
        }
        in_order(&mut self.found);
        if is_drawn {
            // What is drawn depends on how many are seen, and so not on what others ask for.
            self.found.truncate(MOST);
            return Scores::Draw(&self.found);
        }
        Scores::Top(&self.found)
    }
}

/// Puts tokens in order from the likeliest down and equals by their ids, as no search for some of them
/// vouches to give them.
fn in_order(found: &mut [(Token, f32)]) {
    // 0 and -0 are equal.
    let key = |number: f32| number + 0.0;
    found.sort_by(|(left, least), (right, most)| {
        key(*most).total_cmp(&key(*least)).then(left.cmp(right))
    });
}

#[cfg(test)]
mod tests {
    use half::f16;
    use ort::session::builder::SessionBuilder;

    use super::*;
    use crate::llm::choosing;
    use crate::runtime::Runtime;

    const SIZE: Size = Size { slots: 2, context: 8, prefill_tokens: 8, vocabulary: 4000 };
    const HALF: TensorElementType = TensorElementType::Float16;

    /// Logits of half precision, each of which several tokens have.
    fn picker() -> (Buffers, Picker, Vec<f16>, Logits) {
        let environment = &Runtime::get().expect("run `cargo xtask setup`").environment;
        let model = choosing::top(HALF).unwrap();
        let session = SessionBuilder::new(environment).unwrap().commit_from_memory(&model).unwrap();
        let mut buffers = Buffers::new().unwrap();
        let mixed = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
        let numbers = (0..(SIZE.slots * SIZE.vocabulary) as u64).map(mixed);
        let numbers: Vec<_> = numbers.map(|it| f16::from_f32(it as f32 / 32.0)).collect();
        let block = buffers.allocate(numbers.len() * 2).unwrap();
        let bits = numbers.iter().map(|number| number.to_bits());
        buffers.slice_mut::<u16>(block).iter_mut().zip(bits).for_each(|(it, bits)| *it = bits);
        let picker = Picker::new(&mut buffers, session, SIZE).unwrap();
        (buffers, picker, numbers, (block, HALF, SIZE.vocabulary))
    }

    #[test]
    fn the_same_tokens_are_seen_whatever_others_ask_for() {
        let (mut buffers, mut picker, numbers, logits) = picker();
        let draws = Wants::Draw { temperature: 1.0, uniforms: [0.5; 4] };
        let mut expected: Vec<_> = (0..).zip(&numbers[..SIZE.vocabulary]).collect();
        expected.sort_by(|left, right| right.1.total_cmp(left.1).then(left.0.cmp(&right.0)));
        let expected: Vec<Token> = expected.iter().map(|(token, _)| *token).collect();
        for other in [MOST, MOST_OF_ALL] {
            for (wants, least) in [(draws, MOST), (Wants::Top(5), 5), (Wants::Top(MOST), MOST)] {
                picker.ask(&mut buffers, [(0, wants), (1, Wants::Top(other))].into_iter());
                picker.find(&mut buffers, logits, (0, 2)).unwrap();
                let (Scores::Draw(found) | Scores::Top(found)) =
                    picker.row(&mut buffers, (0, wants))
                else {
                    panic!("{wants:?}")
                };
                assert!(found.len() >= least);
                let tokens: Vec<_> = found.iter().map(|(token, _)| *token).collect();
                assert_eq!(tokens, expected[..tokens.len()], "{wants:?} beside {other}");
            }
        }
    }

    #[test]
    fn equals_are_in_the_order_of_their_ids_however_they_were_found() {
        let mut found = [(9, 1.0), (4, 2.0), (7, 0.0), (3, 2.0), (5, -0.0), (2, 1.0)];
        in_order(&mut found);
        assert_eq!(found.map(|(token, _)| token), [3, 4, 2, 9, 5, 7]);
    }
}
