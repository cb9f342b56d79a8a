//! Reads what classes are called where the folder of a far model lies here too: no service sends it.

use std::path::PathBuf;
use std::sync::Arc;

use consort_protocol::ModelConfig;
use consort_repository::ClassLabels;

/// Where the folders of the services' models are looked for.
#[derive(Clone, Debug)]
pub(crate) struct LabelFiles {
    repositories: Arc<[PathBuf]>,
}

impl LabelFiles {
    /// Label files lie in the models' folders in these repositories.
    pub(crate) fn in_repositories(repositories: &[PathBuf]) -> Self {
        Self { repositories: repositories.into() }
    }

    /// The labels of a model's outputs, read on a thread where that holds up nobody; none where
    /// they cannot be read.
    pub(crate) async fn read(&self, model: &str, config: &Arc<ModelConfig>) -> Arc<ClassLabels> {
        if config.output.iter().all(|output| output.label_filename.is_empty()) {
            return Arc::default();
        }
        let repositories = self.repositories.clone();
        let (model, config) = (model.to_owned(), config.clone());
        let read = move || Arc::new(read(&repositories, &model, &config));
        // Without an answer the runtime is about to end.
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }
}

fn read(repositories: &[PathBuf], model: &str, config: &ModelConfig) -> ClassLabels {
    let mut folders = repositories.iter().map(|repository| repository.join(model));
    let Some(folder) = folders.find(|folder| folder.is_dir()) else {
        return ClassLabels::default();
    };
    ClassLabels::read(config, &folder).unwrap_or_else(|error| {
        tracing::debug!(model, "classes are told without labels: {error}");
        ClassLabels::default()
    })
}
