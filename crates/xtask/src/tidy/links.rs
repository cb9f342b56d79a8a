//! A link in a document leads to a file that is there.

use super::{Finding, Tree};

/// Every relative link of a Markdown file names a file or folder of the tree.
pub(crate) fn lead_somewhere(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("md") {
        let mut fenced = false;
        for (number, line) in file.text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            let broken = targets(line)
                .filter(|target| !fenced && !leads_to_a_file(tree, &file.path, target));
            findings.extend(broken.map(|target| {
                Finding::of_line(
                    &file.path,
                    number + 1,
                    format!("the link leads to `{target}`, which is not there"),
                )
            }));
        }
    }
    findings
}

/// What stands in the round brackets of `[text](target)`; text in backticks is no link.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let prose = line.split('`').step_by(2);
    prose.flat_map(|part| part.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()))
}

fn leads_to_a_file(tree: &Tree, from: &str, target: &str) -> bool {
    let path = target.split('#').next().unwrap_or_default();
    let elsewhere = target.contains("://") || target.starts_with("mailto:");
    elsewhere || path.is_empty() || resolve(from, path).is_some_and(|path| tree.holds(&path))
}

/// The path that `relative` means in the file `from`; nothing when it leaves the repository.
pub(crate) fn resolve(from: &str, relative: &str) -> Option<String> {
    let mut folders: Vec<&str> = from.split('/').collect();
    folders.pop();
    for part in relative.trim_end_matches('/').split('/') {
        match part {
            "" | "." => {}
            ".." => {
                folders.pop()?;
            }
            name => folders.push(name),
        }
    }
    Some(folders.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nowhere_is_found() {
        let page = "[a](../README.md) [b](missing.md) [c](https://example.org) [d](#part) `[e](code.md)`\n\
                    ```\n[f](fenced.md)\n```\n[g](adr/) [h](../../outside.md) [i](../README.md#top)\n";
        let tree = Tree::of(&[("README.md", ""), ("docs/page.md", page), ("docs/adr/0001.md", "")]);
        let lines: Vec<_> = lead_somewhere(&tree).into_iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [Some(1), Some(5)]);
    }
}
