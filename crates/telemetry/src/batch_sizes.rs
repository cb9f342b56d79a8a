//! Statistics of executions by batch size, without a lock and without knowing the largest size.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::histogram::nanoseconds;
use crate::meter::Execution;
use crate::snapshot::{BatchSnapshot, Tally};

/// Sizes below 2 to this power are told apart: 65,535, far above any useful batch.
const SEGMENTS: usize = 16;

#[derive(Debug, Default)]
struct Cell {
    count: AtomicU64,
    compute_input_ns: AtomicU64,
    compute_infer_ns: AtomicU64,
    compute_output_ns: AtomicU64,
}

/// One cell a batch size; segment k holds the sizes from 2^k to 2^(k+1) - 1 and is made on first
/// use, so a model that runs singles pays for one cell.
#[derive(Debug, Default)]
pub(crate) struct BatchSizes([OnceLock<Box<[Cell]>>; SEGMENTS]);

impl BatchSizes {
    /// Counts one execution under its number of inferences; larger sizes than are told apart are
    /// left out.
    pub(crate) fn record(&self, execution: &Execution) {
        let size = execution.inferences.max(1);
        let segment = size.ilog2() as usize;
        let Some(cells) = self.0.get(segment) else {
            return;
        };
        let cells = cells.get_or_init(|| (0..1 << segment).map(|_| Cell::default()).collect());
        let cell = &cells[size as usize - (1 << segment)];
        let add = |counter: &AtomicU64, duration| {
            counter.fetch_add(nanoseconds(duration), Relaxed);
        };
        cell.count.fetch_add(1, Relaxed);
        add(&cell.compute_input_ns, execution.compute_input);
        add(&cell.compute_infer_ns, execution.compute_infer);
        add(&cell.compute_output_ns, execution.compute_output);
    }

    /// The sizes that were executed, in ascending order.
    pub(crate) fn snapshot(&self) -> Vec<BatchSnapshot> {
        let segments = self.0.iter().enumerate();
        segments
            .filter_map(|(segment, cells)| Some((1_u64 << segment, cells.get()?)))
            .flat_map(|(first, cells)| (first..).zip(cells.iter()))
            .filter_map(|(size, cell)| cell.snapshot(size))
            .collect()
    }
}

impl Cell {
    fn snapshot(&self, batch_size: u64) -> Option<BatchSnapshot> {
        let count = self.count.load(Relaxed);
        let tally = |ns: &AtomicU64| Tally { count, ns: ns.load(Relaxed) };
        (count > 0).then(|| BatchSnapshot {
            batch_size,
            compute_input: tally(&self.compute_input_ns),
            compute_infer: tally(&self.compute_infer_ns),
            compute_output: tally(&self.compute_output_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_batch_size_is_counted_apart() {
        let sizes = BatchSizes::default();
        for inferences in [0, 1, 3, 3, 4, 65_535, 65_536, u64::MAX] {
            sizes.record(&Execution {
                inferences,
                compute_infer: Duration::from_nanos(10),
                ..Execution::default()
            });
        }
        let counts: Vec<_> = sizes
            .snapshot()
            .iter()
            .map(|batch| (batch.batch_size, batch.compute_infer.count, batch.compute_infer.ns))
            .collect();
        assert_eq!(counts, [(1, 2, 20), (3, 2, 20), (4, 1, 10), (65_535, 1, 10)]);
    }
}
