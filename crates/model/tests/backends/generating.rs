//! A language model at work on its thread, and the ways to ask it.

use std::path::Path;
use std::thread::{self, JoinHandle};

use consort_config::{Device, Model};
use consort_repository::Backend;
use consort_stage::{Interrupt, Job, Jobs, Reply, Request, Response, Responses, Result, Tensor};
use futures::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::loaded::load;

/// How many requests may wait in these tests.
const QUEUE: usize = 64;

/// A loaded model whose loop runs until this is dropped.
pub(crate) struct Generating {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    interrupt: Option<Interrupt>,
    runtime: Runtime,
}

impl Generating {
    /// Loads the model in `folder` and starts its loop.
    pub(crate) fn start(folder: &Path, model: &Model) -> Self {
        let backend = load(folder, model, Device::Cpu);
        let Backend::Streaming(mut backend) = backend.expect("run `cargo xtask setup`") else {
            panic!("it is a streaming backend");
        };
        let (sender, jobs) = Jobs::channel(QUEUE);
        Self {
            interrupt: backend.interrupt(),
            jobs: Some(sender),
            thread: Some(thread::spawn(move || backend.run(jobs))),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        }
    }

    /// Sends a request whose caller reads at most `capacity` responses late.
    pub(crate) fn ask(&self, request: Request, capacity: usize) -> Responses {
        let (reply, responses) = Reply::channel(capacity);
        let job = Job { request, reply };
        self.jobs.as_ref().unwrap().blocking_send(job).unwrap();
        responses
    }

    /// Asks and reads everything.
    pub(crate) fn answer(&self, request: Request) -> Result<Vec<Response>> {
        self.read(self.ask(request, 4))
    }

    /// Reads everything that is left.
    pub(crate) fn read(&self, responses: Responses) -> Result<Vec<Response>> {
        let read = self.runtime.block_on(responses.collect::<Vec<_>>());
        read.into_iter().collect()
    }

    /// Leaves without what is left, as the scheduler does it.
    pub(crate) fn leave(&self, responses: Responses) {
        drop(responses);
        self.interrupt.as_ref().unwrap()();
    }

    /// Reads one response.
    pub(crate) fn next(&self, responses: &mut Responses) -> Option<Result<Response>> {
        self.runtime.block_on(responses.next())
    }

    /// Tells the loop that no request will come any more, and waits for its end.
    pub(crate) fn stop(&mut self) {
        self.jobs = None;
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Generating {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the loop does not panic");
        }
    }
}

/// A request that says nothing but its prompt.
pub(crate) fn prompt(ids: &[i32]) -> Request {
    let shape = [1, ids.len() as i64];
    Request {
        inputs: vec![Tensor::from_vec("input_ids", &shape, ids.to_vec())],
        ..Request::default()
    }
}

/// A request for at most so many tokens.
pub(crate) fn request(ids: &[i32], max_tokens: i32) -> Request {
    let mut request = prompt(ids);
    request.inputs.push(Tensor::from_vec("request_output_len", &[1, 1], vec![max_tokens]));
    request
}
