//! Puts the tokens of the protobuf text format together.

use crate::problem::Place;
use crate::text::lexer::{Kind, Token};
use crate::text::{Parsed, SyntaxError};
use crate::tree::{Entry, Node, Value};

/// How deep groups may lie in one another; configurations need six.
const MAX_DEPTH: usize = 64;

/// Reads the fields of a file, as far as they can be read.
pub(super) fn parse(tokens: &[Token<'_>]) -> Parsed {
    let mut parser =
        Parser { tokens, next: 0, depth: 0, errors: Vec::new(), unclosed: None, is_balanced: true };
    let fields = parser.fields(None);
    if let Some(Opening { place, symbol, .. }) = parser.unclosed {
        let message = format!("this `{symbol}` is never closed");
        parser.errors.push(SyntaxError { place, message });
    }
    let is_balanced = parser.is_balanced && parser.unclosed.is_none();
    Parsed { fields, errors: parser.errors, is_balanced }
}

/// The bracket that a group or list began with.
#[derive(Clone, Copy)]
struct Opening {
    place: Place,
    symbol: char,
    closing: char,
}

struct Parser<'a, 't> {
    tokens: &'t [Token<'a>],
    next: usize,
    depth: usize,
    errors: Vec<SyntaxError>,
    /// The outermost bracket still open at the end of the file.
    unclosed: Option<Opening>,
    is_balanced: bool,
}

impl<'a, 't> Parser<'a, 't> {
    fn peek(&self) -> Option<&'t Kind<'a>> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn peek_symbol(&self) -> Option<char> {
        match self.peek()? {
            Kind::Symbol(symbol) => Some(*symbol),
            _ => None,
        }
    }

    /// The place of the next token, or of the last one at the end.
    fn place(&self) -> Place {
        let token = self.tokens.get(self.next).or(self.tokens.last());
        token.map_or(Place { line: 1, column: 1 }, |token| token.place)
    }

    fn skip_symbol(&mut self, symbol: char) -> bool {
        let is_there = self.peek_symbol() == Some(symbol);
        self.next += usize::from(is_there);
        is_there
    }

    fn error(&mut self, message: String) {
        let place = self.place();
        self.errors.push(SyntaxError { place, message });
    }

    fn unexpected(&mut self, expected: &str) {
        let found = describe(self.peek());
        self.error(format!("expected {expected}, found {found}"));
    }

    /// Fields up to the closing bracket of `opening`, or to the end of the file.
    fn fields(&mut self, opening: Option<Opening>) -> Vec<Entry> {
        let mut fields = Vec::new();
        loop {
            match (self.peek(), opening) {
                (None, None) => return fields,
                (None, Some(_)) => {
                    self.unclosed = opening;
                    return fields;
                }
                (Some(Kind::Word(name)), _) => fields.push(self.field(name)),
                (Some(Kind::Symbol(symbol @ ('}' | '>'))), opening) => {
                    self.closed_by(*symbol, opening);
                    self.next += 1;
                    if opening.is_some() {
                        return fields;
                    }
                }
                _ => {
                    self.unexpected("the name of a field");
                    self.skip_to_field();
                }
            }
        }
    }

    fn field(&mut self, name: &str) -> Entry {
        let place = self.place();
        self.next += 1;
        let has_colon = self.skip_symbol(':');
        if !has_colon && !self.is_group_ahead() {
            self.unexpected(&format!("`:` after `{name}`"));
        }
        let value = self.value(name);
        if !self.skip_symbol(',') {
            self.skip_symbol(';');
        }
        Entry { name: name.to_owned(), place: Some(place), value }
    }

    /// Whether a group or a list of groups follows, which need no colon before them.
    fn is_group_ahead(&self) -> bool {
        let symbol =
            |ahead: usize| match self.tokens.get(self.next + ahead).map(|token| &token.kind) {
                Some(Kind::Symbol(symbol)) => *symbol,
                _ => ' ',
            };
        match symbol(0) {
            '{' | '<' => true,
            '[' => matches!(symbol(1), '{' | '<' | ']'),
            _ => false,
        }
    }

    fn value(&mut self, name: &str) -> Node {
        let place = self.place();
        let value = match self.peek() {
            Some(Kind::Symbol(symbol @ ('{' | '<'))) => {
                self.nested(*symbol, |parser, opening| Value::Group(parser.fields(Some(opening))))
            }
            Some(Kind::Symbol('[')) => {
                self.nested('[', |parser, opening| Value::List(parser.items(name, opening)))
            }
            Some(Kind::Symbol('-')) => self.negative(),
            Some(Kind::Number(number)) => {
                self.next += 1;
                Value::Number((*number).to_owned())
            }
            Some(Kind::Word(word)) if !self.is_field_ahead() => {
                self.next += 1;
                Value::Word((*word).to_owned())
            }
            Some(Kind::Text(_)) => self.strings(),
            _ => {
                self.unexpected(&format!("a value for `{name}`"));
                Value::Broken
            }
        };
        Node { place: Some(place), value }
    }

