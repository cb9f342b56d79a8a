//! Gathers the mistakes in one configuration file.

use std::collections::BTreeSet;

use crate::problem::{Place, Problem, Problems};
use crate::source::Source;

/// More mistakes than anybody reads at once.
const MAX_PROBLEMS: usize = 100;

/// The mistakes found in a file so far.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The file.
    pub(crate) source: Source,
    problems: Vec<Problem>,
    /// The fields that were not understood.
    misread: BTreeSet<String>,
    /// The groups around those, which may be what seems missing there.
    tainted: BTreeSet<String>,
    /// Whether what is missing may yet be filled in.
    forgives_missing: bool,
}

impl Report {
    /// No mistakes in `source` so far.
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            problems: Vec::new(),
            misread: BTreeSet::new(),
            tainted: BTreeSet::new(),
            forgives_missing: false,
        }
    }

    /// Whether there are no mistakes.
    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Says nothing about missing fields from now on.
    pub(crate) fn forgive_missing(&mut self) {
        self.forgives_missing = true;
    }

    /// Notes a mistake at a place of the file.
    pub(crate) fn at(&mut self, place: Option<Place>, message: String, help: Option<String>) {
        let is_second = place.is_some() && self.problems.iter().any(|one| one.place == place);
        if self.problems.len() == MAX_PROBLEMS || is_second {
            return;
        }
        let file = self.source.file().to_owned();
        self.problems.push(Problem { file, place, message, help });
    }

    /// Notes that the field `path` is wrong.
    pub(crate) fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.wrong_but(path, message, None);
    }

    /// Notes that the field `path` is wrong and what would be right, unless it was not understood
    /// in the first place.
    pub(crate) fn wrong_but(
        &mut self,
        path: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if self.misread.contains(path) {
            return;
        }
        let mut problem = self.source.problem(path, message);
        problem.help = help;
        if self.problems.len() < MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Notes that the group `path` lacks a field, unless one there was not understood.
    pub(crate) fn missing(&mut self, path: &str, message: impl Into<String>, help: Option<String>) {
        if !self.forgives_missing && !self.tainted.contains(path) {
            self.wrong_but(path, message, help);
        }
    }

    /// Notes that the field `path` in `group` was not understood, so that nothing more is said
    /// about it or about what is missing there.
    pub(crate) fn misread(&mut self, path: &str, group: &str) {
        self.misread.insert(path.to_owned());
        self.taint(group);
    }

    /// Notes that what seems missing in `group` may only be misspelt.
    pub(crate) fn taint(&mut self, group: &str) {
        self.tainted.insert(group.to_owned());
    }

    /// The mistakes, in the order of the file.
    pub(crate) fn into_problems(mut self) -> Problems {
        self.problems.sort_by_key(|problem| problem.place);
        Problems(self.problems)
    }
}
