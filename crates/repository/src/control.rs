//! How the set of loaded models changes while a server runs, and the changes a caller may ask for.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_stage::{Error, Result};

use crate::stated::Stated;

/// What decides which models are loaded, as Triton's `--model-control-mode`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ControlMode {
    /// Every model is loaded once, at the start.
    #[default]
    None,
    /// The repositories are read again and again, and what has changed is loaded or unloaded.
    Poll {
        /// The time from one look to the next.
        every: Duration,
    },
    /// Models are loaded and unloaded as callers ask for it.
    Explicit {
        /// The models that are loaded at the start.
        at_start: AtStart,
    },
}

/// Which models are loaded at the start of a server whose callers load the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// All of them.
    All,
    /// These, by name.
    Named(BTreeSet<String>),
}

impl ControlMode {
    /// Whether callers may load and unload models.
    pub fn is_explicit(&self) -> bool {
        matches!(self, Self::Explicit { .. })
    }

    /// Whether the model is loaded at the start.
    pub fn loads_at_start(&self, name: &str) -> bool {
        match self {
            Self::Explicit { at_start: AtStart::Named(names) } => names.contains(name),
            Self::None | Self::Poll { .. } | Self::Explicit { at_start: AtStart::All } => true,
        }
    }

    /// The models that are loaded at the start because they are named, and none where all are.
    pub fn named_at_start(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Explicit { at_start: AtStart::Named(names) } => Some(names),
            Self::None | Self::Poll { .. } | Self::Explicit { at_start: AtStart::All } => None,
        };
        names.into_iter().flatten().map(String::as_str)
    }

    /// The same, where the ensembles of `all` that are loaded at the start bring the models that
    /// their steps call.
    #[must_use]
    pub fn with_steps(self, all: &[Stated]) -> Self {
        let named = |name: &str| all.iter().find(|stated| stated.folder.name == name);
        self.with_called(|name| named(name).map(Stated::steps).unwrap_or_default())
    }

    /// The same, where `called_by` gives what a model brings, by name: nothing for most models.
    fn with_called<'a>(self, called_by: impl Fn(&str) -> Vec<&'a str>) -> Self {
        let Self::Explicit { at_start: AtStart::Named(names) } = self else { return self };
        let mut all = BTreeSet::new();
        let mut new: Vec<String> = names.into_iter().collect();
        while let Some(name) = new.pop() {
            new.extend(called_by(&name).into_iter().map(str::to_owned));
            new.retain(|name| !all.contains(name));
            all.insert(name);
        }
        Self::Explicit { at_start: AtStart::Named(all) }
    }

    /// Refuses changes where callers may not make them.
    pub fn admit(&self) -> Result<()> {
        if self.is_explicit() { Ok(()) } else { Err(not_explicit()) }
    }
}

/// Triton's refusal where callers do not decide which models are loaded.
pub fn not_explicit() -> Error {
    Error::unavailable("explicit model load / unload is not allowed if polling is enabled")
}

/// The reason in the index for a model that somebody unloaded.
pub const UNLOADED: &str = "unloaded";

/// The reason in the index for a model that somebody unloaded and that still works.
pub const UNLOADING: &str = "unloading: requests under way are being finished";

/// One change to the set of loaded models.
#[derive(Clone, Debug)]
pub struct Change {
    /// The model to change.
    pub model: Arc<str>,
    /// What becomes of it.
    pub action: Action,
}

/// What becomes of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is loaded, or loaded anew; with what stands in for its folder, if anything does.
    Load(Option<Override>),
    /// It is unloaded.
    Unload {
        /// An ensemble takes the models of its steps along, those that no other one calls.
        with_dependents: bool,
    },
}

/// What a caller gives in place of what lies in a model's folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Override {
    /// The configuration as JSON, which replaces the one in the folder.
    pub config: String,
    /// Files by their path in the model's folder; unless empty, they replace the whole folder.
    pub files: Vec<(String, Bytes)>,
}

