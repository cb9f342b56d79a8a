//! Knows where things lie in a checkout: its root, its target folder and what tasks put there.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A checkout of this repository.
pub(crate) struct Checkout {
    root: PathBuf,
    target: PathBuf,
}

impl Checkout {
    /// The checkout that cargo runs this program for.
    pub(crate) fn find() -> Result<Self> {
        // Where cargo says now, not when it was built: two checkouts may share a target folder.
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = package.join("../..");
        let root = root
            .canonicalize()
            .with_context(|| format!("there is no checkout at `{}`", root.display()))?;
        let target = match env::var_os("CARGO_TARGET_DIR") {
            // Cargo takes a relative folder from where it was started.
            Some(folder) => env::current_dir()?.join(folder),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The folder that holds `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the checkout.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A path in the target folder, where everything that can be made again lies.
    pub(crate) fn target(&self, relative: &str) -> PathBuf {
        self.target.join(relative)
    }

    /// The programs that are deployed, by the name of their binary.
    pub(crate) const SERVICES: [&str; 4] =
        ["consort-gateway", "consort-preprocess", "consort-model", "consort-postprocess"];
}
