//! Cuts the protobuf text format into tokens.

use crate::problem::Place;
use crate::text::SyntaxError;

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) place: Place,
    pub(super) kind: Kind<'a>,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind<'a> {
    /// A name.
    Word(&'a str),
    /// A number without its sign, as it is written.
    Number(&'a str),
    /// A string, its escapes read; `None` when it is broken, which was reported.
    Text(Option<String>),
    /// A bracket, sign or separator.
    Symbol(char),
}

const SYMBOLS: &str = "{}[]<>:,;-/.";

/// The tokens of a file and the mistakes in them.
pub(super) fn tokens(text: &str) -> (Vec<Token<'_>>, Vec<SyntaxError>) {
    let mut lexer = Lexer { rest: text, place: Place { line: 1, column: 1 }, errors: Vec::new() };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let place = lexer.place;
        let Some(first) = lexer.peek() else { break };
        if let Some(kind) = lexer.token(first) {
            tokens.push(Token { place, kind });
        }
    }
    (tokens, lexer.errors)
}

struct Lexer<'a> {
    rest: &'a str,
    place: Place,
    errors: Vec<SyntaxError>,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        if next == '\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
        } else {
            self.place.column += 1;
        }
        Some(next)
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let start = self.rest;
        while self.peek().is_some_and(&belongs) {
            self.bump();
        }
        &start[..start.len() - self.rest.len()]
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|next| next.is_ascii_whitespace() || next == '\u{b}');
            // A byte order mark says nothing.
            if self.rest.starts_with('\u{feff}') {
                self.rest = &self.rest['\u{feff}'.len_utf8()..];
            } else if self.rest.starts_with('#') {
                self.take_while(|next| next != '\n');
            } else {
                return;
            }
        }
    }

    fn token(&mut self, first: char) -> Option<Kind<'a>> {
        let second = self.rest.chars().nth(1);
        let is_number = first.is_ascii_digit()
            || (first == '.' && second.is_some_and(|next| next.is_ascii_digit()));
        if is_number {
            return Some(Kind::Number(self.number()));
        }
        if is_word(first) {
            return Some(Kind::Word(self.take_while(is_word)));
        }
        if first == '"' || first == '\'' {
            return Some(Kind::Text(self.string()));
        }
        let place = self.place;
        self.bump();
        if SYMBOLS.contains(first) {
            return Some(Kind::Symbol(first));
        }
        self.error(place, format!("unexpected character {first:?}"));
        None
    }

    /// Everything that looks like part of the number; what it is worth is decided by its field.
    fn number(&mut self) -> &'a str {
        let start = self.rest;
        let is_hex = start.starts_with("0x") || start.starts_with("0X");
        let mut before = ' ';
        while let Some(next) = self.peek() {
            let is_sign = matches!(next, '+' | '-') && matches!(before, 'e' | 'E') && !is_hex;
            if !(is_word(next) || next == '.' || is_sign) {
                break;
            }
            before = next;
            self.bump();
        }
        &start[..start.len() - self.rest.len()]
    }

    fn string(&mut self) -> Option<String> {
        let start = self.place;
        let quote = self.bump();
        let mut bytes = Vec::new();
        let mut is_whole = true;
        loop {
            let place = self.place;
            match self.peek() {
                None | Some('\n') => {
                    self.error(start, "this string is not closed on its line".into());
                    return None;
                }
                next if next == quote => {
                    self.bump();
                    break;
                }
                Some('\\') => {
                    self.bump();
                    if !self.escape(&mut bytes) {
                        self.error(place, "unknown escape in a string".into());
                        is_whole = false;
                    }
                }
                Some(next) => {
                    self.bump();
                    bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        let text = String::from_utf8(bytes).ok();
        if text.is_none() {
            self.error(start, "this string is not UTF-8".into());
        }
        text.filter(|_| is_whole)
    }

    /// Reads what stands behind a backslash; `false` when that means nothing.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> bool {
        let Some(next) = self.peek().filter(|next| *next != '\n') else { return false };
        if next.is_digit(8) {
            let value = self.digits(8, 3);
            return value.and_then(|value| u8::try_from(value).ok()).is_some_and(|byte| {
                bytes.push(byte);
                true
            });
        }
        self.bump();
        let plain = match next {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '?' | '\\' | '\'' | '"' => next as u8,
            'x' | 'X' => match self.digits(16, 2) {
                Some(value) => value as u8,
                None => return false,
            },
            'u' => return self.character(4, bytes),
            'U' => return self.character(8, bytes),
            _ => return false,
        };
        bytes.push(plain);
        true
    }

    fn character(&mut self, digits: usize, bytes: &mut Vec<u8>) -> bool {
        let before = self.rest.len();
        let value = self.digits(16, digits);
        let is_whole = before - self.rest.len() == digits;
        match value.and_then(char::from_u32).filter(|_| is_whole) {
            Some(character) => {
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                true
            }
            None => false,
        }
    }

    /// The number in up to `limit` digits.
    fn digits(&mut self, radix: u32, limit: usize) -> Option<u32> {
        let mut value = None;
        for _ in 0..limit {
            let Some(digit) = self.peek().and_then(|next| next.to_digit(radix)) else { break };
            self.bump();
            // At most eight hexadecimal digits, which fit.
            value = Some(value.unwrap_or(0_u32).wrapping_mul(radix) + digit);
        }
        value
    }

    fn error(&mut self, place: Place, message: String) {
        self.errors.push(SyntaxError { place, message });
    }
}

fn is_word(next: char) -> bool {
    next.is_ascii_alphanumeric() || next == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind<'_>> {
        let (tokens, errors) = tokens(text);
        assert!(errors.is_empty(), "{errors:?}");
        tokens.into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn numbers_words_and_signs_are_told_apart() {
        assert_eq!(
            kinds("a_1: -0x1F .5e-3 [10,20];# no more"),
            [
                Kind::Word("a_1"),
                Kind::Symbol(':'),
                Kind::Symbol('-'),
                Kind::Number("0x1F"),
                Kind::Number(".5e-3"),
                Kind::Symbol('['),
                Kind::Number("10"),
                Kind::Symbol(','),
                Kind::Number("20"),
                Kind::Symbol(']'),
                Kind::Symbol(';'),
            ]
        );
    }

    #[test]
    fn escapes_are_read() {
        let text = r#"'a\n\x41\101\u00e9\"' "it's""#;
        let expected = ["a\nAA\u{e9}\"", "it's"];
        assert_eq!(kinds(text), expected.map(|text| Kind::Text(Some(text.into()))));
    }

    #[test]
    fn mistakes_have_their_place_and_reading_goes_on() {
        let (tokens, errors) = tokens("a @\n\"open\n'\\q' b");
        let places: Vec<_> = errors.iter().map(|error| error.place.to_string()).collect();
        assert_eq!(places, ["1:3", "2:1", "3:2"]);
        assert_eq!(tokens.last().map(|token| &token.kind), Some(&Kind::Word("b")));
    }
}
