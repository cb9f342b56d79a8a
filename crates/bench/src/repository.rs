//! Writes the model repositories that are served: `identity` models, and ensembles of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// How many elements each request has.
pub(crate) const WIDTH: usize = 16;

const TENSORS: &str = "max_batch_size: 8\n\
     input [ { name: \"INPUT0\", data_type: TYPE_FP32, dims: [ 16 ] } ]\n\
     output [ { name: \"OUTPUT0\", data_type: TYPE_FP32, dims: [ 16 ] } ]\n";

/// A model repository that goes away when this is dropped.
pub(crate) struct Repository(TempDir);

impl Repository {
    /// An empty one.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(TempDir::with_prefix("consort-bench-").context("cannot make a folder")?))
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds a model that gives its input FP32[16] back.
    pub(crate) fn identity(self, name: &str) -> Result<Self> {
        self.model(name, &format!("name: \"{name}\"\nbackend: \"identity\"\n{TENSORS}"))
    }

    /// Adds an ensemble that hands its input through `models` one after another.
    pub(crate) fn chain(self, name: &str, models: &[&str]) -> Result<Self> {
        let last = models.len().saturating_sub(1);
        let steps = models.iter().enumerate().map(|(step, model)| {
            let from = if step == 0 { "INPUT0".into() } else { format!("between_{step}") };
            let to = if step == last { "OUTPUT0".into() } else { format!("between_{}", step + 1) };
            format!(
                "step {{ model_name: \"{model}\" model_version: -1 \
                 input_map {{ key: \"INPUT0\" value: \"{from}\" }} \
                 output_map {{ key: \"OUTPUT0\" value: \"{to}\" }} }}\n"
            )
        });
        let steps: String = steps.collect();
        let head = format!("name: \"{name}\"\nplatform: \"ensemble\"\n{TENSORS}");
        self.model(name, &format!("{head}ensemble_scheduling {{\n{steps}}}\n"))
    }

    /// Adds a model that lies in another repository.
    pub(crate) fn linked(self, other: &Path, name: &str) -> Result<Self> {
        let folder = other.join(name).canonicalize();
        let folder =
            folder.with_context(|| format!("no model `{name}` in `{}`", other.display()))?;
        symlink(folder, self.path().join(name))?;
        Ok(self)
    }

    /// Adds a model of another repository with another configuration: that one, with `from` in it
    /// replaced by `to`.
    pub(crate) fn altered(self, other: &Path, name: &str, from: &str, to: &str) -> Result<Self> {
        let folder = other.join(name).canonicalize()?;
        let config = fs::read_to_string(folder.join("config.pbtxt"))?;
        ensure!(config.contains(from), "the configuration of `{name}` does not say `{from}`");
        let own = self.path().join(name);
        fs::create_dir_all(&own)?;
        symlink(folder.join("1"), own.join("1"))?;
        fs::write(own.join("config.pbtxt"), config.replace(from, to))?;
        Ok(self)
    }

    /// Adds a model of another repository with the files of `folder` in the place of its own, where
    /// that has any of the same name.
    pub(crate) fn exchanged(self, other: &Path, name: &str, folder: &Path) -> Result<Self> {
        let (theirs, own) = (other.join(name).canonicalize()?, self.path().join(name));
        fs::create_dir_all(own.join("1"))?;
        symlink(theirs.join("config.pbtxt"), own.join("config.pbtxt"))?;
        for from in [folder, &theirs.join("1")] {
            for file in fs::read_dir(from)? {
                let (file, to) = (file?, own.join("1"));
                if !to.join(file.file_name()).exists() {
                    symlink(file.path(), to.join(file.file_name()))?;
                }
            }
        }
        Ok(self)
    }

    fn model(self, name: &str, config: &str) -> Result<Self> {
        let folder: PathBuf = self.path().join(name);
        fs::create_dir_all(folder.join("1"))?;
        fs::write(folder.join("config.pbtxt"), config)?;
        Ok(self)
    }
}
