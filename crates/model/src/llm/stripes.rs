//! Where the keys or values of each row and head lie in a cache that all rows share.

use std::ops::Range;

use ort::value::TensorElementType;

use super::buffers::{BlockId, Part};
use super::graph::{CacheTensor, Graph};
use super::rows::Copy;

/// A row of which more than one part in so many is wanted is copied whole on a card, where a copy
/// takes a few microseconds before its first byte, in which a megabyte would have been copied.
const WHOLE_ROW: usize = 16;

/// One of the graph's cache tensors, [rows, heads, context, head size], within a block.
#[derive(Clone, Debug)]
pub(crate) struct Stripes {
    offset: usize,
    element: TensorElementType,
    /// Rows, heads, context, head size.
    shape: [usize; 4],
}

impl Stripes {
    /// The cache tensors of a graph, one behind the other.
    pub(crate) fn of_cache(graph: &Graph, rows: usize, context: usize) -> Vec<Self> {
        let mut offset = 0;
        let place = |tensor: &CacheTensor| {
            let shape = [rows, tensor.heads as usize, context, tensor.head_size as usize];
            let stripes = Self { offset, element: tensor.element, shape };
            offset = stripes.end();
            stripes
        };
        graph.cache.iter().map(place).collect()
    }

    /// How many bytes of the block are taken up to its end.
    pub(crate) fn end(&self) -> usize {
        self.shape[0].saturating_mul(self.row()).saturating_add(self.offset)
    }

    /// The tensor of some rows.
    pub(crate) fn part(&self, block: BlockId, rows: &Range<usize>) -> Part {
        let [_, heads, context, head_size] = self.shape;
        let place = (block, self.offset + rows.start * self.row());
        Part::new(place, self.element, &[rows.len(), heads, context, head_size])
    }

    /// Copies the first tokens of one row to another.
    pub(crate) fn copy(&self, bytes: &mut [u8], copy: Copy) {
        let [_, heads, context, _] = self.shape;
        let stripe = context * self.token();
        for head in 0..heads {
            let start = |row: usize| self.offset + row * self.row() + head * stripe;
            let from = start(copy.from);
            bytes.copy_within(from..from + copy.tokens * self.token(), start(copy.to));
        }
    }

    /// What copies the first tokens of one row to another where the processor cannot: the whole row
    /// at once, unless that is much more than is wanted.
    pub(crate) fn pairs(&self, block: BlockId, copy: Copy) -> Vec<(Part, Part)> {
        let [_, heads, context, head_size] = self.shape;
        let pair = |offset, shape: &[usize]| {
            let place = |row: usize| (block, self.offset + row * self.row() + offset);
            let part = |row| Part::new(place(row), self.element, shape);
            (part(copy.from), part(copy.to))
        };
        if copy.tokens * WHOLE_ROW > context {
            return vec![pair(0, &[heads, context, head_size])];
        }
        let stripe = context * self.token();
        (0..heads).map(|head| pair(head * stripe, &[copy.tokens, head_size])).collect()
    }

    /// Bytes of one row.
    fn row(&self) -> usize {
        let [_, heads, context, _] = self.shape;
        heads.saturating_mul(context).saturating_mul(self.token())
    }

    /// Bytes that one head has for a token.
    fn token(&self) -> usize {
        self.element.byte_size(self.shape[3]).unwrap_or(0)
    }
}
