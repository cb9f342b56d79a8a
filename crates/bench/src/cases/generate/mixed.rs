//! Requests of mixed lengths, beside onnxruntime-genai with its static batches.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use super::engine::{Engine, Request};
use super::{ROWS, TOKENS, child};
use crate::report::{Section, Verdict, number};
use crate::sample::median;

/// The yardstick's script.
const SCRIPT: &str = include_str!("../../../python/genai.py");
/// How many requests there are.
const REQUESTS: usize = 64;

/// How many tokens each request gets: from 16 to 256, in no order.
fn lengths() -> impl Iterator<Item = usize> {
    (0..REQUESTS).map(|request| 16 + request * 101 % 241)
}

/// Useful tokens a second of all requests, as many at once as there are slots.
pub(super) async fn measure(engine: &Engine) -> Result<f64> {
    super::crowd(engine, 0, TOKENS).await?;
    let started = Instant::now();
    let asked = lengths().enumerate();
    let asked = asked.map(|(row, tokens)| engine.ask(Request::new(6, row as i32, tokens)));
    for answer in asked.collect::<Result<Vec<_>>>()? {
        answer.read().await?;
    }
    Ok(lengths().sum::<usize>() as f64 / started.elapsed().as_secs_f64())
}

/// Adds the comparison, in rounds of both.
pub(super) fn compare(
    section: &mut Section,
    (python, folder): (&Path, &Path),
    rounds: usize,
) -> Result<()> {
    let round = |_| -> Result<[f64; 4]> {
        let [one, fixed] = genai(python, &folder.join("1"))?;
        let folder = folder.display().to_string();
        let own = child(&["engine".into(), folder.clone()])?;
        let mixed = child(&["mixed".into(), folder])?;
        Ok([own[0], mixed[0], one, fixed])
    };
    let rounds = (0..rounds).map(round).collect::<Result<Vec<_>>>()?;
    let names = [
        "one request, again",
        "64 of 16 to 256 tokens",
        "onnxruntime-genai, one request",
        "onnxruntime-genai, the 64 in batches of 16",
    ];
    let ratio =
        |left: usize, right: usize| median(rounds.iter().map(|round| round[left] / round[right]));
    for (index, name) in names.iter().enumerate() {
        let rate = median(rounds.iter().map(|round| round[index]));
        section.row([(*name).into(), number(rate), String::new()]);
    }
    section.judge(Verdict::at_least("one request, to onnxruntime-genai", ratio(0, 2), 1.0, "×"));
    section.judge(Verdict::at_least("64 mixed, to its batches", ratio(1, 3), 1.5, "×"));
    Ok(())
}

fn genai(python: &Path, folder: &Path) -> Result<[f64; 2]> {
    let lengths: Vec<_> = lengths().map(|length| length.to_string()).collect();
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT]).arg(folder);
    let output =
        command.args([ROWS.to_string(), TOKENS.to_string(), lengths.join(",")]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [one, fixed] => Ok([one, fixed]),
        _ => bail!("`{}`: {}", python.display(), String::from_utf8_lossy(&output.stderr)),
    }
}
