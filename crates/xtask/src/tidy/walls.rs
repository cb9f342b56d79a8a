//! A dependency that would spread through the code stays behind one crate, which alone may name it.

use super::layers::dependencies;
use super::{Finding, Tree};

/// A dependency (or all that begin with it, where it ends in `*`) and the crates that may name it.
///
/// `bench` measures what the walls enclose, bare, as the yardstick; it is no part of any program.
const WALLS: [(&str, &[&str]); 13] = [
    ("llguidance", &["model"]),
    ("nvml-wrapper", &["model"]),
    ("ort", &["model", "bench"]),
    ("tokenizers", &["preprocess", "postprocess", "bench"]),
    ("serde_yaml", &["config", "tests"]),
    ("prost-reflect", &["config", "protocol"]),
    ("opentelemetry*", &["telemetry"]),
    ("tracing-opentelemetry", &["telemetry"]),
    ("prost", &["protocol", "bench"]),
    ("prost-build", &["protocol"]),
    ("prost-types", &["protocol"]),
    ("tonic-prost*", &["protocol", "bench"]),
    ("protox", &["protocol", "config"]),
];

/// No manifest but those behind the wall lists the dependency, not even for tests.
pub(crate) fn names_stay_behind_them(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("toml").filter(|file| file.path.ends_with("/Cargo.toml")) {
        let folder = file.path.strip_suffix("/Cargo.toml");
        let owner = folder.map(|folder| folder.strip_prefix("crates/").unwrap_or(folder));
        // To a wall a test is code like any other: it would break with the dependency.
        let manifest = file.text.replace("[dev-dependencies]", "[dependencies]");
        for (line, dependency) in dependencies(&manifest) {
            let wall = WALLS.iter().find(|(name, _)| matches(name, dependency));
            let Some((name, behind)) = wall else { continue };
            if owner.is_none_or(|owner| !behind.contains(&owner)) {
                let text = format!("only `{}` may name `{name}`", behind.join("`, `"));
                findings.push(Finding::of_line(&file.path, line, text));
            }
        }
    }
    findings
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_named_outside_its_wall_is_found() {
        let tree = Tree::of(&[
            ("crates/model/Cargo.toml", "[dependencies]\nort.workspace = true\n"),
            ("crates/gateway/Cargo.toml", "[dependencies]\nort.workspace = true\n"),
            ("crates/server/Cargo.toml", "[dependencies]\nopentelemetry_sdk.workspace = true\n"),
            ("tests/Cargo.toml", "[dev-dependencies]\nprost = \"0.14\"\n"),
        ]);
        let files: Vec<_> =
            names_stay_behind_them(&tree).into_iter().map(|finding| finding.file).collect();
        assert_eq!(
            files,
            ["crates/gateway/Cargo.toml", "crates/server/Cargo.toml", "tests/Cargo.toml"]
        );
    }

    #[test]
    fn deny_toml_lets_the_crates_behind_a_wall_name_what_it_encloses() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deny.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let mut walls = 0;
        for block in text.split("[[bans.deny]]").skip(1) {
            let line = |key: &str| block.lines().find_map(|line| line.strip_prefix(key));
            let (Some(name), Some(wrappers)) = (line("crate = "), line("wrappers = ")) else {
                continue;
            };
            let name = name.trim_matches('"');
            let (_, behind) = WALLS.iter().find(|(wall, _)| matches(wall, name)).expect(name);
            for folder in *behind {
                let package = format!("\"consort-{folder}\"");
                assert!(wrappers.contains(&package), "`{name}` in deny.toml lacks {package}");
            }
            walls += 1;
        }
        assert_eq!(walls, 6);
    }
}
