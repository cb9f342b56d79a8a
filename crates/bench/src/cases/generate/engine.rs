//! The model service's generation loop in this process, and the ways to ask it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use consort_config::{Device, Model};
use consort_repository::{Backend, Instance, ModelFile};
use consort_stage::{Job, Jobs, Reply, Responses, Tensor};
use futures::StreamExt;
use tokio::sync::mpsc;

/// The backend whose loop it is.
const BACKEND: &str = "onnxruntime_llm";
/// How many tokens every prompt has.
pub(in crate::cases) const PROMPT: i32 = 16;
/// The responses that a caller may leave unread: all of one request.
const UNREAD: usize = 1024;

/// A loop at work.
pub(in crate::cases) struct Engine {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What is asked of it.
pub(in crate::cases) struct Request(consort_stage::Request);

/// What it answers.
pub(in crate::cases) struct Answer(Responses);

impl Engine {
    /// Loads the model in a folder and starts its loop.
    pub(in crate::cases) fn start(folder: &Path) -> Result<Self> {
        let kinds = consort_model::ALL.iter();
        let kind = kinds.clone().find(|kind| kind.name == BACKEND).context("it has the backend")?;
        let path = folder.join("1/model.onnx");
        let signature = (kind.signature)(&ModelFile { folder, path: &path })?;
        let signature = signature.context("its tensors are known")?;
        let file_name = "model.onnx".into();
        let model = Model { file_name, ..Model::plain(BACKEND, signature) };
        let loaded = (kind.load)(&Instance {
            model: &model,
            version: 1,
            model_folder: folder,
            version_folder: &folder.join("1"),
            device: Device::Cpu,
            threads: NonZeroUsize::MIN,
        })?;
        let Backend::Streaming(mut backend) = loaded else {
            bail!("`{BACKEND}` is no streaming backend");
        };
        let (sender, jobs) = Jobs::channel(64);
        let thread = thread::Builder::new().name(BACKEND.into()).spawn(move || backend.run(jobs));
        Ok(Self { jobs: Some(sender), thread: Some(thread?) })
    }

    /// Sends a request.
    pub(in crate::cases) fn ask(&self, request: Request) -> Result<Answer> {
        let (reply, responses) = Reply::channel(UNREAD);
        let jobs = self.jobs.as_ref().context("the loop runs")?;
        jobs.try_send(Job { request: request.0, reply }).context("the queue has room")?;
        Ok(Answer(responses))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Request {
    /// A prompt that no other begins like, and how many tokens are wanted.
    pub(in crate::cases) fn new(seed: i32, row: i32, tokens: usize) -> Self {
        let integer = |name, value: i32| Tensor::from_vec(name, &[1, 1], vec![value]);
        let prompt: Vec<i32> =
            (0..PROMPT).map(|place| 5 + (seed * 997 + row * 131 + place * 17) % 4000).collect();
        let inputs = vec![
            Tensor::from_vec("input_ids", &[1, i64::from(PROMPT)], prompt),
            integer("request_output_len", tokens as i32),
            integer("end_id", -1),
        ];
        Self(consort_stage::Request { inputs, ..consort_stage::Request::default() })
    }

    /// The same whose text is to be what a JSON schema describes.
    pub(in crate::cases) fn within(mut self, schema: &str) -> Self {
        let text = |name, text: &str| Tensor::from_strings(name, &[1, 1], &[text]);
        self.0.inputs.push(text("guided_decoding_guide_type", "json_schema"));
        self.0.inputs.push(text("guided_decoding_guide", schema));
        self
    }

    /// The same with a response for each token.
    pub(in crate::cases) fn streaming(mut self) -> Self {
        self.0.inputs.push(Tensor::from_bools("streaming", &[1, 1], &[true]));
        self
    }
}

impl Answer {
    /// Waits for one response.
    pub(in crate::cases) async fn next(&mut self) -> Result<()> {
        self.0.next().await.context("it answers")??;
        Ok(())
    }

    /// Waits for all of them; how many tokens the text has.
    pub(in crate::cases) async fn read(mut self) -> Result<usize> {
        let mut tokens = 0;
        while let Some(response) = self.0.next().await {
            let response = response?;
            let length = response.output("sequence_length").context("it tells the length")?;
            tokens = length.to_slice::<i32>()?.iter().sum::<i32>() as usize;
        }
        Ok(tokens)
    }
}
