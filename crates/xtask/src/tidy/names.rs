//! A file is called after what is in it, never after having found no better place.

use super::tree::extension;
use super::{Finding, Tree};

/// Names that say nothing about what is inside.
const EMPTY: [&str; 9] =
    ["util", "utils", "common", "helper", "helpers", "misc", "manager", "types", "base"];

/// No source file or folder has an empty name, and no module is called `mod.rs`.
pub(crate) fn files(tree: &Tree) -> Vec<Finding> {
    let sources = tree.paths().filter(|path| extension(path) == "rs" || extension(path) == "py");
    let findings = sources.filter_map(|path| {
        let mut parts = path.split('/');
        let file = parts.next_back()?;
        if file == "mod.rs" {
            return Some(Finding::of_file(
                path,
                "name the module after what it holds, beside its folder: no `mod.rs`",
            ));
        }
        let stem = file.split('.').next()?;
        let empty = parts.chain([stem]).find(|part| EMPTY.contains(part))?;
        Some(Finding::of_file(
            path,
            format!("`{empty}` says nothing about what is inside: find the word for it"),
        ))
    });
    findings.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_nothing_are_found() {
        let tree = Tree::of(&[
            ("crates/a/src/utils.rs", ""),
            ("crates/common/src/lib.rs", ""),
            ("crates/a/src/queue/mod.rs", ""),
            ("crates/a/src/queue.rs", ""),
            ("docs/common.md", ""),
        ]);
        assert_eq!(files(&tree).len(), 3);
    }
}
