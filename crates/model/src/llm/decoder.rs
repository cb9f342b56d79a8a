//! The seam between the generation loop and the model: who feeds tokens, and who computes logits.

use consort_stage::Result;

/// A token's number in the vocabulary.
pub(crate) type Token = u32;

/// The place of one sequence in the decoder's cache, below [`Decoder::slots`].
pub(crate) type Slot = usize;

/// The next token of a sequence whose earlier tokens the cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Where the sequence lies.
    pub(crate) slot: Slot,
    /// Its last token, which the cache does not hold yet.
    pub(crate) token: Token,
}

/// A language model that remembers, for each slot, the tokens it was fed.
///
/// A decoder that computes many rows in one run needs another implementation of this trait and
/// nothing else: the loop already hands it every sequence that is due.
pub(crate) trait Decoder: Send {
    /// How many sequences it can remember at once.
    fn slots(&self) -> usize;

    /// How many rows one [`decode`](Self::decode) may have.
    fn max_rows(&self) -> usize;

    /// How many tokens of a prompt it should be fed at a time.
    fn prefill_tokens(&self) -> usize;

    /// Feeds some tokens of a prompt to a slot, behind those it holds, and gives the logits of the
    /// last.
    fn prefill(&mut self, slot: Slot, tokens: &[Token]) -> Result<&mut [f32]>;

    /// Feeds one token to each of some slots and gives the logits of each, row after row.
    fn decode(&mut self, rows: &[Row]) -> Result<&mut [f32]>;

    /// Forgets what a slot holds, so that another sequence can have it.
    fn release(&mut self, slot: Slot);
}
