//! The seam between the generation loop and the model: who feeds tokens, and who computes logits.

use consort_stage::Result;

/// A token's number in the vocabulary.
pub(crate) type Token = u32;

/// One sequence's name in the decoder, below [`Decoder::slots`].
pub(crate) type Slot = usize;

/// The next token of a sequence whose earlier tokens the cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The sequence.
    pub(crate) slot: Slot,
    /// Its last token, which the cache does not hold yet.
    pub(crate) token: Token,
}

/// The logits of some rows, wherever the decoder computed them.
pub(crate) struct Logits<'a> {
    /// Those of every row that was computed.
    pub(crate) values: &'a mut [f32],
    /// How many each has.
    pub(crate) vocabulary: usize,
    /// Which of them belongs to each row that was asked for.
    pub(crate) places: &'a [usize],
}

impl Logits<'_> {
    /// Those of the row that was asked for at `index`.
    pub(crate) fn row(&mut self, index: usize) -> &mut [f32] {
        let start = self.places[index] * self.vocabulary;
        &mut self.values[start..start + self.vocabulary]
    }
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

    /// Begins a sequence in a slot that has none, and gives how many tokens of its prompt are
    /// remembered from another: never all of them.
    fn begin(&mut self, slot: Slot, prompt: &[Token]) -> Result<usize>;

    /// Feeds some tokens of a prompt to a slot, behind those it holds, and gives the logits of the
    /// last.
    fn prefill(&mut self, slot: Slot, tokens: &[Token]) -> Result<&mut [f32]>;

    /// Feeds one token to each of some slots and gives the logits of each.
    fn decode(&mut self, rows: &[Row]) -> Result<Logits<'_>>;

    /// Ends the sequence in a slot, so that another can have it.
    fn release(&mut self, slot: Slot);
}
