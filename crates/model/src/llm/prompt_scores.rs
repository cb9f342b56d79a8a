//! What a request is told of its own prompt: how likely the model found each token, and the logits
//! behind each.

use super::decoder::Token;
use super::log_probs::{LogProbs, Spoken};
use super::raw_logits::{RawLogits, RawRows};

/// What a request wants to be told of its prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AskedOfPrompt {
    /// Of how many of the likeliest tokens the log-probabilities are wanted in the place of each
    /// token, beside its own; `None` when none are.
    pub(crate) alternatives: Option<usize>,
    /// Whether the logits behind each token are wanted.
    pub(crate) logits: bool,
}

impl AskedOfPrompt {
    /// Whether anything is wanted.
    pub(crate) fn is_any(self) -> bool {
        self.alternatives.is_some() || self.logits
    }
}

/// What is known so far. A row of logits is made into numbers as it comes: no more than what is
/// asked for is kept of it.
#[derive(Debug)]
pub(crate) struct PromptScores {
    log_probs: Option<LogProbs>,
    logits: Option<RawLogits>,
}

/// What one response tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfPrompt<'a> {
    /// The prompt.
    pub(crate) tokens: &'a [Token],
    /// The log-probabilities of its tokens from the second on, for nothing comes before the first.
    pub(crate) log_probs: Spoken<'a>,
    /// The logits behind each of them.
    pub(crate) logits: RawRows<'a>,
}

impl PromptScores {
    /// Nothing so far; `None` when nothing is wanted.
    pub(crate) fn new(asked: AskedOfPrompt, vocabulary: usize) -> Option<Self> {
        asked.is_any().then(|| Self {
            log_probs: asked.alternatives.map(|alternatives| LogProbs::new(Some(alternatives))),
            logits: asked.logits.then(|| RawLogits::new(vocabulary)),
        })
    }

    /// Notes the logits behind a token of the prompt, and which token comes next in it; `None`
    /// behind the last.
    pub(crate) fn note(&mut self, logits: &[f32], next: Option<Token>) {
        if let Some(log_probs) = &mut self.log_probs {
            log_probs.see(logits);
            if let Some(next) = next {
                log_probs.note(next);
            }
        }
        if let Some(rows) = &mut self.logits {
            rows.push(logits);
        }
    }

    /// What there is to tell of a prompt that was fed.
    pub(crate) fn part<'a>(&'a self, prompt: &'a [Token]) -> OfPrompt<'a> {
        let log_probs = self.log_probs.as_ref();
        let logits = self.logits.as_ref().map(|logits| logits.waiting(prompt.len()));
        OfPrompt {
            tokens: prompt,
            log_probs: log_probs.map(|it| it.spoken(0, prompt.len() - 1)).unwrap_or_default(),
            logits: logits.unwrap_or_default(),
        }
    }
}
