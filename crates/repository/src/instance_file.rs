//! Finds a file that a backend needs: with the version, with the model, or where a parameter says.

use std::fmt::Display;
use std::fs;
use std::path::{Component, Path, PathBuf};

use consort_stage::{Error, Result};

use crate::kind::Instance;

impl Instance<'_> {
    /// The file that the parameter `parameter` names, seen from the model's folder; without it
    /// `default_model_filename`, or else `name`, in the version's folder or the model's.
    pub fn find_file(&self, parameter: &str, name: &str) -> Result<PathBuf> {
        let stated = !self.model.wire.default_model_filename.is_empty();
        self.find_beside(parameter, if stated { &self.model.file_name } else { name })
    }

    /// The same for a file that lies beside the model's own, so that `default_model_filename`
    /// does not name it.
    pub fn find_beside(&self, parameter: &str, name: &str) -> Result<PathBuf> {
        if let Some(relative) = self.model.settings.get(parameter) {
            return self.named(parameter, relative);
        }
        let folders = [self.version_folder, self.model_folder];
        let mut candidates = folders.into_iter().map(|folder| folder.join(name));
        candidates.find(|path| path.is_file()).ok_or_else(|| {
            Error::not_found(format!(
                "model `{}` has no `{name}` in the folder of version {} nor in its own; put it \
                 there, or say with parameter `{parameter}` where it lies",
                self.model.name, self.version
            ))
        })
    }

    /// What `read` makes of the file that [`find_file`](Self::find_file) finds by parameter and
    /// name; `what` tells in an error what it should be, such as `a Hugging Face tokenizer`.
    pub fn read_file<T, E: Display>(
        &self,
        (parameter, name): (&str, &str),
        what: &str,
        read: impl FnOnce(Vec<u8>) -> Result<T, E>,
    ) -> Result<T> {
        let path = self.find_file(parameter, name)?;
        let place = || {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            format!("`{file}` of model `{}`", self.model.name)
        };
        let bytes = fs::read(&path)
            .map_err(|error| Error::invalid(format!("{} cannot be read: {error}", place())))?;
        read(bytes).map_err(|error| Error::invalid(format!("{} is not {what}: {error}", place())))
    }

    fn named(&self, parameter: &str, relative: &str) -> Result<PathBuf> {
        let model = &self.model.name;
        if !stays_inside(Path::new(relative)) {
            return Err(Error::invalid(format!(
                "parameter `{parameter}` of model `{model}` must be a path from the model's folder \
                 that stays inside the repository, not `{relative}`"
            )));
        }
        let path = self.model_folder.join(relative);
        if path.is_file() {
            return Ok(path);
        }
        Err(Error::not_found(format!(
            "parameter `{parameter}` of model `{model}` names `{relative}`, where no file is"
        )))
    }
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

    use consort_config::{Device, Model};

    use super::*;

    /// Reads the text of a model that may name it with the parameter `words`, from a repository
    /// that holds these files beside the model's folder.
    fn read_from(files: &[(&str, &str)], parameters: &[(&str, &str)]) -> Result<String> {
        let repository = tempfile::tempdir().unwrap();
        let model_folder = repository.path().join("sample");
        let version_folder = model_folder.join("1");
        fs::create_dir_all(&version_folder).unwrap();
        for (path, text) in files {
            let path = repository.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let instance = Instance {
            model: &Model::plain_batching("reader", &[], &[], parameters),
            version: 1,
            model_folder: &model_folder,
            version_folder: &version_folder,
            device: Device::Cpu,
            threads: NonZeroUsize::MIN,
        };
        let read = |bytes| match String::from_utf8(bytes) {
            Ok(text) if text == "broken" => Err("it is broken"),
            read => read.map_err(|_| "it is no text"),
        };
        instance.read_file(("words", "words.txt"), "a list of words", read)
    }

    #[test]
    fn a_file_lies_with_the_version_or_the_model_or_where_a_parameter_says() {
        for path in ["sample/1/words.txt", "sample/words.txt"] {
            assert_eq!(read_from(&[(path, "here")], &[]).unwrap(), "here", "{path}");
        }
        let files = [("other/1/w.txt", "there"), ("sample/1/words.txt", "here")];
        assert_eq!(read_from(&files, &[("words", "../other/1/w.txt")]).unwrap(), "there");
    }

    #[test]
    fn a_missing_or_broken_file_is_named_with_its_remedy() {
        let refused = |files: &[(&str, &str)], parameters: &[(&str, &str)]| {
            read_from(files, parameters).unwrap_err().message().to_owned()
        };
        let message = refused(&[], &[]);
        assert!(message.contains("model `sample` has no `words.txt`"), "{message}");
        let message = refused(&[], &[("words", "x.txt")]);
        assert!(message.contains("names `x.txt`, where no file is"), "{message}");
        let message = refused(&[("sample/words.txt", "broken")], &[]);
        assert_eq!(message, "`words.txt` of model `sample` is not a list of words: it is broken");
        let message = refused(&[], &[("words", "../../etc/passwd")]);
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
