//! Puts rows of several caches together into one, each behind as much padding as it needs.

use std::ops::Range;

use bytemuck::Pod;
use consort_stage::{Error, Result};
use half::{bf16, f16};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, TensorElementType};

use crate::llm::graph::{CacheTensor, Graph, Layout};

/// The tokens of one sequence in some cache.
pub(super) struct Source<'a> {
    past: &'a [DynValue],
    row: usize,
    /// How many columns every row of that cache has.
    width: usize,
    /// The columns that are tokens of the sequence.
    columns: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    /// All of a cache with one row.
    pub(super) fn whole(past: &'a [DynValue], length: usize) -> Self {
        Self { past, row: 0, width: length, columns: std::iter::once(0..length).collect() }
    }

    /// The columns of a row that its mask shows.
    pub(super) fn of_row(past: &'a [DynValue], row: usize, mask: &[bool]) -> Self {
        let mut columns: Vec<Range<usize>> = Vec::new();
        for column in (0..mask.len()).filter(|column| mask[*column]) {
            match columns.last_mut() {
                Some(last) if last.end == column => last.end += 1,
                _ => columns.push(column..column + 1),
            }
        }
        Self { past, row, width: mask.len(), columns }
    }

    /// The first so many of its tokens.
    pub(super) fn first(mut self, tokens: usize) -> Self {
        let mut left = tokens;
        for columns in &mut self.columns {
            columns.end = columns.end.min(columns.start + left);
            left -= columns.len();
        }
        self
    }

    fn length(&self) -> usize {
        self.columns.iter().map(Range::len).sum()
    }
}

/// A cache with a row for each source, as wide as the longest; the padding before the others is 0.
pub(super) fn gather(graph: &Graph, sources: &[Source<'_>]) -> Result<Vec<DynValue>> {
    let width = sources.iter().map(Source::length).max().unwrap_or(0);
    let tensors = graph.cache.iter().enumerate().map(|(index, tensor)| match tensor.element {
        TensorElementType::Float32 => gathered::<f32>(tensor, index, sources, width),
        TensorElementType::Float16 => gathered::<f16>(tensor, index, sources, width),
        TensorElementType::Bfloat16 => gathered::<bf16>(tensor, index, sources, width),
        other => Err(Error::unsupported(format!(
            "cache input `{}` is a {other}; only FP32, FP16 and BF16 are known",
            tensor.past
        ))),
    });
    tensors.collect()
}

fn gathered<T>(
    tensor: &CacheTensor,
    index: usize,
    sources: &[Source<'_>],
    width: usize,
) -> Result<DynValue>
where
    T: Pod + PrimitiveTensorElementType + std::fmt::Debug,
{
    let (heads, size) = (tensor.heads as usize, tensor.head_size as usize);
    let mut values = vec![T::zeroed(); sources.len() * heads * width * size];
    for (source, row) in sources.iter().zip(values.chunks_mut(heads * width * size)) {
        let (_, past) = source.past[index].try_extract_tensor::<T>().map_err(|e| failed(&e))?;
        let block = source.width * size;
        let past = &past[source.row * heads * block..][..heads * block];
        for (from, to) in past.chunks(block).zip(row.chunks_mut(width * size)) {
            if tensor.layout == Layout::FlatTransposed {
                let rows = from.chunks(source.width).zip(to.chunks_mut(width));
                rows.for_each(|(from, to)| copy(from, to, source, 1));
            } else {
                copy(from, to, source, size);
            }
        }
    }
    let made = Tensor::from_array((tensor.shape(sources.len(), width), values));
    made.map(Tensor::into_dyn).map_err(|error| failed(&error))
}

/// Copies the columns of a source, each of so many numbers, to the end of `to`.
fn copy<T: Copy>(from: &[T], to: &mut [T], source: &Source<'_>, size: usize) {
    let mut place = to.len() - source.length() * size;
    for columns in &source.columns {
        let part = &from[columns.start * size..columns.end * size];
        to[place..place + part.len()].copy_from_slice(part);
        place += part.len();
    }
}

fn failed(error: &ort::Error) -> Error {
    Error::internal(format!("the caches cannot be put together: {error}"))
}
