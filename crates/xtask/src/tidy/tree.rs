//! The files of the checkout as the checks see them: path and text, without what git ignores.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// A text file, its path relative to the root.
pub(crate) struct File {
    pub path: String,
    pub text: String,
}

/// Every file that is or could be committed.
pub(crate) struct Tree {
    files: Vec<File>,
    paths: Vec<String>,
}

impl Tree {
    /// Reads what git tracks, and what it would track; files that are not UTF-8 have a path but no text.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut git = Command::new("git");
        git.current_dir(root).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let listed = process::capture(&mut git)?;
        let paths: Vec<String> =
            listed.split('\0').filter(|path| root.join(path).is_file()).map(Into::into).collect();
        let files = paths.iter().filter_map(|path| {
            let text = fs::read_to_string(root.join(path)).ok()?;
            Some(File { path: path.clone(), text })
        });
        Ok(Self { files: files.collect(), paths: paths.clone() })
    }

    /// A tree of a few files, for a check's own tests.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files =
            files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() });
        let files: Vec<File> = files.collect();
        Self { paths: files.iter().map(|file| file.path.clone()).collect(), files }
    }

    /// Every text file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// The text files whose name ends in `.extension`.
    pub(crate) fn with_extension<'a>(
        &'a self,
        extension: &'a str,
    ) -> impl Iterator<Item = &'a File> {
        let ending = format!(".{extension}");
        self.files.iter().filter(move |file| file.path.ends_with(&ending))
    }

    /// The paths of all files, text or not.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// Whether a path names a file of the tree or a folder that holds one.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty() || self.paths().any(|file| file == path || file.starts_with(&folder))
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.paths.len()
    }
}

/// What follows the last point of a path.
pub(crate) fn extension(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, extension)| extension)
}
