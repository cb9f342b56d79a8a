//! A decoder over a cache that grows, which computes many rows in a run where the cache lies.
//!
//! Past and present are two blocks that change places from step to step, each as large as the cache
//! may ever be, so that nothing is allocated and nothing leaves the card. Short rows are padded, which
//! their mask hides. A prompt is fed in a block for a single row and joins the batch when it is fed,
//! or when another is; joining, and leaving, is a run of a graph that puts the rows together anew. A
//! prompt that begins like a text that is there copies that part.

mod joiner;
mod places;
mod rows;
mod step;

use std::sync::Arc;

use consort_stage::{Error, Result};
use ort::session::Session;

use self::joiner::{Joiner, Source};
use self::places::{Held, Places};
use self::rows::{BatchRow, Single};
use self::step::{Stepper, TOLD_ROWS};
use super::adapters::AdapterId;
use super::buffers::{BlockId, Buffers};
use super::decoder::{
    Decoder, Piece, Row, Scores, Slot, Token, Uniforms, Wants, not_begun, not_run,
};
use super::graph::Graph;
use super::runs::Runs;
use super::shared::finders::Finders;
use super::shared::{FinderSessions, Home, Size, at_home};
use crate::run_error::RunError;

/// The sessions that it works with.
pub(crate) struct Sessions {
    /// The decoder's.
    pub(crate) decoder: Session,
    /// That of the graph that puts rows together.
    pub(crate) joiner: Session,
    /// Those that find tokens where the logits lie.
    pub(crate) finders: Option<FinderSessions>,
}

/// The batch, the row that is fed, and what computes them.
pub(crate) struct Grown {
    // Before the sessions, whose card its memory is on.
    buffers: Buffers,
    model: Arc<str>,
    graph: Graph,
    size: Size,
    places: Places,
    joiner: Joiner,
    stepper: Stepper,
    finders: Option<Finders>,
    /// The batch's keys and values lie in the first; the second is for those of the next step.
    sides: [BlockId; 2],
    /// How many columns every row of the batch has.
    width: usize,
    rows: Vec<BatchRow>,
    /// The same for a single row.
    single_sides: [BlockId; 2],
    single: Option<Single>,
    /// The adapter of each slot's sequence.
    adapters: Vec<AdapterId>,
    /// Where in the last run each of the rows asked for was, what was wanted of it, and how many
    /// rows there were.
    asked: Vec<(usize, Wants)>,
    count: usize,
}

impl Grown {
    /// A decoder over open sessions; takes all its memory now.
    pub(crate) fn new(
        sessions: Sessions,
        (model, graph, runs): (Arc<str>, Graph, Arc<Runs>),
        size: Size,
        home: Home,
    ) -> Result<Self> {
        let Sessions { decoder, joiner, finders } = sessions;
        let mut buffers = match home {
            Home::Processor => Buffers::new()?,
            // The decoder's memory grows in larger steps than what is asked for.
            Home::Card { index, .. } => Buffers::with_card(&joiner, index)?,
        };
        let places = Places::new(&graph, size.slots, size.context);
        let mut at_home = |bytes| at_home(&mut buffers, size, bytes);
        let [batch, single] = [places.batch.bytes(), places.alone.bytes()];
        let sides = [at_home(batch)?, at_home(batch)?];
        let single_sides = [at_home(single)?, at_home(single)?];
        let joiner = Joiner::new(&mut buffers, joiner, (&graph, size))?;
        let stepper = Stepper::new(&mut buffers, (decoder, runs), (&graph, size))?;
        let finders = finders.map(|sessions| Finders::new(&mut buffers, sessions, size));
        Ok(Self {
            finders: finders.transpose()?,
            buffers,
            model,
            graph,
            size,
            places,
            joiner,
            stepper,
            sides,
            width: 0,
            rows: Vec::new(),
            single_sides,
            single: None,
            adapters: vec![None; size.slots],
            asked: Vec::with_capacity(size.slots),
            count: 0,
        })
    }

    /// The batch's cache; of one without rows, memory that nobody reads.
    fn batch(&self) -> Held {
        let (rows, width) = (self.rows.len().max(1), self.width.max(1));
        Held { block: self.sides[0], is_alone: false, rows, width }
    }

    /// The cache of the row that lies alone; of none, memory that nobody reads.
    fn alone(&self) -> Held {
        let width = self.single.as_ref().map_or(0, |single| single.tokens.len());
        Held { block: self.single_sides[0], is_alone: true, rows: 1, width: width.max(1) }
    }

