//! The inputs of a run over a shared cache: where they lie, their shapes, and how they are written.

use consort_stage::{Error, Result};
use ort::value::TensorElementType;

use super::Size;
use super::packed::Packed;
use crate::llm::buffers::{Argument, BlockId, Buffers, Part};
use crate::llm::decoder::Token;
use crate::llm::graph::{Graph, Integers};
use crate::llm::stripes::Stripes;

/// The blocks that the tensors of every run lie in.
pub(super) struct Blocks {
    pub(super) cache: BlockId,
    pub(super) logits: BlockId,
    pub(super) integers: Blocked,
}

/// Where whole numbers lie: tokens, mask and positions, and the choice if the graph makes one.
pub(super) enum Blocked {
    /// Each in a block of its own, which the run reads itself.
    Apart { tokens: BlockId, mask: BlockId, positions: BlockId },
    /// Those that a graph reads which makes its mask.
    Packed(Packed),
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
        let logits = positions.saturating_mul(size.vocabulary);
        let logits = graph.logits.element.byte_size(logits).unwrap_or(usize::MAX);
        let integers = |count: usize| count.saturating_mul(size_of::<i64>());
        let cache = cache.last().map_or(0, Stripes::end);
        let mut at_home =
            |bytes| buffers.allocate_at_home(bytes).ok_or_else(|| no_memory(size, bytes));
        let (cache, logits) = (at_home(cache)?, at_home(logits)?);
        if graph.chooses {
            let integers = Blocked::Packed(Packed::allocate(buffers, graph, size)?);
            return Ok(Self { cache, logits, integers });
        }
        let mut allocate = |bytes| buffers.allocate(bytes).ok_or_else(|| no_memory(size, bytes));
        let integers = Blocked::Apart {
            tokens: allocate(integers(tokens))?,
            mask: allocate(integers(size.slots.saturating_mul(size.context)))?,
            positions: allocate(integers(tokens))?,
        };
        Ok(Self { cache, logits, integers })
    }

    /// The tensors that change their shapes from run to run: the inputs beside the cache, and the
    /// outputs.
    pub(super) fn parts<'a>(
        &self,
        graph: &'a Graph,
        size: Size,
        shapes: Shapes,
    ) -> (Vec<Argument<'a>>, Vec<Argument<'a>>) {
        let Shapes { rows, sequence, width } = shapes;
        let part = |block, element, shape: &[usize]| Part::new((block, 0), element, shape);
        let kept = if graph.logits.is_last_only { 1 } else { sequence };
        let shape = [rows, kept, size.vocabulary];
        let logits = part(self.logits, graph.logits.element, &shape);
        let mut outputs = vec![(graph.logits.name.as_str(), logits)];
        let (tokens, mask, positions) = match &self.integers {
            Blocked::Apart { tokens, mask, positions } => (*tokens, *mask, *positions),
            Blocked::Packed(packed) => {
                let (inputs, chosen) = packed.parts(graph, shapes);
                outputs.push(chosen);
                return (inputs, outputs);
            }
        };
        let integers = |block, input: &'a Integers, shape: [usize; 2]| {
            (input.name.as_str(), part(block, input.element(), &shape))
        };
        let mut inputs = vec![integers(tokens, &graph.tokens, [rows, sequence])];
        inputs.extend(graph.mask.iter().map(|input| integers(mask, input, [rows, width])));
        let places = graph.positions.iter();
        inputs.extend(places.map(|input| integers(positions, input, [rows, sequence])));
        (inputs, outputs)
    }

    /// Writes the inputs of one of a run's rows, which is fed some tokens behind `held` others.
    ///
    /// A row that is only between others is fed any token: what is written behind those that it
    /// holds is written over when its own comes.
    pub(super) fn write(
        &self,
        buffers: &mut Buffers,
        graph: &Graph,
        (index, shapes): (usize, Shapes),
        (fed, held): (&[Token], usize),
    ) {
        let (tokens, mask, positions) = match &self.integers {
            Blocked::Apart { tokens, mask, positions } => (*tokens, *mask, *positions),
            Blocked::Packed(packed) => {
                return packed.write(buffers, graph, (index, shapes), (fed, held));
            }
        };
        let (first, total) = (index * shapes.sequence, held + fed.len());
        let ids = fed.iter().map(|token| i64::from(*token));
        graph.tokens.write(buffers, (tokens, 0), first, ids);
        if let Some(input) = &graph.mask {
            let row = (0..shapes.width).map(|column| i64::from(column < total));
            input.write(buffers, (mask, 0), index * shapes.width, row);
        }
        if let Some(input) = &graph.positions {
            input.write(buffers, (positions, 0), first, held as i64..total as i64);
        }
    }

    /// Brings what was written to where the run reads it.
    pub(super) fn send(&mut self, buffers: &mut Buffers, shapes: Shapes) -> ort::Result<()> {
        match &mut self.integers {
            Blocked::Apart { .. } => Ok(()),
            Blocked::Packed(packed) => packed.send(buffers, shapes),
        }
    }
}

impl Integers {
    /// Writes whole numbers into a block, behind so many bytes and so many other numbers.
    pub(in crate::llm) fn write(
        &self,
        buffers: &mut Buffers,
        (block, offset): (BlockId, usize),
        first: usize,
        values: impl IntoIterator<Item = i64>,
    ) {
        if self.element() == TensorElementType::Int64 {
            let places = buffers.slice_mut::<i64>(block).iter_mut();
            let places = places.skip(offset / size_of::<i64>() + first);
            places.zip(values).for_each(|(place, value)| *place = value);
        } else {
            let places = buffers.slice_mut::<i32>(block).iter_mut();
            let places = places.skip(offset / size_of::<i32>() + first);
            places.zip(values).for_each(|(place, value)| *place = value as i32);
        }
    }
}

pub(in crate::llm) fn no_memory(size: Size, bytes: usize) -> Error {
    Error::unavailable(format!(
        "`max_active_requests` is {} and `max_sequence_length` {}, for which the machine lacks {} \
         MB of memory; make either smaller",
        size.slots,
        size.context,
        bytes >> 20
    ))
}
