//! Sentence embeddings: the served ensemble beside the same libraries called directly in one loop.

pub(super) mod direct;

use std::time::Instant;

use anyhow::{Result, ensure};
use consort_protocol::model_infer_request::InferInputTensor;
use consort_protocol::{ModelInferRequest, ModelInferResponse};

use self::direct::Direct;
use super::Settings;
use crate::load::{Caller, grpc};
use crate::program::{Launch, Program};
use crate::report::{Section, Verdict, number};
use crate::repository::Repository;
use crate::sample::{Sample, Series, micros};

/// Twelve tokens with the two that the tokenizer adds.
pub(super) const SENTENCE: &str = "The borrow checker keeps every reference valid.";
pub(super) const MODELS: [&str; 4] = ["embed", "minilm", "minilm_tokenize", "minilm_pool"];
/// How many sentences each contender embeds before the other has its turn: few, so that a moment
/// in which the machine is busy meets both.
const TURN: usize = 5;
const WARM_UP: usize = 30;

/// Measures one caller's latency.
pub(super) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let mut repository = Repository::new()?;
    for model in MODELS {
        repository = repository.linked(&settings.models, model)?;
    }
    let server = Launch::serve(&settings.programs, repository.path()).start()?;
    let mut direct = Direct::open(&settings.models)?;
    let expected = direct.embed(SENTENCE)?;
    let is_right = |answer: &ModelInferResponse| is_close(answer, &expected);
    let mut callers = grpc::callers(server.grpc, 1, &request(SENTENCE), is_right).await?;
    let caller = &mut callers[0];
    for _ in 0..WARM_UP {
        direct.embed(SENTENCE)?;
        caller.call().await?;
    }
    let mut series = [Series::new("tokenizers + ONNX Runtime"), Series::new("consort serve, gRPC")];
    for _ in 0..settings.rounds {
        let [bare, served] = &mut series;
        let (own, remote) = round(settings, &mut direct, caller, &server).await?;
        bare.push(own);
        served.push(remote);
    }
    ensure!(!expected.is_empty(), "the model gave no embedding");
    Ok(section(title, &series))
}

fn section(title: &str, [bare, served]: &[Series; 2]) -> Section {
    let mut section =
        Section::new(title, &["", "calls/s", "p10 µs", "p50 µs", "p99 µs", "p50 to direct"]);
    let p50 = |sample: &Sample| micros(sample.quantile(0.5));
    for series in [bare, served] {
        section.row([
            series.name.clone(),
            number(series.median(Sample::rate)),
            // What a call takes when nothing else wants the cores, even on a busy machine.
            number(series.median(|sample| micros(sample.quantile(0.1)))),
            number(series.median(p50)),
            number(series.median(|sample| micros(sample.quantile(0.99)))),
            format!("{:.3} ×", series.ratio(bare, p50)),
        ]);
    }
    let what = "`embed`, one caller, p50 to tokenizers + ONNX Runtime called directly";
    section.judge(Verdict::at_most(what, served.ratio(bare, p50), 1.25, "×"));
    section
}

/// One round of both, in short turns so that both meet the same machine.
async fn round(
    settings: &Settings,
    direct: &mut Direct,
    caller: &mut impl Caller,
    server: &Program,
) -> Result<(Sample, Sample)> {
    let (mut own, mut remote) = (Vec::new(), Vec::new());
    let cpu_before = server.cpu()?;
    let until = Instant::now() + 2 * settings.time;
    while Instant::now() < until {
        for _ in 0..TURN {
            let begun_at = Instant::now();
            direct.embed(SENTENCE)?;
            own.push(begun_at.elapsed());
        }
        for _ in 0..TURN {
            let begun_at = Instant::now();
            caller.call().await?;
            remote.push(begun_at.elapsed());
        }
    }
    let cpu = server.cpu()?.saturating_sub(cpu_before);
    let elapsed = (own.iter().sum(), remote.iter().sum());
    Ok((Sample::new(own, elapsed.0, cpu), Sample::new(remote, elapsed.1, cpu)))
}

/// A request for the vector of a sentence.
pub(super) fn request(sentence: &str) -> ModelInferRequest {
    let length = sentence.len() as u32;
    let element = [&length.to_le_bytes()[..], sentence.as_bytes()].concat();
    ModelInferRequest {
        model_name: "embed".into(),
        inputs: vec![InferInputTensor {
            name: "text".into(),
            datatype: "BYTES".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![element.into()],
        ..ModelInferRequest::default()
    }
}

/// Whether the served vector points where the one computed directly does; both have length 1.
pub(super) fn is_close(answer: &ModelInferResponse, expected: &[f32]) -> bool {
    let [data] = &answer.raw_output_contents[..] else { return false };
    let (elements, rest) = data.as_chunks::<4>();
    let elements = elements.iter().map(|element| f32::from_le_bytes(*element));
    let cosine: f32 = elements.zip(expected).map(|(one, other)| one * other).sum();
    rest.is_empty() && cosine > 0.999_99
}
