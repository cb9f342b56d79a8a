//! What a configuration file says before anyone asks what it means, whichever its syntax.

use crate::problem::Place;

/// The syntax of a configuration file, where it decides what a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// The protobuf text format: strings have quotes, names have none.
    Text,
    /// YAML: whether a scalar is a string or a name follows from its field.
    Yaml,
}

/// A value in a configuration file.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where it begins, when the syntax tells.
    pub(crate) place: Option<Place>,
    /// What it is.
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug)]
pub(crate) enum Value {
    /// YAML's nothing.
    Null,
    /// YAML's `true` or `false`.
    Bool(bool),
    /// A number as it is written.
    Number(String),
    /// A word without quotes: the text format's enum names, `true`, `inf`.
    Word(String),
    /// A string.
    Text(String),
    /// A list in square brackets.
    List(Vec<Node>),
    /// The text format's group of fields in braces.
    Group(Vec<Entry>),
    /// A YAML mapping, which is a group of fields or a map by what its place asks for.
    Mapping(Vec<Entry>),
    /// Something that was reported already.
    Broken,
}

/// A named value.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// Where the name is.
    pub(crate) place: Option<Place>,
    /// The value.
    pub(crate) value: Node,
}

impl Value {
    /// What it is, for a message that says that something else was expected.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Number(text) | Self::Word(text) => format!("`{text}`"),
            Self::Text(text) => format!("the string {text:?}"),
            Self::List(_) => "a list".into(),
            Self::Group(_) | Self::Mapping(_) => "a group of fields".into(),
            Self::Broken => "a broken value".into(),
        }
    }
}
