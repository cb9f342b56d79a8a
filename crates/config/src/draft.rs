//! A configuration as it was read, before it is completed from the model file and checked.

use std::path::Path;
use std::sync::Arc;

use consort_protocol::ModelConfig;
use consort_stage::Signature;

use crate::model::{Model, VersionPolicy};
use crate::problem::{Problem, Problems};
use crate::source::Source;

/// A configuration as it was read.
#[derive(Clone, Debug)]
pub struct Draft {
    pub(crate) config: ModelConfig,
    pub(crate) source: Arc<Source>,
    pub(crate) problems: Vec<Problem>,
}

/// Reads the configuration in a model's folder.
pub fn read(model_folder: &Path) -> Result<Draft, Problems> {
    let _ = model_folder;
    Err(Problems(Vec::new()))
}

impl Draft {
    /// Reads a configuration from `text`; `file` says by its ending whether it is YAML.
    ///
    /// `model` is the name of the model's folder.
    pub fn parse(model: &str, file: &str, text: &str) -> Result<Self, Problems> {
        let _ = (model, file, text);
        Err(Problems(Vec::new()))
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The backend that runs it; `ensemble` for an ensemble.
    pub fn backend(&self) -> &str {
        &self.config.backend
    }

    /// Whether it is an ensemble.
    pub fn is_ensemble(&self) -> bool {
        self.config.platform == "ensemble"
    }

    /// The name of the model file in a version folder; empty when the backend needs none.
    pub fn file_name(&self) -> &str {
        &self.config.default_model_filename
    }

    /// Which of its version folders are served.
    pub fn version_policy(&self) -> VersionPolicy {
        VersionPolicy::All
    }

    /// Whether the configuration names inputs and outputs itself.
    pub fn names_tensors(&self) -> bool {
        !self.config.input.is_empty() && !self.config.output.is_empty()
    }

    /// Fills in what the configuration leaves out from what the model file says, and notes where
    /// the two contradict each other for [`check`](Self::check) to report.
    ///
    /// The dimensions of `file` are those in the model file, batch dimension included, when its
    /// `max_batch_size` is 0.
    pub fn complete(&mut self, file: &Signature) {
        let _ = file;
    }

    /// Checks everything that can be checked without other models, and fills in the defaults.
    pub fn check(self) -> Result<Model, Problems> {
        Err(Problems(self.problems))
    }
}
