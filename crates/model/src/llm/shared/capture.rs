//! Which steps a card has captured, to launch all their kernels at once: those of a few sizes.
//!
//! A captured step has its shapes and its memory fixed (`enable_cuda_graph` of the CUDA provider).
//! So every step begins with the first row and is as large as the next of a few sizes; what it
//! computes in vain costs less than launching every kernel by itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use ort::session::RunOptions;

use super::Size;
use super::inputs::Shapes;

/// The option that names what is captured, or replayed.
const GRAPH: &str = "gpu_graph_id";
/// What a run is named that is not to be captured.
const NONE: &str = "-1";
/// The narrowest mask; each of the others is twice as wide as the one before.
const NARROWEST: usize = 256;
/// Steps of more rows than this have a multiple of it.
const ROWS: usize = 8;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of a prompt, of any length and for any row.
    Prompt,
    /// A token for every row.
    Step,
}

/// The steps of one decoder.
pub(super) struct Capture {
    slots: usize,
    /// The options of steps of so many rows and so wide a mask.
    steps: BTreeMap<(usize, usize), Arc<RunOptions>>,
    /// The options of everything else.
    others: Option<Arc<RunOptions>>,
}

impl Capture {
    /// Nothing captured yet.
    pub(super) fn new(size: Size) -> Self {
        Self { slots: size.slots, steps: BTreeMap::new(), others: None }
    }

    /// How many rows a step has that needs so many.
    pub(super) fn rows(&self, needed: usize) -> usize {
        let rows =
            if needed <= ROWS { needed.next_power_of_two() } else { needed.next_multiple_of(ROWS) };
        rows.min(self.slots)
    }

    /// The options of a run with these shapes. The first of its kind captures it.
    pub(super) fn options(&mut self, shapes: Shapes, kind: Kind) -> ort::Result<&Arc<RunOptions>> {
        if kind == Kind::Prompt {
            return match &mut self.others {
                Some(others) => Ok(others),
                none => Ok(none.insert(Arc::new(uncaptured()?))),
            };
        }
        let count = self.steps.len();
        match self.steps.entry((shapes.rows, shapes.width)) {
            Entry::Occupied(step) => Ok(step.into_mut()),
            Entry::Vacant(new) => Ok(new.insert(Arc::new(named(&(count + 1).to_string())?))),
        }
    }
}

/// How wide the mask of a step is whose longest row has so many tokens.
pub(super) fn width(longest: usize) -> usize {
    longest.next_power_of_two().max(NARROWEST)
}

/// The options of a run that is not to be captured.
pub(crate) fn uncaptured() -> ort::Result<RunOptions> {
    named(NONE)
}

fn named(graph: &str) -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set(GRAPH, graph)?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_in_few_sizes_and_none_is_larger_than_the_cache() {
        let size = Size { slots: 20, context: 64, prefill_tokens: 8, vocabulary: 4 };
        let capture = Capture::new(size);
        let rows = [1, 2, 3, 8, 9, 16, 17, 20].map(|needed| capture.rows(needed));
        assert_eq!(rows, [1, 2, 4, 8, 16, 16, 20, 20]);
        assert_eq!([1, 256, 257, 1000].map(width), [256, 256, 512, 1024]);
    }
}
