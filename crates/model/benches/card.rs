//! Checks and measures decoders on a card: one request, and a batch of as many as there are slots.
//!
//! `cargo bench -p consort-model --bench card -- MODEL_FOLDER [REFERENCE] [KEY=VALUE…]`, where
//! REFERENCE is a file as `tests/fixtures/ferris/reference.json`, and settings are those of the
//! model's `parameters`. With `--cpu` it runs without a card, to be tried.

#![expect(clippy::print_stdout, reason = "its output is what it measured")]

use std::env;
use std::fmt::Debug;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::Instant;

use consort_config::{Device, Model, Settings};
use consort_repository::{Backend, Instance, ModelFile};
use consort_stage::{Job, Jobs, Reply, Request, Responses, Tensor};
use futures::StreamExt;
use tokio::sync::mpsc;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const BACKEND: &str = "onnxruntime_llm";
const ROUNDS: usize = 3;
/// Tokens in and out of one request, and of each of many.
const ALONE: [usize; 2] = [130, 200];
const TOGETHER: [usize; 2] = [128, 128];
/// How many are asked at once.
const REQUESTS: usize = 64;

/// Prints what the backend warns of.
struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut |field: &Field, value: &dyn Debug| println!("  ! {field}: {value:?}"));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn main() {
    tracing::subscriber::set_global_default(Warnings).expect("it is the first");
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let is_off_card = arguments.iter().any(|argument| argument == "--cpu");
    let device = if is_off_card { Device::Cpu } else { Device::Gpu(0) };
    let settings = arguments.iter().filter_map(|argument| argument.split_once('='));
    let settings: Vec<_> =
        settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let paths = arguments.iter().filter(|it| !it.starts_with("--") && !it.contains('='));
    let paths: Vec<_> = paths.map(Path::new).collect();
    let [folder, references @ ..] = &paths[..] else {
        println!("which model?");
        return;
    };
    let started = Instant::now();
    let engine = Engine::start(folder, &settings, device);
    println!("{} {settings:?}: loaded in {:.1?}", folder.display(), started.elapsed());
    for file in references {
        check(&engine, file);
        near_ties(&engine, file);
    }
    if references.is_empty() {
        measure(&engine);
    }
    if let Some(mut gpus) = consort_model::gpus() {
        for reading in gpus.sample() {
            println!("  {} {:?} {}", reading.family.name, reading.labels, reading.value);
        }
    }
}

/// Prompts and what follows them, from a file of references.
fn cases(file: &Path) -> Vec<(Vec<i32>, Vec<i32>)> {
    let text = fs::read_to_string(file).expect("it is readable");
    let cases: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let list = |value: &serde_json::Value| -> Vec<i32> {
        let numbers = value.as_array().into_iter().flatten();
        numbers.filter_map(|number| number.as_i64().map(|number| number as i32)).collect()
    };
    let cases = cases.as_array().into_iter().flatten();
    cases.map(|case| (list(&case["input_ids"]), list(&case["greedy_ids"]))).collect()
}

/// Where two tokens of a reference are about as likely: which, and their log-probabilities. What
/// this prints on a card and off it says how far the two are apart.
fn near_ties(engine: &Engine, file: &Path) {
    for (index, (prompt, expected)) in cases(file).iter().enumerate() {
        let mut asked = request(prompt, expected.len());
        asked.inputs.push(Tensor::from_vec("top_logprobs", &[1, 1], vec![2_i32]));
        let answer = engine.read(engine.ask(asked));
        let gap = |pair: &[(i32, f32)]| pair[0].1 - pair[1].1;
        let least = (0..)
            .zip(answer.likeliest.chunks(2))
            .min_by(|left, right| gap(left.1).total_cmp(&gap(right.1)));
        println!("  case {index}: the nearest tie is at {least:?}");
    }
}

