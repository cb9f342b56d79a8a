//! What a run over a shared cache reads and writes where the graph makes its mask and picks the
//! likeliest token: one copy before a step, one after it, and the logits only of rows that need
//! them.

use std::collections::BTreeMap;

use consort_stage::{Error, Result};
use ort::value::TensorElementType;

use super::Size;
use super::inputs::{Shapes, at_home, no_memory};
use crate::llm::buffers::{Argument, BlockId, Buffers, CopyId, Part};
use crate::llm::choosing;
use crate::llm::decoder::Token;
use crate::llm::graph::{Graph, Integers};

/// What every number here takes in its block, whatever its own width.
const WIDTH: usize = size_of::<i64>();

/// The blocks, and the copies between those that the processor reaches and those that runs do.
pub(super) struct Packed {
    /// The processor's: tokens, lengths and positions, one behind the other.
    written: BlockId,
    /// The same where runs read it.
    sent: BlockId,
    /// 0, 1, 2 and so on.
    columns: BlockId,
    /// The tokens that runs chose.
    chosen: BlockId,
    /// The processor's copy of them.
    read: BlockId,
    /// The processor's copy of the logits of one row.
    row: BlockId,
    /// Copies to send so many numbers, and to read so many tokens.
    copies: BTreeMap<(Direction, usize), CopyId>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Sent,
    Read,
}

impl Packed {
    /// Room for the largest run there may be.
    pub(super) fn allocate(buffers: &mut Buffers, graph: &Graph, size: Size) -> Result<Self> {
        let tokens = size.slots.max(size.prefill_tokens);
        let numbers = 2 * tokens + size.slots;
        let row = graph.logits.element.byte_size(size.vocabulary).unwrap_or(0);
        let mut at = |bytes, is_home| {
            if is_home {
                return at_home(buffers, size, bytes);
            }
            buffers.allocate(bytes).ok_or_else(|| no_memory(size, bytes))
        };
        let blocks = Self {
            written: at(numbers * WIDTH, false)?,
            sent: at(numbers * WIDTH, true)?,
            columns: at(size.context * WIDTH, true)?,
            chosen: at(tokens * WIDTH, true)?,
            read: at(tokens * WIDTH, false)?,
            row: at(row, false)?,
            copies: BTreeMap::new(),
        };
        let counted = at(size.context * WIDTH, false)?;
        for (place, number) in buffers.slice_mut::<i64>(counted).iter_mut().zip(0..) {
            *place = number;
        }
        let columns = |block| Part::of_bytes((block, 0), size.context * WIDTH);
        let copy = buffers.copy_now(&[(columns(counted), columns(blocks.columns))]);
        copy.map_err(|error| Error::internal(format!("nothing can be copied there: {error}")))?;
        Ok(blocks)
    }

    /// The inputs beside the cache, and the output with the choice.
    pub(super) fn parts<'a>(
        &self,
        graph: &'a Graph,
        shapes: Shapes,
    ) -> (Vec<Argument<'a>>, Argument<'a>) {
        let Shapes { rows, sequence, width } = shapes;
        let wide = TensorElementType::Int64;
        let tokens = |input: &'a Integers, segment| {
            let offset = shapes.segment(segment) * WIDTH;
            let part = Part::new((self.sent, offset), input.element(), &[rows, sequence]);
            (input.name.as_str(), part)
        };
        let lengths = shapes.segment(Segment::Lengths) * WIDTH;
        let mut inputs = vec![
            tokens(&graph.tokens, Segment::Tokens),
            (choosing::LENGTHS, Part::new((self.sent, lengths), wide, &[rows, 1])),
            (choosing::COLUMNS, Part::new((self.columns, 0), wide, &[1, width])),
        ];
        inputs.extend(graph.positions.iter().map(|input| tokens(input, Segment::Positions)));
        let kept = if graph.logits.is_last_only { 1 } else { sequence };
        (inputs, (choosing::CHOSEN, Part::new((self.chosen, 0), wide, &[rows, kept, 1])))
    }

    /// Writes the inputs of one row that is fed some tokens, behind `held` others.
    pub(super) fn write(
        &self,
        buffers: &mut Buffers,
        graph: &Graph,
        (index, shapes): (usize, Shapes),
        (tokens, held): (&[Token], usize),
    ) {
        let first = index * shapes.sequence;
        let ids = tokens.iter().map(|token| i64::from(*token));
        let segment = |segment| self.written_at(shapes.segment(segment));
        graph.tokens.write(buffers, segment(Segment::Tokens), first, ids);
        let length = (held + tokens.len()) as i64;
        let start = shapes.segment(Segment::Lengths) + index;
        if let Some(place) = buffers.slice_mut::<i64>(self.written).get_mut(start) {
            *place = length;
        }
        if let Some(positions) = &graph.positions {
            positions.write(buffers, segment(Segment::Positions), first, held as i64..length);
        }
    }

    /// Brings what was written to where the run reads it.
    pub(super) fn send(&mut self, buffers: &mut Buffers, shapes: Shapes) -> ort::Result<()> {
        let numbers = shapes.segment(Segment::End);
        let part = |block| Part::of_bytes((block, 0), numbers * WIDTH);
        let pair = (part(self.written), part(self.sent));
        if shapes.sequence > 1 {
            return buffers.copy_now(&[pair]);
        }
        self.copy(buffers, (Direction::Sent, numbers), pair)
    }

    /// Brings the choices of so many rows, from the first on, to where [`chosen`](Self::chosen)
    /// reads them.
    pub(super) fn fetch(
        &mut self,
        buffers: &mut Buffers,
        (first, count): (usize, usize),
    ) -> ort::Result<()> {
        let length = count * WIDTH;
        let from = Part::of_bytes((self.chosen, first * WIDTH), length);
        let pair = (from, Part::of_bytes((self.read, 0), length));
        if first > 0 {
            return buffers.copy_now(&[pair]);
        }
        self.copy(buffers, (Direction::Read, count), pair)
    }

    /// What was chosen for one of the rows that were fetched.
    pub(super) fn chosen(&self, buffers: &mut Buffers, index: usize) -> Option<Token> {
        let chosen = buffers.slice_mut::<i64>(self.read).get(index).copied();
        chosen.and_then(|token| Token::try_from(token).ok())
    }

    /// The block that the logits of a row are in after they were brought from where they lie.
    pub(super) fn fetch_row(&self, buffers: &mut Buffers, from: Part) -> ort::Result<BlockId> {
        let to = Part { block: self.row, offset: 0, ..from.clone() };
        buffers.copy_now(&[(from, to)])?;
        Ok(self.row)
    }

    fn written_at(&self, segment: usize) -> (BlockId, usize) {
        (self.written, segment * WIDTH)
    }

    fn copy(
        &mut self,
        buffers: &mut Buffers,
        key: (Direction, usize),
        pair: (Part, Part),
    ) -> ort::Result<()> {
        if let Some(id) = self.copies.get(&key) {
            return buffers.copy(*id);
        }
        let id = buffers.prepare_copies(&[pair])?;
        self.copies.insert(key, id);
        buffers.copy(id)
    }
}

/// What lies one behind the other.
#[derive(Clone, Copy)]
pub(super) enum Segment {
    Tokens,
    Lengths,
    Positions,
    End,
}

impl Shapes {
    /// How many numbers come before a segment.
    fn segment(self, segment: Segment) -> usize {
        let tokens = self.rows * self.sequence;
        match segment {
            Segment::Tokens => 0,
            Segment::Lengths => tokens,
            Segment::Positions => tokens + self.rows,
            Segment::End => 2 * tokens + self.rows,
        }
    }
}
