//! What a program without a server does: tokenize, run the session, pool, all in one loop.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, iter};

use anyhow::{Context, Result, anyhow};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;
use tokenizers::{Encoding, Tokenizer, TruncationParams};

const LIBRARY: &str = "onnxruntime/libonnxruntime.so.1.31.1";
/// Where the shipped `minilm_tokenize` cuts a sentence.
const MAX_LENGTH: usize = 256;
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// The libraries behind `embed`, opened as the services open them.
pub(in crate::cases) struct Direct {
    tokenizer: Tokenizer,
    session: Session,
}

impl Direct {
    /// Opens the tokenizer and the encoder of the repository, once, with every core.
    pub(in crate::cases) fn open(models: &Path) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut only = Self::open_all(models, 1, cores)?;
        only.pop().context("one was opened")
    }

    /// Opens them `count` times, each with so many threads.
    pub(in crate::cases) fn open_all(
        models: &Path,
        count: usize,
        threads: usize,
    ) -> Result<Vec<Self>> {
        let file = models.join("minilm_tokenize/1/tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(&file).map_err(|error| {
            anyhow!("{error}: `{}`; build it with `cargo xtask models`", file.display())
        })?;
        // The file itself cuts sentences at 128 tokens, the served model at 256.
        tokenizer.with_padding(None);
        let cut = TruncationParams { max_length: MAX_LENGTH, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(cut)).map_err(|error| anyhow!("{error}"))?;
        let environment = environment()?;
        let open = |_| {
            let session = session(environment, &models.join("minilm/1/model.onnx"), threads)?;
            Ok(Self { tokenizer: tokenizer.clone(), session })
        };
        (0..count).map(open).collect()
    }

    /// The unit vector of a sentence.
    pub(in crate::cases) fn embed(&mut self, sentence: &str) -> Result<Vec<f32>> {
        self.embed_all(&[sentence])?.pop().context("one sentence was given")
    }

    /// How many tokens the encoder is given for a sentence.
    pub(in crate::cases) fn tokens(&self, sentence: &str) -> Result<usize> {
        let encoding = self.tokenizer.encode_fast(sentence, true);
        Ok(encoding.map_err(|error| anyhow!("{error}"))?.len())
    }

    /// The unit vectors of sentences, all padded to the longest of them.
    pub(in crate::cases) fn embed_all(&mut self, sentences: &[&str]) -> Result<Vec<Vec<f32>>> {
        let encode = |sentence: &&str| self.tokenizer.encode_fast(*sentence, true);
        let encodings = sentences.iter().map(encode).collect::<Result<Vec<_>, _>>();
        let encodings = encodings.map_err(|error| anyhow!("{error}"))?;
        let longest = encodings.iter().map(Encoding::len).max().unwrap_or(0);
        let column = |of: fn(&Encoding) -> &[u32]| {
            let mut column = Vec::with_capacity(encodings.len() * longest);
            for encoding in &encodings {
                let padding = iter::repeat_n(0, longest - encoding.len());
                column.extend(of(encoding).iter().map(|id| i64::from(*id)).chain(padding));
            }
            column
        };
        let mask = column(Encoding::get_attention_mask);
        let columns = [column(Encoding::get_ids), mask.clone(), column(Encoding::get_type_ids)];
        let shape = [encodings.len(), longest];
        let value = |column: usize| TensorRef::from_array_view((shape, &columns[column][..]));
        let inputs = ort::inputs![
            INPUTS[0] => value(0)?,
            INPUTS[1] => value(1)?,
            INPUTS[2] => value(2)?,
        ];
        let outputs = self.session.run(inputs)?;
        let (shape, hidden) = outputs[0].try_extract_tensor::<f32>()?;
        let width = shape.last().copied().context("the output has no dimension")? as usize;
        let rows = hidden.chunks_exact(longest * width).zip(mask.chunks_exact(longest));
        Ok(rows.map(|(hidden, mask)| pooled(hidden, mask, width)).collect())
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

/// A session with the settings that the model service gives an instance with so many threads.
fn session(environment: &Environment, file: &Path, threads: usize) -> Result<Session> {
    let opened = SessionBuilder::new(environment)
        .and_then(|builder| Ok(builder.with_intra_threads(threads)?))
        .and_then(|builder| Ok(builder.with_intra_op_spinning(true)?))
        .and_then(|builder| Ok(builder.with_config_entry("session.force_spinning_stop", "1")?))
        .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?))
        .and_then(|mut builder| builder.commit_from_file(file));
    opened.with_context(|| format!("`{}`; build it with `cargo xtask models`", file.display()))
}

/// ONNX Runtime, which a process may set up only once however many cases call it.
fn environment() -> Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let environment = ort::init_from(library()?)?.with_telemetry(false).build()?;
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

fn library() -> Result<PathBuf> {
    if let Some(library) = env::var_os("ORT_DYLIB_PATH") {
        return Ok(library.into());
    }
    let own = env::current_exe()?;
    let mut places = own.ancestors().map(|folder| folder.join(LIBRARY));
    places.find(|file| file.exists()).context("no ONNX Runtime; run `cargo xtask setup`")
}