    /// Puts the batch together anew: without those who have left, and with the row that lies alone
    /// if it is to join.
    fn arrange(&mut self, joins: bool) -> Result<()> {
        let is_live = |row: &BatchRow| row.slot.is_some();
        let live = self.rows.iter().enumerate().filter(|(_, row)| is_live(row));
        let mut sources: Vec<_> =
            live.map(|(index, row)| Source::seen(index, &row.mask, usize::MAX)).collect();
        let joining = self.single.as_ref().filter(|_| joins);
        sources.extend(joining.map(|single| Source::of_second(0..single.tokens.len())));
        if !sources.is_empty() {
            let target = Held { block: self.sides[1], ..self.batch() };
            self.width = self.join(&sources, target)?;
            self.sides.swap(0, 1);
        }
        self.rows.retain(is_live);
        if let Some(Single { slot, tokens, adapter }) = self.single.take_if(|_| joins) {
            self.rows.push(BatchRow { slot, mask: Vec::new(), tokens, adapter });
        }
        for row in &mut self.rows {
            let hidden = self.width - row.tokens.len();
            row.mask = (0..self.width).map(|column| column >= hidden).collect();
        }
        Ok(())
    }

    /// Makes the row that lies alone one with the tokens of a source, in the other block.
    fn take_alone(&mut self, source: Source, row: Single) -> Result<()> {
        let target = Held { block: self.single_sides[1], ..self.alone() };
        self.join(&[source], target)?;
        self.single_sides.swap(0, 1);
        self.single = Some(row);
        Ok(())
    }

    fn join(&mut self, sources: &[Source], target: Held) -> Result<usize> {
        let caches = (self.batch(), self.alone());
        let places = (&self.graph, &self.places);
        let joined = self.joiner.join(&mut self.buffers, places, caches, (sources, target));
        joined.map_err(|error| self.failed(&error))
    }

    /// Puts the row that lies alone into the batch, if a sequence needs it yet.
    fn make_room(&mut self) -> Result<()> {
        let is_needed = |single: &Single| single.slot.is_some() && !single.tokens.is_empty();
        if self.single.as_ref().is_some_and(is_needed) {
            self.arrange(true)?;
        }
        Ok(())
    }

    /// Makes a slot's row the one that lies alone, whose prompt is fed.
    fn single_out(&mut self, slot: Slot) -> Result<()> {
        if self.single.as_ref().is_some_and(|single| single.slot == Some(slot)) {
            return Ok(());
        }
        self.make_room()?;
        let adapter = self.adapters[slot];
        let Some(index) = self.rows.iter().position(|row| row.slot == Some(slot)) else {
            self.single = Some(Single { slot: Some(slot), tokens: Vec::new(), adapter });
            return Ok(());
        };
        let row = &self.rows[index];
        let source = Source::seen(index, &row.mask, usize::MAX);
        let single = Single { slot: Some(slot), tokens: row.tokens.clone(), adapter };
        self.take_alone(source, single)?;
        self.rows[index].slot = None;
        Ok(())
    }

    /// Whether the batch is to be put together anew before a step: somebody has left, more than half
    /// of its columns are hidden, or there is no room for another.
    fn is_wasteful(&self) -> bool {
        let all = self.rows.len() * self.width;
        let seen: usize = self.rows.iter().map(|row| row.tokens.len()).sum();
        let has_left = self.rows.iter().any(|row| row.slot.is_none());
        has_left || 2 * seen < all || self.width == self.size.context
    }

    /// Finds what is wanted of the rows of the last run beside the likeliest token.
    fn find(&mut self) -> Result<()> {
        let Some(finders) = &mut self.finders else {
            return Ok(());
        };
        let logits = self.stepper.logits(&self.graph, self.size);
        let asked = (self.asked.as_slice(), (0, self.count));
        let found = finders.find(&mut self.buffers, logits, asked);
        found.map_err(|error| self.failed(&error))
    }

    /// Brings the logits of a row of the last run to the processor.
    fn fetch_logits(&mut self, place: usize) -> Result<&mut [f32]> {
        let fetched = self.stepper.fetch_row(&mut self.buffers, &self.graph, (place, self.size));
        fetched.map_err(|error| self.failed(&error))?;
        self.stepper.row(&mut self.buffers, &self.graph, self.size)
    }

    fn failed(&self, error: &ort::Error) -> Error {
        RunError::from(error).with_own_inputs().within(&self.model)
    }
}

impl Decoder for Grown {
    fn slots(&self) -> usize {
        self.size.slots
    }

    fn max_rows(&self) -> usize {
        self.size.slots
    }

    fn prefill_tokens(&self) -> usize {
        self.size.prefill_tokens
    }

    /// No: one prompt lies alone, and all of the batch is put together anew for another.
    fn changes_prompts(&self) -> bool {
        false
    }

    fn told_tokens(&self, most: usize) -> usize {
        match &self.graph.logits.of_all {
            Some(_) => self.size.prefill_tokens.min(most).min(TOLD_ROWS),
            None => 1,
        }
    }

    fn logits_behind(&mut self, place: usize) -> Result<&[f32]> {
        if self.graph.logits.of_all.is_some() {
            let place = (place, self.size);
            let told = self.stepper.told(&mut self.buffers, &self.graph, place);
            return told.map(|row| &*row);
        }
        self.fetch_logits(0).map(|row| &*row)
    }

