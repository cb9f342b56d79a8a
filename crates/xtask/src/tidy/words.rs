//! The repository speaks of itself alone: no folder of somebody's machine, no path that leads out of the checkout.

use super::links::resolve;
use super::tree::extension;
use super::{Finding, Tree};

/// First folders of paths that exist on one person's machine only.
const PRIVATE: [&str; 5] = ["home", "Users", "root", "work", "workspace"];

/// No file names an absolute path of somebody's machine.
pub(crate) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let private: Vec<String> = PRIVATE.iter().map(|folder| format!("/{folder}/")).collect();
    let finding = |path: &str, number: usize, line: &str| {
        let folder = private.iter().find(|folder| names(line, folder))?;
        Some(Finding::of_line(
            path,
            number,
            format!("`{folder}` is a folder of somebody's machine"),
        ))
    };
    every_line(tree, finding)
}

/// No file names a relative path that leaves the repository.
pub(crate) fn escaping_paths(tree: &Tree) -> Vec<Finding> {
    let finding = |path: &str, number: usize, line: &str| {
        let start = |at: &(usize, &str)| {
            line[..at.0].chars().next_back().is_none_or(|before| " \"'(`=".contains(before))
        };
        let escapes = |(at, _): (usize, &str)| {
            let relative =
                line[at..].split(|letter: char| " \"'()`,;:…".contains(letter)).next()?;
            let from_here = resolve(path, relative).is_none();
            (from_here && relative.contains(|letter: char| letter.is_alphanumeric()))
                .then_some(relative)
        };
        let relative = line.match_indices("../").filter(start).find_map(escapes)?;
        Some(Finding::of_line(path, number, format!("`{relative}` leads out of the repository")))
    };
    every_line(tree, finding)
}

fn every_line(tree: &Tree, finding: impl Fn(&str, usize, &str) -> Option<Finding>) -> Vec<Finding> {
    // A lock file holds what cargo wrote.
    let files = tree.files().filter(|file| extension(&file.path) != "lock");
    let lines = files.flat_map(|file| {
        file.text.lines().enumerate().map(move |(number, line)| (&file.path, number + 1, line))
    });
    lines.filter_map(|(path, number, line)| finding(path, number, line)).collect()
}

/// Whether the line has the folder as the beginning of a path, not in the middle of a longer one or of an address.
fn names(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric() && !"/._-}~$*".contains(letter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_somebodys_machine_is_found() {
        let home = format!("see /{}/ada/models\n", "home");
        let tree = Tree::of(&[("a.md", &home), ("b.md", "https://example.org/home/page\n")]);
        assert_eq!(machine_paths(&tree).len(), 1);
    }

    #[test]
    fn a_path_that_leaves_the_repository_is_found() {
        let out = format!("look into {}{}\n", "../", "elsewhere/file.md");
        let tree = Tree::of(&[("a.md", &out), ("docs/b.md", "look into ../README.md\n")]);
        let files: Vec<_> = escaping_paths(&tree).into_iter().map(|finding| finding.file).collect();
        assert_eq!(files, ["a.md"]);
    }
}
