//! What finds and draws tokens where the logits of a run lie, on a card, so that those come back and
//! not a vocabulary.

use consort_stage::Result;
use ort::session::Session;

use super::Size;
use super::drawer::Drawer;
use super::picker::Picker;
use super::prepared::Logits;
use crate::llm::buffers::Buffers;
use crate::llm::decoder::{Scores, Uniforms, Wants};

/// The sessions of the graphs that find and draw.
pub(crate) struct FinderSessions {
    /// Of [`choosing::top`](crate::llm::choosing::top).
    pub(crate) top: Session,
    /// Of [`drawing::graph`](crate::llm::drawing::graph).
    pub(crate) draws: Session,
}

/// Both, and what they found.
pub(in crate::llm) struct Finders {
    picker: Picker,
    drawer: Drawer,
}

/// The rows of the last run that were asked for: where each was and what is wanted of it, and the
/// first and number of the places that there were.
pub(in crate::llm) type Asked<'a> = (&'a [(usize, Wants)], (usize, usize));

impl Finders {
    /// Those for runs of some size.
    pub(in crate::llm) fn new(
        buffers: &mut Buffers,
        FinderSessions { top, draws }: FinderSessions,
        size: Size,
    ) -> Result<Self> {
        let picker = Picker::new(buffers, top, size)?;
        Ok(Self { picker, drawer: Drawer::new(buffers, draws, size)? })
    }

    /// Finds the likeliest tokens of a run's rows, as far as they are wanted.
    pub(in crate::llm) fn find(
        &mut self,
        buffers: &mut Buffers,
        logits: Logits,
        (asked, (first, rows)): Asked<'_>,
    ) -> ort::Result<()> {
        self.drawer.forget();
        if !asked.iter().any(|(_, wants)| self.picker.serves(*wants)) {
            return Ok(());
        }
        let places = asked.iter().map(|(place, wants)| (place - first, *wants));
        self.picker.ask(buffers, places);
        self.picker.find(buffers, logits, (first, rows))
    }

    /// Whether something was found for one of the rows, or is drawn for it now;
    /// [`scores`](Self::scores) then gives it.
    pub(in crate::llm) fn has(
        &mut self,
        buffers: &mut Buffers,
        logits: Logits,
        asked: Asked<'_>,
        index: usize,
    ) -> bool {
        match asked.0.get(index) {
            Some((_, Wants::Free { uniforms, .. })) => {
                self.drawer.draw(buffers, logits, asked, (index, *uniforms))
            }
            Some((_, wants)) => self.picker.serves(*wants),
            None => false,
        }
    }

    /// What there is for a row, by its place from the first on.
    pub(in crate::llm) fn scores(
        &mut self,
        buffers: &mut Buffers,
        (index, wants): (usize, Wants),
    ) -> Scores<'_> {
        match wants {
            Wants::Free { .. } => Scores::Drawn(self.drawer.drawn()),
            _ => self.picker.row(buffers, (index, wants)),
        }
    }

    /// What some random numbers fall on in one of the rows, if that could be found out.
    pub(in crate::llm) fn draw(
        &mut self,
        buffers: &mut Buffers,
        logits: Logits,
        asked: Asked<'_>,
        row: (usize, Uniforms),
    ) -> Option<Scores<'_>> {
        let is_drawn = self.drawer.draw(buffers, logits, asked, row);
        is_drawn.then(|| Scores::Drawn(self.drawer.drawn()))
    }
}
