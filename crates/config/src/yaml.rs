//! Reads `config.yaml` into the same tree as the text format, and finds the places of its fields.

use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::problem::Place;
use crate::source::Segment;
use crate::tree::{Entry, Node, Value};

/// Why a file is not YAML.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// Where.
    pub(crate) place: Option<Place>,
    /// What is wrong.
    pub(crate) message: String,
}

/// Reads a YAML document.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.trim().is_empty() {
        return Ok(node(Value::Null));
    }
    serde_yaml::from_str(text).map_err(|error| {
        let place = place_of(&error);
        let message = error.to_string();
        // The place stands before the message already.
        let shown = place.map(|Place { line, column }| format!(" at line {line} column {column}"));
        SyntaxError { place, message: message.replacen(&shown.unwrap_or_default(), "", 1) }
    })
}

/// The place of the field at `path`.
///
/// The reader tells a place only with an error, so this fails on purpose when it gets there.
pub(crate) fn locate(text: &str, path: &[Segment<'_>]) -> Option<Place> {
    let error = Search(path).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    error.to_string().contains(FOUND).then(|| place_of(&error)).flatten()
}

/// The error of a search that succeeded; no message of the reader holds it.
const FOUND: &str = "\u{1}found\u{1}";

fn place_of(error: &serde_yaml::Error) -> Option<Place> {
    let location = error.location()?;
    Some(Place { line: location.line(), column: location.column() })
}

fn node(value: Value) -> Node {
    Node { place: None, value }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(node)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value without a tag")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(item) = items.next_element()? {
            nodes.push(item);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = entries.next_entry::<Name, Node>()? {
            fields.push(Entry { name: name.0, place: None, value });
        }
        Ok(Value::Mapping(fields))
    }
}

/// The key of a mapping: text, or what can be written as text.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Node::deserialize(deserializer)?.value {
            Value::Text(text) | Value::Number(text) => Ok(Self(text)),
            Value::Bool(value) => Ok(Self(value.to_string())),
            other => {
                Err(D::Error::custom(format!("a key must be a name, not {}", other.describe())))
            }
        }
    }
}

/// A walk along a path that fails where it ends.
struct Search<'a>(&'a [Segment<'a>]);

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.0.is_empty() {
            deserializer.deserialize_any(Stop)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list or a mapping")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((Segment::Index(wanted), rest)) = self.0.split_first() else { return Ok(()) };
        for _ in 0..*wanted {
            if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        items.next_element_seed(Search(rest)).map(|_| ())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let (wanted, rest) = match self.0 {
            // A single group where a list may stand.
            [Segment::Index(0), Segment::Field(name) | Segment::Key(name), rest @ ..]
            | [Segment::Field(name) | Segment::Key(name), rest @ ..] => (*name, rest),
            _ => return Ok(()),
        };
        let is_end = rest.is_empty();
        while let Some(is_wanted) = entries.next_key_seed(SearchKey { wanted, is_end })? {
            if is_wanted {
                return entries.next_value_seed(Search(rest));
            }
            entries.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// The end of a walk: whatever it visits is not what it wants, so it fails right there.
struct Stop;

impl Visitor<'_> for Stop {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(FOUND)
    }
}

/// Says whether a key is the wanted one, and fails on that one when the path ends there.
struct SearchKey<'a> {
    wanted: &'a str,
    is_end: bool,
}

impl SearchKey<'_> {
    fn compare<E: serde::de::Error>(&self, key: &str) -> Result<bool, E> {
        let is_wanted = key == self.wanted;
        if is_wanted && self.is_end { Err(E::custom(FOUND)) } else { Ok(is_wanted) }
    }
}

impl<'de> DeserializeSeed<'de> for SearchKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for SearchKey<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        self.compare(key)
    }

    fn visit_u64<E: serde::de::Error>(self, key: u64) -> Result<bool, E> {
        self.compare(&key.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, key: i64) -> Result<bool, E> {
        self.compare(&key.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
name: m
input:
  - name: x
    dims: [1, -1]
  - {name: y, data_type: TYPE_FP32}
parameters:
  a.b: 1
  7: seven
output: {name: z}
";

    #[test]
    fn every_field_is_found_at_its_key_and_every_item_at_its_start() {
        use Segment::{Field, Index, Key};
        for (path, place) in [
            (&[Field("name")][..], Some((1, 1))),
            (&[Field("input")], Some((2, 1))),
            (&[Field("input"), Index(0)], Some((3, 5))),
            (&[Field("input"), Index(0), Field("dims")], Some((4, 5))),
            (&[Field("input"), Index(0), Field("dims"), Index(1)], Some((4, 15))),
            (&[Field("input"), Index(1), Field("data_type")], Some((5, 15))),
            (&[Field("parameters"), Key("a.b")], Some((7, 3))),
            (&[Field("parameters"), Key("7")], Some((8, 3))),
            (&[Field("output"), Index(0), Field("name")], Some((9, 10))),
            (&[Field("input"), Index(2)], None),
            (&[Field("nothing")], None),
        ] {
            let found = locate(TEXT, path).map(|place| (place.line, place.column));
            assert_eq!(found, place, "{path:?}");
        }
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let error = parse("name: m\ninput: [").unwrap_err();
        assert_eq!(error.place.map(|place| place.line), Some(3));
        assert!(!error.message.contains("line 3"), "{}", error.message);
    }
}
