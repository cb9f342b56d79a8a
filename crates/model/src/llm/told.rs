//! The logits behind each token of a piece of a prompt, from its run until they are heard.

use consort_stage::{Error, Result};
use ort::value::DynValue;

use super::decoder::Piece;
use super::logits;

/// Those of the piece that was fed last, where they are wanted.
#[derive(Default)]
pub(crate) struct Told {
    /// As the run gave them, and for how many tokens.
    given: Option<(DynValue, usize)>,
    row: Vec<f32>,
}

impl Told {
    /// Forgets what there is.
    pub(crate) fn clear(&mut self) {
        self.given = None;
    }

    /// Keeps the logits of a piece until they are forgotten, if it tells them.
    pub(crate) fn keep(&mut self, logits: DynValue, piece: Piece<'_>) {
        self.given = piece.tells_each.then_some((logits, piece.tokens.len()));
    }

    /// Those behind the token at a place.
    pub(crate) fn row(&mut self, place: usize, vocabulary: usize) -> Result<&[f32]> {
        let (logits, tokens) = self.given.as_ref().ok_or_else(not_told)?;
        logits::read_place(logits, (place, *tokens), vocabulary, &mut self.row)?;
        Ok(&self.row)
    }
}

fn not_told() -> Error {
    Error::internal("the logits behind a token were asked for that are not kept")
}
