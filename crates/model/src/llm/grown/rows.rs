//! Whose the rows of a growing cache are, and what of them a prompt can take over.

use super::joiner::Source;
use crate::llm::adapters::AdapterId;
use crate::llm::decoder::{Slot, Token};
use crate::llm::rows::{FEWEST_REUSED, common};

/// One row of the batch.
pub(super) struct BatchRow {
    /// Whose it is; `None` when the sequence has left.
    pub(super) slot: Option<Slot>,
    /// Which of its columns are tokens of the sequence.
    pub(super) mask: Vec<bool>,
    /// Those.
    pub(super) tokens: Vec<Token>,
    pub(super) adapter: AdapterId,
}

/// The row that lies alone, all of whose columns are tokens.
pub(super) struct Single {
    pub(super) slot: Option<Slot>,
    pub(super) tokens: Vec<Token>,
    pub(super) adapter: AdapterId,
}

/// The source of the longest beginning of a prompt that any text here has, computed with the same
/// adapter, and how many tokens that is; `None` when it is not worth it.
pub(super) fn beginning(
    (rows, single): (&[BatchRow], Option<&Single>),
    prompt: &[Token],
    adapter: AdapterId,
) -> Option<(Source, usize)> {
    let most = &prompt[..prompt.len().saturating_sub(1)];
    let shared = |tokens: &[Token], other| if other == adapter { common(tokens, most) } else { 0 };
    let batch = rows.iter().enumerate();
    let batch = batch.map(|(index, row)| (Some((index, row)), shared(&row.tokens, row.adapter)));
    let single = single.into_iter().map(|it| (None, shared(&it.tokens, it.adapter)));
    let (row, tokens) = batch.chain(single).max_by_key(|(_, tokens)| *tokens)?;
    let source = match row {
        Some((index, row)) => Source::seen(index, &row.mask, tokens),
        None => Source::of_second(0..tokens),
    };
    (tokens >= FEWEST_REUSED).then_some((source, tokens))
}
