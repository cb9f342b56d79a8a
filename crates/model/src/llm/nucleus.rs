//! The fewest of the likeliest tokens that together have a probability (Holtzman et al., The Curious
//! Case of Neural Text Degeneration), without sorting a vocabulary.

use super::choosing::MOST;
use super::decoder::Token;

/// A token and its share of the probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// Which token.
    pub(super) token: Token,
    /// From 0 to 1.
    pub(super) weight: f32,
}

impl From<(Token, &f32)> for Candidate {
    fn from((token, weight): (Token, &f32)) -> Self {
        Self { token, weight: *weight }
    }
}

/// How many bits of a weight do not count for which others it is with: left are its exponent and
/// four bits, so that those of a bucket differ by a sixteenth at most.
const IGNORED: u32 = 19;
/// As many as weights up to 1 have.
const BUCKETS: usize = bucket(1.0) + 1;

/// What finding them works with, kept from token to token.
#[derive(Debug, Default)]
pub(super) struct Nucleus {
    /// The probability of the tokens of each bucket.
    masses: Vec<f32>,
    /// The tokens of the last bucket of which some are kept.
    border: Vec<Candidate>,
}

impl Nucleus {
    /// Appends the fewest of the likeliest tokens whose probabilities reach `top_p` to `kept`;
    /// all that have one where rounding leaves them below it. `weights` are those of all tokens.
    pub(super) fn keep(&mut self, weights: &[f32], top_p: f32, kept: &mut Vec<Candidate>) {
        self.masses.clear();
        self.masses.resize(BUCKETS, 0.0);
        for weight in weights {
            self.masses[bucket(*weight)] += weight;
        }
        let (last, above) = self.last(top_p);
        self.border.clear();
        for candidate in (0..).zip(weights).map(Candidate::from) {
            let bucket = bucket(candidate.weight);
            if bucket > last {
                kept.push(candidate);
            } else if bucket == last && candidate.weight > 0.0 {
                self.border.push(candidate);
            }
        }
        self.border.sort_unstable_by(|left, right| by_weight(*left, *right));
        let most = reach(&self.border, top_p - above).unwrap_or(self.border.len());
        kept.extend_from_slice(&self.border[..most]);
        // Few are put in the order in which a card gives them, so that the same random number falls
        // on the same token.
        if kept.len() <= MOST {
            kept.sort_unstable_by(|left, right| by_weight(*left, *right));
        }
    }

    /// The bucket in which the probability reaches `top_p`, and how much those above it have.
    fn last(&self, top_p: f32) -> (usize, f32) {
        let mut above = 0.0;
        for (bucket, mass) in self.masses.iter().enumerate().rev() {
            if above + mass >= top_p {
                return (bucket, above);
            }
            above += mass;
        }
        (0, above - self.masses[0])
    }
}

/// Where a weight belongs, of which none is above 1 but by rounding.
const fn bucket(weight: f32) -> usize {
    let weight = if weight < 1.0 { weight } else { 1.0 };
    (weight.to_bits() >> IGNORED) as usize
}

/// From the likeliest down; equals in the order of their numbers, so that a cut among them is always
/// the same.
fn by_weight(left: Candidate, right: Candidate) -> std::cmp::Ordering {
    right.weight.total_cmp(&left.weight).then(left.token.cmp(&right.token))
}

/// How many of the first candidates together reach `top_p`.
pub(super) fn reach(candidates: &[Candidate], top_p: f32) -> Option<usize> {
    let mut sum = 0.0;
    let last = candidates.iter().position(|candidate| {
        sum += candidate.weight;
        sum >= top_p
    });
    last.map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that sorting finds.
    fn sorted(weights: &[f32], top_p: f32) -> Vec<Candidate> {
        let mut all: Vec<_> = (0..).zip(weights).map(Candidate::from).collect();
        all.retain(|candidate| candidate.weight > 0.0);
        all.sort_by(|left, right| by_weight(*left, *right));
        all.truncate(reach(&all, top_p).unwrap_or(all.len()));
        all
    }

    #[test]
    fn those_that_sorting_finds_are_kept() {
        let number = |index: u32| f64::from(index.wrapping_mul(0x9e37_79b9) >> 20) / 4096.0;
        for (count, sharpness) in [(1, 1.0), (50, 0.0), (3000, 0.0), (3000, 8.0), (3000, 60.0)] {
            let weights: Vec<f64> =
                (0..count).map(|index| (number(index) * sharpness).exp()).collect();
            let total: f64 = weights.iter().sum();
            let weights: Vec<f32> = weights.iter().map(|weight| (weight / total) as f32).collect();
            for top_p in [0.05, 0.5, 0.9, 0.999] {
                let (mut kept, expected) = (Vec::new(), sorted(&weights, top_p));
                Nucleus::default().keep(&weights, top_p, &mut kept);
                kept.sort_by(|left, right| by_weight(*left, *right));
                // The sums differ by their order, and so may the last that is needed.
                assert!(kept.len().abs_diff(expected.len()) <= 1, "{count}, {sharpness}, {top_p}");
                let both = kept.len().min(expected.len());
                assert_eq!(kept[..both], expected[..both]);
            }
        }
    }

    #[test]
    fn a_token_that_has_all_is_enough_and_one_that_has_nothing_is_never_kept() {
        let mut kept = Vec::new();
        Nucleus::default().keep(&[0.0, 1.0, 0.0], 0.9, &mut kept);
        assert_eq!(kept, [Candidate { token: 1, weight: 1.0 }]);
        kept.clear();
        Nucleus::default().keep(&[0.0, 0.999_999_9, 0.0], 1.0, &mut kept);
        assert_eq!(kept.len(), 1);
    }
}
