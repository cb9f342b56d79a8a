//! Measures what both backends add to ONNX Runtime: tokens a second, and microseconds a run.
//!
//! `cargo bench -p consort-model` measures ferris and a small graph on the processor;
//! `cargo bench -p consort-model -- [--gpu | --auto] MODEL_FOLDER…` measures other decoders, on a
//! card if so asked. Every figure is the best of several rounds, for the machine may be busy.

#![expect(clippy::print_stdout, reason = "its output is what it measured")]

use std::env;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use consort_config::{Device, Model};
use consort_repository::{Backend, Instance, Kind, ModelFile};
use consort_stage::{Batch, Job, Jobs, Reply, Request, Tensor};
use futures::StreamExt;
use ort::session::builder::SessionBuilder;
use ort::value::TensorRef;

/// Rounds of each measurement, of which the best counts: many short ones, since a busy machine is
/// idle for moments.
const ROUNDS: usize = 60;
const TOKENS: i32 = 64;
const RUNS: u32 = 2_000;

/// What tells this program to measure ONNX Runtime alone.
const BARE: &str = "bare";
/// What tells it where to measure.
const DEVICES: [(&str, Device); 2] = [("--gpu", Device::Gpu(0)), ("--auto", Device::Auto)];
/// How many tokens it shows, for the eye.
const SHOWN: usize = 12;

fn main() {
    if env::args().nth(1).as_deref() == Some(BARE) {
        println!("{}", bare().as_nanos());
        return;
    }
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let named = DEVICES.iter().find(|(name, _)| arguments.iter().any(|argument| argument == name));
    let device = named.map_or(Device::Cpu, |(_, device)| *device);
    let folders: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    for folder in &folders {
        report(Path::new(folder), device, 1);
    }
    if folders.is_empty() {
        let ferris = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model_repository/ferris");
        report(&ferris, device, 1);
        report(&ferris, device, 2);
        overhead();
    }
}

fn report(folder: &Path, device: Device, threads: usize) {
    let (speed, tokens) = tokens_a_second(folder, device, threads);
    let name = folder.file_name().unwrap_or_default().display();
    println!("{name}: {speed:.0} tokens/s, {threads} thread(s), {device:?}, {tokens:?}");
}

fn model(backend: &str, folder: &Path) -> (Model, &'static Kind) {
    let kind = consort_model::ALL.iter().find(|kind| kind.name == backend).expect("it exists");
    let path = folder.join("1/model.onnx");
    let signature = (kind.signature)(&ModelFile { folder, path: &path });
    let signature = signature.expect("it is readable").expect("it is known");
    let file_name = "model.onnx".into();
    let model = Model { file_name, ..Model::plain(backend, signature) };
    (model, kind)
}