impl Change {
    /// The change that loads `model` with what its caller gives in place of its files.
    ///
    /// Errors for a name that is none, files without a configuration and paths that lead out of
    /// the model's folder.
    pub fn load(model: &str, config: Option<String>, files: Vec<(String, Bytes)>) -> Result<Self> {
        let model = checked_name(model)?;
        if let Some((path, _)) = files.iter().find(|(path, _)| !stays_inside(path)) {
            return Err(Error::invalid(format!(
                "invalid file path '{path}' for model '{model}', file path must not contain path \
                 traversal characters"
            )));
        }
        let stand_in = match config {
            Some(config) => Some(Override { config, files }),
            None if files.is_empty() => None,
            None => {
                return Err(Error::invalid(
                    "Load parameter 'config' must be specified for model file override",
                ));
            }
        };
        Ok(Self { model, action: Action::Load(stand_in) })
    }

    /// The change that unloads `model`; errors for a name that is none.
    pub fn unload(model: &str, with_dependents: bool) -> Result<Self> {
        Ok(Self { model: checked_name(model)?, action: Action::Unload { with_dependents } })
    }
}

impl std::fmt::Debug for Override {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = self.files.iter().map(|(path, content)| (path, content.len()));
        let files: Vec<_> = files.collect();
        formatter
            .debug_struct("Override")
            .field("config", &self.config)
            .field("files", &files)
            .finish()
    }
}

fn checked_name(name: &str) -> Result<Arc<str>> {
    if name.is_empty() {
        return Err(Error::invalid(
            "Model name cannot be empty. Please enter a valid name to deploy.",
        ));
    }
    if name.contains(['/', '\\', '\0']) || name == "." || name.contains("..") {
        return Err(Error::invalid(format!(
            "invalid model name '{name}', model name must not contain path traversal characters"
        )));
    }
    Ok(name.into())
}

/// Whether a path leads to a file below the folder it starts from.
fn stays_inside(path: &str) -> bool {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(is_plain) && !path.contains(['\\', '\0'])
}

/// Triton's error for a model that no repository has, or whose configuration cannot be used.
pub fn failed_to_poll(model: &str) -> Error {
    Error::internal(format!("failed to load '{model}', failed to poll from model repository"))
}

/// Triton's error for a model some version of which cannot be loaded.
pub fn load_failed(model: &str, failures: &[(Option<u64>, String)]) -> Error {
    let each = |(version, reason): &(Option<u64>, String)| match version {
        Some(version) => format!("version {version} is at UNAVAILABLE state: {reason};"),
        None => reason.clone(),
    };
    let reasons: String = failures.iter().map(each).collect();
    Error::invalid(format!("load failed for model '{model}': {reasons}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_loaded_at_the_start_brings_those_that_it_calls() {
        let named = |names: &[&str]| ControlMode::Explicit {
            at_start: AtStart::Named(names.iter().map(|name| (*name).to_owned()).collect()),
        };
        let called_by = |name: &str| match name {
            "outer" => vec!["inner", "a"],
            "inner" => vec!["b", "outer"],
            _ => Vec::new(),
        };
        assert_eq!(named(&["outer"]).with_called(called_by), named(&["outer", "inner", "a", "b"]));
        assert_eq!(named(&["c"]).with_called(called_by), named(&["c"]));
    }

    fn refusal(change: Result<Change>) -> String {
        change.unwrap_err().message().to_owned()
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_no_name() {
        for name in ["../m", "a/b", "..", ".", "a\\b", "a..b"] {
            let text = refusal(Change::unload(name, false));
            assert!(
                text.ends_with("model name must not contain path traversal characters"),
                "{text}"
            );
        }
        assert!(
            refusal(Change::load("", None, Vec::new())).starts_with("Model name cannot be empty")
        );
        assert!(Change::load("m.onnx", None, Vec::new()).is_ok());
    }

    #[test]
    fn a_file_must_lie_in_the_folder_and_come_with_a_configuration() {
        let with = |path: &str, config: Option<String>| {
            Change::load("m", config, vec![(path.to_owned(), Bytes::new())])
        };
        for path in ["../x", "/etc/x", "1/../../x", "", "1\\x"] {
            assert!(refusal(with(path, Some("{}".into()))).contains("path traversal"), "{path}");
        }
        assert!(with("1/model.onnx", Some("{}".into())).is_ok());
        assert_eq!(
            refusal(with("1/model.onnx", None)),
            "Load parameter 'config' must be specified for model file override"
        );
    }
}
