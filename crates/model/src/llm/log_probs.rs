//! The log-probabilities of a sequence's tokens, and of the likeliest others in their places.

use super::decoder::Token;
use super::sampler::below;
use super::top::{exponentials, largest, sum, top};

/// What a request wants to know of its tokens' probabilities, and what is known so far.
///
/// They are those of the model itself: without penalties, bias, temperature and cuts.
#[derive(Debug, Default)]
pub(crate) struct LogProbs {
    /// Whether the log-probability of each token is wanted.
    is_wanted: bool,
    /// How many of the likeliest tokens are wanted for each.
    alternatives: usize,
    /// The logits of the token to come, as the model gave them.
    logits: Vec<f32>,
    tokens: Vec<f32>,
    likeliest: Vec<(Token, f32)>,
    /// What one token's are computed in, kept for the next.
    weights: Vec<f32>,
    found: Vec<(Token, f32)>,
}

/// The log-probabilities of the tokens in one response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spoken<'a> {
    /// The sum over all tokens so far.
    pub(crate) sum: f32,
    /// That of each token.
    pub(crate) tokens: &'a [f32],
    /// How many of the likeliest tokens there are for each.
    pub(crate) alternatives: usize,
    /// Those, from the likeliest down, token after token.
    pub(crate) likeliest: &'a [(Token, f32)],
}

impl LogProbs {
    /// None so far, of so many alternatives to each token; `None` when none are wanted.
    pub(crate) fn new(alternatives: Option<usize>) -> Self {
        let (is_wanted, alternatives) = (alternatives.is_some(), alternatives.unwrap_or(0));
        Self { is_wanted, alternatives, ..Self::default() }
    }

    /// Whether any are.
    pub(crate) fn are_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Remembers the logits of the token to come.
    pub(crate) fn see(&mut self, logits: &[f32]) {
        if self.is_wanted {
            self.logits.clear();
            self.logits.extend_from_slice(logits);
        }
    }

    /// Notes which token it was.
    pub(crate) fn note(&mut self, token: Token) {
        if !self.is_wanted {
            return;
        }
        let total = self.total();
        self.tokens.push(self.logits[token as usize] - total);
        let most = self.alternatives.min(self.logits.len());
        top(&self.logits, most, &mut self.found);
        // Impossible tokens make up the number, for each place has as many.
        let is_impossible = |logit: f32| logit.is_nan() || logit == f32::NEG_INFINITY;
        let impossible = (0..).zip(&self.logits).filter(|(_, logit)| is_impossible(**logit));
        let impossible = impossible.map(|(token, _)| (token, f32::NEG_INFINITY));
        let found = self.found.iter().copied().chain(impossible).take(most);
        self.likeliest.extend(found.map(|(token, logit)| (token, logit - total)));
    }

    /// What is taken off a logit to make it a log-probability.
    fn total(&mut self) -> f32 {
        let largest = largest(&self.logits);
        self.weights.clear();
        self.weights.extend(self.logits.iter().map(|logit| below(*logit, largest)));
        exponentials(&mut self.weights);
        largest + sum(&self.weights).ln()
    }

    /// Those of the tokens generated from `start` to `end`.
    pub(crate) fn spoken(&self, start: usize, end: usize) -> Spoken<'_> {
        if !self.is_wanted {
            return Spoken::default();
        }
        let alternatives = self.alternatives.min(self.logits.len());
        Spoken {
            sum: self.tokens[..end].iter().sum(),
            tokens: &self.tokens[start..end],
            alternatives,
            likeliest: &self.likeliest[start * alternatives..end * alternatives],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_the_models_and_the_likeliest_come_first() {
        let mut log_probs = LogProbs::new(Some(2));
        log_probs.see(&[0.5_f32.ln(), 0.2_f32.ln(), 0.3_f32.ln()]);
        log_probs.note(1);
        log_probs.see(&[0.5_f32.ln() + 3.0, 0.25_f32.ln() + 3.0, 0.25_f32.ln() + 3.0]);
        log_probs.note(0);
        let spoken = log_probs.spoken(0, 2);
        let close = |left: f32, right: f32| (left.exp() - right).abs() < 1e-6;
        assert!(close(spoken.tokens[0], 0.2) && close(spoken.tokens[1], 0.5));
        assert!(close(spoken.sum, 0.1));
        let tokens: Vec<_> = spoken.likeliest.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [0, 2, 0, 1]);
        assert!(close(spoken.likeliest[1].1, 0.3));
        assert_eq!(log_probs.spoken(1, 2).tokens.len(), 1);
    }

    #[test]
    fn impossible_tokens_come_last_and_make_up_the_number() {
        let mut log_probs = LogProbs::new(Some(4));
        log_probs.see(&[f32::NEG_INFINITY, 1.0, f32::NAN, 2.0, f32::NEG_INFINITY]);
        log_probs.note(3);
        log_probs.see(&[1.0, 1.0, 1.0, 1.0, 1.0]);
        log_probs.note(3);
        let spoken = log_probs.spoken(0, 2);
        let tokens: Vec<_> = spoken.likeliest.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [3, 1, 0, 2, 0, 1, 2, 3]);
        assert!(spoken.likeliest[2..4].iter().all(|(_, log_prob)| *log_prob == f32::NEG_INFINITY));
        let sum: f32 = spoken.likeliest[..2].iter().map(|(_, log_prob)| log_prob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn nothing_is_kept_that_nobody_wants() {
        let mut log_probs = LogProbs::new(None);
        log_probs.see(&[1.0, 2.0]);
        log_probs.note(1);
        assert!(log_probs.spoken(0, 1).tokens.is_empty());
    }
}
