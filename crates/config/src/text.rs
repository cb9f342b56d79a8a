//! Reads the protobuf text format into a tree, going on after every mistake.
//!
//! The reader that comes with the descriptors stops at its first mistake and keeps its place to
//! itself; people who write configurations by hand want all of them with their places.

mod lexer;
mod parser;

use crate::problem::Place;
use crate::tree::Entry;

/// A mistake in the syntax.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// Where.
    pub(crate) place: Place,
    /// What is wrong.
    pub(crate) message: String,
}

/// A file as far as it could be read.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Its fields.
    pub(crate) fields: Vec<Entry>,
    /// Every mistake in its syntax.
    pub(crate) errors: Vec<SyntaxError>,
    /// Whether every bracket is closed by its like; otherwise fields may lie in the wrong group.
    pub(crate) is_balanced: bool,
}

/// Reads a file.
pub(crate) fn parse(text: &str) -> Parsed {
    let (tokens, mut errors) = lexer::tokens(text);
    let mut parsed = parser::parse(&tokens);
    errors.append(&mut parsed.errors);
    Parsed { errors, ..parsed }
}
