//! Text generation by the model service's loop, beside a bare loop over the same graph.

mod bare;
mod engine;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub(crate) use self::bare::serve;
use self::engine::{Engine, Request};
use super::Settings;
use crate::report::{Section, Verdict, number};
use crate::sample::median;

/// How many sequences are worked on at once.
const ROWS: usize = 16;
/// How many tokens each of them gets.
const TOKENS: usize = 128;
/// The shipped language model.
const MODEL: &str = "ferris";

/// What one round measured.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Tokens a second: one request, many at once, the same one after another, and the bare loop.
    rates: [f64; 4],
    /// Time to the first token, alone and beside all the others.
    first: [Duration; 2],
}

impl Round {
    /// The share of a step that is the loop's own, beyond what the bare one takes.
    fn overhead(&self) -> f64 {
        let step = |rate: f64| ROWS as f64 / rate * 1e6;
        step(self.rates[1]) - step(self.rates[3])
    }
}

/// Measures it.
pub(crate) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let folder = settings.models.join(MODEL);
    let engine = Engine::start(&folder).context("the language model does not load")?;
    // So that no round has the first run's allocations.
    crowd(&engine, 0).await?;
    let mut rounds = Vec::new();
    for seed in 0..settings.rounds {
        rounds.push(round(&engine, &folder, seed as i32 + 1).await?);
    }
    let rate = |index: usize| median(rounds.iter().map(|round| round.rates[index]));
    let ratio = |left: usize, right: usize| {
        median(rounds.iter().map(|round| round.rates[left] / round.rates[right]))
    };
    let mut section = Section::new(title, &["", "tokens/s", "to the bare loop"]);
    let names = ["one request", "16 at once", "16 one after another", "bare loop, 16 rows"];
    for (index, name) in names.iter().enumerate() {
        let share = format!("{:.2} ×", ratio(index, 3));
        section.row([(*name).into(), number(rate(index)), share]);
    }
    let step = median(rounds.iter().map(|round| ROWS as f64 / round.rates[1] * 1e6));
    let first =
        |index: usize| median(rounds.iter().map(|round| round.first[index].as_secs_f64() * 1e6));
    let overhead = median(rounds.iter().map(Round::overhead));
    section.judge(Verdict::at_least("16 at once, to one after another", ratio(1, 2), 2.4, "×"));
    section.judge(Verdict::at_least("16 at once, to the bare loop", ratio(1, 3), 0.95, "×"));
    section.judge(Verdict::at_most("the loop's own part of a step", overhead, 100.0, "µs"));
    let bar = 2.0 * first(0) + step;
    section.judge(Verdict::at_most("first token beside 15 others", first(1), bar, "µs"));
    Ok(section)
}

async fn round(engine: &Engine, folder: &std::path::Path, seed: i32) -> Result<Round> {
    let mut rates = [0.0; 4];
    let started = Instant::now();
    engine.ask(Request::new(seed, 0, TOKENS))?.read().await?;
    rates[0] = TOKENS as f64 / started.elapsed().as_secs_f64();
    rates[1] = crowd(engine, seed).await?;
    let started = Instant::now();
    for row in 0..ROWS {
        engine.ask(Request::new(seed, row as i32, TOKENS))?.read().await?;
    }
    rates[2] = (ROWS * TOKENS) as f64 / started.elapsed().as_secs_f64();
    rates[3] = bare::measure(folder, ROWS, TOKENS)?;
    Ok(Round { rates, first: [first(engine, seed, 0).await?, first(engine, seed, 15).await?] })
}

/// Tokens a second of as many requests as there are rows.
async fn crowd(engine: &Engine, seed: i32) -> Result<f64> {
    let started = Instant::now();
    let asked = (0..ROWS).map(|row| engine.ask(Request::new(seed, row as i32, TOKENS)));
    for answer in asked.collect::<Result<Vec<_>>>()? {
        answer.read().await?;
    }
    Ok((ROWS * TOKENS) as f64 / started.elapsed().as_secs_f64())
}

/// How long the first token takes beside so many others that have theirs already.
async fn first(engine: &Engine, seed: i32, others: usize) -> Result<Duration> {
    let beside =
        (1..=others).map(|row| engine.ask(Request::new(seed, row as i32, 900).streaming()));
    let mut beside = beside.collect::<Result<Vec<_>>>()?;
    for answer in &mut beside {
        answer.next().await?;
    }
    let started = Instant::now();
    let mut answer = engine.ask(Request::new(seed, 100, 2).streaming())?;
    answer.next().await?;
    let first = started.elapsed();
    answer.read().await?;
    Ok(first)
}
