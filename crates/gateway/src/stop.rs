//! Ends a text before its first stop word, wherever the pieces it comes in are cut.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// The words that end a text.
#[derive(Debug, Default)]
pub(crate) struct Words {
    words: BTreeSet<Vec<u8>>,
    /// How many bytes they have, each number once.
    lengths: BTreeSet<usize>,
}

impl Words {
    /// These words; those that are empty say nothing.
    pub(crate) fn new<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().to_vec());
        let words: BTreeSet<_> = words.filter(|word| !word.is_empty()).collect();
        Self { lengths: words.iter().map(Vec::len).collect(), words }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Where the longest word that `text` ends with begins.
    fn ending(&self, text: &[u8]) -> Option<usize> {
        let lengths = self.lengths.range(..=text.len()).rev();
        let mut starts = lengths.map(|length| text.len() - length);
        starts.find(|start| self.words.contains(&text[*start..]))
    }

    /// Where the longest end of `text` begins that may become a word; its length without one.
    fn begun(&self, text: &[u8]) -> usize {
        let longest = self.lengths.last().copied().unwrap_or(0);
        let may_become = |start: &usize| {
            let end = &text[*start..];
            let from = (Bound::Included(end), Bound::Unbounded);
            let mut later = self.words.range::<[u8], _>(from);
            later.next().is_some_and(|word| word.starts_with(end))
        };
        let mut starts = (text.len() + 1).saturating_sub(longest)..text.len();
        starts.find(may_become).unwrap_or(text.len())
    }
}

/// A text that ends before the first stop word: the one whose last byte comes first, and of several
/// that end there the longest.
#[derive(Debug)]
pub(crate) struct Stop {
    words: Arc<Words>,
    /// The end of the text that may become a stop word.
    held: Vec<u8>,
}

impl Stop {
    /// A text that ends before the first of `words`.
    pub(crate) fn new(words: Arc<Words>) -> Self {
        Self { words, held: Vec::new() }
    }

    /// Takes a piece; gives what can be shown of the text so far, and whether it ends there.
    pub(crate) fn push(&mut self, piece: Vec<u8>) -> (Vec<u8>, bool) {
        if self.words.is_empty() {
            return (piece, false);
        }
        let before = self.held.len();
        self.held.extend_from_slice(&piece);
        let ends = before + 1..=self.held.len();
        let found = ends.into_iter().find_map(|end| self.words.ending(&self.held[..end]));
        let end = found.unwrap_or_else(|| self.words.begun(&self.held));
        let rest = self.held.split_off(end);
        (std::mem::replace(&mut self.held, rest), found.is_some())
    }

    /// Whether something is held back.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// What was held back, at the end of the text.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is shown of `pieces`, and whether they were ended.
    fn shown<S: AsRef<str>>(words: &[S], pieces: &[impl AsRef<str>]) -> (Vec<String>, bool) {
        let mut stop = Stop::new(Arc::new(Words::new(words.iter().map(S::as_ref))));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let mut shown = Vec::new();
        for piece in pieces {
            let (bytes, is_over) = stop.push(piece.as_ref().into());
            shown.push(text(bytes));
            if is_over {
                return (shown, true);
            }
        }
        shown.push(text(stop.finish()));
        (shown, false)
    }

    #[test]
    fn a_stop_word_over_several_pieces_never_shows() {
        let (text, is_over) = shown(&["END"], &["a E", "N", "D b"]);
        assert_eq!((text.concat(), is_over), ("a ".to_owned(), true));
    }

    #[test]
    fn what_only_began_like_a_stop_word_comes_later_and_whole() {
        let (text, is_over) = shown(&["END"], &["a EN", "EN", "!"]);
        assert_eq!(text, ["a ", "EN", "EN!", ""]);
        assert!(!is_over);
        assert_eq!(shown(&["END"], &["EN"]).0, ["", "EN"]);
    }

    #[test]
    fn the_first_stop_word_in_the_text_ends_it() {
        for pieces in [&["abc"][..], &["a", "b", "c"]] {
            assert_eq!(shown(&["c", "b"], pieces).0.concat(), "a");
            // What was shown before the longer one was whole cannot be taken back.
            assert_eq!(shown(&["abc", "b"], pieces).0.concat(), "a");
            assert_eq!(shown(&["abc", "c", "bc"], pieces).0.concat(), "");
        }
    }

    #[test]
    fn characters_of_several_bytes_are_not_cut() {
        let (text, is_over) = shown(&["é🦀"], &["aé", "é", "🦀x"]);
        assert_eq!((text.concat(), is_over), ("aé".to_owned(), true));
    }

    #[test]
    fn without_words_everything_shows_at_once() {
        assert_eq!(shown::<&str>(&[], &["a", "b"]).0, ["a", "b", ""]);
        assert_eq!(shown(&["", ""], &["a", "b"]).0, ["a", "b", ""]);
    }

    /// The text before the word that ends first, found the plain way.
    fn before_first<'a>(text: &'a str, words: &[String]) -> &'a str {
        let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
        let start = |end: usize| {
            let words = words.iter().filter(|word| text[..end].ends_with(word.as_str()));
            words.map(|word| end - word.len()).min()
        };
        ends.into_iter().find_map(start).map_or(text, |start| &text[..start])
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text_up_to_the_stop_word_wherever_they_are_cut(
            pieces in prop::collection::vec("[ab🦀]{0,4}", 0..12),
            words in prop::collection::vec("[ab🦀]{1,4}", 0..4),
        ) {
            let (text, is_over) = shown(&words, &pieces);
            let whole = pieces.concat();
            let expected = before_first(&whole, &words);
            prop_assert_eq!(text.concat(), expected);
            prop_assert_eq!(is_over, expected != whole);
            // Nothing is held back that cannot become a stop word.
            let longest = words.iter().map(String::len).max().unwrap_or(0);
            prop_assert!(is_over || text.last().unwrap().len() < longest.max(1));
        }
    }
}
