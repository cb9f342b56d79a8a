//! Finds and reads the `tokenizer.json` that a model's texts are taken apart with.

use std::fs;
use std::path::{Component, Path, PathBuf};

use consort_config::Model;
use consort_repository::Instance;
use consort_stage::{Error, Result};
use tokenizers::Tokenizer;

/// The parameter that names a tokenizer outside the model's own folder.
pub(crate) const PARAMETER: &str = "tokenizer";

/// The file name that is looked for without `default_model_filename`.
const FILE_NAME: &str = "tokenizer.json";

/// Reads the tokenizer of this model.
pub(crate) fn load(instance: &Instance<'_>) -> Result<Tokenizer> {
    let model = &instance.model.name;
    let path = find(instance)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let bytes = fs::read(&path).map_err(|error| {
        Error::invalid(format!("`{name}` of model `{model}` cannot be read: {error}"))
    })?;
    Tokenizer::from_bytes(bytes).map_err(|error| {
        Error::invalid(format!(
            "`{name}` of model `{model}` is not a Hugging Face tokenizer: {error}"
        ))
    })
}

fn find(instance: &Instance<'_>) -> Result<PathBuf> {
    let model = instance.model;
    if let Some(relative) = model.settings.get(PARAMETER) {
        return named(instance, relative);
    }
    let name = file_name(model);
    let folders = [instance.version_folder, instance.model_folder];
    let mut candidates = folders.into_iter().map(|folder| folder.join(name));
    candidates.find(|path| path.is_file()).ok_or_else(|| {
        Error::not_found(format!(
            "model `{}` has no `{name}` in the folder of version {} nor in its own; \
             put it there, or say with parameter `{PARAMETER}` where it lies",
            model.name, instance.version
        ))
    })
}

fn file_name(model: &Model) -> &str {
    if model.wire.default_model_filename.is_empty() {
        return FILE_NAME;
    }
    &model.file_name
}

fn named(instance: &Instance<'_>, relative: &str) -> Result<PathBuf> {
    let model = &instance.model.name;
    if !stays_inside(Path::new(relative)) {
        return Err(Error::invalid(format!(
            "parameter `{PARAMETER}` of model `{model}` must be a path from the model's folder \
             that stays inside the repository, not `{relative}`"
        )));
    }
    let path = instance.model_folder.join(relative);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::not_found(format!(
        "parameter `{PARAMETER}` of model `{model}` names `{relative}`, where no file is"
    )))
}

/// Whether a path from a model's folder never leaves the repository around it.
fn stays_inside(path: &Path) -> bool {
    let mut depth = 1_i32;
    path.components().all(|component| {
        depth += match component {
            Component::Normal(_) => 1,
            Component::CurDir => 0,
            Component::ParentDir => -1,
            Component::RootDir | Component::Prefix(_) => return false,
        };
        depth >= 0
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use consort_config::Device;

    use super::*;
    use crate::sample;

    const TOKENIZER: &str = r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;

    /// Loads from a repository that holds these files beside the model's folder.
    fn load_from(files: &[(&str, &str)], parameters: &[(&str, &str)]) -> Result<Tokenizer> {
        let repository = tempfile::tempdir().unwrap();
        let model_folder = repository.path().join("sample");
        let version_folder = model_folder.join("1");
        fs::create_dir_all(&version_folder).unwrap();
        for (path, text) in files {
            let path = repository.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        load(&Instance {
            model: &sample::model("tokenizer", &[], &[], parameters),
            version: 1,
            model_folder: &model_folder,
            version_folder: &version_folder,
            device: Device::Cpu,
            threads: NonZeroUsize::MIN,
        })
    }

    #[test]
    fn the_tokenizer_lies_with_the_version_or_the_model_or_where_a_parameter_says() {
        for path in ["sample/1/tokenizer.json", "sample/tokenizer.json"] {
            assert!(load_from(&[(path, TOKENIZER)], &[]).is_ok(), "{path}");
        }
        let elsewhere = [("other/1/t.json", TOKENIZER), ("sample/1/tokenizer.json", "broken")];
        assert!(load_from(&elsewhere, &[(PARAMETER, "../other/1/t.json")]).is_ok());
    }

    #[test]
    fn a_missing_or_broken_tokenizer_is_named_with_its_remedy() {
        let refused = |files: &[(&str, &str)], parameters: &[(&str, &str)]| {
            load_from(files, parameters).unwrap_err().message().to_owned()
        };
        let message = refused(&[], &[]);
        assert!(message.contains("model `sample` has no `tokenizer.json`"), "{message}");
        let message = refused(&[], &[(PARAMETER, "x.json")]);
        assert!(message.contains("names `x.json`, where no file is"), "{message}");
        let message = refused(&[("sample/tokenizer.json", "{")], &[]);
        assert!(message.contains("is not a Hugging Face tokenizer: EOF"), "{message}");
        let message = refused(&[], &[(PARAMETER, "../../etc/passwd")]);
        assert!(message.contains("stays inside the repository"), "{message}");
    }

    #[test]
    fn a_path_out_of_the_repository_is_refused() {
        for inside in ["tokenizer.json", "../other/1/tokenizer.json", "./a/../../b"] {
            assert!(stays_inside(Path::new(inside)), "{inside}");
        }
        for outside in ["/etc/passwd", "../../x", "a/../../../b/c"] {
            assert!(!stays_inside(Path::new(outside)), "{outside}");
        }
    }
}
