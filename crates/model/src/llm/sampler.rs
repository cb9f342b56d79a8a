//! Picks the next token of one sequence from its logits.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::decoder::{Drawn, Token, Uniforms, Wants};
use super::nucleus::{Candidate, Nucleus, reach};
use super::random::Random;
use super::top::{exponentials, likeliest, sum, top};

/// How a sequence's tokens are picked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sampling {
    /// Only so many of the likeliest tokens; 0 for all of them.
    pub(crate) top_k: usize,
    /// Only the likeliest tokens that together have this probability.
    pub(crate) top_p: f32,
    /// Only tokens at least this many times as likely as the likeliest; 0 for all of them.
    pub(crate) min_p: f32,
    /// Only the tokens of the most typical surprise that together have this probability.
    pub(crate) typical_p: f32,
    /// What the logits are divided by; 0 takes the likeliest token.
    pub(crate) temperature: f32,
    /// What makes tokens that were seen less likely.
    pub(crate) penalties: Penalties,
    /// What is added to the logits of some tokens.
    pub(crate) bias: Arc<[(Token, f32)]>,
    /// The input that says it.
    pub(crate) bias_input: &'static str,
    /// Where the random numbers start.
    pub(crate) seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            temperature: 0.0,
            penalties: Penalties::default(),
            bias: Arc::default(),
            bias_input: "",
            seed: 0,
        }
    }
}

impl Sampling {
    /// The input that forbids tokens, if one does.
    pub(crate) fn forbidding_input(&self) -> Option<&'static str> {
        let forbids = self.bias.iter().any(|(_, bias)| *bias == f32::NEG_INFINITY);
        forbids.then_some(self.bias_input)
    }

    /// That of one of several texts: the first is drawn as it would be alone.
    pub(crate) fn of_text(&self, index: usize) -> Self {
        let seed = match index {
            0 => self.seed,
            // Mixed, for numbers that begin at neighbouring seeds are related.
            _ => Random::new(self.seed.wrapping_add(index as u64)).next(),
        };
        Self { seed, ..self.clone() }
    }
}

/// What makes tokens that were seen less likely.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Penalties {
    /// What the logits of tokens in the prompt or the text are divided by, or multiplied with when
    /// they are negative.
    pub(crate) repetition: f32,
    /// What is taken off the logits of tokens that were generated.
    pub(crate) presence: f32,
    /// The same, for each time a token was generated.
    pub(crate) frequency: f32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { repetition: 1.0, presence: 0.0, frequency: 0.0 }
    }
}

/// At these, logits over the temperature are numbers like logits.
const USUAL_TEMPERATURES: RangeInclusive<f32> = 0.01..=100.0;

/// The nucleus is found and none drawn in vain where less of the probability is wanted than this: most
/// draws would be.
const LEAST_DRAWN: f32 = 0.1;
/// So many tokens are rejected before the nucleus is found instead: where a tenth of the
/// probability is wanted, one token of thirty comes so far.
const MOST_REJECTED: usize = 32;

/// What came of looking at the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pick {
    /// The next token.
    Token(Token),
    /// Its guide leaves nothing but the end.
    End,
    /// The likeliest tokens are not enough: one is to be drawn from all by these random numbers.
    NeedsUniforms(Uniforms),
    /// It takes all logits to tell.
    NeedsLogits,
}

/// What one sequence's picking depends on, and nothing of another's.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    random: Random,
    /// How often each token was generated; 0 for those that only the prompt has.
    seen: BTreeMap<Token, u32>,
    /// The tokens with the largest logits, where there is a number of them.
    top: Vec<(Token, f32)>,
    weights: Vec<f32>,
    nucleus: Nucleus,
    candidates: Vec<Candidate>,
    /// How probable the likeliest token is, where the likeliest are not enough.
    largest: f32,
    /// How many tokens were rejected since one was picked.
    rejected: usize,
}

