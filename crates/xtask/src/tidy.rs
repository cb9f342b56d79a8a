//! Holds the rules of the house that no compiler knows, each as a check that can fail.

mod layers;
mod lines;
mod links;
mod names;
mod tree;
mod walls;
mod words;

use anyhow::{Result, bail};

use crate::checkout::Checkout;
use crate::progress;

pub(crate) use tree::Tree;

/// A broken rule, with the file that breaks it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, relative to the root.
    pub file: String,
    /// Where in the file, when one line is to blame.
    pub line: Option<usize>,
    /// What is wrong and what to do about it.
    pub text: String,
}

impl Finding {
    fn of_file(file: &str, text: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, text: text.into() }
    }

    fn of_line(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { file: file.into(), line: Some(line), text: text.into() }
    }
}

/// A rule: looks at the whole tree and returns what breaks it.
type Check = fn(&Tree) -> Vec<Finding>;

/// Every rule, by the name it is reported under.
const CHECKS: [(&str, Check); 9] = [
    ("first line", lines::first_lines),
    ("size", lines::sizes),
    ("owner", lines::owners),
    ("layers", layers::dependencies_point_down),
    ("walls", walls::names_stay_behind_them),
    ("names", names::files),
    ("links", links::lead_somewhere),
    ("words", words::machine_paths),
    ("words", words::escaping_paths),
];

/// Runs every check over the files of the checkout.
pub(crate) fn run(checkout: &Checkout) -> Result<()> {
    let tree = Tree::read(checkout.root())?;
    let mut broken = 0;
    for (rule, check) in CHECKS {
        for Finding { file, line, text } in check(&tree) {
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            println!("{file}{line}: {text} [{rule}]");
            broken += 1;
        }
    }
    if broken > 0 {
        bail!("{broken} house rules are broken");
    }
    progress::say(&format!("{} files keep the house rules", tree.len()));
    Ok(())
}
