//! Model repositories written for one test.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::program::checkout;

/// A model repository in a folder of its own.
pub(crate) struct Repository(TempDir);

impl Repository {
    /// An empty repository.
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a folder can be made"))
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds a model with a version folder 1.
    #[must_use]
    pub(crate) fn with(self, model: &str, config: &str) -> Self {
        self.with_file(model, "config.pbtxt", config).with_file(model, "1/.keep", "")
    }

    /// Adds a file to a model's folder.
    #[must_use]
    pub(crate) fn with_file(self, model: &str, file: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(model).join(file);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("it can be made");
        fs::write(path, content).expect("it can be written");
        self
    }

    /// Adds a model `identity` of FP32[4] that takes `delay` milliseconds.
    #[must_use]
    pub(crate) fn with_delay(self, model: &str, delay: u32) -> Self {
        self.with(
            model,
            &format!(
                r#"backend: "identity"
                input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
                output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
                instance_group [ {{ count: 1 }} ]
                parameters {{ key: "execute_delay_ms" value {{ string_value: "{delay}" }} }}"#
            ),
        )
    }

    /// Adds an identity model without a delay.
    #[must_use]
    pub(crate) fn with_identity(self, model: &str) -> Self {
        self.with(
            model,
            r#"backend: "identity"
            input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
            output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]"#,
        )
    }

    /// Adds an ensemble `x → step → … → y` of FP32[4] over models that take `x` and give `y`.
    #[must_use]
    pub(crate) fn with_chain(self, ensemble: &str, models: &[&str]) -> Self {
        self.with(ensemble, &Self::chain(models))
    }

    /// The configuration of such an ensemble.
    pub(crate) fn chain(models: &[&str]) -> String {
        let tensor = |index: usize| match index {
            0 => "x".to_owned(),
            last if last == models.len() => "y".to_owned(),
            between => format!("t{between}"),
        };
        let step = |(index, model): (usize, &&str)| {
            format!(
                r#"{{ model_name: "{model}" model_version: -1
                   input_map {{ key: "x" value: "{}" }} output_map {{ key: "y" value: "{}" }} }}"#,
                tensor(index),
                tensor(index + 1)
            )
        };
        let steps: Vec<String> = models.iter().enumerate().map(step).collect();
        format!(
            r#"platform: "ensemble"
            input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
            output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
            ensemble_scheduling {{ step [ {} ] }}"#,
            steps.join(", ")
        )
    }
}

/// The repository that the project ships.
pub(crate) fn shipped() -> std::path::PathBuf {
    checkout().join("model_repository")
}

/// The body of an `infer` request for the models above.
pub(crate) const INFER: &str =
    r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[4],"data":[1,2,3,4]}]}"#;

/// A copy of the shipped repository as a fresh clone has it, its language model from `graph`.
pub(crate) fn fresh_clone(graph: &Path) -> Repository {
    let repository = Repository::new();
    let tracked = Command::new("git")
        .args(["ls-files", "model_repository"])
        .current_dir(checkout())
        .output()
        .expect("git lists the files of the checkout");
    for file in String::from_utf8_lossy(&tracked.stdout).lines() {
        let to = repository.path().join(file.trim_start_matches("model_repository/"));
        fs::create_dir_all(to.parent().expect("it lies in a folder")).expect("it can be made");
        fs::copy(checkout().join(file), to).expect("it can be copied");
    }
    let version = repository.path().join("ferris/1");
    fs::copy(graph, version.join("model.onnx")).expect("run `cargo xtask test`, which builds it");
    if graph != shipped().join("ferris/1/model.onnx") {
        // It describes the shipped graph; of any other the names are found in the graph.
        fs::remove_file(version.join("genai_config.json")).expect("it was copied");
    }
    repository
}