impl Sampler {
    /// A sampler for a sequence that begins with `prompt`.
    pub(crate) fn new(sampling: Sampling, prompt: &[Token]) -> Self {
        let mut sampler = Self {
            random: Random::new(sampling.seed),
            seen: BTreeMap::new(),
            sampling,
            top: Vec::new(),
            weights: Vec::new(),
            nucleus: Nucleus::default(),
            candidates: Vec::new(),
            largest: 0.0,
            rejected: 0,
        };
        if sampler.penalises() {
            sampler.seen.extend(prompt.iter().map(|token| (*token, 0)));
        }
        sampler
    }

    /// Changes the logits by the bias, then by the penalties for what was seen so far.
    pub(crate) fn penalise(&self, logits: &mut [f32]) {
        for (token, bias) in self.sampling.bias.iter() {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        if !self.penalises() {
            return;
        }
        let penalties = &self.sampling.penalties;
        for (token, count) in &self.seen {
            let Some(logit) = logits.get_mut(*token as usize) else {
                continue;
            };
            if *logit > 0.0 {
                *logit /= penalties.repetition;
            } else {
                *logit *= penalties.repetition;
            }
            if *count > 0 {
                *logit -= penalties.presence + penalties.frequency * *count as f32;
            }
        }
    }

    /// What it picks from, as the model scores it.
    pub(crate) fn wants(&self) -> Wants {
        let Sampling { top_k, bias, typical_p, temperature, .. } = &self.sampling;
        if !bias.is_empty() || self.penalises() {
            Wants::Logits
        } else if self.is_greedy() {
            Wants::Likeliest
        } else if *top_k > 0 {
            Wants::Top(*top_k)
        } else if *typical_p >= 1.0 && USUAL_TEMPERATURES.contains(temperature) {
            let (temperature, uniforms) = (*temperature, self.uniforms());
            if self.is_cut() {
                Wants::Draw { temperature, uniforms }
            } else {
                Wants::Free { temperature, uniforms }
            }
        } else {
            Wants::Logits
        }
    }

    /// The next token; `None` when no token has a finite logit.
    ///
    /// A forbidden token has the logit minus infinity.
    pub(crate) fn pick(&mut self, logits: &mut [f32]) -> Option<Token> {
        self.rejected = 0;
        if self.is_greedy() { likeliest(logits) } else { self.sample(logits) }
    }

    /// Notes which token was taken.
    pub(crate) fn note(&mut self, token: Token) {
        if self.penalises() {
            *self.seen.entry(token).or_default() += 1;
        }
    }

    fn is_greedy(&self) -> bool {
        self.sampling.temperature == 0.0 || self.sampling.top_k == 1
    }

    fn penalises(&self) -> bool {
        self.sampling.penalties != Penalties::default()
    }

    /// The next token of these, the likeliest first, or of the first `top_k` of them.
    pub(crate) fn pick_from(&mut self, likeliest: &[(Token, f32)]) -> Option<Token> {
        self.top.clear();
        self.top.extend_from_slice(likeliest);
        self.top.truncate(self.sampling.top_k);
        self.top.retain(|(_, logit)| *logit > f32::NEG_INFINITY);
        self.sample_top()
    }

    /// The next token, drawn from the likeliest and their probabilities, where those are enough:
    /// where they hold all that `top_p` or `min_p` leaves.
    pub(crate) fn draw_from(&mut self, likeliest: &[(Token, f32)]) -> Option<Pick> {
        let Sampling { top_p, min_p, .. } = self.sampling;
        self.candidates.clear();
        let possible = likeliest.iter().filter(|(_, probability)| *probability > 0.0);
        self.candidates.extend(possible.map(|(token, weight)| Candidate::from((*token, weight))));
        // There is none where a logit is no number.
        let Some(&Candidate { weight: least, .. }) = self.candidates.last() else {
            return Some(Pick::NeedsLogits);
        };
        self.largest = self.candidates.first()?.weight;
        if top_p < 1.0
            && let Some(kept) = reach(&self.candidates, top_p)
        {
            self.candidates.truncate(kept);
            return self.choose().map(Pick::Token);
        }
        if min_p > 0.0 && least < min_p * self.largest {
            return self.choose().map(Pick::Token);
        }
        if top_p < LEAST_DRAWN {
            return Some(Pick::NeedsLogits);
        }
        Some(Pick::NeedsUniforms(self.uniforms()))
    }

    /// The numbers by which tokens are drawn next; [`pick_drawn`](Self::pick_drawn) uses them up.
    fn uniforms(&self) -> Uniforms {
        let mut random = self.random.clone();
        // Half the distance of the last number below 1 is rounded to 1.
        std::array::from_fn(|_| (random.fraction() as f32).min(1.0_f32.next_down()))
    }

    /// The first of some tokens, drawn from all by [`uniforms`](Self::uniforms), that `top_p` and
    /// `min_p` leave: by rejection it is drawn as if those were all.
    pub(crate) fn pick_drawn(&mut self, drawn: &[Drawn]) -> Pick {
        for drawn in drawn {
            // Where a logit is no number, nothing is probable.
            if drawn.probability.is_nan() || self.rejected == MOST_REJECTED {
                return Pick::NeedsLogits;
            }
            self.random.next();
            if self.leaves(drawn) {
                self.rejected = 0;
                return Pick::Token(drawn.token);
            }
            self.rejected += 1;
        }
        Pick::NeedsUniforms(self.uniforms())
    }

    fn leaves(&self, drawn: &Drawn) -> bool {
        let Sampling { top_p, min_p, .. } = self.sampling;
        drawn.probability > 0.0
            && (top_p >= 1.0 || drawn.cumulative < top_p)
            && (min_p <= 0.0 || drawn.probability >= min_p * self.largest)
    }

    /// Whether it leaves some of the tokens out.
    fn is_cut(&self) -> bool {
        self.sampling.top_p < 1.0 || self.sampling.min_p > 0.0
    }

    fn sample(&mut self, logits: &[f32]) -> Option<Token> {
        let Sampling { top_k, top_p, temperature, .. } = self.sampling;
        if top_k > 0 && top_k < logits.len() {
            top(logits, top_k, &mut self.top);
            return self.sample_top();
        }
        let first = likeliest(logits)?;
        let largest = logits[first as usize];
        if largest == f32::INFINITY {
            return Some(first);
        }
        self.weights.clear();
        self.weights.extend(logits.iter().map(|logit| below(*logit, largest) / temperature));
        soften(&mut self.weights);
        self.candidates.clear();
        if top_p < 1.0 {
            self.nucleus.keep(&self.weights, top_p, &mut self.candidates);
        } else {
            let likely = (0..).zip(&self.weights).filter(|(_, weight)| **weight > 0.0);
            self.candidates.extend(likely.map(Candidate::from));
        }
        self.choose()
    }

    /// Draws one of the tokens in `top`.
    fn sample_top(&mut self) -> Option<Token> {
        let Sampling { top_p, temperature, .. } = self.sampling;
        let (first, largest) = *self.top.first()?;
        if largest == f32::INFINITY {
            return Some(first);
        }
        self.weights.clear();
        self.weights.extend(self.top.iter().map(|(_, logit)| (logit - largest) / temperature));
        soften(&mut self.weights);
        self.candidates.clear();
        let tokens = self.top.iter().map(|(token, _)| *token);
        self.candidates.extend(tokens.zip(&self.weights).map(Candidate::from));
        // From the likeliest down, as they were found.
        let kept = reach(&self.candidates, top_p).unwrap_or(self.candidates.len());
        self.candidates.truncate(kept);
        self.choose()
    }

    /// Cuts the candidates down and draws one of those that are left.
    fn choose(&mut self) -> Option<Token> {
        let candidates = &mut self.candidates;
        if self.sampling.typical_p < 1.0 {
            keep_typical(candidates, self.sampling.typical_p);
        }
        keep_min_p(candidates, self.sampling.min_p);
        let total: f32 = candidates.iter().map(|candidate| candidate.weight).sum();
        let uniform = self.random.fraction() as f32 * total;
        // Rounding may leave a little over after the last one.
        draw(candidates, uniform).or(candidates.last().map(|candidate| candidate.token))
    }
}

/// The token that a random number falls on, from 0 to the probability of all of them; `None`
/// beyond.
fn draw(candidates: &[Candidate], mut uniform: f32) -> Option<Token> {
    let drawn = candidates.iter().find(|candidate| {
        uniform -= candidate.weight;
        uniform < 0.0
    });
    drawn.map(|candidate| candidate.token)
}

/// How far a logit lies below the largest, so that no temperature, however low, leaves the range of
/// numbers; what is not a number lies below every other.
pub(super) fn below(logit: f32, largest: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit - largest }
}

