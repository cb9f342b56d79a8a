//! Ends a text before the first stop word, wherever the pieces it comes in are cut.

/// Stop words, and the end of a text that may become one.
#[derive(Debug)]
pub(super) struct Stop {
    words: Vec<String>,
    held: String,
}

impl Stop {
    /// Ends a text before the first of `words`.
    pub(super) fn new(words: Vec<String>) -> Self {
        Self { words, held: String::new() }
    }

    /// Takes a piece; gives what can be shown of the text so far, and whether it ends there.
    pub(super) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        let found = self.words.iter().filter_map(|word| self.held.find(word.as_str())).min();
        let end = found.unwrap_or_else(|| self.begun());
        let rest = self.held.split_off(end);
        (std::mem::replace(&mut self.held, rest), found.is_some())
    }

    /// What was held back, at the end of the text.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where a stop word may have begun.
    fn begun(&self) -> usize {
        let longest = self.words.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let mut starts = self.held.char_indices().map(|(start, _)| start);
        let may_begin = |start: &usize| {
            *start >= from && self.words.iter().any(|word| word.starts_with(&self.held[*start..]))
        };
        starts.find(may_begin).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of `pieces`, and whether they were ended.
    fn shown(words: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stop = Stop::new(words.iter().map(|word| (*word).to_owned()).collect());
        let mut shown = Vec::new();
        for piece in pieces {
            let (text, is_over) = stop.push(piece);
            shown.push(text);
            if is_over {
                return (shown, true);
            }
        }
        shown.push(stop.finish());
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
        let (text, _) = shown(&["c", "b"], &["abc"]);
        assert_eq!(text.concat(), "a");
    }

    #[test]
    fn characters_of_several_bytes_are_not_cut() {
        let (text, is_over) = shown(&["é🦀"], &["aé", "é", "🦀x"]);
        assert_eq!((text.concat(), is_over), ("aé".to_owned(), true));
    }

    #[test]
    fn without_stop_words_everything_shows_at_once() {
        assert_eq!(shown(&[], &["a", "b"]).0, ["a", "b", ""]);
    }
}
