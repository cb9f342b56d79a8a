//! Tells cheaply whether the files of a model have changed: by names, sizes and times.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;

/// How deep folders are followed; links may go in circles, and no model lies deeper.
const MAX_DEPTH: usize = 16;

/// Something that differs when the files it was made of do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// The stamp of what lies in `folder`, at any depth, but for entries at the top that `skip`.
    ///
    /// What cannot be read counts as not being there.
    pub(crate) fn of_folder(folder: &Path, skip: impl Fn(&str) -> bool) -> Self {
        let mut hasher = DefaultHasher::new();
        add_folder(folder, &skip, MAX_DEPTH, &mut hasher);
        Self(hasher.finish())
    }

    /// The stamp of a value, such as files that came with a request.
    pub(crate) fn of_value(value: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(hasher.finish())
    }
}

fn add_folder(
    folder: &Path,
    skip: &dyn Fn(&str) -> bool,
    depth: usize,
    hasher: &mut DefaultHasher,
) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        if name.to_str().is_some_and(skip) {
            continue;
        }
        let Ok(metadata) = fs::metadata(&path) else { continue };
        name.hash(hasher);
        if metadata.is_dir() && depth > 0 {
            // A folder's own time says nothing that its entries do not.
            add_folder(&path, &|_| false, depth - 1, hasher);
        } else {
            metadata.len().hash(hasher);
            metadata.modified().ok().hash(hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_comes_grows_or_goes_makes_a_difference_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = || Stamp::of_folder(folder.path(), |name| name == "skipped");
        fs::create_dir_all(folder.path().join("1/deep")).unwrap();
        let empty = stamp();
        let file = folder.path().join("1/deep/weights");
        fs::write(&file, "a").unwrap();
        let small = stamp();
        assert_ne!(empty, small);
        assert_eq!(small, stamp());
        fs::write(&file, "ab").unwrap();
        assert_ne!(small, stamp());
        fs::remove_file(&file).unwrap();
        assert_eq!(empty, stamp());
        fs::write(folder.path().join("skipped"), "a").unwrap();
        assert_eq!(empty, stamp());
    }
}
