//! What ferris continues six prompts with, as the Hugging Face implementation computed it.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::loaded::root;

/// A prompt and its 64 likeliest tokens.
#[derive(Clone, Deserialize)]
pub(crate) struct Case {
    pub(crate) prompt: String,
    pub(crate) input_ids: Vec<i32>,
    pub(crate) greedy_ids: Vec<i32>,
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    read(&root().join("tests/fixtures/ferris/reference.json"))
}

/// Those in a file.
pub(crate) fn read(file: &Path) -> Vec<Case> {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// The first.
pub(crate) fn first() -> Case {
    cases().swap_remove(0)
}
