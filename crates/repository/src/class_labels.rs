//! The names of classes: what the label files of a model call the elements of its outputs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use consort_protocol::ModelConfig;
use consort_stage::{Error, Result};

/// The labels of a model's outputs, as far as they have any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassLabels(BTreeMap<String, Arc<[String]>>);

impl ClassLabels {
    /// Reads what each output's `label_filename` names in the model's `folder`.
    ///
    /// Errors, naming the file, when one cannot be read or does not lie in the folder.
    pub fn read(config: &ModelConfig, folder: &Path) -> Result<Self> {
        let labelled = config.output.iter().filter(|output| !output.label_filename.is_empty());
        let labels = labelled.map(|output| {
            let labels = read_labels(&output.label_filename, &config.name, folder)?;
            Ok((output.name.clone(), labels.into()))
        });
        labels.collect::<Result<_>>().map(Self)
    }

    /// The labels of an output in the order of its elements; none where it has no file.
    pub fn of(&self, output: &str) -> &[String] {
        self.0.get(output).map(|labels| &**labels).unwrap_or_default()
    }

    /// Takes over what `other` calls the elements of `theirs` for `output`, which has no labels of
    /// its own.
    pub fn inherit(&mut self, output: &str, other: &Self, theirs: &str) {
        if let Some(labels) = other.0.get(theirs) {
            self.0.entry(output.to_owned()).or_insert_with(|| labels.clone());
        }
    }
}

/// The lines of a label file in the folder of `model`, which are the classes in their order.
///
/// Errors, naming the file, when it cannot be read or does not lie in the folder.
pub fn read_labels(file: &str, model: &str, folder: &Path) -> Result<Vec<String>> {
    let path = Path::new(file);
    if path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return Err(Error::invalid(format!(
            "label file `{file}` of model `{model}` must lie in the model's folder"
        )));
    }
    let text = fs::read_to_string(folder.join(path)).map_err(|error| {
        Error::invalid(format!("label file `{file}` of model `{model}` cannot be read: {error}"))
    })?;
    Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
}
