//! Loads a model the way the repository does, from a graph in this folder or one that ships.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use consort_config::{Device, Model, Settings};
use consort_repository::{Backend, Instance, Kind, ModelFile};
use consort_stage::{Result, Signature};
use tempfile::TempDir;

/// A model folder with one version.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// A version folder with copies of these files.
    pub(crate) fn with(files: &[PathBuf]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("1");
        fs::create_dir(&version).unwrap();
        for file in files {
            let copied = fs::copy(file, version.join(file.file_name().unwrap()));
            copied.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        Self(folder)
    }

    /// A version folder with this text as its model file.
    pub(crate) fn with_text(text: &str) -> Self {
        let folder = Self::with(&[]);
        fs::write(folder.version().join("model.onnx"), text).unwrap();
        folder
    }

    /// A version folder with a graph of this crate's tests as its model file.
    pub(crate) fn of(graph: &str) -> Self {
        let folder = Self::with(&[]);
        let file = graphs().join(graph).with_extension("onnx");
        fs::copy(file, folder.version().join("model.onnx")).unwrap();
        folder
    }

    /// Where its files are.
    pub(crate) fn version(&self) -> PathBuf {
        self.0.path().join("1")
    }

    /// The model's folder.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// What the backend reads from the file.
    pub(crate) fn signature(&self, backend: &str) -> Result<Option<Signature>> {
        let path = self.version().join("model.onnx");
        (kind(backend).signature)(&ModelFile { folder: self.0.path(), path: &path })
    }

    /// Loads one instance.
    pub(crate) fn load(&self, model: &Model) -> Result<Backend> {
        load(self.0.path(), model, Device::Cpu)
    }

    /// Loads one instance on a device.
    pub(crate) fn load_on(&self, device: Device, model: &Model) -> Result<Backend> {
        load(self.0.path(), model, device)
    }
}

/// The graphs beside these tests.
pub(crate) fn graphs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graphs")
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Loads one instance of the model in `folder`.
pub(crate) fn load(folder: &Path, model: &Model, device: Device) -> Result<Backend> {
    (kind(&model.backend).load)(&Instance {
        model,
        version: 1,
        model_folder: folder,
        version_folder: &folder.join("1"),
        device,
        threads: NonZeroUsize::MIN,
    })
}

/// A checked configuration.
pub(crate) fn model(backend: &str, signature: Signature, settings: &[(&str, &str)]) -> Model {
    let settings = settings.iter().map(|(key, value)| ((*key).into(), (*value).into()));
    let (file_name, settings) = ("model.onnx".into(), Settings::new(settings));
    Model { file_name, settings, ..Model::plain(backend, signature) }
}

fn kind(name: &str) -> &'static Kind {
    let found = consort_model::ALL.iter().find(|kind| kind.name == name);
    found.expect("it is one of this crate's")
}
