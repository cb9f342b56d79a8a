//! What texts that have ended leave behind: their keys and values, for prompts that begin alike.

use std::collections::VecDeque;

use ort::value::DynValue;

use crate::llm::adapters::AdapterId;
use crate::llm::decoder::Token;
use crate::llm::rows::FEWEST_REUSED;

/// The texts that ended last, the oldest first.
#[derive(Default)]
pub(super) struct Kept(VecDeque<Text>);

/// A text and its keys and values, in a cache with one row.
pub(super) struct Text {
    pub(super) past: Vec<DynValue>,
    pub(super) tokens: Vec<Token>,
    /// What they were computed with.
    pub(super) adapter: AdapterId,
}

impl Kept {
    /// Keeps one more, unless it is too short to be worth it.
    pub(super) fn keep(&mut self, text: Text) {
        if text.tokens.len() >= FEWEST_REUSED {
            self.0.push_back(text);
        }
    }

    /// Keeps no more than so many, the youngest.
    pub(super) fn shrink_to(&mut self, most: usize) {
        let over = self.0.len().saturating_sub(most);
        self.0.drain(..over);
    }

    /// All of them.
    pub(super) fn texts(&self) -> impl Iterator<Item = &Text> {
        self.0.iter()
    }
}
