//! The inputs of a run over a shared cache: where they lie, their shapes, and how they are written.

use consort_stage::{Error, Result};
use ort::value::TensorElementType;

use super::Size;
use crate::llm::buffers::{Argument, BlockId, Buffers, Part};
use crate::llm::decoder::Token;
use crate::llm::graph::{Graph, Integers};
use crate::llm::stripes::Stripes;

/// The blocks that the tensors of every run lie in.
pub(super) struct Blocks {
    pub(super) cache: BlockId,
    pub(super) logits: BlockId,
    tokens: BlockId,
    mask: BlockId,
    positions: BlockId,
}

/// The shapes of a run: how many rows, how many new tokens each, and how wide the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shapes {
    pub(super) rows: usize,
    pub(super) sequence: usize,
    pub(super) width: usize,
}

impl Blocks {
    /// Room for the largest run there may be.
    pub(super) fn allocate(
        buffers: &mut Buffers,
        graph: &Graph,
        cache: &[Stripes],
        size: Size,
    ) -> Result<Self> {
        let tokens = size.slots.max(size.prefill_tokens);
        let positions = if graph.logits.is_last_only { size.slots } else { tokens };
        let logits = positions.saturating_mul(size.vocabulary).saturating_mul(size_of::<f32>());
        let integers = |count: usize| count.saturating_mul(size_of::<i64>());
        let mut allocate = |bytes| buffers.allocate(bytes).ok_or_else(|| no_memory(size, bytes));
        Ok(Self {
            cache: allocate(cache.last().map_or(0, Stripes::end))?,
            logits: allocate(logits)?,
            tokens: allocate(integers(tokens))?,
            mask: allocate(integers(size.slots.saturating_mul(size.context)))?,
            positions: allocate(integers(tokens))?,
        })
    }

    /// The tensors that change their shapes from run to run: the inputs beside the cache, and the
    /// logits.
    pub(super) fn parts<'a>(
        &self,
        graph: &'a Graph,
        size: Size,
        shapes: Shapes,
    ) -> (Vec<Argument<'a>>, Argument<'a>) {
        let Shapes { rows, sequence, width } = shapes;
        let part = |block, element, shape: &[usize]| Part {
            block,
            offset: 0,
            element,
            shape: shape.iter().map(|dim| *dim as i64).collect(),
        };
        let integers = |block, input: &'a Integers, shape: [usize; 2]| {
            (input.name.as_str(), part(block, input.element(), &shape))
        };
        let mut inputs = vec![integers(self.tokens, &graph.tokens, [rows, sequence])];
        let mask = graph.mask.iter().map(|input| integers(self.mask, input, [rows, width]));
        inputs.extend(mask);
        let positions = graph.positions.iter();
        inputs.extend(positions.map(|input| integers(self.positions, input, [rows, sequence])));
        let kept = if graph.logits.is_last_only { 1 } else { sequence };
        let shape = [rows, kept, size.vocabulary];
        (inputs, (&graph.logits.name, part(self.logits, graph.logits.element, &shape)))
    }

    /// Writes the inputs of one row that is fed some tokens of its prompt, behind `held` others.
    pub(super) fn write_prompt(
        &self,
        buffers: &mut Buffers,
        graph: &Graph,
        tokens: &[Token],
        held: usize,
    ) {
        let total = held + tokens.len();
        let ids = tokens.iter().map(|token| i64::from(*token));
        write(buffers, self.tokens, &graph.tokens, 0, ids);
        if let Some(mask) = &graph.mask {
            write(buffers, self.mask, mask, 0, std::iter::repeat_n(1, total));
        }
        if let Some(positions) = &graph.positions {
            write(buffers, self.positions, positions, 0, held as i64..total as i64);
        }
    }

    /// Writes the inputs of one of the rows that are fed a token each, behind `held` others.
    ///
    /// A row that is only between others is fed any token: what is written behind those that it
    /// holds is written over when its own comes.
    pub(super) fn write_row(
        &self,
        buffers: &mut Buffers,
        graph: &Graph,
        (index, width): (usize, usize),
        (token, held): (Token, usize),
    ) {
        write(buffers, self.tokens, &graph.tokens, index, [i64::from(token)]);
        if let Some(mask) = &graph.mask {
            let row = (0..width).map(|column| i64::from(column <= held));
            write(buffers, self.mask, mask, index * width, row);
        }
        if let Some(positions) = &graph.positions {
            write(buffers, self.positions, positions, index, [held as i64]);
        }
    }
}

/// Writes whole numbers from an element of a block on.
fn write(
    buffers: &mut Buffers,
    block: BlockId,
    input: &Integers,
    start: usize,
    values: impl IntoIterator<Item = i64>,
) {
    if input.element() == TensorElementType::Int64 {
        let places = buffers.slice_mut::<i64>(block)[start..].iter_mut();
        places.zip(values).for_each(|(place, value)| *place = value);
    } else {
        let places = buffers.slice_mut::<i32>(block)[start..].iter_mut();
        places.zip(values).for_each(|(place, value)| *place = value as i32);
    }
}

fn no_memory(size: Size, bytes: usize) -> Error {
    Error::unavailable(format!(
        "`max_active_requests` is {} and `max_sequence_length` {}, for which the machine lacks {} \
         MB of memory; make either smaller",
        size.slots,
        size.context,
        bytes >> 20
    ))
}
