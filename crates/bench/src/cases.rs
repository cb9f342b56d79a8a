//! The cases, in the order they run.

mod batching;
mod embed;
mod generate;
mod identity;
mod memory;
mod reload;
mod start;
mod steps;
mod streams;

pub(crate) use self::generate::contend;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use consort_protocol::model_infer_request::InferInputTensor;
use consort_protocol::{ModelInferRequest, ModelInferResponse};

use crate::report::Section;
use crate::repository::WIDTH;

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// One model that gives its input back, over gRPC and HTTP.
    Identity,
    /// Three such models one after another, in one process and over three services.
    Steps,
    /// Text generation by the model service's loop, beside a bare loop over the same graph.
    Generate,
    /// What a streamed token costs beyond the loop, at eight streams.
    Streams,
    /// Sentence embeddings, beside the same libraries called directly.
    Embed,
    /// The same from many callers at once, beside the same libraries in batches.
    Batching,
    /// How long a program takes to be ready.
    Start,
    /// How much memory the programs occupy when nobody calls.
    Memory,
    /// 200 reloads of a model while it is called: failed requests, memory left behind.
    Reload,
}

/// How the cases are measured.
pub(crate) struct Settings {
    /// Folder of the programs.
    pub(crate) programs: PathBuf,
    /// The shipped model repository.
    pub(crate) models: PathBuf,
    /// A Python that has onnxruntime-genai.
    pub(crate) genai: Option<PathBuf>,
    /// Rounds of each comparison.
    pub(crate) rounds: usize,
    /// How long a contender works in a round.
    pub(crate) time: Duration,
}

impl Case {
    /// The cases asked for, or all.
    pub(crate) fn chosen(asked: &[Self]) -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|case| asked.is_empty() || asked.contains(case)).collect()
    }

    /// What a person types to run it.
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Its heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Identity => "`identity` FP32[1,16] in one process",
            Self::Steps => "Three `identity` steps in one ensemble, one caller, gRPC",
            Self::Embed => "`embed`, a short sentence, one caller",
            Self::Batching => "`embed`, many callers, in batches",
            Self::Generate => "`ferris`, 16 tokens in and 128 out, one thread",
            Self::Streams => "Streamed text, eight streams: processor time of a token",
            Self::Start => "From the start of a process until it is ready",
            Self::Memory => "Resident memory, idle",
            Self::Reload => "200 reloads of a step while its ensemble is called",
        }
    }

    /// Measures it.
    pub(crate) fn run(self, settings: &Settings) -> Result<Section> {
        let title = self.title();
        // One thread: on the machine it shares with the programs the load generator must be cheap.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime")?;
        runtime.block_on(async {
            match self {
                Self::Identity => identity::run(settings, title).await,
                Self::Steps => steps::run(settings, title).await,
                Self::Embed => embed::run(settings, title).await,
                Self::Batching => batching::run(settings, title).await,
                Self::Generate => generate::run(settings, title),
                Self::Streams => streams::run(settings, title).await,
                Self::Start => start::run(settings, title),
                Self::Memory => memory::run(settings, title).await,
                Self::Reload => reload::run(settings, title).await,
            }
        })
    }
}

/// The elements that every `identity` request carries.
fn elements() -> Vec<u8> {
    (0..WIDTH).flat_map(|element| (element as f32).to_le_bytes()).collect()
}

/// A request with one FP32[1,16] to `model`.
fn identity_request(model: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "INPUT0".into(),
            datatype: "FP32".into(),
            shape: vec![1, WIDTH as i64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![elements().into()],
        ..ModelInferRequest::default()
    }
}

/// Whether an answer gives back what was sent.
fn is_identity(answer: &ModelInferResponse) -> bool {
    answer.outputs.len() == 1 && answer.raw_output_contents == [elements()]
}
