//! Where a configuration came from, so that a mistake found later can be put to its place.

use std::collections::BTreeMap;

use crate::problem::{Place, Problem};
use crate::yaml;

/// The file that a configuration was read from, with the places of its fields.
#[derive(Clone, Debug, Default)]
pub struct Source {
    file: String,
    places: Places,
}

/// How the place of a field is found.
#[derive(Clone, Debug, Default)]
enum Places {
    /// There is no file: the configuration follows from the model file.
    #[default]
    Nowhere,
    /// Noted while the text format was read.
    Noted(BTreeMap<String, Place>),
    /// Looked up in the YAML when asked for; its reader tells places only on failure.
    LookedUp(String),
}

impl Source {
    /// A file without places.
    pub(crate) fn nowhere(file: impl Into<String>) -> Self {
        Self { file: file.into(), places: Places::Nowhere }
    }

    /// A file in the text format, whose places are still to be noted.
    pub(crate) fn text(file: impl Into<String>) -> Self {
        Self { file: file.into(), places: Places::Noted(BTreeMap::new()) }
    }

    /// A YAML file.
    pub(crate) fn yaml(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: file.into(), places: Places::LookedUp(text.into()) }
    }

    /// Notes that the field `path` is first seen at `place`.
    pub(crate) fn note(&mut self, path: &str, place: Option<Place>) {
        if let (Places::Noted(places), Some(place)) = (&mut self.places, place) {
            places.entry(path.to_owned()).or_insert(place);
        }
    }

    /// The file, seen from the repository.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether the file itself states the field `path`.
    pub(crate) fn states(&self, path: &str) -> bool {
        self.locate_exactly(path).is_some()
    }

    /// The place of a field such as `ensemble_scheduling.step[1].input_map`, or of the nearest
    /// field around it that the file has.
    pub fn locate(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.locate_exactly(path) {
                return Some(place);
            }
            path = around(path)?;
        }
    }

    /// A problem at the place of the field `path`.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            place: self.locate(path),
            message: message.into(),
            help: None,
        }
    }

    fn locate_exactly(&self, path: &str) -> Option<Place> {
        match &self.places {
            Places::Nowhere => None,
            Places::Noted(places) => places.get(path).copied(),
            Places::LookedUp(text) => yaml::locate(text, &segments(path)),
        }
    }
}

/// One part of a field's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment<'a> {
    /// A field's name.
    Field(&'a str),
    /// An item of a list.
    Index(usize),
    /// An entry of a map.
    Key(&'a str),
}

/// The path of the entry `key` of a map.
pub(crate) fn entry(map: &str, key: &str) -> String {
    format!("{map}[\"{key}\"]")
}

/// The path of the field `name` inside `group`, which is empty for the whole file.
pub(crate) fn field(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{group}.{name}") }
}

/// The path around `path`: `a[1].b` for `a[1].b["k"]`, `a[1]` for `a[1].b`.
fn around(path: &str) -> Option<&str> {
    let cut = if path.ends_with("\"]") {
        path.rfind("[\"")
    } else if path.ends_with(']') {
        path.rfind('[')
    } else {
        path.rfind('.')
    };
    cut.map(|cut| &path[..cut]).filter(|path| !path.is_empty())
}

/// The parts of a path.
fn segments(path: &str) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let mut rest = path;
    while let Some(parent) = around(rest) {
        segments.push(segment(&rest[parent.len()..]));
        rest = parent;
    }
    segments.push(segment(rest));
    segments.reverse();
    segments
}

fn segment(text: &str) -> Segment<'_> {
    let text = text.trim_start_matches('.');
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match inner {
        None => Segment::Field(text),
        Some(inner) => match inner.parse() {
            Ok(index) => Segment::Index(index),
            Err(_) => Segment::Key(inner.trim_matches('"')),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_falls_apart_into_its_segments() {
        assert_eq!(
            segments("step[1].input_map[\"a.b\"].x"),
            [
                Segment::Field("step"),
                Segment::Index(1),
                Segment::Field("input_map"),
                Segment::Key("a.b"),
                Segment::Field("x"),
            ]
        );
    }
}
