//! Finds the chat template of an ensemble: with the ensemble, or with the tokenizer that it begins with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use consort_protocol::ModelConfig;
use consort_protocol::model_config::SchedulingChoice;
use consort_repository::{Models, Served, versions_in};
use consort_stage::{Error, Result};

use super::answer::now;
use super::template::{ChatTemplate, TokenizerConfig, explain};
use crate::http::offload::offload;

/// The file that holds nothing but a template.
const FILE: &str = "chat_template.jinja";

/// The file of a tokenizer that may hold one.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Parameters of a tokenizing model that say where its tokenizer lies: ours, which names the file,
/// and the one of TensorRT-LLM's examples, which names the folder.
const TOKENIZER_FILE: &str = "tokenizer";
const TOKENIZER_FOLDER: &str = "tokenizer_dir";

/// The chat templates of ensembles, each read once and kept as long as its ensemble stays what it is.
pub(in crate::http) struct Templates {
    /// When the server began, in seconds since 1970.
    pub(super) opened_at: u64,
    repositories: Vec<PathBuf>,
    read: Mutex<BTreeMap<Arc<str>, Read>>,
}

/// What was found for an ensemble with this configuration.
#[derive(Clone)]
struct Read {
    config: Arc<ModelConfig>,
    template: Arc<ChatTemplate>,
}

impl Templates {
    /// The templates in these model repositories.
    pub(in crate::http) fn new(repositories: Vec<PathBuf>) -> Self {
        Self { opened_at: now(), repositories, read: Mutex::default() }
    }

    /// The chat template of `served`; the error says which file to add, or what is wrong with it.
    pub(super) async fn of(
        self: &Arc<Self>,
        models: &Arc<dyn Models>,
        served: &Arc<Served>,
    ) -> Result<Arc<ChatTemplate>> {
        let read = self.lock().get(&served.name).cloned();
        if let Some(read) = read.filter(|read| Arc::ptr_eq(&read.config, &served.config)) {
            return Ok(read.template);
        }
        let (this, models, served) = (Arc::clone(self), Arc::clone(models), Arc::clone(served));
        // Files are read, so it counts as long whatever their size.
        let find = move || {
            // One that is not there is looked for again: the file, or the step whose tokenizer it lies
            // beside, may come later.
            let template = Arc::new(this.find(&*models, &served)?);
            let read = Read { config: served.config.clone(), template: template.clone() };
            this.lock().insert(served.name.clone(), read);
            Ok(template)
        };
        offload(usize::MAX, find).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, models: &dyn Models, served: &Served) -> Result<ChatTemplate> {
        let name = &served.name;
        let own = self.folders_of(name);
        let tokenizer = tokenizer_of(models, &served.config);
        let beside = tokenizer.as_ref().map(|model| self.tokenizer_folders(model));
        let beside = beside.unwrap_or_default();
        let mut folders = own.iter().chain(&beside);
        let file = folders.find_map(|folder| fs::read_to_string(folder.join(FILE)).ok());
        let config = beside.iter().find_map(|folder| {
            fs::read(folder.join(TOKENIZER_CONFIG)).ok().filter(|bytes| !bytes.is_empty())
        });
        let config: TokenizerConfig = match config {
            None => TokenizerConfig::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let text = format!("`{TOKENIZER_CONFIG}` of model `{name}` is not one: {error}");
                Error::invalid(text)
            })?,
        };
        match ChatTemplate::read(file, config) {
            Ok(Some(template)) => Ok(template),
            Ok(None) => Err(missing(name, tokenizer.as_ref())),
            Err(error) => Err(Error::invalid(format!(
                "the chat template of model `{name}` cannot be read: {}",
                explain(&error)
            ))
            .with_source(error)),
        }
    }

    /// The folders of a model: that of its newest version, and its own.
    fn folders_of(&self, model: &str) -> Vec<PathBuf> {
        let folder = self.repositories.iter().map(|repository| repository.join(model));
        let Some(folder) = folder.into_iter().find(|folder| folder.is_dir()) else {
            return Vec::new();
        };
        let newest = versions_in(&folder).last().map(|version| folder.join(version.to_string()));
        newest.into_iter().chain([folder]).collect()
    }

    /// The folders in which the tokenizer of a tokenizing model may lie.
    fn tokenizer_folders(&self, model: &ModelConfig) -> Vec<PathBuf> {
        let mut folders = self.folders_of(&model.name);
        let own = folders.last().cloned();
        let stated = |key| parameter(model, key).filter(|text| !text.is_empty());
        let file = stated(TOKENIZER_FILE).and_then(|file| Path::new(file).parent());
        let stated = file.or_else(|| stated(TOKENIZER_FOLDER).map(Path::new));
        if let (Some(own), Some(stated)) = (own, stated) {
            folders.insert(0, own.join(stated));
        }
        folders
    }
}

/// The model of the first step that tokenizes.
fn tokenizer_of(models: &dyn Models, config: &ModelConfig) -> Option<Arc<ModelConfig>> {
    let Some(SchedulingChoice::EnsembleScheduling(ensemble)) = &config.scheduling_choice else {
        return None;
    };
    ensemble.step.iter().find_map(|step| {
        let served = models.get(&step.model_name, None).ok()?;
        let model = &served.config;
        let is_one = model.backend == "tokenizer" || parameter(model, TOKENIZER_FOLDER).is_some();
        if is_one { Some(model.clone()) } else { tokenizer_of(models, model) }
    })
}

fn parameter<'a>(model: &'a ModelConfig, key: &str) -> Option<&'a str> {
    model.parameters.get(key).map(|parameter| parameter.string_value.as_str())
}

fn missing(name: &str, tokenizer: Option<&Arc<ModelConfig>>) -> Error {
    let beside = match tokenizer {
        Some(model) => format!(" or beside the tokenizer of model `{}`", model.name),
        None => String::new(),
    };
    Error::invalid(format!(
        "model `{name}` has no chat template: put a file `{FILE}` into its folder{beside}"
    ))
}
