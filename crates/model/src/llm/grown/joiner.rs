//! Puts the rows of a batch together where they lie, by the graph of [`joining`].

use std::ops::Range;

use consort_stage::Result;
use ort::session::Session;
use ort::value::TensorElementType;

use super::places::{Held, Places};
use crate::llm::buffers::{Argument, BlockId, Buffers, CallId, Part};
use crate::llm::graph::{Graph, Layout};
use crate::llm::joining::{self, STRIDES};
use crate::llm::shared::{Size, no_memory};

/// The graph's session, and what it is told.
pub(super) struct Joiner {
    session: Session,
    /// The number of each token's first lane, for each number of lanes, and what that is called.
    starts: Vec<(usize, String, BlockId)>,
    strides: BlockId,
    shapes: Vec<(Layout, BlockId)>,
    /// What the tensors of the two caches and of the joined one are called.
    names: Vec<[String; 3]>,
    call: Option<CallId>,
}

/// The tokens of one row of the joined cache: the cache they are in, the first or the second; the
/// row there; and their columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) is_second: bool,
    pub(super) row: usize,
    pub(super) columns: Vec<usize>,
}

impl Source {
    /// The columns of a row of the first cache that a mask shows, up to so many.
    pub(super) fn seen(row: usize, mask: &[bool], most: usize) -> Self {
        let seen = (0..mask.len()).filter(|column| mask[*column]);
        Self { is_second: false, row, columns: seen.take(most).collect() }
    }

    /// The first so many of the second cache's only row.
    pub(super) fn of_second(columns: Range<usize>) -> Self {
        Self { is_second: true, row: 0, columns: columns.collect() }
    }
}

impl Joiner {
    /// One over a session of the graph that [`joining::graph`] makes.
    pub(super) fn new(
        buffers: &mut Buffers,
        session: Session,
        (graph, size): (&Graph, Size),
    ) -> Result<Self> {
        let numbers = size.slots.saturating_mul(size.context);
        let mut allocate = |count: usize| {
            let bytes = count.saturating_mul(size_of::<i64>());
            buffers.allocate(bytes).ok_or_else(|| no_memory(size, bytes))
        };
        let lanes = joining::all_lanes(graph).into_iter();
        let starts = lanes.map(|lanes| Ok((lanes, joining::starts(lanes), allocate(numbers)?)));
        let starts = starts.collect::<Result<_>>()?;
        let layouts = joining::all_layouts(graph).into_iter();
        let shapes = layouts.map(|layout| Ok((layout, allocate(4)?))).collect::<Result<_>>()?;
        let names = (0..graph.cache.len()).map(joining::names).collect();
        Ok(Self { session, starts, strides: allocate(numbers)?, shapes, names, call: None })
    }

    /// Writes a cache with a row for each source, as wide as the longest, into a block that neither
    /// of the two lies in; the padding before the tokens is 0. How wide it is.
    pub(super) fn join(
        &mut self,
        buffers: &mut Buffers,
        (graph, places): (&Graph, &Places),
        (first, second): (Held, Held),
        (sources, target): (&[Source], Held),
    ) -> ort::Result<usize> {
        let width = sources.iter().map(|source| source.columns.len()).max().unwrap_or(0);
        self.write_numbers(buffers, (first, second), sources, width);
        self.write_shapes(buffers, graph, (sources.len(), width));
        let target = Held { rows: sources.len(), width, ..target };
        let (inputs, outputs) = self.parts(graph, places, [first, second, target]);
        let call = if let Some(call) = self.call {
            buffers.set(call, &inputs, &outputs)?;
            call
        } else {
            buffers.prepare(&inputs, &outputs)?
        };
        self.call = Some(call);
        buffers.run(&mut self.session, call, None)?;
        Ok(width)
    }

    fn write_numbers(
        &self,
        buffers: &mut Buffers,
        (first, second): (Held, Held),
        sources: &[Source],
        width: usize,
    ) {
        for (lanes, _, block) in &self.starts {
            let all_of_first = first.rows * lanes * first.width;
            let nothing = all_of_first + second.rows * lanes * second.width;
            let starts = &mut buffers.slice_mut::<i64>(*block)[..sources.len() * width];
            starts.fill(nothing as i64);
            for (row, source) in starts.chunks_mut(width.max(1)).zip(sources) {
                let (held, before) =
                    if source.is_second { (second, all_of_first) } else { (first, 0) };
                let start = before + source.row * lanes * held.width;
                let padding = width - source.columns.len();
                for (place, column) in row[padding..].iter_mut().zip(&source.columns) {
                    *place = (start + column) as i64;
                }
            }
        }
        let strides = &mut buffers.slice_mut::<i64>(self.strides)[..sources.len() * width];
        strides.fill(0);
        for (row, source) in strides.chunks_mut(width.max(1)).zip(sources) {
            let held = if source.is_second { second } else { first };
            row[width - source.columns.len()..].fill(held.width as i64);
        }
    }

    fn write_shapes(&self, buffers: &mut Buffers, graph: &Graph, (rows, width): (usize, usize)) {
        for (layout, block) in &self.shapes {
            let tensor = graph.cache.iter().find(|tensor| tensor.layout == *layout);
            let shape = tensor.map(|tensor| tensor.shape(rows, width)).unwrap_or_default();
            let places = buffers.slice_mut::<i64>(*block).iter_mut();
            places.zip(shape).for_each(|(place, dim)| *place = dim);
        }
    }

    fn parts(
        &self,
        graph: &Graph,
        places: &Places,
        [first, second, target]: [Held; 3],
    ) -> (Vec<Argument<'_>>, Vec<Argument<'_>>) {
        let wide = TensorElementType::Int64;
        let numbers = |block: BlockId| Part::new((block, 0), wide, &[target.rows, target.width]);
        let mut inputs = vec![(STRIDES, numbers(self.strides))];
        let starts = self.starts.iter();
        inputs.extend(starts.map(|(_, name, block)| (name.as_str(), numbers(*block))));
        inputs.extend(self.shapes.iter().map(|(layout, block)| {
            let rank = if *layout == Layout::Heads { 4 } else { 3 };
            (joining::shape(*layout), Part::new((*block, 0), wide, &[rank]))
        }));
        let mut outputs = Vec::new();
        for (index, (tensor, names)) in graph.cache.iter().zip(&self.names).enumerate() {
            let [of_first, of_second, joined] = names;
            inputs.push((of_first, places.part(index, tensor, first)));
            inputs.push((of_second, places.part(index, tensor, second)));
            outputs.push((joined.as_str(), places.part(index, tensor, target)));
        }
        (inputs, outputs)
    }
}
