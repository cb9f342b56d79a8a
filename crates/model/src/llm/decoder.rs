//! The seam between the generation loop and the model: who feeds tokens, and who computes logits.

use consort_stage::{Error, Result};

use super::adapters::AdapterId;

/// A token's number in the vocabulary.
pub(crate) type Token = u32;

/// One sequence's name in the decoder, below [`Decoder::slots`].
pub(crate) type Slot = usize;

/// The next token of a sequence whose earlier tokens the cache holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    /// The sequence.
    pub(crate) slot: Slot,
    /// Its last token, which the cache does not hold yet.
    pub(crate) token: Token,
    /// What its next token is picked from.
    pub(crate) wants: Wants,
}

/// Numbers from 0 to below 1 by which tokens are drawn, one after the other.
pub(crate) type Uniforms = [f32; 4];

/// A token that a random number fell on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Drawn {
    /// Which.
    pub(crate) token: Token,
    /// How probable it is among all.
    pub(crate) probability: f32,
    /// How probable those together are that are likelier, or as likely and of a smaller number.
    pub(crate) cumulative: f32,
}

/// The error for a slot that is fed and was not begun.
pub(crate) fn not_begun() -> Error {
    Error::internal("a slot was fed before it was begun")
}

/// The error for scores of a row that the last run did not have.
pub(crate) fn not_run() -> Error {
    Error::internal("the scores of a row were asked for that had no run")
}

/// Some tokens of a prompt, one behind the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// The tokens.
    pub(crate) tokens: &'a [Token],
    /// What is wanted behind the last of them; `None` when nothing is, since the prompt goes on.
    pub(crate) wants: Option<Wants>,
    /// Whether the logits behind each of them are wanted as well.
    pub(crate) tells_each: bool,
}

/// What a token is picked from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wants {
    /// The likeliest token is all that counts.
    Likeliest,
    /// So many of the likeliest are all that count.
    Top(usize),
    /// Some of the likeliest, and how much they have of the probability at a temperature, are
    /// mostly enough; where they are not, one of those that the random numbers fall on.
    Draw { temperature: f32, uniforms: Uniforms },
    /// The token that the first random number falls on, at a temperature, whichever of all it is.
    Free { temperature: f32, uniforms: Uniforms },
    /// The logits of every token of the vocabulary.
    Logits,
}

/// What a decoder says of the next token of a row.
#[derive(Debug)]
pub(crate) enum Scores<'a> {
    /// The likeliest token; `None` when no logit is above minus infinity.
    ///
    /// Only for a row that wants no more, and from a decoder that can tell.
    Likeliest(Option<Token>),
    /// The likeliest tokens and their logits, from the likeliest down; as many as were wanted, or
    /// more. Likewise.
    Top(&'a [(Token, f32)]),
    /// Some of the likeliest tokens and how probable each is among all at the temperature, from the
    /// likeliest down.
    Draw(&'a [(Token, f32)]),
    /// Tokens that were drawn from all, in the order of their random numbers. Likewise.
    Drawn(&'a [Drawn]),
    /// The logit of each token, free to be changed.
    Logits(&'a mut [f32]),
}

/// A language model that remembers, for each slot, the tokens it was fed.
///
/// The loop calls [`begin`](Self::begin) once for a sequence, then [`prefill`](Self::prefill) until
/// its prompt is fed, then [`decode`](Self::decode) for each token with every other sequence that
/// is as far, and at last [`release`](Self::release).
pub(crate) trait Decoder: Send {
    /// How many sequences it can remember at once.
    fn slots(&self) -> usize;

    /// How many rows one [`decode`](Self::decode) may have.
    fn max_rows(&self) -> usize;

    /// How many tokens of prompts it should be fed in one step.
    fn prefill_tokens(&self) -> usize;

    /// Whether it goes from one prompt to another before that is fed as easily as from step to step;
    /// else the one is fed first.
    fn changes_prompts(&self) -> bool {
        true
    }

    /// How many tokens a piece should have that [`tells_each`](Piece::tells_each), where `most` are
    /// asked for.
    fn told_tokens(&self, most: usize) -> usize {
        self.prefill_tokens().min(most)
    }

    /// Begins a sequence in a slot that has none, and gives how many tokens of its prompt are
    /// remembered from another that was computed with the same adapter: never all of them.
    fn begin(&mut self, slot: Slot, prompt: &[Token], adapter: AdapterId) -> Result<usize>;

    /// Feeds a piece of a prompt to a slot, behind the tokens that it holds.
    fn prefill(&mut self, slot: Slot, piece: Piece<'_>) -> Result<()>;

    /// The logits behind the token at `place` of the piece that was fed last, which
    /// [`tells_each`](Piece::tells_each).
    fn logits_behind(&mut self, place: usize) -> Result<&[f32]>;

    /// Forgets the logits of that piece, which may be many: nobody asks for them any more.
    fn forget_told(&mut self) {}

    /// Feeds one token to each of some slots, all of one adapter.
    fn decode(&mut self, rows: &[Row]) -> Result<()>;

    /// The scores of the row at `index` of the last [`decode`](Self::decode), or, at 0, those of
    /// the last [`prefill`](Self::prefill).
    fn scores(&mut self, index: usize) -> Result<Scores<'_>>;

    /// Tokens drawn from all of that row's by these random numbers, or by the first of them; `None`
    /// from a decoder that draws none, or for a row that wanted none.
    fn draw(&mut self, index: usize, uniforms: Uniforms) -> Result<Option<Scores<'_>>> {
        let _ = (index, uniforms);
        Ok(None)
    }

    /// The logits of that row, whatever was wanted of it.
    fn logits(&mut self, index: usize) -> Result<Scores<'_>> {
        self.scores(index)
    }

    /// Ends the sequence in a slot, so that another can have it.
    fn release(&mut self, slot: Slot);
}