/// How many tokens of each reference come out, alone and beside others that sample.
fn check(engine: &Engine, file: &Path) {
    let cases = cases(file);
    let ask = |index: usize| {
        let (prompt, expected) = &cases[index % cases.len()];
        engine.ask(request(prompt, expected.len()))
    };
    let same = |index: usize, answer: &[i32]| {
        let expected = &cases[index % cases.len()].1;
        let same = answer.iter().zip(expected).take_while(|(left, right)| left == right).count();
        format!("{same}/{}", expected.len())
    };
    let alone = (0..cases.len()).map(|index| same(index, &engine.read(ask(index)).tokens));
    println!("  alone:   {}", alone.collect::<Vec<_>>().join(" "));
    let mut asked = Vec::new();
    for index in 0..4 * cases.len() {
        let (prompt, _) = &cases[(index * 5 + 1) % cases.len()];
        let mut other = request(prompt, 20 + index % 40);
        other.inputs.push(Tensor::from_vec("temperature", &[1, 1], vec![1.3_f32]));
        other.inputs.push(Tensor::from_vec("random_seed", &[1, 1], vec![index as u64]));
        let other = engine.ask(other);
        asked.push((index, ask(index), other));
    }
    let beside = asked.into_iter().map(|(index, asked, other)| {
        let answer = engine.read(asked);
        engine.read(other);
        same(index, &answer.tokens)
    });
    println!("  beside:  {}", beside.collect::<Vec<_>>().join(" "));
}

fn measure(engine: &Engine) {
    for _ in 0..ROUNDS {
        let [tokens_in, tokens_out] = ALONE;
        let answer = engine.read(engine.ask(streaming(request(&prompt(7, tokens_in), tokens_out))));
        let decoding = answer.last_at - answer.first_at;
        println!(
            "  one request: {:.0} tokens/s after the first, which took {:.1?}; {:?}",
            (tokens_out - 1) as f64 / decoding.as_secs_f64(),
            answer.first_at - answer.asked_at,
            &answer.tokens[..8]
        );
    }
    for _ in 0..ROUNDS {
        together(engine, &[]);
    }
    // Where few tokens hold nearly all of the probability, as with a trained model, and where all do.
    together(engine, &[("temperature", 0.05), ("runtime_top_p", 0.9)]);
    together(engine, &[("temperature", 0.8), ("runtime_top_p", 0.9)]);
    together(engine, &[("temperature", 0.8), ("runtime_top_p", 0.5)]);
    together(engine, &[("temperature", 0.8), ("min_p", 0.01)]);
    together(engine, &[("temperature", 0.8)]);
    together(engine, &[("temperature", 0.8), ("runtime_top_k", 50.0)]);
    together(engine, &[("temperature", 0.8), ("runtime_top_k", 500.0)]);
}

/// Many requests at once: tokens a second while all of them decode, and from the first question to
/// the last answer.
fn together(engine: &Engine, sampling: &[(&str, f32)]) {
    let [tokens_in, tokens_out] = TOGETHER;
    let started = Instant::now();
    let asked = (0..REQUESTS).map(|index| {
        let mut request = streaming(request(&prompt(index, tokens_in), tokens_out));
        for (name, value) in sampling {
            request.inputs.push(match *name {
                "runtime_top_k" => Tensor::from_vec(*name, &[1, 1], vec![*value as i32]),
                _ => Tensor::from_vec(*name, &[1, 1], vec![*value]),
            });
        }
        engine.ask(request)
    });
    let asked: Vec<_> = asked.collect();
    let answers = engine.read_all(asked);
    let elapsed = started.elapsed();
    let all_at = answers.iter().map(|answer| answer.first_at).max().unwrap_or(started);
    let first_end = answers.iter().map(|answer| answer.last_at).min().unwrap_or(started);
    let within = |at: &&Instant| **at > all_at && **at <= first_end;
    let count = answers.iter().flat_map(|answer| answer.at.iter().filter(within)).count();
    println!(
        "  {REQUESTS} requests {sampling:?}: {:.0} tokens/s while all decode ({count} tokens), \
         {:.0} in all; the last first token after {:.1?}",
        count as f64 / (first_end - all_at).as_secs_f64(),
        (REQUESTS * tokens_out) as f64 / elapsed.as_secs_f64(),
        all_at - started
    );
}

struct Engine {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
}

