//! Which tokens may come next in a text that follows a guide.

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use crate::llm::decoder::Token;

/// The tokens that may come next, and whether the text may end.
#[derive(Clone, Debug)]
pub(super) struct Mask {
    tokens: SimpleVob,
    may_end: bool,
    is_empty: bool,
}

/// What a mask left of some logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// A token to pick, and maybe the end of the text.
    Tokens,
    /// Only the end of the text.
    End,
}

impl Mask {
    /// The tokens that a matcher takes now; an error says why it cannot tell.
    pub(super) fn next(matcher: &mut Matcher) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let mut tokens = matcher.compute_mask_or_eos().map_err(|error| told(&error))?;
        let end = matcher.tok_env().map_err(|error| told(&error))?.eos_token();
        let may_end = tokens.is_allowed(end);
        tokens.disallow_token(end);
        let is_empty = tokens.is_zero();
        Ok(Self { tokens, may_end, is_empty })
    }

    /// Makes every token impossible that may not come next; those in `end_ids` come when the text
    /// may end, and only then.
    ///
    /// A text that may neither end nor go on has no token left.
    pub(super) fn apply(&self, logits: &mut [f32], end_ids: &[Token]) -> Left {
        if self.is_empty && self.may_end {
            return Left::End;
        }
        let ends = |logits: &[f32]| -> Vec<(Token, f32)> {
            let logit = |token: &Token| Some((*token, *logits.get(*token as usize)?));
            end_ids.iter().filter_map(logit).collect()
        };
        let ends = ends(logits);
        let words = self.tokens.as_slice().iter();
        for (logits, word) in logits.chunks_mut(u32::BITS as usize).zip(words) {
            match *word {
                0 => logits.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
        for (token, logit) in ends {
            logits[token as usize] = if self.may_end { logit } else { f32::NEG_INFINITY };
        }
        Left::Tokens
    }
}
