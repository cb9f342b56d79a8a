//! The low-rank adapters of a model, `LoRA` for short: files beside its graph, one of which a request may name.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use consort_stage::{Error, Result};
use ort::memory::Allocator;
use ort::session::{Adapter, RunOptions};

use super::fields::wrong;
use super::shared::capture;

/// The folder they lie in, within the version's or the model's.
const FOLDER: &str = "adapters";
/// How their files end, as ONNX Runtime's tools write them.
const EXTENSION: &str = "onnx_adapter";
/// The input that names one.
pub(crate) const INPUT: &str = "lora_name";

/// How many characters of an unknown name are repeated.
const LONGEST_NAME: usize = 100;

/// Which of a model's adapters takes part, if any does.
pub(crate) type AdapterId = Option<usize>;

/// The adapters of a model, in the order of their names, each with options for its runs.
#[derive(Default)]
pub(crate) struct Adapters(Vec<(Arc<str>, Arc<RunOptions>)>);

impl Adapters {
    /// Reads those in some folders. Their weights are kept on a card when there is one to keep them.
    pub(crate) fn load(folders: &[&Path], card: Option<&Allocator>) -> Result<Self> {
        let load = |(name, path): (String, PathBuf)| {
            let options = load(&path, card).map_err(|error| {
                Error::invalid(format!(
                    "adapter `{FOLDER}/{name}.{EXTENSION}`: {}",
                    error.message()
                ))
            })?;
            Ok((name.into(), Arc::new(options)))
        };
        Ok(Self(files(folders)?.into_iter().map(load).collect::<Result<_>>()?))
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The options of a run with one of them; `None` without.
    pub(super) fn options(&self, adapter: AdapterId) -> Option<&Arc<RunOptions>> {
        Some(&self.0.get(adapter?)?.1)
    }
}

/// The adapter with a name, among those that there are; an empty name is none's.
pub(crate) fn find(names: &[Arc<str>], name: &[u8]) -> Result<AdapterId> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Some(place) = names.iter().position(|known| known.as_bytes() == name) {
        return Ok(Some(place));
    }
    let asked: String = String::from_utf8_lossy(name).chars().take(LONGEST_NAME).collect();
    let known: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(wrong(INPUT, format!("is `{asked}`, and the model's adapters are: {known}")))
}

fn load(path: &Path, card: Option<&Allocator>) -> ort::Result<RunOptions> {
    let adapter = Adapter::from_file(path, card)?;
    // A captured run would have the adapter that it was captured with.
    let mut options = capture::uncaptured()?;
    options.add_adapter(&adapter)?;
    Ok(options)
}

/// The names of the adapters in some folders, without reading these.
pub(crate) fn names(folders: &[&Path]) -> Result<Vec<String>> {
    Ok(files(folders)?.into_iter().map(|(name, _)| name).collect())
}

/// The adapters in some folders, in the order of their names; a name in the first hides the same
/// one in the next.
fn files(folders: &[&Path]) -> Result<Vec<(String, PathBuf)>> {
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for folder in folders {
        for (name, path) in files_in(&folder.join(FOLDER))? {
            if name.contains(',') {
                let text = format!("adapter `{FOLDER}/{name}.{EXTENSION}` has a comma in its name");
                return Err(Error::invalid(text));
            }
            if !files.iter().any(|(known, _)| *known == name) {
                files.push((name, path));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The adapters in a folder, by name; none when it does not exist.
fn files_in(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let unreadable =
        |error| Error::invalid(format!("the folder `{FOLDER}` cannot be read: {error}"));
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Some(name) = name
        {
            files.push((name, path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_those_that_there_are() {
        let names = ["one".into(), "two".into()];
        assert_eq!(find(&names, b"two").unwrap(), Some(1));
        assert_eq!(find(&names, b"").unwrap(), None);
        let error = find(&names, b"three").unwrap_err();
        assert!(error.message().contains("`lora_name` is `three`"), "{error}");
        assert_eq!(error.input(), Some(INPUT));
        assert!(error.message().contains("`one`, `two`"), "{error}");
        assert!(find(&[], &[0xff; 1000]).unwrap_err().message().len() < 500);
    }

    #[test]
    fn only_files_with_the_ending_are_adapters() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(files_in(&folder.path().join("none")).unwrap().len(), 0);
        for file in ["a.onnx_adapter", "b.txt"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let files = files_in(folder.path()).unwrap();
        assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn the_names_are_those_of_all_folders_in_order() {
        let [own, shared] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for (folder, name) in [(&own, "b"), (&own, "c"), (&shared, "a"), (&shared, "b")] {
            let folder = folder.path().join(FOLDER);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name).with_extension(EXTENSION), "").unwrap();
        }
        assert_eq!(names(&[own.path(), shared.path()]).unwrap(), ["a", "b", "c"]);
        fs::write(own.path().join("adapters/a,b.onnx_adapter"), "").unwrap();
        let error = names(&[own.path()]).unwrap_err();
        assert!(error.message().contains("adapters/a,b.onnx_adapter"), "{error}");
    }
}
