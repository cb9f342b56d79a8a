//! What a streamed token costs beyond the model service's loop: the ensemble, the detokenizer and the front.
//!
//! The model has next to no weights, so that what is taken off is small: its loop's processor time
//! for as many tokens to as many streams, in a process of its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Settings;
use super::generate::child;
use super::generate::engine::{Engine, Request};
use crate::program::{Launch, processor_time};
use crate::report::{Section, Verdict, number};
use crate::repository::Repository;
use crate::sample::median;

const STREAMS: usize = 8;
/// How many tokens a stream has: as many as the model's context has room for.
const TOKENS: usize = 900;
/// How often every stream runs in a round, so that a tick of the processor's clock is nothing.
const TURNS: usize = 8;
/// Where the model without weights lies, from the model repository, and how it is made.
const QUICK: &str = "../target/xtask/quick";
const MAKE: &str = "make it with `target/venv/bin/python crates/xtask/python/llama_to_onnx.py \
     crates/bench/python/quick target/xtask/quick/model.onnx --random 1`";

/// How a stream is asked for.
const ROUTES: [(&str, &str); 2] = [
    ("/generate_stream", r#"{"text_input":"The borrow checker","max_tokens":900,"end_id":-1}"#),
    (
        "/v1/completions",
        r#"{"model":"generate","prompt":"The borrow checker","max_tokens":900,"end_id":-1,"stream":true}"#,
    ),
];

/// Measures it.
pub(crate) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let quick = settings.models.join(QUICK);
    let quick = quick.canonicalize();
    let quick = quick.with_context(|| format!("the model of `streams` is not there; {MAKE}"))?;
    let mut repository = Repository::new()?;
    for model in ["generate", "ferris_tokenize", "ferris_detokenize"] {
        repository = repository.linked(&settings.models, model)?;
    }
    let repository = repository.exchanged(&settings.models, "ferris", &quick)?;
    let model = repository.path().join("ferris");
    let mut section = Section::new(title, &["", "µs a token", "beyond the loop"]);
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        let own = child(&[
            "streams".into(),
            model.display().to_string(),
            STREAMS.to_string(),
            TOKENS.to_string(),
        ])?;
        let mut round = vec![own.first().copied().context("the loop gave no figure")?];
        for (path, body) in ROUTES {
            let server = Launch::serve(&settings.programs, repository.path()).start()?;
            turn(server.http, (path, body)).await?;
            let before = server.cpu()?;
            let mut tokens = 0;
            for _ in 0..TURNS {
                tokens += turn(server.http, (path, body)).await?;
            }
            round.push(micros(server.cpu()?.saturating_sub(before), tokens));
        }
        rounds.push(round);
    }
    let figure = |index: usize| median(rounds.iter().map(|round| round[index]));
    section.row(["the loop alone".into(), number(figure(0)), String::new()]);
    for (index, (path, _)) in (1..).zip(ROUTES) {
        let beyond = median(rounds.iter().map(|round| round[index] - round[0]));
        section.row([format!("`{path}`"), number(figure(index)), number(beyond)]);
        section.judge(Verdict::at_most(format!("`{path}`, a token"), beyond, 20.0, "µs"));
    }
    Ok(section)
}

/// Runs every stream once, all at the same time; how many tokens those were.
async fn turn(port: u16, route: (&str, &str)) -> Result<usize> {
    let streams = (0..STREAMS).map(|_| stream(port, route));
    Ok(try_join_all(streams).await?.len() * TOKENS)
}

async fn stream(port: u16, (path, body): (&str, &str)) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let events = answer.windows(6).filter(|window| window == b"data: ").count();
    let text = || String::from_utf8_lossy(&answer[..answer.len().min(500)]).into_owned();
    // A token that is only a part of a character may have no event of its own over OpenAI's API.
    ensure!(events > TOKENS / 2, "{events} events: {}", text());
    Ok(())
}

/// Microseconds of processor time that this process's loop takes for a token of such streams.
pub(super) async fn alone(engine: &Engine, streams: usize, tokens: usize) -> Result<f64> {
    let turn = |seed| async move {
        let asked =
            (0..streams).map(|row| engine.ask(Request::new(seed, row as i32, tokens).streaming()));
        for answer in asked.collect::<Result<Vec<_>>>()? {
            answer.read().await?;
        }
        anyhow::Ok(())
    };
    turn(0).await?;
    let before = processor_time("self")?;
    for seed in 1..=TURNS {
        turn(seed as i32).await?;
    }
    let took = processor_time("self")?.saturating_sub(before);
    Ok(micros(took, TURNS * streams * tokens))
}

fn micros(time: Duration, tokens: usize) -> f64 {
    time.as_secs_f64() * 1e6 / tokens as f64
}
