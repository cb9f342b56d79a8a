//! What a program without a server does: tokenize, run the session, pool, all in one loop.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;
use tokenizers::Tokenizer;

const LIBRARY: &str = "onnxruntime/libonnxruntime.so.1.31.1";
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// The libraries behind `embed`, opened as the services open them.
pub(super) struct Direct {
    tokenizer: Tokenizer,
    session: Session,
}

impl Direct {
    /// Opens the tokenizer and the encoder of the repository.
    pub(super) fn open(models: &Path) -> Result<Self> {
        let file = models.join("minilm_tokenize/1/tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(&file).map_err(|error| {
            anyhow!("{error}: `{}`; build it with `cargo xtask models`", file.display())
        })?;
        tokenizer.with_padding(None);
        let session = session(&models.join("minilm/1/model.onnx"))?;
        Ok(Self { tokenizer, session })
    }

    /// The unit vector of a sentence.
    pub(super) fn embed(&mut self, sentence: &str) -> Result<Vec<f32>> {
        let encoding = self.tokenizer.encode(sentence, true).map_err(|error| anyhow!("{error}"))?;
        let columns = [encoding.get_ids(), encoding.get_attention_mask(), encoding.get_type_ids()];
        let columns = columns.map(|column| column.iter().map(|id| i64::from(*id)).collect());
        let [ids, mask, types]: [Vec<i64>; 3] = columns;
        let shape = [1, ids.len()];
        let value = |data| TensorRef::from_array_view((shape, data));
        let inputs = ort::inputs![
            INPUTS[0] => value(&ids[..])?,
            INPUTS[1] => value(&mask[..])?,
            INPUTS[2] => value(&types[..])?,
        ];
        let outputs = self.session.run(inputs)?;
        let (shape, hidden) = outputs[0].try_extract_tensor::<f32>()?;
        let width = shape.last().copied().context("the output has no dimension")? as usize;
        Ok(pooled(hidden, &mask, width))
    }
}

/// The mean over the tokens that the mask keeps, brought to length 1.
fn pooled(hidden: &[f32], mask: &[i64], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; width];
    for (token, _) in hidden.chunks_exact(width).zip(mask).filter(|(_, kept)| **kept != 0) {
        for (total, element) in sum.iter_mut().zip(token) {
            *total += element;
        }
    }
    // The number of tokens cancels out against the length.
    let length = sum.iter().map(|element| element * element).sum::<f32>().sqrt();
    sum.iter().map(|element| element / length).collect()
}

/// A session with the settings that the model service gives a model's only instance.
fn session(file: &Path) -> Result<Session> {
    let library = library()?;
    let environment = ort::init_from(library)?.with_telemetry(false).build()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let opened = SessionBuilder::new(&environment)
        .and_then(|builder| Ok(builder.with_intra_threads(cores)?))
        .and_then(|builder| Ok(builder.with_intra_op_spinning(true)?))
        .and_then(|builder| Ok(builder.with_config_entry("session.force_spinning_stop", "1")?))
        .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?))
        .and_then(|mut builder| builder.commit_from_file(file));
    opened.with_context(|| format!("`{}`; build it with `cargo xtask models`", file.display()))
}

fn library() -> Result<PathBuf> {
    if let Some(library) = env::var_os("ORT_DYLIB_PATH") {
        return Ok(library.into());
    }
    let own = env::current_exe()?;
    let mut places = own.ancestors().map(|folder| folder.join(LIBRARY));
    places.find(|file| file.exists()).context("no ONNX Runtime; run `cargo xtask setup`")
}
