//! A private folder for the files that a caller gives in place of a model's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use consort_stage::{Error, Result};
use tempfile::TempDir;

use crate::control::Override;
use crate::stamp::Stamp;

/// Files that came with a request, on disk until this is dropped.
pub(crate) struct StandIn {
    root: TempDir,
    stamp: Stamp,
    model: String,
}

impl StandIn {
    /// Writes the files of `given`; `None` when there are none.
    pub(crate) fn write(model: &str, given: &Override) -> Result<Option<Self>> {
        if given.files.is_empty() {
            return Ok(None);
        }
        // The kind of the cause names no path of this machine, as the cause itself may.
        let failed = |what: &str, cause: io::Error| {
            let kind = cause.kind();
            let text = format!("cannot keep {what} given for model '{model}': {kind}");
            Error::internal(text).with_source(cause)
        };
        let root = tempfile::Builder::new().prefix("consort-model-").tempdir();
        let root = root.map_err(|cause| failed("the files", cause))?;
        let stamp = Stamp::of_value(&given.files);
        let stand_in = Self { root, stamp, model: model.to_owned() };
        for (path, content) in &given.files {
            write(&stand_in.folder().join(path), content)
                .map_err(|cause| failed(&format!("file '{path}'"), cause))?;
        }
        Ok(Some(stand_in))
    }

    /// The folder that stands in for the model's, and is named like it.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join(&self.model)
    }

    /// What tells these files from others.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_there_until_it_is_dropped() {
        let files = vec![("1/deep/weights".to_owned(), "abc".into())];
        let given = Override { config: "{}".into(), files };
        let stand_in = StandIn::write("m", &given).unwrap().unwrap();
        let folder = stand_in.folder();
        assert_eq!(folder.file_name().unwrap(), "m");
        assert_eq!(fs::read(folder.join("1/deep/weights")).unwrap(), b"abc");
        drop(stand_in);
        assert!(!folder.exists() && !folder.parent().unwrap().exists());
    }

    #[test]
    fn a_file_that_cannot_be_kept_is_named_with_the_reason() {
        let name = "x".repeat(256);
        let files = vec![(format!("1/{name}"), "abc".into())];
        let given = Override { config: "{}".into(), files };
        let error = StandIn::write("m", &given).err().unwrap();
        let expected = format!("cannot keep file '1/{name}' given for model 'm': invalid filename");
        assert_eq!(error.message(), expected);
    }
}
