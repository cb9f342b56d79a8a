//! Crates depend only on crates of a lower rank, so that the graph of crates can be read from bottom to top.

use super::{Finding, Tree};

/// The crates by rank, lowest first; the folders in `crates/`.
const RANKS: [&[&str]; 11] = [
    &["stage", "telemetry"],
    &["ensemble", "protocol"],
    &["config", "middleware"],
    &["scheduler"],
    &["repository"],
    &["client"],
    &["server"],
    &["model", "postprocess", "preprocess"],
    &["gateway"],
    &["consort"],
    // Above all, so that only tests can use the one and nothing the other.
    &["testkit", "bench"],
];

/// Stands apart: nothing depends on it and it depends on nothing here.
const APART: &str = "xtask";

/// Every dependency of a crate on another of this workspace points to a lower rank.
pub(crate) fn dependencies_point_down(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("toml") {
        let Some(name) =
            file.path.strip_prefix("crates/").and_then(|path| path.strip_suffix("/Cargo.toml"))
        else {
            continue;
        };
        let Some(rank) = rank(name) else {
            let text = format!("give `{name}` a rank in `crates/xtask/src/tidy/layers.rs`");
            findings.extend((name != APART).then(|| Finding::of_file(&file.path, text)));
            continue;
        };
        for (line, dependency) in dependencies(&file.text) {
            let Some(below) = dependency.strip_prefix("consort-") else {
                continue;
            };
            if self::rank(below).is_none_or(|below| below >= rank) {
                let text = format!("`{name}` depends on `{below}`, which is not below it");
                findings.push(Finding::of_line(&file.path, line, text));
            }
        }
    }
    findings
}

fn rank(name: &str) -> Option<usize> {
    RANKS.iter().position(|crates| crates.contains(&name))
}

/// The names in `[dependencies]` and `[build-dependencies]`, of every target, each with its line.
///
/// Tests may reach upwards, so `[dev-dependencies]` are left out.
pub(crate) fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    manifest.lines().enumerate().filter_map(move |(number, line)| {
        if let Some(section) = line.trim().strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
            return None;
        }
        let name = line.split(['.', '=', ' ']).next()?.trim();
        (inside && !name.is_empty() && !name.starts_with('#')).then_some((number + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_points_up_or_sideways_is_found() {
        let manifest = "[dependencies]\nbytes.workspace = true\nconsort-stage.workspace = true\n\
                        consort-gateway = { workspace = true }\nconsort-model.workspace = true\n\
                        [dev-dependencies]\nconsort-testkit.workspace = true\n";
        let tree = Tree::of(&[("crates/preprocess/Cargo.toml", manifest)]);
        let lines: Vec<_> =
            dependencies_point_down(&tree).into_iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [Some(4), Some(5)]);
    }

    #[test]
    fn a_crate_without_a_rank_is_found() {
        let tree = Tree::of(&[("crates/novelty/Cargo.toml", ""), ("crates/xtask/Cargo.toml", "")]);
        let files: Vec<_> =
            dependencies_point_down(&tree).into_iter().map(|finding| finding.file).collect();
        assert_eq!(files, ["crates/novelty/Cargo.toml"]);
    }
}