/// Turns logits below the largest into probabilities.
fn soften(logits: &mut [f32]) {
    exponentials(logits);
    let total = sum(logits);
    for logit in logits {
        *logit /= total;
    }
}

/// Keeps the fewest tokens whose probabilities reach `typical_p`, beginning with those whose
/// surprise is the nearest to what is expected (Meister et al., Locally Typical Sampling).
fn keep_typical(candidates: &mut Vec<Candidate>, typical_p: f32) {
    let total: f32 = candidates.iter().map(|candidate| candidate.weight).sum();
    let surprise = |candidate: &Candidate| -(candidate.weight / total).ln();
    let expected: f32 = candidates
        .iter()
        .filter(|candidate| candidate.weight > 0.0)
        .map(|candidate| candidate.weight / total * surprise(candidate))
        .sum();
    let distance = |candidate: &Candidate| (surprise(candidate) - expected).abs();
    candidates.sort_unstable_by(|left, right| {
        distance(left).total_cmp(&distance(right)).then(left.token.cmp(&right.token))
    });
    if let Some(kept) = reach(candidates, typical_p * total) {
        candidates.truncate(kept);
    }
}

/// Keeps the tokens that are at least `min_p` times as likely as the likeliest.
fn keep_min_p(candidates: &mut Vec<Candidate>, min_p: f32) {
    if min_p > 0.0 {
        let largest = candidates.iter().map(|candidate| candidate.weight).fold(0.0, f32::max);
        candidates.retain(|candidate| candidate.weight >= min_p * largest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(sampling: Sampling) -> Sampler {
        Sampler::new(sampling, &[])
    }

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::default() }
    }

    /// How often each of the tokens is picked in so many draws.
    fn counts(draws: usize, sampling: Sampling, logits: &[f32]) -> Vec<usize> {
        let mut sampler = sampler(sampling);
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.pick(&mut logits.to_vec()).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn without_temperature_the_likeliest_is_taken_and_the_first_of_equals() {
        assert_eq!(sampler(Sampling::default()).pick(&mut [1.0, 3.0, 3.0]), Some(1));
        for largest in 0..50 {
            let mut logits = [-1.0; 50];
            logits[largest] = 0.5;
            assert_eq!(
                sampler(Sampling::default()).pick(&mut logits.to_vec()),
                Some(largest as Token)
            );
        }
    }

    #[test]
    fn what_is_not_a_number_is_never_picked() {
        let logits = [f32::NAN, 1.0, f32::NEG_INFINITY];
        assert_eq!(sampler(Sampling::default()).pick(&mut logits.to_vec()), Some(1));
        assert_eq!(sampler(warm()).pick(&mut logits.to_vec()), Some(1));
        assert_eq!(sampler(warm()).pick(&mut [f32::NAN; 3]), None);
        assert_eq!(sampler(Sampling::default()).pick(&mut [f32::NAN; 3]), None);
    }

    #[test]
    fn any_temperature_leaves_a_token() {
        let logits = [1.0, 30.0, -1e30, f32::NEG_INFINITY];
        for temperature in [f32::MIN_POSITIVE, 1e-40, 1e-3] {
            assert_eq!(
                sampler(Sampling { temperature, ..warm() }).pick(&mut logits.to_vec()),
                Some(1)
            );
        }
        for temperature in [1e30, f32::MAX] {
            assert!(
                sampler(Sampling { temperature, ..warm() }).pick(&mut logits.to_vec()).is_some()
            );
        }
        assert_eq!(sampler(warm()).pick(&mut [0.0, f32::INFINITY]), Some(1));
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let logits = [0.7_f32.ln(), 0.2_f32.ln(), 0.1_f32.ln()];
        let counts = counts(10_000, warm(), &logits);
        for (count, expected) in counts.iter().zip([7000, 2000, 1000]) {
            assert!(count.abs_diff(expected) < 250, "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail_off() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.15_f32.ln(), 0.05_f32.ln()];
        let top_k = counts(10_000, Sampling { top_k: 2, ..warm() }, &logits);
        assert!(top_k[1] > 3000 && top_k[2] + top_k[3] == 0, "{top_k:?}");
        let top_p = counts(10_000, Sampling { top_p: 0.79, ..warm() }, &logits);
        assert!(top_p[1] > 3000 && top_p[2] + top_p[3] == 0, "{top_p:?}");
    }

    #[test]
    fn min_p_and_typical_p_cut_off_what_is_unlikely_or_untypical() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.15_f32.ln(), 0.05_f32.ln()];
        let min_p = counts(10_000, Sampling { min_p: 0.5, ..warm() }, &logits);
        assert!(min_p[1] > 3000 && min_p[2] + min_p[3] == 0, "{min_p:?}");
        // The surprise expected is 1.14; the second token's, 1.20, is the nearest.
        let typical = counts(1_000, Sampling { typical_p: 0.2, ..warm() }, &logits);
        assert_eq!(typical, [0, 1000, 0, 0]);
    }

    #[test]
    fn a_bias_makes_tokens_likelier_or_impossible() {
        let bias = [(0, f32::NEG_INFINITY), (2, 1.5), (9, 1.0)].into();
        let sampler = sampler(Sampling { bias, ..Sampling::default() });
        let mut logits = [4.0, 1.0, 1.0];
        sampler.penalise(&mut logits);
        assert!(logits[0] < -1e30);
        assert_eq!(logits[1..].iter().map(|logit| logit * 2.0).sum::<f32>() as i32, 7);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let logits: Vec<f32> = (0..100_u8).map(|index| f32::from(index % 7)).collect();
        let draw = |seed| {
            let mut sampler = sampler(Sampling { seed, ..warm() });
            (0..50).map(|_| sampler.pick(&mut logits.clone()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn penalties_lower_what_was_seen() {
        let penalties = Penalties { repetition: 2.0, presence: 0.5, frequency: 0.25 };
        let sampling = Sampling { penalties, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, &[1, 2]);
        sampler.note(3);
        sampler.note(3);
        let mut logits = [4.0, 4.0, -4.0, 4.0];
        sampler.penalise(&mut logits);
        assert_eq!(logits.map(|logit| logit as i32), [4, 2, -8, 1]);
    }

    /// The likeliest so many tokens and their probabilities.
    fn seen_from(logits: &[f32], most: usize, temperature: f32) -> Vec<(Token, f32)> {
        let mut found = Vec::new();
        top(logits, most, &mut found);
        let weight = |logit: f32| f64::from(logit / temperature).exp();
        let sum: f64 = logits.iter().copied().map(weight).sum();
        for (_, number) in &mut found {
            *number = (weight(*number) / sum) as f32;
        }
        found
    }

    /// What is drawn by some random numbers from all tokens at a temperature.
    fn drawn_from(logits: &[f32], uniforms: Uniforms, temperature: f32) -> [Drawn; 4] {
        let found = seen_from(logits, logits.len(), temperature);
        let probability = |token: usize| found.iter().find(|it| it.0 == token as Token).unwrap().1;
        uniforms.map(|uniform| {
            let mut left = uniform;
            let token = (0..logits.len()).find(|token| {
                left -= probability(*token);
                left < 0.0
            });
            let token = token.unwrap_or(logits.len() - 1) as Token;
            let place = found.iter().position(|it| it.0 == token).unwrap();
            let cumulative = found[..place].iter().map(|it| it.1).sum();
            Drawn { token, probability: found[place].1, cumulative }
        })
    }

    #[test]
    fn what_is_drawn_from_all_until_it_is_among_the_likeliest_is_drawn_as_often_as_from_those() {
        let shares = [0.1_f32, 0.35, 0.05, 0.3, 0.2];
        let logits = shares.map(f32::ln);
        for (top_p, min_p, left) in [
            (1.0, 0.0, vec![0, 1, 2, 3, 4]),
            (0.6, 0.0, vec![1, 3]),
            (0.5, 0.9, vec![1]),
            (1.0, 0.5, vec![1, 3, 4]),
        ] {
            let mut sampler = sampler(Sampling { top_p, min_p, ..warm() });
            let mut counts = [0_usize; 5];
            for _ in 0..10_000 {
                // One of the likeliest is seen, which is never enough.
                let mut picked = sampler.draw_from(&seen_from(&logits, 1, 1.0)).unwrap();
                assert!(matches!(picked, Pick::NeedsUniforms(_)), "{picked:?}");
                while let Pick::NeedsUniforms(uniforms) = picked {
                    picked = sampler.pick_drawn(&drawn_from(&logits, uniforms, 1.0));
                }
                let Pick::Token(token) = picked else { panic!("{picked:?}") };
                counts[token as usize] += 1;
            }
            let all: f32 = left.iter().map(|token| shares[*token]).sum();
            for (token, count) in counts.iter().enumerate() {
                let share = if left.contains(&token) { shares[token] / all } else { 0.0 };
                let expected = (share * 10_000.0) as usize;
                assert!(count.abs_diff(expected) < 250, "{top_p}, {min_p}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_uniform_falls_on_the_same_token_whoever_draws_it() {
        let logits: Vec<f32> = (0..100_u8).map(|index| f32::from(index % 7)).collect();
        let mut two = [(); 2].map(|()| sampler(Sampling { seed: 3, ..warm() }));
        for _ in 0..200 {
            let [read, drawn] = &mut two;
            let expected = read.pick(&mut logits.clone()).unwrap();
            let uniforms = drawn.uniforms();
            assert_eq!(
                drawn.pick_drawn(&drawn_from(&logits, uniforms, 1.0)),
                Pick::Token(expected)
            );
        }
    }

    #[test]
    fn drawing_ends_where_nothing_is_probable_or_little_is_left() {
        let drawn = Drawn { token: 0, probability: f32::NAN, cumulative: 0.0 };
        let mut sampler = sampler(Sampling { top_p: 0.1, ..warm() });
        assert_eq!(sampler.pick_drawn(&[drawn]), Pick::NeedsLogits);
        let drawn = Drawn { probability: 0.5, cumulative: 0.5, ..drawn };
        for _ in 0..MOST_REJECTED / 4 {
            assert!(matches!(sampler.pick_drawn(&[drawn; 4]), Pick::NeedsUniforms(_)));
        }
        assert_eq!(sampler.pick_drawn(&[drawn; 4]), Pick::NeedsLogits);
        assert_eq!(sampler.pick(&mut [1.0, 0.0]), Some(0));
        assert!(matches!(sampler.pick_drawn(&[drawn; 4]), Pick::NeedsUniforms(_)));
    }

    #[test]
    fn all_logits_are_needed_only_where_the_likeliest_are_not_enough() {
        let logits: Vec<f32> = (0..40_u8).map(|index| f32::from(index) / -4.0).collect();
        let found = seen_from(&logits, 8, 0.5);
        let drawn = |top_p, min_p| {
            let sampling = Sampling { top_p, min_p, temperature: 0.5, ..Sampling::default() };
            let mut two = [(); 2].map(|()| sampler(sampling.clone()));
            let [seen, read] = &mut two;
            let of_all = read.pick(&mut logits.clone());
            match seen.draw_from(&found).unwrap() {
                Pick::Token(token) => Some(Some(token) == of_all),
                _ => None,
            }
        };
        assert_eq!(drawn(0.9, 0.0), Some(true));
        let flat = seen_from(&[0.0; 1000], 64, 1.0);
        let of_flat = |top_p| sampler(Sampling { top_p, ..warm() }).draw_from(&flat);
        assert!(matches!(of_flat(LEAST_DRAWN), Some(Pick::NeedsUniforms(_))));
        assert_eq!(of_flat(0.09), Some(Pick::NeedsLogits));
        assert!(matches!(of_flat(0.06), Some(Pick::Token(_))));
        assert_eq!(drawn(0.999, 0.0), None);
        assert_eq!(drawn(1.0, 0.2), Some(true));
        assert_eq!(drawn(1.0, 1e-4), None);
    }
}
