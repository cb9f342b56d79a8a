//! A configuration as it was read, before it is completed from the model file and checked.

use std::path::Path;
use std::sync::Arc;

use consort_protocol::{ModelConfig, config_from_json, descriptor_of};
use consort_stage::Signature;

use crate::model::{Model, VersionPolicy};
use crate::problem::{Problem, Problems};
use crate::report::Report;
use crate::source::Source;
use crate::tree::{Entry, Syntax, Value};
use crate::{backend, bind, complete, from_wire, normalise, text, validate, yaml};

/// A configuration as it was read.
#[derive(Clone, Debug)]
pub struct Draft {
    pub(crate) config: ModelConfig,
    pub(crate) report: Report,
}

impl Draft {
    /// Reads a configuration from `text`; `file` says by its ending whether it is YAML.
    ///
    /// `model` is the name of the model's folder.
    pub fn parse(model: &str, file: &str, text: &str) -> Result<Self, Problems> {
        Self::read(model, file, text, None)
    }

    /// The same, with the model's folder to look for what the configuration leaves open.
    pub(crate) fn read(
        model: &str,
        file: &str,
        text: &str,
        folder: Option<&Path>,
    ) -> Result<Self, Problems> {
        let shown = format!("{model}/{file}");
        let is_yaml = Path::new(file).extension().is_some_and(|ending| ending != "pbtxt");
        let (report, config) =
            if is_yaml { read_yaml(shown, text) } else { read_text(shown, text) };
        let mut draft = Self { config, report };
        draft.settle_name(model);
        backend::complete(&mut draft.config, folder, &mut draft.report);
        if draft.report.is_empty() {
            return Ok(draft);
        }
        // The user should see the rest of the mistakes too, but not what only looks missing.
        if backend::may_complete(&draft.config.backend) {
            draft.report.forgive_missing();
        }
        validate::check(&draft.config, &mut draft.report);
        Err(draft.report.into_problems())
    }

    /// Reads a configuration that came as JSON, the way `load` calls carry it, in place of the one
    /// in the model's `folder`.
    pub fn from_json(model: &str, json: &str, folder: &Path) -> Result<Self, Problems> {
        let shown = format!("{model}/config");
        let config = config_from_json(json).map_err(|error| {
            let message = error.message().to_owned();
            Problem { file: shown.clone(), place: None, message, help: None }
        })?;
        let mut draft = Self { config, report: Report::new(Source::nowhere(shown)) };
        draft.settle_name(model);
        backend::complete(&mut draft.config, Some(folder), &mut draft.report);
        if draft.report.is_empty() { Ok(draft) } else { Err(draft.report.into_problems()) }
    }

    fn settle_name(&mut self, folder: &str) {
        if self.config.name.is_empty() {
            self.config.name = folder.into();
        } else if self.config.name != folder {
            let message = format!(
                "unexpected directory name '{folder}' for model '{}', directory name must equal \
                 model name",
                self.config.name
            );
            let help = Some(format!("rename the folder, or write `name: \"{folder}\"`"));
            self.report.wrong_but("name", message, help);
        }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The configuration as far as it is known.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The backend that runs it; `ensemble` for an ensemble.
    pub fn backend(&self) -> &str {
        if self.is_ensemble() { backend::ENSEMBLE } else { &self.config.backend }
    }

    /// Whether it is an ensemble.
    pub fn is_ensemble(&self) -> bool {
        self.config.platform == backend::ENSEMBLE
    }

    /// The name of the model file in a version folder; empty when the backend needs none.
    pub fn file_name(&self) -> &str {
        &self.config.default_model_filename
    }

    /// Whether it states name, type and dimensions of at least one input and output, so that it
    /// can be served without a look into the model file.
    pub fn names_tensors(&self) -> bool {
        let inputs = self.config.input.iter().map(|input| (input.data_type, input.dims.is_empty()));
        let outputs =
            self.config.output.iter().map(|output| (output.data_type, output.dims.is_empty()));
        !self.config.input.is_empty()
            && !self.config.output.is_empty()
            && inputs.chain(outputs).all(|(datatype, has_no_dims)| datatype != 0 && !has_no_dims)
    }

    /// Which of its version folders are served.
    pub fn version_policy(&self) -> VersionPolicy {
        from_wire::version_policy(&self.config)
    }

    /// The text of the entry `key` of its `parameters`.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.config.parameters.get(key).map(|parameter| parameter.string_value.as_str())
    }

    /// Fills in what the configuration leaves out from what the model file says, and notes where
    /// the two contradict each other for [`check`](Self::check) to report.
    ///
    /// The dimensions of `file` are those in the model file, batch dimension included, when its
    /// `max_batch_size` is 0.
    pub fn complete(&mut self, file: &Signature) {
        complete::complete(&mut self.config, file, &mut self.report);
    }

    /// Checks everything that can be checked without other models, and fills in the defaults.
    pub fn check(mut self) -> Result<Model, Problems> {
        validate::check(&self.config, &mut self.report);
        if !self.report.is_empty() {
            return Err(self.report.into_problems());
        }
        normalise::fill_defaults(&mut self.config);
        Ok(from_wire::model(self.config, Arc::new(self.report.source)))
    }
}

fn read_text(file: String, text: &str) -> (Report, ModelConfig) {
    let parsed = text::parse(text);
    let mut report = Report::new(Source::text(file));
    for error in parsed.errors {
        report.at(Some(error.place), error.message, None);
        report.taint("");
    }
    if !parsed.is_balanced {
        return (report, ModelConfig::default());
    }
    let config = mean(parsed.fields, Syntax::Text, &mut report);
    (report, config)
}

fn read_yaml(file: String, text: &str) -> (Report, ModelConfig) {
    let mut report = Report::new(Source::yaml(file, text));
    let fields = match yaml::parse(text) {
        Ok(node) => match node.value {
            Value::Mapping(fields) => fields,
            Value::Null => Vec::new(),
            other => {
                let message =
                    format!("expected fields such as `backend:`, found {}", other.describe());
                report.at(None, message, None);
                Vec::new()
            }
        },
        Err(error) => {
            report.at(error.place, error.message, None);
            Vec::new()
        }
    };
    let config = mean(fields, Syntax::Yaml, &mut report);
    (report, config)
}

fn mean(fields: Vec<Entry>, syntax: Syntax, report: &mut Report) -> ModelConfig {
    let message = bind::bind(fields, syntax, &descriptor_of::<ModelConfig>(), report);
    message.transcode_to().expect("it was built from the description of `ModelConfig`")
}