    /// Whether a word is the name of the next field rather than a value: `name:` and the like.
    fn is_field_ahead(&self) -> bool {
        let after = self.tokens.get(self.next + 1);
        let line = self.tokens.get(self.next).map(|token| token.place.line);
        let before = self.next.checked_sub(1).and_then(|index| self.tokens.get(index));
        let is_on_new_line = before.map(|token| token.place.line) != line;
        is_on_new_line && matches!(after.map(|token| &token.kind), Some(Kind::Symbol(':' | '{')))
    }

    fn negative(&mut self) -> Value {
        self.next += 1;
        let text = match self.peek() {
            Some(Kind::Number(text)) => format!("-{text}"),
            Some(Kind::Word(text)) if !self.is_field_ahead() => format!("-{text}"),
            _ => {
                self.unexpected("a number after `-`");
                return Value::Broken;
            }
        };
        self.next += 1;
        Value::Number(text)
    }

    /// Strings that stand one after another are one.
    fn strings(&mut self) -> Value {
        let mut whole = Some(String::new());
        while let Some(Kind::Text(text)) = self.peek() {
            whole = whole.zip(text.as_ref()).map(|(whole, text)| whole + text);
            self.next += 1;
        }
        whole.map_or(Value::Broken, Value::Text)
    }

    fn nested(&mut self, symbol: char, read: impl FnOnce(&mut Self, Opening) -> Value) -> Value {
        let closing = match symbol {
            '{' => '}',
            '<' => '>',
            _ => ']',
        };
        let opening = Opening { place: self.place(), symbol, closing };
        if self.depth == MAX_DEPTH {
            self.error(format!("more than {MAX_DEPTH} groups lie in one another here"));
            self.next = self.tokens.len();
            return Value::Broken;
        }
        self.next += 1;
        self.depth += 1;
        let value = read(self, opening);
        self.depth -= 1;
        value
    }

    fn items(&mut self, name: &str, opening: Opening) -> Vec<Node> {
        let mut items = Vec::new();
        if self.skip_symbol(']') {
            return items;
        }
        loop {
            items.push(self.value(name));
            match self.peek_symbol() {
                Some(',') => self.next += 1,
                Some(']') => {
                    self.next += 1;
                    return items;
                }
                _ if self.peek().is_none() => {
                    self.unclosed = Some(opening);
                    return items;
                }
                // Most likely the comma is missing.
                Some('{' | '<') => self.unexpected("`,` between two groups of a list"),
                _ => {
                    self.unexpected("`,` or `]`");
                    if !self.skip_to_next_item() {
                        return items;
                    }
                }
            }
        }
    }

    fn closed_by(&mut self, symbol: char, opening: Option<Opening>) {
        if opening.is_some_and(|opening| opening.closing == symbol) {
            return;
        }
        self.is_balanced = false;
        match opening {
            None => self.error(format!("this `{symbol}` closes nothing")),
            Some(opening) => self.error(format!(
                "expected `{}` to close the `{}` at {}, found `{symbol}`",
                opening.closing, opening.symbol, opening.place
            )),
        }
    }

    /// Skips to where a field may begin: a name before a colon or a group, or a closing bracket.
    fn skip_to_field(&mut self) {
        self.next += 1;
        while let Some(kind) = self.peek() {
            let is_name = matches!(kind, Kind::Word(_)) && {
                let next = self.tokens.get(self.next + 1).map(|token| &token.kind);
                matches!(next, Some(Kind::Symbol(':' | '{' | '<' | '[')))
            };
            if is_name || matches!(kind, Kind::Symbol('}' | '>')) {
                return;
            }
            self.next += 1;
        }
    }

    /// Skips behind the next comma of a list; `false` when the list is over before one.
    fn skip_to_next_item(&mut self) -> bool {
        while let Some(kind) = self.peek() {
            match kind {
                Kind::Symbol(',') => {
                    self.next += 1;
                    return true;
                }
                Kind::Symbol(']') => {
                    self.next += 1;
                    return false;
                }
                Kind::Symbol('}' | '>') => return false,
                Kind::Word(_) if self.is_field_ahead() => return false,
                _ => self.next += 1,
            }
        }
        false
    }
}

fn describe(kind: Option<&Kind<'_>>) -> String {
    match kind {
        None => "the end of the file".into(),
        Some(Kind::Word(text) | Kind::Number(text)) => format!("`{text}`"),
        Some(Kind::Text(_)) => "a string".into(),
        Some(Kind::Symbol(symbol)) => format!("`{symbol}`"),
    }
}
