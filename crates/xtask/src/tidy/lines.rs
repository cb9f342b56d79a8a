//! Rules about the lines of a source file: what the first says, how many there are, who owns a note to come back.

use super::{Finding, Tree};

/// The most lines a Rust file may have before its tests; beyond it no file is one idea.
const LONGEST: usize = 400;

/// Every Rust file begins with one `//!` sentence, every Python file with a docstring.
pub(crate) fn first_lines(tree: &Tree) -> Vec<Finding> {
    let rust = tree.with_extension("rs").filter(|file| !file.text.starts_with("//! "));
    let rust = rust.map(|file| {
        Finding::of_file(&file.path, "begin with a `//!` sentence that says what the file is for")
    });
    let python = tree.with_extension("py").filter(|file| !begins_with_a_docstring(&file.text));
    let python = python.map(|file| {
        Finding::of_file(&file.path, "begin with a docstring that says what the file is for")
    });
    rust.chain(python).collect()
}

fn begins_with_a_docstring(text: &str) -> bool {
    let mut lines = text.lines().skip_while(|line| line.starts_with("#!"));
    lines.next().is_some_and(|line| line.starts_with("\"\"\""))
}

/// No Rust file is longer than one idea.
pub(crate) fn sizes(tree: &Tree) -> Vec<Finding> {
    let long = tree.with_extension("rs").filter_map(|file| {
        let lines = file.text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        let is_test =
            file.path.split('/').any(|folder| folder == "tests") || file.path.ends_with("tests.rs");
        (lines > LONGEST && !is_test).then(|| {
            Finding::of_file(
                &file.path,
                format!("{lines} lines before the tests, at most {LONGEST}: split it by idea"),
            )
        })
    });
    long.collect()
}

/// A note to come back names who will: `TODO(name)`.
pub(crate) fn owners(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in ["rs", "py", "proto", "toml", "yml", "yaml"]
        .into_iter()
        .flat_map(|kind| tree.with_extension(kind))
    {
        for (number, line) in file.text.lines().enumerate() {
            for word in ["TODO", "FIXME"] {
                let owned = format!("{word}(");
                if comment(line)
                    .is_some_and(|comment| comment.contains(word) && !comment.contains(&owned))
                {
                    findings.push(Finding::of_line(
                        &file.path,
                        number + 1,
                        format!("`{word}` needs an owner: `{owned}name)`"),
                    ));
                }
            }
        }
    }
    findings
}

/// What follows the sign of a comment.
fn comment(line: &str) -> Option<&str> {
    let starts = ["//", "# "].into_iter().filter_map(|sign| line.find(sign));
    starts.min().map(|at| &line[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_first_line_is_found() {
        let tree = Tree::of(&[
            ("a.rs", "//! Says it.\n"),
            ("b.rs", "use std::fs;\n"),
            ("c.py", "#!/usr/bin/env python3\n\"\"\"Says it.\"\"\"\n"),
            ("d.py", "import sys\n"),
        ]);
        let files: Vec<_> = first_lines(&tree).into_iter().map(|finding| finding.file).collect();
        assert_eq!(files, ["b.rs", "d.py"]);
    }

    #[test]
    fn a_file_is_too_long_by_the_lines_before_its_tests() {
        let long = "//\n".repeat(LONGEST + 1);
        let tested = format!("//\n#[cfg(test)]\n{long}");
        let tree = Tree::of(&[("long.rs", &long), ("tested.rs", &tested), ("tests/all.rs", &long)]);
        let files: Vec<_> = sizes(&tree).into_iter().map(|finding| finding.file).collect();
        assert_eq!(files, ["long.rs"]);
    }

    #[test]
    fn a_note_to_come_back_needs_an_owner() {
        let tree = Tree::of(&[(
            "a.rs",
            "let a = 1; // TODO: later\n// TODO(ada): later\nlet text = \"TODO\";\n",
        )]);
        assert_eq!(
            owners(&tree),
            [Finding::of_line("a.rs", 1, "`TODO` needs an owner: `TODO(name)`")]
        );
    }
}
