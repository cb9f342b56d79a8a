//! Finds a file that a backend needs: with the version, with the model, or where a parameter says.

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
    use super::*;

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
