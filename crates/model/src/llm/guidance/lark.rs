//! Measures grammars in Lark's notation before the matcher reads them, which recurs over them.
//!
//! Words are told apart as the matcher tells them, so that no string or comment hides a bracket.

use serde_json::Value;

use super::limits::{self, Depth};
use super::mistake::{Mistake, Place};

/// Words behind which a JSON text stands.
const BEFORE_JSON: [&str; 3] = ["%json", "%regex", "%llguidance"];

/// Refuses a grammar that leads too deep, or whose words cannot be told apart.
pub(super) fn check(grammar: &str) -> Result<(), Mistake> {
    let mut reader = Reader { rest: grammar, at: Place::FIRST, depth: Depth::default() };
    while let Some(next) = reader.rest.chars().next() {
        reader.word(next)?;
    }
    Ok(())
}

/// Reads a grammar from its first character to its last.
struct Reader<'a> {
    rest: &'a str,
    at: Place,
    depth: Depth,
}

impl Reader<'_> {
    /// Takes what begins with this character: a word, or one character of a word without signs.
    fn word(&mut self, first: char) -> Result<(), Mistake> {
        let at = self.at;
        match first {
            '"' => return self.quoted('"', "a string does not end"),
            '#' => self.comment(),
            '/' if self.rest.starts_with("//") => self.comment(),
            '/' => return self.quoted('/', "an expression does not end"),
            '<' => return self.special_token(),
            '%' => {
                if let Some(word) = BEFORE_JSON.iter().find(|word| self.rest.starts_with(**word)) {
                    return self.json(word);
                }
                self.take(1);
            }
            '(' | '[' | '{' => {
                self.depth.open(at)?;
                self.take(1);
            }
            ')' | ']' | '}' => {
                self.depth.close();
                self.take(1);
            }
            ':' if self.rest.starts_with("::") => self.take(2),
            // Between the name of a rule and what it is.
            ':' => {
                self.depth.begin_rule(at)?;
                self.take(1);
            }
            other => self.take(other.len_utf8()),
        }
        Ok(())
    }

    /// Takes so many bytes.
    fn take(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at(bytes);
        taken.chars().for_each(|character| self.at.pass(character));
        self.rest = rest;
    }

    fn comment(&mut self) {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        self.take(end);
    }

    /// Takes a string or an expression, from one mark to the next that no backslash stands before.
    fn quoted(&mut self, mark: char, endless: &str) -> Result<(), Mistake> {
        let mut is_escaped = false;
        for (place, character) in self.rest.char_indices().skip(1) {
            if character == '\n' && (mark == '"' || is_escaped) {
                break;
            }
            if character == mark && !is_escaped {
                self.take(place + 1);
                return Ok(());
            }
            is_escaped = character == '\\' && !is_escaped;
        }
        Err(Mistake { at: self.at, what: endless.to_owned() })
    }

    /// Takes the name of a token, `<|end|>`.
    fn special_token(&mut self) -> Result<(), Mistake> {
        let ends = |character: char| character.is_whitespace() || "<>".contains(character);
        let name = &self.rest[1..];
        match name.find(ends) {
            Some(end) if end > 0 && name[end..].starts_with('>') => {
                self.take(end + 2);
                Ok(())
            }
            _ => Err(Mistake { at: self.at, what: "`<` begins no name of a token".into() }),
        }
    }

    /// Takes a word and the JSON text behind it, which may be a schema.
    fn json(&mut self, word: &str) -> Result<(), Mistake> {
        let at = self.at;
        self.take(word.len());
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                let what = format!("what follows `{word}` is not JSON: {error}");
                return Err(Mistake { at, what });
            }
            None => return Err(Mistake { at, what: format!("no JSON follows `{word}`") }),
        };
        let end = values.byte_offset();
        limits::check_schema(&value).map_err(|what| Mistake { at, what })?;
        self.take(end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_too_deep_is_told_with_its_place() {
        let nested = |open: &str, count| format!("start: x\nx: {}", open.repeat(count));
        for (grammar, mistake) in [
            (nested("(", 27), None),
            (nested("(", 28), Some("line 2, column 31: brackets nest more than 27 deep")),
            // Brackets within words close nothing.
            (nested("(\")\"", 28), Some("line 2, column 112: brackets nest")),
            (nested("(/\\/)/", 28), Some("line 2, column 166: brackets nest")),
            (nested("(<)>", 28), Some("line 2, column 112: brackets nest")),
            (nested("(\n#)\n", 28), Some("line 56, column 1: brackets nest")),
            (nested("(\n//)\n", 28), Some("line 56, column 1: brackets nest")),
            (nested("{%json {\"a\": \"}}\"}", 28), Some("brackets nest")),
            (nested("a{\"}\",", 28), Some("brackets nest")),
            // Nor do they open any.
            (nested("\"(\" /(/ <(> # (\n", 40), None),
            (nested("%json {\"a\": \"((((((\"} ", 40), None),
            ("a: b\n".repeat(2001), Some("line 2001, column 2: the grammar is too large")),
            ("a: ((b))\n".repeat(700), Some("line 667, column 5: the grammar is too large")),
            ("a: b\n".repeat(1999), None),
        ] {
            let found = check(&grammar).err().map(|mistake| mistake.to_string());
            let is_right = match mistake {
                None => found.is_none(),
                Some(mistake) => found.as_ref().is_some_and(|found| found.contains(mistake)),
            };
            assert!(is_right, "{}: {found:?}", &grammar[..40.min(grammar.len())]);
        }
    }

    #[test]
    fn words_that_cannot_be_told_apart_are_refused() {
        for (grammar, mistake) in [
            ("start: \"a", "line 1, column 8: a string does not end"),
            ("start: \"a\n\"", "line 1, column 8: a string does not end"),
            ("start: /a", "line 1, column 8: an expression does not end"),
            ("start: <a b>", "line 1, column 8: `<` begins no name of a token"),
            ("start: %json", "line 1, column 8: no JSON follows `%json`"),
            ("start: %json {a}", "line 1, column 8: what follows `%json` is not JSON"),
        ] {
            let found = check(grammar).unwrap_err().to_string();
            assert!(found.contains(mistake), "{grammar:?}: {found}");
        }
    }
}
