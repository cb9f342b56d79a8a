//! Runs over rows of logits that are prepared once for each shape, though the rows may lie elsewhere
//! from run to run.

use std::collections::BTreeMap;

use ort::value::TensorElementType;

use crate::llm::buffers::{BlockId, Buffers, CallId, Part};

/// Where the logits of a run's rows lie: the block, their type, and how many tokens there are.
pub(in crate::llm) type Logits = (BlockId, TensorElementType, usize);

/// The logits of some rows, so many from the first on.
pub(super) fn rows_of((block, element, vocabulary): Logits, (first, rows): (usize, usize)) -> Part {
    let offset = element.byte_size(first * vocabulary).unwrap_or(usize::MAX);
    Part::new((block, offset), element, &[rows, vocabulary])
}

/// The runs by what is particular to each, and the first row that each was over last. The logits are
/// the first input of all of them.
pub(super) struct Prepared<K>(BTreeMap<K, (CallId, usize)>);

impl<K: Ord> Prepared<K> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The run under a key, over `scores` now, which begin at the row `first`; `None` before it is
    /// prepared.
    pub(super) fn over(
        &mut self,
        buffers: &mut Buffers,
        key: &K,
        (first, scores): (usize, &Part),
    ) -> ort::Result<Option<CallId>> {
        let Some((call, before)) = self.0.get_mut(key) else {
            return Ok(None);
        };
        if *before != first {
            buffers.set_input(*call, 0, scores)?;
            *before = first;
        }
        Ok(Some(*call))
    }

    /// Keeps a run that was prepared over the rows from `first` on, and gives it back.
    pub(super) fn keep(&mut self, key: K, call: CallId, first: usize) -> CallId {
        self.0.insert(key, (call, first));
        call
    }
    /// What is particular to each.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.0.keys()
    }
}
