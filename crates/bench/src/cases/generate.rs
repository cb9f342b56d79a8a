//! Text generation by the model service's loop, beside a bare loop over the same graph.

mod bare;
mod engine;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

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
pub(crate) fn run(settings: &Settings, title: &str) -> Result<Section> {
    let folder = settings.models.join(MODEL);
    let rounds = (0..settings.rounds).map(|_| in_a_process_of_its_own(&folder));
    let rounds = rounds.collect::<Result<Vec<_>>>()?;
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

/// Runs a round, and its yardstick, each in a process of its own: a process can have one ONNX
/// Runtime, and another case may have it already.
fn in_a_process_of_its_own(folder: &Path) -> Result<Round> {
    let numbers = child(&["engine".into(), folder.display().to_string()])?;
    let [one, many, turns, alone, beside] = numbers[..] else {
        bail!("a round gave {} numbers", numbers.len());
    };
    let file = folder.join("1/model.onnx").display().to_string();
    let sizes = [ROWS, TOKENS].map(|size| size.to_string());
    let bare = child(&[&["bare".into(), file], sizes.as_slice()].concat())?;
    let rates = [one, many, turns, bare.first().copied().unwrap_or_default()];
    Ok(Round { rates, first: [alone, beside].map(Duration::from_secs_f64) })
}

/// The numbers that this program prints as a contender.
fn child(arguments: &[String]) -> Result<Vec<f64>> {
    let program = std::env::current_exe().context("cannot tell where this program lies")?;
    let output = Command::new(program).arg("--contender").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>();
    let error = || format!("a contender failed: {}", String::from_utf8_lossy(&output.stderr));
    numbers.ok().filter(|numbers| !numbers.is_empty()).with_context(error)
}

/// Is a contender, and prints what it measured.
#[expect(clippy::print_stdout, reason = "what it measured is what it is for")]
pub(crate) fn contend(arguments: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    match arguments {
        [kind, folder] if kind == "engine" => {
            let engine = Engine::start(Path::new(folder)).context("the model does not load")?;
            let numbers = runtime.block_on(round(&engine))?;
            println!("{}", numbers.map(|number| number.to_string()).join(" "));
        }
        [kind, file, rows, tokens] if kind == "bare" => {
            println!("{}", bare::measure(Path::new(file), rows.parse()?, tokens.parse()?)?);
        }
        _ => bail!("there is no such contender"),
    }
    Ok(())
}

/// Tokens a second of one request, of many at once and of the same one after another, and the
/// seconds to the first token, alone and beside the others.
async fn round(engine: &Engine) -> Result<[f64; 5]> {
    // So that no figure has the first run's allocations.
    crowd(engine, 0).await?;
    let started = Instant::now();
    engine.ask(Request::new(1, 0, TOKENS))?.read().await?;
    let one = TOKENS as f64 / started.elapsed().as_secs_f64();
    let many = crowd(engine, 2).await?;
    let started = Instant::now();
    for row in 0..ROWS {
        engine.ask(Request::new(3, row as i32, TOKENS))?.read().await?;
    }
    let turns = (ROWS * TOKENS) as f64 / started.elapsed().as_secs_f64();
    let alone = first(engine, 4, 0).await?.as_secs_f64();
    let beside = first(engine, 5, ROWS - 1).await?.as_secs_f64();
    Ok([one, many, turns, alone, beside])
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
