//! Where the tensors of a cache lie in a block that is as large as the cache may ever be.

use crate::llm::buffers::{BlockId, Part};
use crate::llm::graph::{CacheTensor, Graph};

/// What each tensor begins at a multiple of, for kernels that read many numbers at once.
const ALIGNMENT: usize = 256;

/// The places in blocks for a batch, and in those for one row.
pub(super) struct Places {
    pub(super) batch: Starts,
    pub(super) alone: Starts,
}

/// Where each tensor begins, and the end of the last.
pub(super) struct Starts {
    of_tensors: Vec<usize>,
    end: usize,
}

/// A cache in a block: so many rows, and so many columns each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) block: BlockId,
    /// Whether the block is one for a single row.
    pub(super) is_alone: bool,
    pub(super) rows: usize,
    pub(super) width: usize,
}

impl Places {
    /// The places of caches of at most so many rows and tokens.
    pub(super) fn new(graph: &Graph, rows: usize, context: usize) -> Self {
        Self { batch: Starts::new(graph, rows, context), alone: Starts::new(graph, 1, context) }
    }

    /// One of the tensors of a cache.
    pub(super) fn part(&self, index: usize, tensor: &CacheTensor, held: Held) -> Part {
        let starts = if held.is_alone { &self.alone } else { &self.batch };
        let shape = tensor.shape(held.rows, held.width);
        let shape: Vec<_> = shape.iter().map(|dim| *dim as usize).collect();
        Part::new((held.block, starts.of_tensors[index]), tensor.element, &shape)
    }
}

impl Starts {
    fn new(graph: &Graph, rows: usize, context: usize) -> Self {
        let mut end = 0_usize;
        let start = |tensor: &CacheTensor| {
            let start = end;
            let shape = tensor.shape(rows, context);
            let count = shape.iter().fold(1_usize, |all, dim| all.saturating_mul(*dim as usize));
            let bytes = tensor.element.byte_size(count).unwrap_or(usize::MAX);
            let rounded = bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX);
            end = end.saturating_add(rounded);
            start
        };
        Self { of_tensors: graph.cache.iter().map(start).collect(), end }
    }

    /// How many bytes the block has.
    pub(super) fn bytes(&self) -> usize {
        self.end
    }
}
