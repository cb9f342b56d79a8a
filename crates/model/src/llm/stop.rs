//! Ends a text at its stop words, keeps bad words out, and holds back what may become a stop word.

use super::decoder::Token;

/// The words that end a text, and those it must not have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// A text ends before any of these.
    pub(crate) stop: Vec<Vec<Token>>,
    /// Whether the word at which it ends is given out, for one who cuts it out of the text.
    pub(crate) keeps_stop: bool,
    /// None of these comes up.
    pub(crate) bad: Vec<Vec<Token>>,
}

impl Words {
    /// How many tokens at the end of `generated` are a stop word; 0 when they are none.
    pub(crate) fn stop_length(&self, generated: &[Token]) -> usize {
        let found = self.stop.iter().filter(|word| generated.ends_with(word));
        found.map(Vec::len).max().unwrap_or(0)
    }

    /// How many tokens at the end of `generated` wait because they may yet become a stop word.
    pub(crate) fn held_length(&self, generated: &[Token]) -> usize {
        if self.keeps_stop {
            return 0;
        }
        let begun = self.stop.iter().map(|word| begun_length(word, generated));
        begun.max().unwrap_or(0)
    }

    /// How many tokens of a text may wait at once before any is given out: those that were held
    /// back and one that shows that they are no stop word.
    pub(crate) fn longest_wait(&self) -> usize {
        self.stop.iter().map(Vec::len).max().unwrap_or(0).max(1)
    }

    /// The tokens that would complete a bad word after `tokens`.
    pub(crate) fn forbidden(&self, tokens: &[Token]) -> impl Iterator<Item = Token> {
        self.bad.iter().filter_map(move |word| {
            let (last, before) = word.split_last()?;
            tokens.ends_with(before).then_some(*last)
        })
    }
}

/// The longest beginning of `word`, short of all of it, that `generated` ends with.
fn begun_length(word: &[Token], generated: &[Token]) -> usize {
    let longest = word.len().saturating_sub(1).min(generated.len());
    let mut lengths = (1..=longest).rev();
    lengths.find(|length| generated.ends_with(&word[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(stop: &[&[Token]], bad: &[&[Token]]) -> Words {
        let own = |words: &[&[Token]]| words.iter().map(|word| word.to_vec()).collect();
        Words { stop: own(stop), bad: own(bad), keeps_stop: false }
    }

    #[test]
    fn the_longest_stop_word_at_the_end_counts() {
        let words = words(&[&[3], &[2, 3], &[9, 9]], &[]);
        assert_eq!(words.stop_length(&[1, 2, 3]), 2);
        assert_eq!(words.stop_length(&[2, 3, 1]), 0);
    }

    #[test]
    fn the_beginning_of_a_stop_word_is_held_back() {
        let words = words(&[&[1, 1, 2]], &[]);
        assert_eq!(words.held_length(&[5, 1]), 1);
        assert_eq!(words.held_length(&[1, 1]), 2);
        assert_eq!(words.held_length(&[1, 1, 1]), 2);
        assert_eq!(words.held_length(&[1, 1, 3]), 0);
    }

    #[test]
    fn as_many_tokens_may_wait_as_the_longest_stop_word_has() {
        assert_eq!(words(&[], &[&[1, 2]]).longest_wait(), 1);
        let words = words(&[&[1, 1, 2], &[7]], &[]);
        assert_eq!(words.longest_wait(), words.held_length(&[1, 1]) + 1);
    }

    #[test]
    fn nothing_is_held_back_of_a_word_that_is_kept() {
        let words = Words { keeps_stop: true, ..words(&[&[1, 1, 2]], &[]) };
        assert_eq!(words.held_length(&[1, 1]), 0);
        assert_eq!(words.stop_length(&[1, 1, 2]), 3);
    }

    #[test]
    fn only_the_last_token_of_a_bad_word_is_forbidden() {
        let words = words(&[], &[&[4], &[1, 2], &[3, 2, 5]]);
        assert_eq!(words.forbidden(&[3, 1]).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(words.forbidden(&[3, 2]).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(words.forbidden(&[]).collect::<Vec<_>>(), [4]);
    }
}
