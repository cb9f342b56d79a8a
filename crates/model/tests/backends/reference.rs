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

/// How likely the model finds each token of a case's prompt and continuation, from the second on,
/// as `llama_log_probs.py` computed it in double precision.
#[derive(Deserialize)]
pub(crate) struct Likely {
    pub(crate) log_probs: Vec<f32>,
    /// The three likeliest tokens in the place of each.
    pub(crate) likeliest_ids: Vec<[i32; 3]>,
}

/// Those of all cases, each with the text that they are of.
pub(crate) fn likely() -> Vec<(Vec<i32>, Likely)> {
    let file = root().join("tests/fixtures/ferris/log_probs.json");
    let likely: Vec<Likely> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let texts = cases().into_iter().map(|case| [case.input_ids, case.greedy_ids].concat());
    texts.zip(likely).collect()
}

/// The first.
pub(crate) fn first() -> Case {
    cases().swap_remove(0)
}
