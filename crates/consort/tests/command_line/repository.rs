//! Small model repositories in temporary folders, and the program run over them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A model repository that goes when it is dropped.
pub(crate) struct Repository(TempDir);

/// A repository of these files; a name that ends with `/` is an empty folder.
pub(crate) fn repository(files: &[(&str, &str)]) -> Repository {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    Repository(folder)
}

impl Repository {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// What the program printed and whether it was content.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

pub(crate) fn consort<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_consort")).args(arguments).output().unwrap();
    Said {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

/// The repository that is shipped.
pub(crate) fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model_repository")
}

/// A model of the backend `identity` that gives `IN` back as `OUT`.
pub(crate) const ECHO: &str = r#"
backend: "identity"
input [ { name: "IN" data_type: TYPE_INT32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 4 ] } ]
"#;
