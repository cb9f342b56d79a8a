//! What is wrong with a grammar, and where.

/// A mistake and its place, line and column counted from 1.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) at: Place,
    pub(super) what: String,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    /// The beginning of a text.
    pub(super) const FIRST: Self = Self { line: 1, column: 1 };

    /// Goes on behind a character.
    pub(super) fn pass(&mut self, character: char) {
        *self = match character {
            '\n' => Self { line: self.line + 1, column: 1 },
            _ => Self { line: self.line, column: self.column + 1 },
        };
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Place { line, column } = self.at;
        write!(formatter, "line {line}, column {column}: {}", self.what)
    }
}
