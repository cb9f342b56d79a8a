//! Runs a decoder whose cache grows: what a run is told, where its cache lies, and what comes of it.

use std::sync::Arc;

use consort_stage::Result;
use ort::session::Session;
use ort::value::TensorElementType;

use super::places::{Held, Places};
use crate::llm::buffers::{Argument, BlockId, Buffers, CallId, Part};
use crate::llm::choosing;
use crate::llm::decoder::Token;
use crate::llm::graph::{Graph, Integers};
use crate::llm::logits;
use crate::llm::runs::Runs;
use crate::llm::shared::prepared::Logits;
use crate::llm::shared::{Size, at_home, no_memory};

/// The session and the blocks beside the cache.
pub(super) struct Stepper {
    session: Session,
    runs: Arc<Runs>,
    /// The processor's, which the run reads itself.
    tokens: BlockId,
    mask: BlockId,
    positions: BlockId,
    /// The logits of each row's last position, where they are computed.
    logits: BlockId,
    /// The tokens that were chosen, and the logits of one row: the processor's.
    chosen: BlockId,
    row: BlockId,
    /// The logits of every token of a piece that tells them, the processor's.
    told: BlockId,
    widened: Vec<f32>,
    call: Option<CallId>,
    telling: Option<CallId>,
}

/// How many rows of logits there is room for behind the tokens of a piece that tells each: no such
/// piece has more tokens, whatever a step may have of them.
pub(super) const TOLD_ROWS: usize = 128;

impl Stepper {
    /// Room for the largest run there may be.
    pub(super) fn new(
        buffers: &mut Buffers,
        (session, runs): (Session, Arc<Runs>),
        (graph, size): (&Graph, Size),
    ) -> Result<Self> {
        let fed = size.slots.max(size.prefill_tokens);
        let element = graph.logits.element;
        let scores = |rows: usize| {
            let count = rows.saturating_mul(size.vocabulary);
            element.byte_size(count).unwrap_or(usize::MAX)
        };
        let logits = at_home(buffers, size, scores(size.slots))?;
        let mut allocate =
            |bytes: usize| buffers.allocate(bytes).ok_or_else(|| no_memory(size, bytes));
        let integers = |count: usize| count.saturating_mul(size_of::<i64>());
        Ok(Self {
            session,
            runs,
            tokens: allocate(integers(fed))?,
            mask: allocate(integers(size.slots.saturating_mul(size.context)))?,
            positions: allocate(integers(fed))?,
            logits,
            chosen: allocate(integers(size.slots))?,
            row: allocate(scores(1))?,
            told: allocate(scores(TOLD_ROWS))?,
            widened: Vec::new(),
            call: None,
            telling: None,
        })
    }

    /// Writes the inputs of a row that is fed some tokens behind `held` others.
    pub(super) fn write_prompt(
        &self,
        buffers: &mut Buffers,
        graph: &Graph,
        tokens: &[Token],
        held: usize,
    ) {
        let ids = tokens.iter().map(|token| i64::from(*token));
        graph.tokens.write(buffers, (self.tokens, 0), 0, ids);
        let total = held + tokens.len();
        if let Some(mask) = &graph.mask {
            mask.write(buffers, (self.mask, 0), 0, std::iter::repeat_n(1, total));
        }
        if let Some(positions) = &graph.positions {
            positions.write(buffers, (self.positions, 0), 0, held as i64..total as i64);
        }
    }

    /// Writes the inputs of a step over rows with so many columns: what each row's mask shows, the
    /// token it is fed, if any, and how many it holds.
    pub(super) fn write_step<'a>(
        &self,
        buffers: &mut Buffers,
        graph: &Graph,
        width: usize,
        rows: impl Iterator<Item = (&'a [bool], Option<Token>, usize)>,
    ) {
        for (index, (seen, token, held)) in rows.enumerate() {
            let id = i64::from(token.unwrap_or(0));
            graph.tokens.write(buffers, (self.tokens, 0), index, [id]);
            if let Some(mask) = &graph.mask {
                let columns = seen.iter().copied().chain([token.is_some()]).map(i64::from);
                mask.write(buffers, (self.mask, 0), index * (width + 1), columns);
            }
            if let Some(positions) = &graph.positions {
                positions.write(buffers, (self.positions, 0), index, [held as i64]);
            }
        }
    }