struct Asked {
    at: Instant,
    responses: Responses,
}

struct Answer {
    tokens: Vec<i32>,
    asked_at: Instant,
    first_at: Instant,
    last_at: Instant,
    at: Vec<Instant>,
    likeliest: Vec<(i32, f32)>,
}

impl Engine {
    fn start(folder: &Path, settings: &[(String, String)], device: Device) -> Self {
        let kind = consort_model::ALL.iter().find(|kind| kind.name == BACKEND).expect("it exists");
        let path = folder.join("1/model.onnx");
        let signature = (kind.signature)(&ModelFile { folder, path: &path });
        let signature = signature.expect("it is readable").expect("it is known");
        let settings = Settings::new(settings.iter().cloned());
        let model =
            Model { file_name: "model.onnx".into(), settings, ..Model::plain(BACKEND, signature) };
        let loaded = (kind.load)(&Instance {
            model: &model,
            version: 1,
            model_folder: folder,
            version_folder: &folder.join("1"),
            device,
            threads: NonZeroUsize::MIN,
        });
        let Backend::Streaming(mut backend) = loaded.unwrap_or_else(|error| panic!("{error}"))
        else {
            unreachable!("it is a streaming backend");
        };
        let (sender, jobs) = Jobs::channel(2 * REQUESTS);
        let thread = thread::spawn(move || backend.run(jobs));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        Self { jobs: Some(sender), thread: Some(thread), runtime: runtime.expect("it starts") }
    }

    fn ask(&self, request: Request) -> Asked {
        let (reply, responses) = Reply::channel(1024);
        let at = Instant::now();
        let jobs = self.jobs.as_ref().expect("it runs");
        jobs.try_send(Job { request, reply }).unwrap_or_else(|_| panic!("there is room"));
        Asked { at, responses }
    }

    fn read(&self, asked: Asked) -> Answer {
        self.read_all(vec![asked]).remove(0)
    }

    fn read_all(&self, asked: Vec<Asked>) -> Vec<Answer> {
        self.runtime.block_on(futures::future::join_all(asked.into_iter().map(read)))
    }
}

async fn read(mut asked: Asked) -> Answer {
    let mut answer = Answer {
        tokens: Vec::new(),
        asked_at: asked.at,
        first_at: asked.at,
        last_at: asked.at,
        at: Vec::new(),
        likeliest: Vec::new(),
    };
    while let Some(response) = asked.responses.next().await {
        let response = response.unwrap_or_else(|error| panic!("{error}"));
        let ids = response.output("output_ids").expect("every response has it");
        let ids = ids.to_slice::<i32>().expect("they are INT32");
        answer.last_at = Instant::now();
        if answer.tokens.is_empty() {
            answer.first_at = answer.last_at;
        }
        answer.at.extend(ids.iter().map(|_| answer.last_at));
        answer.tokens.extend_from_slice(&ids);
        let likeliest = ["top_logprob_ids", "top_logprob_values"];
        if let [Some(ids), Some(values)] = likeliest.map(|name| response.output(name)) {
            let ids = ids.to_slice::<i32>().expect("they are INT32");
            let values = values.to_slice::<f32>().expect("they are FP32");
            answer.likeliest.extend(ids.iter().copied().zip(values.iter().copied()));
        }
    }
    answer
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A prompt that no other begins like.
fn prompt(seed: usize, tokens: usize) -> Vec<i32> {
    (0..tokens).map(|place| (5 + (seed * 131 + place * 17 + place * place) % 4000) as i32).collect()
}

fn request(prompt: &[i32], tokens: usize) -> Request {
    let integer = |name, value: i32| Tensor::from_vec(name, &[1, 1], vec![value]);
    Request {
        inputs: vec![
            Tensor::from_vec("input_ids", &[1, prompt.len() as i64], prompt.to_vec()),
            integer("request_output_len", tokens as i32),
            integer("end_id", -1),
        ],
        ..Request::default()
    }
}

fn streaming(mut request: Request) -> Request {
    request.inputs.push(Tensor::from_bools("streaming", &[1, 1], &[true]));
    request
}
