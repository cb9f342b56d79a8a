//! What texts that have ended leave behind: their keys and values, for prompts that begin alike.

use std::collections::VecDeque;

use ort::value::DynValue;

use crate::llm::adapters::AdapterId;
use crate::llm::decoder::Token;
use crate::llm::rows::FEWEST_REUSED;

/// The texts that ended last, the oldest first.
pub(super) struct Kept {
    texts: VecDeque<Text>,
    is_of_use: bool,
}

/// A text and its keys and values, in a cache with one row.
pub(super) struct Text {
    pub(super) past: Vec<DynValue>,
    pub(super) tokens: Vec<Token>,
    /// What they were computed with.
    pub(super) adapter: AdapterId,
}

impl Kept {
    /// None yet, and none ever where prompts take over nothing.
    pub(super) fn new(is_of_use: bool) -> Self {
        Self { texts: VecDeque::new(), is_of_use }
    }

    /// Whether prompts take over what others left.
    pub(super) fn is_of_use(&self) -> bool {
        self.is_of_use
    }

    /// Whether a text of so many tokens is worth keeping, which a row's is copied for.
    pub(super) fn takes(&self, tokens: usize) -> bool {
        self.is_of_use && tokens >= FEWEST_REUSED
    }

    /// Keeps one more.
    pub(super) fn keep(&mut self, text: Text) {
        self.texts.push_back(text);
    }

    /// Keeps no more than so many, the youngest.
    pub(super) fn shrink_to(&mut self, most: usize) {
        let over = self.texts.len().saturating_sub(most);
        self.texts.drain(..over);
    }

    /// All of them.
    pub(super) fn texts(&self) -> impl Iterator<Item = &Text> {
        self.texts.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_taken_over_is_worth_keeping() {
        let takes = |is_of_use, tokens| Kept::new(is_of_use).takes(tokens);
        assert!(takes(true, FEWEST_REUSED));
        assert!(!takes(true, FEWEST_REUSED - 1));
        assert!(!takes(false, 1000));
    }
}