fn load(backend: &str, folder: &Path, device: Device, threads: usize) -> Backend {
    let (model, kind) = model(backend, folder);
    let loaded = (kind.load)(&Instance {
        model: &model,
        version: 1,
        model_folder: folder,
        version_folder: &folder.join("1"),
        device,
        threads: NonZeroUsize::new(threads).expect("it is positive"),
    });
    loaded.unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

/// Tokens a second, and the first of them.
fn tokens_a_second(folder: &Path, device: Device, threads: usize) -> (f64, Vec<i32>) {
    let Backend::Streaming(mut backend) = load("onnxruntime_llm", folder, device, threads) else {
        unreachable!("it is a streaming backend");
    };
    let (sender, jobs) = Jobs::channel(1);
    let worker = thread::spawn(move || backend.run(jobs));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it starts");
    let mut best = 0.0;
    let mut shown = Vec::new();
    for _ in 0..ROUNDS {
        let (reply, responses) = Reply::channel(1024);
        sender.blocking_send(Job { request: request(), reply }).expect("the loop runs");
        let (speed, tokens) = runtime.block_on(decoding_speed(responses));
        best = f64::max(best, speed);
        shown = tokens;
    }
    drop(sender);
    worker.join().expect("the loop ends");
    shown.truncate(SHOWN);
    (best, shown)
}

/// Tokens a second after the first one, each a response of its own, and the tokens.
async fn decoding_speed(mut responses: consort_stage::Responses) -> (f64, Vec<i32>) {
    let mut first_at = None;
    let mut tokens = Vec::new();
    while let Some(response) = responses.next().await {
        let response = response.expect("it answers");
        first_at.get_or_insert_with(Instant::now);
        let ids = response.output("output_ids").expect("every response has it");
        tokens.extend_from_slice(&ids.to_slice::<i32>().expect("they are INT32"));
    }
    let elapsed = first_at.map(|at| at.elapsed()).unwrap_or_default();
    ((tokens.len() - 1) as f64 / elapsed.as_secs_f64(), tokens)
}

fn request() -> Request {
    let prompt = vec![4, 2484, 265, 428, 84, 600, 917, 1799, 32, 200, 200, 48, 917, 1799, 311];
    let integer = |name, value: i32| Tensor::from_vec(name, &[1, 1], vec![value]);
    Request {
        inputs: vec![
            Tensor::from_vec("input_ids", &[1, prompt.len() as i64], prompt),
            integer("request_output_len", TOKENS),
            integer("end_id", -1),
            Tensor::from_bools("streaming", &[1, 1], &[true]),
        ],
        ..Request::default()
    }
}

/// The backend `onnxruntime` beside a bare `Session::run` of the same graph, in turns.
fn overhead() {
    let folder = env::temp_dir().join(format!("consort-bench-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("1")).expect("it can be made");
    std::fs::copy(graph(), folder.join("1/model.onnx")).expect("it can be copied");
    let Backend::Batch(mut backend) = load("onnxruntime", &folder, Device::Cpu, 1) else {
        unreachable!("it is a batch backend");
    };
    std::fs::remove_dir_all(&folder).expect("it was made here");
    let [left, right] =
        ["INPUT0", "INPUT1"].map(|name| Tensor::from_vec(name, &SHAPE, vec![1; 16]));
    let mut served = Duration::MAX;
    let mut bare = Duration::MAX;
    for _ in 0..ROUNDS {
        bare = bare.min(bare_in_a_process_of_its_own());
        served = served.min(each_run(|| {
            let inputs = vec![left.clone(), right.clone()];
            backend.run(Batch { inputs, ..Batch::default() }).expect("it runs");
        }));
    }
    println!("onnxruntime: {served:?} a run, {bare:?} bare");
}

const SHAPE: [i64; 2] = [1, 16];

fn graph() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graphs/add_sub.onnx")
}

fn each_run(mut run: impl FnMut()) -> Duration {
    let started = Instant::now();
    for _ in 0..RUNS {
        run();
    }
    started.elapsed() / RUNS
}

/// A process has one ONNX Runtime environment, and this one's belongs to the backends.
fn bare_in_a_process_of_its_own() -> Duration {
    let program = env::current_exe().expect("it is known");
    let output = Command::new(program).arg(BARE).output().expect("it starts");
    let nanoseconds = String::from_utf8_lossy(&output.stdout).trim().parse();
    Duration::from_nanos(nanoseconds.expect("it prints a number"))
}

fn bare() -> Duration {
    let program = env::current_exe().expect("it is known");
    let libraries =
        program.ancestors().map(|folder| folder.join("onnxruntime/libonnxruntime.so.1.31.1"));
    let library =
        libraries.into_iter().find(|file| file.exists()).expect("run `cargo xtask setup`");
    let environment = ort::init_from(library).expect("it loads").build().expect("it starts");
    let mut session = SessionBuilder::new(&environment)
        .and_then(|builder| Ok(builder.with_intra_threads(1)?))
        .and_then(|mut builder| builder.commit_from_file(graph()))
        .expect("it opens");
    let ones = [1_i32; 16];
    each_run(|| {
        let ones = || TensorRef::from_array_view((SHAPE, ones.as_slice())).expect("it fits");
        session.run(ort::inputs![ones(), ones()]).expect("it runs");
    })
}
