//! A decoder that computes one sequence at a time, each with a cache of its own.

use std::sync::Arc;

use consort_stage::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ort::session::Session;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType};

use super::cache::{Cache, Memory};
use super::decoder::{Decoder, Row, Slot, Token};
use super::graph::Graph;
use crate::run_error::RunError;

/// A session and the caches of the sequences it may have.
pub(crate) struct Serial {
    session: Session,
    model: Arc<str>,
    graph: Graph,
    memory: Memory,
    /// Made when a slot is first used, and kept for the next sequence in it.
    caches: Vec<Option<Cache>>,
    prefill_tokens: usize,
    vocabulary: usize,
    logits: Vec<f32>,
}

/// What a [`Serial`] is made of beside its session.
pub(crate) struct Parts {
    pub(crate) model: Arc<str>,
    pub(crate) graph: Graph,
    pub(crate) memory: Memory,
    pub(crate) slots: usize,
    pub(crate) prefill_tokens: usize,
    pub(crate) vocabulary: usize,
}

impl Serial {
    /// A decoder over an open session.
    pub(crate) fn new(session: Session, parts: Parts) -> Self {
        Self {
            session,
            model: parts.model,
            // A graph with a branch for the first step takes the whole prompt in it.
            prefill_tokens: match parts.graph.cache_branch {
                Some(_) => usize::MAX,
                None => parts.prefill_tokens,
            },
            graph: parts.graph,
            memory: parts.memory,
            caches: std::iter::repeat_with(|| None).take(parts.slots).collect(),
            vocabulary: parts.vocabulary,
            logits: Vec::new(),
        }
    }

    fn feed(&mut self, slot: Slot, tokens: &[Token]) -> Result<()> {
        let cache = match &mut self.caches[slot] {
            Some(cache) => cache,
            empty => empty.insert(Cache::new(&self.session, &self.graph, &self.memory)?),
        };
        let logits = cache
            .feed(&mut self.session, &self.graph, &self.memory, tokens)
            .map_err(|error| RunError::from(&error).with_own_inputs().within(&self.model))?;
        read_last(&logits, self.vocabulary, &mut self.logits)
    }
}

impl Decoder for Serial {
    fn slots(&self) -> usize {
        self.caches.len()
    }

    fn max_rows(&self) -> usize {
        1
    }

    fn prefill_tokens(&self) -> usize {
        self.prefill_tokens
    }

    fn prefill(&mut self, slot: Slot, tokens: &[Token]) -> Result<&mut [f32]> {
        self.logits.clear();
        self.feed(slot, tokens)?;
        Ok(&mut self.logits)
    }

    fn decode(&mut self, rows: &[Row]) -> Result<&mut [f32]> {
        self.logits.clear();
        for row in rows {
            self.feed(row.slot, &[row.token])?;
        }
        Ok(&mut self.logits)
    }

    fn release(&mut self, slot: Slot) {
        let cache = &mut self.caches[slot];
        if cache.as_mut().is_some_and(|cache| cache.clear(&self.graph).is_err()) {
            *cache = None;
        }
    }
}

/// Appends the logits of the last position, as `f32`.
fn read_last(logits: &DynValue, vocabulary: usize, into: &mut Vec<f32>) -> Result<()> {
    match logits.dtype().tensor_type() {
        Some(TensorElementType::Float32) => {
            into.extend_from_slice(last::<f32>(logits, vocabulary)?);
        }
        Some(TensorElementType::Float16) => {
            widen(last::<f16>(logits, vocabulary)?, into, HalfFloatSliceExt::convert_to_f32_slice);
        }
        Some(TensorElementType::Bfloat16) => {
            widen(last::<bf16>(logits, vocabulary)?, into, HalfFloatSliceExt::convert_to_f32_slice);
        }
        _ => {
            return Err(Error::unsupported(format!(
                "the logits are a {}; only FP32, FP16 and BF16 are known",
                logits.dtype()
            )));
        }
    }
    Ok(())
}

fn widen<T>(half: &[T], into: &mut Vec<f32>, convert: impl Fn(&[T], &mut [f32])) {
    let start = into.len();
    into.resize(start + half.len(), 0.0);
    convert(half, &mut into[start..]);
}

/// The logits of the last position, as the graph computed them.
fn last<T: PrimitiveTensorElementType>(logits: &DynValue, vocabulary: usize) -> Result<&[T]> {
    let (shape, values) = logits
        .try_extract_tensor::<T>()
        .map_err(|error| Error::internal(format!("the logits cannot be read: {error}")))?;
    let start = values.len().checked_sub(vocabulary);
    start
        .filter(|_| shape.last() == Some(&(vocabulary as i64)))
        .map(|start| &values[start..])
        .ok_or_else(|| {
            Error::internal(format!(
                "the logits have shape {shape}; their last dimension should be {vocabulary}"
            ))
        })
}
