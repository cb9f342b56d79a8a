//! The folders of a model repository: which models there are, and which versions of each.

use std::fs;
use std::path::{Component, Path, PathBuf};

use consort_config::VersionPolicy;
use consort_stage::{Error, Result};

/// What a model's folder may hold beside its versions: data of warm-up requests, states that
/// sequences begin with, adapters, and Triton's configurations to choose from.
const FOLDERS_OF_MODELS: [&str; 4] = ["warmup", "initial_state", "adapters", "configs"];

/// A model's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFolder {
    /// The folder's name, which is the model's.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
}

/// The model folders of a repository, in the order of their names.
///
/// Files, hidden folders and folders that hold nothing a model needs are not models.
pub fn models_in(repository: &Path) -> Result<Vec<ModelFolder>> {
    let mut folders: Vec<ModelFolder> = subfolders(repository)
        .map_err(|error| {
            let shown = repository.display();
            Error::not_found(format!(
                "cannot read model repository `{shown}`: {error}; is `--model-repository` right?"
            ))
        })?
        .into_iter()
        .filter(|(name, path)| !name.starts_with('.') && looks_like_a_model(path))
        .map(|(name, path)| ModelFolder { name, path })
        .collect();
    folders.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(folders)
}

/// The folder of the model `name` in a repository, if it is one of [`models_in`], without a look at
/// the others.
pub(crate) fn model_in(repository: &Path, name: &str) -> Option<ModelFolder> {
    // Names come from callers and from the steps of ensembles.
    let mut parts = Path::new(name).components();
    let is_name = matches!(parts.next(), Some(Component::Normal(part)) if part == name)
        && parts.next().is_none();
    let path = repository.join(name);
    let is_model = is_name && !name.starts_with('.') && path.is_dir() && looks_like_a_model(&path);
    is_model.then(|| ModelFolder { name: name.to_owned(), path })
}

/// The version folders in a model's folder, ascending.
///
/// A version is a whole number above zero without leading zeros; other folders are not versions.
pub fn versions_in(model: &Path) -> Vec<u64> {
    let folders = subfolders(model).unwrap_or_default();
    let mut versions: Vec<u64> =
        folders.iter().filter_map(|(name, _)| version_number(name)).collect();
    versions.sort_unstable();
    versions
}

/// The versions among `present` that `policy` serves, ascending.
pub fn served_versions(policy: &VersionPolicy, present: &[u64]) -> Vec<u64> {
    match policy {
        VersionPolicy::All => present.to_vec(),
        VersionPolicy::Latest(count) => {
            present[present.len().saturating_sub(count.get())..].to_vec()
        }
        VersionPolicy::Specific(wanted) => {
            present.iter().copied().filter(|version| wanted.contains(version)).collect()
        }
    }
}

/// What Triton warns of: folders that look as if they were meant to be versions, and versions that
/// `policy` names and that are not there.
pub fn oddities(folder: &ModelFolder, policy: &VersionPolicy) -> Vec<String> {
    let mut names: Vec<String> =
        subfolders(&folder.path).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let is_odd = |name: &&String| {
        version_number(name).is_none()
            && !name.starts_with('.')
            && !FOLDERS_OF_MODELS.contains(&name.as_str())
    };
    let ignored = names.iter().filter(is_odd).map(|name| {
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        let why = if is_number {
            "a version is a whole number above 0 without leading zeros"
        } else {
            "its name is no whole number"
        };
        format!("folder '{name}' is no version and is passed over: {why}")
    });
    let present = versions_in(&folder.path);
    let wanted = match policy {
        VersionPolicy::Specific(wanted) => wanted.as_slice(),
        VersionPolicy::All | VersionPolicy::Latest(_) => &[],
    };
    let missing = wanted.iter().filter(|version| !present.contains(version)).map(|version| {
        format!("version {version} is specified in `version_policy`, but there is no such folder")
    });
    ignored.chain(missing).collect()
}

/// The version that a folder of this name holds.
pub(crate) fn version_number(name: &str) -> Option<u64> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0');
    is_number.then(|| name.parse().ok()).flatten()
}

fn looks_like_a_model(path: &Path) -> bool {
    ["config.pbtxt", "config.yaml", "config.yml"].iter().any(|file| path.join(file).exists())
        || !versions_in(path).is_empty()
}

fn subfolders(folder: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let (Some(name), true) = (name, path.is_dir()) {
            folders.push((name.to_owned(), path.clone()));
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn only_whole_numbers_without_leading_zeros_are_versions() {
        assert_eq!(version_number("12"), Some(12));
        for name in ["0", "01", "1a", "", "-1", "99999999999999999999"] {
            assert_eq!(version_number(name), None, "{name}");
        }
    }

    #[test]
    fn one_model_is_found_by_its_name_as_among_all_and_nothing_outside_is() {
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("repository");
        for folder in ["repository/m/1", "repository/empty", "repository/.hidden/1", "outside/1"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(repository.join("file"), "").unwrap();
        let found = model_in(&repository, "m").unwrap();
        assert_eq!(models_in(&repository).unwrap(), [found]);
        let outside = root.path().join("outside").display().to_string();
        for name in
            ["empty", ".hidden", "file", "none", "", ".", "..", "../outside", "m/", "m/1", &outside]
        {
            assert!(model_in(&repository, name).is_none(), "{name}");
        }
    }

    #[test]
    fn folders_that_are_no_version_and_versions_that_are_not_there_are_told_of() {
        let root = tempfile::tempdir().unwrap();
        for name in ["1", "04", "abc", ".git", "warmup", "initial_state"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let folder = ModelFolder { name: "m".into(), path: root.path().into() };
        let told = oddities(&folder, &VersionPolicy::Specific(vec![1, 7]));
        let [leading, word, missing] = &told[..] else { panic!("{told:?}") };
        assert!(leading.contains("'04'") && leading.contains("leading zeros"), "{leading}");
        assert!(word.contains("'abc'") && word.contains("no whole number"), "{word}");
        assert!(missing.starts_with("version 7 is specified"), "{missing}");
        assert_eq!(oddities(&folder, &VersionPolicy::All).len(), 2);
    }

    #[test]
    fn a_policy_chooses_among_the_versions_that_are_there() {
        let latest = |count| VersionPolicy::Latest(NonZeroUsize::new(count).unwrap());
        assert_eq!(served_versions(&latest(1), &[1, 3, 7]), [7]);
        assert_eq!(served_versions(&latest(9), &[1, 3, 7]), [1, 3, 7]);
        assert_eq!(served_versions(&VersionPolicy::Specific(vec![3, 4]), &[1, 3, 7]), [3]);
        assert_eq!(served_versions(&VersionPolicy::All, &[]), [0_u64; 0]);
    }
}