    fn begin(&mut self, slot: Slot, prompt: &[Token], adapter: AdapterId) -> Result<usize> {
        self.adapters[slot] = adapter;
        self.make_room()?;
        let Some((source, tokens)) =
            rows::beginning((&self.rows, self.single.as_ref()), prompt, adapter)
        else {
            self.single = Some(Single { slot: Some(slot), tokens: Vec::new(), adapter });
            return Ok(0);
        };
        let held = prompt[..tokens].to_vec();
        self.take_alone(source, Single { slot: Some(slot), tokens: held, adapter })?;
        Ok(tokens)
    }

    fn prefill(&mut self, slot: Slot, piece: Piece<'_>) -> Result<()> {
        let Piece { tokens, wants, tells_each } = piece;
        self.single_out(slot)?;
        let held = self.single.as_ref().ok_or_else(not_begun)?.tokens.len();
        let past = Held { width: held, ..self.alone() };
        let present =
            Held { block: self.single_sides[1], width: past.width + tokens.len(), ..past };
        self.stepper.write_prompt(&mut self.buffers, &self.graph, tokens, held);
        let places = (&self.graph, &self.places);
        let run =
            self.stepper.run(&mut self.buffers, places, self.size, (past, present, tells_each));
        run.map_err(|error| self.failed(&error))?;
        self.single.iter_mut().for_each(|single| single.tokens.extend_from_slice(tokens));
        self.single_sides.swap(0, 1);
        self.asked.clear();
        self.asked.extend(wants.map(|wants| (0, wants)));
        self.count = 1;
        self.find()
    }

    fn decode(&mut self, rows: &[Row]) -> Result<()> {
        let is_asked = |single: &Single| rows.iter().any(|row| Some(row.slot) == single.slot);
        let joins = self.single.as_ref().is_some_and(is_asked);
        if joins || self.is_wasteful() {
            self.arrange(joins)?;
        }
        self.asked.clear();
        let mut fed = vec![None; self.rows.len()];
        for row in rows {
            let place = self.rows.iter().position(|it| it.slot == Some(row.slot));
            let place = place.ok_or_else(not_begun)?;
            fed[place] = Some(row.token);
            self.asked.push((place, row.wants));
        }
        let step = self
            .rows
            .iter()
            .zip(&fed)
            .map(|(row, token)| (row.mask.as_slice(), *token, row.tokens.len()));
        self.stepper.write_step(&mut self.buffers, &self.graph, self.width, step);
        let past = self.batch();
        let present = Held { block: self.sides[1], width: past.width + 1, ..past };
        let places = (&self.graph, &self.places);
        let run = self.stepper.run(&mut self.buffers, places, self.size, (past, present, false));
        run.map_err(|error| self.failed(&error))?;
        for (row, token) in self.rows.iter_mut().zip(&fed) {
            row.mask.push(token.is_some());
            row.tokens.extend(token);
        }
        self.width += 1;
        self.sides.swap(0, 1);
        self.count = self.rows.len();
        self.find()
    }

    fn scores(&mut self, index: usize) -> Result<Scores<'_>> {
        let (place, wants) = *self.asked.get(index).ok_or_else(not_run)?;
        if wants == Wants::Likeliest {
            return Ok(Scores::Likeliest(self.stepper.chosen(&mut self.buffers, place)));
        }
        let logits = self.stepper.logits(&self.graph, self.size);
        let asked = (self.asked.as_slice(), (0, self.count));
        let has = |finders: &mut Finders| finders.has(&mut self.buffers, logits, asked, index);
        if !self.finders.as_mut().is_some_and(has) {
            return self.logits(index);
        }
        let finders = self.finders.as_mut().ok_or_else(not_run)?;
        Ok(finders.scores(&mut self.buffers, (place, wants)))
    }

    fn draw(&mut self, index: usize, uniforms: Uniforms) -> Result<Option<Scores<'_>>> {
        let logits = self.stepper.logits(&self.graph, self.size);
        let asked = (self.asked.as_slice(), (0, self.count));
        let drawn =
            |finders| Finders::draw(finders, &mut self.buffers, logits, asked, (index, uniforms));
        Ok(self.finders.as_mut().and_then(drawn))
    }

    fn logits(&mut self, index: usize) -> Result<Scores<'_>> {
        let (place, _) = *self.asked.get(index).ok_or_else(not_run)?;
        self.fetch_logits(place).map(Scores::Logits)
    }

    fn release(&mut self, slot: Slot) {
        let rows = self.rows.iter_mut().map(|row| &mut row.slot);
        let single = self.single.iter_mut().map(|single| &mut single.slot);
        for held in rows.chain(single) {
            held.take_if(|held| *held == slot);
        }
    }
}
