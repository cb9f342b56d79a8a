//! Finds and reads the `tokenizer.json` that a model's texts are made with.

use std::fs;

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
    let path = instance.find_file(PARAMETER, FILE_NAME)?;
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use consort_config::{Device, Model};

    use super::*;

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
            model: &Model::plain_batching("tokenizer", &[], &[], parameters),
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
}