    /// Runs the graph from one cache into another, and keeps the logits behind each token if the
    /// only row of the run tells them.
    pub(super) fn run(
        &mut self,
        buffers: &mut Buffers,
        (graph, places): (&Graph, &Places),
        size: Size,
        (past, present, tells_each): (Held, Held, bool),
    ) -> ort::Result<()> {
        let (inputs, mut outputs) = self.parts((graph, places), size, (past, present));
        let of_all = graph.logits.of_all.as_deref().filter(|_| tells_each);
        outputs.extend(of_all.map(|name| {
            let shape = [1, present.width - past.width, size.vocabulary];
            (name, Part::new((self.told, 0), graph.logits.element, &shape))
        }));
        let prepared = if of_all.is_some() { &mut self.telling } else { &mut self.call };
        let call = if let Some(call) = *prepared {
            buffers.set(call, &inputs, &outputs)?;
            call
        } else {
            *prepared.insert(buffers.prepare(&inputs, &outputs)?)
        };
        let (options, _) = self.runs.options()?;
        buffers.run(&mut self.session, call, Some(&options))
    }

    fn parts<'a>(
        &self,
        (graph, places): (&'a Graph, &Places),
        size: Size,
        (past, present): (Held, Held),
    ) -> (Vec<Argument<'a>>, Vec<Argument<'a>>) {
        let (rows, sequence) = (past.rows, present.width - past.width);
        let integers = |block, input: &'a Integers, width: usize| {
            (input.name.as_str(), Part::new((block, 0), input.element(), &[rows, width]))
        };
        let mut inputs = vec![integers(self.tokens, &graph.tokens, sequence)];
        let mask = graph.mask.iter();
        inputs.extend(mask.map(|input| integers(self.mask, input, present.width)));
        let positions = graph.positions.iter();
        inputs.extend(positions.map(|input| integers(self.positions, input, sequence)));
        let logits = Part::new((self.logits, 0), graph.logits.element, &[rows, 1, size.vocabulary]);
        let chosen = Part::new((self.chosen, 0), TensorElementType::Int64, &[rows, 1, 1]);
        let mut outputs = vec![(graph.logits.name.as_str(), logits), (choosing::CHOSEN, chosen)];
        for (index, tensor) in graph.cache.iter().enumerate() {
            inputs.push((&tensor.past, places.part(index, tensor, past)));
            outputs.push((&tensor.present, places.part(index, tensor, present)));
        }
        (inputs, outputs)
    }

    /// Where the logits of the last run lie.
    pub(super) fn logits(&self, graph: &Graph, size: Size) -> Logits {
        (self.logits, graph.logits.element, size.vocabulary)
    }

    /// The token that was chosen for one of the last run's rows.
    pub(super) fn chosen(&self, buffers: &mut Buffers, place: usize) -> Option<Token> {
        let chosen = buffers.slice_mut::<i64>(self.chosen).get(place).copied();
        chosen.and_then(|token| Token::try_from(token).ok())
    }

    /// Brings the logits of one of the last run's rows to the processor.
    pub(super) fn fetch_row(
        &self,
        buffers: &mut Buffers,
        graph: &Graph,
        (place, size): (usize, Size),
    ) -> ort::Result<()> {
        let element = graph.logits.element;
        let offset = element.byte_size(place * size.vocabulary).unwrap_or(usize::MAX);
        let from = Part::new((self.logits, offset), element, &[size.vocabulary]);
        let to = Part { block: self.row, offset: 0, ..from.clone() };
        buffers.copy_now(&[(from, to)])
    }

    /// The logits behind a token of the last piece, which tells them.
    pub(super) fn told<'a>(
        &'a mut self,
        buffers: &'a mut Buffers,
        graph: &Graph,
        (place, size): (usize, Size),
    ) -> Result<&'a mut [f32]> {
        let row = place * size.vocabulary..(place + 1) * size.vocabulary;
        logits::read(buffers, self.told, (graph.logits.element, row), &mut self.widened)
    }

    /// Those that were brought.
    pub(super) fn row<'a>(
        &'a mut self,
        buffers: &'a mut Buffers,
        graph: &Graph,
        size: Size,
    ) -> Result<&'a mut [f32]> {
        let logits = (graph.logits.element, 0..size.vocabulary);
        logits::read(buffers, self.row, logits, &mut self.widened)
    }
}
