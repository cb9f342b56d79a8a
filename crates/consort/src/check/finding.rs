//! Something to say about a model: a problem, or a note that keeps nobody from serving it.

use std::fmt;

use consort_config::{Place, Problem};

/// Something to say about a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The model.
    pub(crate) model: String,
    /// Whether the model is good all the same.
    pub(crate) is_note: bool,
    /// What is to be said, with its place.
    pub(crate) problem: Problem,
}

impl Finding {
    /// Something that keeps the model from being served.
    pub(crate) fn problem(model: &str, problem: Problem) -> Self {
        Self { model: model.to_owned(), is_note: false, problem }
    }

    /// Something worth knowing.
    pub(crate) fn note(model: &str, problem: Problem) -> Self {
        Self { is_note: true, ..Self::problem(model, problem) }
    }

    /// Where it stands among others: by model, file and place.
    pub(crate) fn order(&self) -> (&str, &str, Option<Place>) {
        (&self.model, &self.problem.file, self.problem.place)
    }

    /// The same as a note.
    pub(crate) fn into_note(self) -> Self {
        Self { is_note: true, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.is_note { "note: " } else { "" };
        write!(formatter, "{note}{}", self.problem)
    }
}

/// A problem of a file as a whole.
pub(crate) fn about(file: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem { file: file.into(), place: None, message: message.into(), help: None }
}
