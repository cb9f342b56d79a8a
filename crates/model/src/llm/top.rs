//! The largest of many logits, found in one reading.

use super::decoder::Token;

/// How many logits are compared at once, side by side.
const LANES: usize = 16;

/// The token with the largest logit, the first of equals; `None` when none is above minus infinity.
pub(super) fn likeliest(logits: &[f32]) -> Option<Token> {
    let largest = largest(logits);
    let token = logits.iter().position(|logit| *logit >= largest && largest > f32::NEG_INFINITY)?;
    Some(token as Token)
}

/// The largest logit; what is not a number is never the larger.
pub(super) fn largest(logits: &[f32]) -> f32 {
    let larger = |best: f32, logit: f32| if logit > best { logit } else { best };
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (best, logit) in best.iter_mut().zip(chunk) {
            *best = larger(*best, *logit);
        }
    }
    best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// Puts the tokens with the `most` largest logits into `found`, from the largest down, and equals
/// in the order of their numbers. Those at minus infinity or that are not numbers are left out.
pub(super) fn top(logits: &[f32], most: usize, found: &mut Vec<(Token, f32)>) {
    found.clear();
    if most == 0 {
        return;
    }
    // Nearly every run of logits has none above the least that is kept, which is seen at once.
    let mut least = f32::NEG_INFINITY;
    for (chunk, first) in logits.chunks(LANES).zip((0..).step_by(LANES)) {
        if !chunk.iter().any(|logit| *logit > least) {
            continue;
        }
        for (logit, token) in chunk.iter().zip(first..) {
            if *logit > least {
                found.push((token, *logit));
            }
        }
        // Twice as many as are wanted, of which half go: each is moved a few times, not once for
        // each that comes after it.
        if found.len() >= 2 * most + LANES {
            cut(found, most);
            least = found.last().map_or(least, |(_, logit)| *logit);
        }
    }
    cut(found, most);
    found.sort_unstable_by(|left, right| by_logit(*left, *right));
}

/// Leaves the first `most`, of which the least is the last.
fn cut(found: &mut Vec<(Token, f32)>, most: usize) {
    if found.len() > most {
        found.select_nth_unstable_by(most - 1, |left, right| by_logit(*left, *right));
        found.truncate(most);
    }
}

fn by_logit(left: (Token, f32), right: (Token, f32)) -> std::cmp::Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}

/// The sum of numbers, of which several are added up side by side.
pub(super) fn sum(numbers: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum += number;
        }
    }
    sums.iter().chain(rest).sum()
}

/// How much each of some numbers, none of them above 0, is e to its power; within 2e-7 of it,
/// relatively.
///
/// Written so that the processor computes several side by side, as the library's does not: 2 to the
/// whole part is put together from its bits, 2 to the rest is a polynomial (Taylor's, over half a
/// unit to either side).
pub(super) fn exponentials(numbers: &mut [f32]) {
    for number in numbers {
        let exact = *number * std::f32::consts::LOG2_E;
        let power = exact.max(LEAST);
        // Adding and taking off a large number rounds to a whole one.
        let whole = (power + ROUNDING) - ROUNDING;
        let rest = power - whole;
        let mut sum = COEFFICIENTS[0];
        for coefficient in &COEFFICIENTS[1..] {
            sum = sum * rest + coefficient;
        }
        let scale = f32::from_bits((((whole as i32) + 127) as u32) << 23);
        *number = if exact < LEAST { 0.0 } else { sum * scale };
    }
}

/// Below this power of 2 there are no normal numbers; what would be one counts as 0.
const LEAST: f32 = -126.0;
/// 1.5 times 2 to the 23rd, whose neighbours are whole numbers.
const ROUNDING: f32 = 12_582_912.0;
/// The powers of ln 2 over the factorials, from the seventh down.
const COEFFICIENTS: [f32; 8] = [
    1.525_273_4e-5,
    1.540_353e-4,
    1.333_355_8e-3,
    9.618_129e-3,
    5.550_411e-2,
    2.402_265e-1,
    std::f32::consts::LN_2,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look like logits, with equals among them.
    fn logits(count: u64) -> Vec<f32> {
        let number = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
        (0..count).map(|index| number(index) as f32 / 64.0 - 40.0).collect()
    }

    #[test]
    fn the_largest_are_those_that_sorting_finds() {
        for count in [1, 15, 16, 17, 1000, 5000] {
            let logits = logits(count);
            let mut sorted: Vec<_> = (0..).zip(logits.iter().copied()).collect();
            sorted.sort_by(|left, right| by_logit(*left, *right));
            let mut found = Vec::new();
            for most in [0, 1, 2, 50, 999, 6000] {
                top(&logits, most, &mut found);
                assert_eq!(found, sorted[..most.min(sorted.len())], "{most} of {count}");
            }
            assert_eq!(likeliest(&logits), Some(sorted[0].0));
        }
    }

    #[test]
    fn what_is_no_number_is_not_found() {
        let logits = [f32::NAN, 1.0, f32::NEG_INFINITY, f32::INFINITY];
        let mut found = Vec::new();
        top(&logits, 4, &mut found);
        assert_eq!(found, [(3, f32::INFINITY), (1, 1.0)]);
        assert_eq!(likeliest(&[f32::NAN; 20]), None);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 20]), None);
    }

    #[test]
    fn exponentials_are_those_of_the_library() {
        let numbers: Vec<f32> = (0..87_000).map(|index| index as f32 / -1000.0).collect();
        let mut powers = numbers.clone();
        exponentials(&mut powers);
        for (number, power) in numbers.iter().zip(&powers) {
            let exact = f64::from(*number).exp();
            let error = (f64::from(*power) - exact).abs() / exact;
            // What rounding the power to 24 bits makes of it grows with the power.
            assert!(error < 3e-7 + 1e-7 * f64::from(number.abs()), "{number}: {power}, {error}");
        }
        assert_eq!(powers[0].to_bits(), 1.0_f32.to_bits());
        let mut lowest = [f32::NEG_INFINITY, -1e30, -88.0];
        exponentials(&mut lowest);
        assert!(lowest.iter().all(|power| power.to_bits() == 0), "{lowest:?}");
    }
}
