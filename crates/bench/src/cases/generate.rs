//! Text generation by the model service's loop, beside a bare loop over the same graph.

mod bare;
pub(super) mod engine;
mod guided;
mod mixed;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::engine::{Engine, Request};
use super::Settings;
use crate::report::{Section, Verdict, number};
use crate::sample::median;

/// How many sequences are worked on at once.
const ROWS: usize = 16;
/// How many tokens each of them gets.
const TOKENS: usize = 128;
/// How often each time is taken, of which the shortest counts: the machine may be busy.
const REPEATS: usize = 3;
/// The shipped language model.
const MODEL: &str = "ferris";
/// A decoder of as many tokens whose runs take next to nothing, so that what the loop itself does
/// in a step can be told from them.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/graphs/tiny_decoder");

/// What one round measured.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Tokens a second: one request, many at once, the same held to a schema, one after another,
    /// all rows busy, and the bare loop.
    rates: [f64; 6],
    /// Time to the first token, alone and beside all the others.
    first: [Duration; 2],
    /// What the loop does in a step beside the run.
    own: Duration,
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
    let names = [
        "one request",
        "16 at once",
        "16 at once, held to a JSON schema",
        "16 one after another",
        "16 rows busy, without prompts",
        "bare loop, 16 rows",
    ];
    for (index, name) in names.iter().enumerate() {
        let share = format!("{:.2} ×", ratio(index, 5));
        section.row([(*name).into(), number(rate(index)), share]);
    }
    let step = median(rounds.iter().map(|round| ROWS as f64 / round.rates[4] * 1e6));
    let first =
        |index: usize| median(rounds.iter().map(|round| round.first[index].as_secs_f64() * 1e6));
    let own = median(rounds.iter().map(|round| round.own.as_secs_f64() * 1e6));
    section.judge(Verdict::at_least("16 at once, to one after another", ratio(1, 3), 2.4, "×"));
    section.judge(Verdict::at_least("16 rows busy, to the bare loop", ratio(4, 5), 0.95, "×"));
    section.judge(Verdict::at_most("the loop's own part of a step", own, 100.0, "µs"));
    section.judge(Verdict::at_most("the same, of a step of ferris", own / step * 100.0, 5.0, "%"));
    let bar = 2.0 * first(0) + step;
    section.judge(Verdict::at_most("first token beside 15 others", first(1), bar, "µs"));
    if let Some(python) = &settings.genai {
        mixed::compare(&mut section, (python, &folder), settings.rounds)?;
    }
    Ok(section)
}

/// Runs a round, and its yardsticks, each in a process of its own: a process can have one ONNX
/// Runtime, and another case may have it already.
fn in_a_process_of_its_own(folder: &Path) -> Result<Round> {
    let numbers = child(&["engine".into(), folder.display().to_string()])?;
    let [one, many, guided, turns, busy, alone, beside] = numbers[..] else {
        bail!("a round gave {} numbers", numbers.len());
    };
    let [bare, _] = bare(folder)?;
    let tiny = Path::new(TINY);
    let step = child(&["busy".into(), tiny.display().to_string()])?;
    let step = ROWS as f64 / step.first().copied().unwrap_or_default();
    let [_, run] = self::bare(tiny)?;
    Ok(Round {
        rates: [one, many, guided, turns, busy, bare],
        first: [alone, beside].map(Duration::from_secs_f64),
        own: Duration::from_secs_f64((step - run).max(0.0)),
    })
}

/// Tokens a second of a bare loop over the model in a folder, and the seconds of one of its runs.
fn bare(folder: &Path) -> Result<[f64; 2]> {
    let file = folder.join("1/model.onnx").display().to_string();
    let sizes = [ROWS, TOKENS].map(|size| size.to_string());
    let numbers = child(&[&["bare".into(), file], sizes.as_slice()].concat())?;
    <[f64; 2]>::try_from(numbers).ok().context("the bare loop gives two numbers")
}

/// The numbers that this program prints as a contender.
pub(super) fn child(arguments: &[String]) -> Result<Vec<f64>> {
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
        [kind, folder] if kind == "busy" => {
            let engine = Engine::start(Path::new(folder)).context("the model does not load")?;
            println!("{}", runtime.block_on(busy(&engine))?[1]);
        }
        [kind, folder] if kind == "mixed" => {
            let engine = Engine::start(Path::new(folder)).context("the model does not load")?;
            println!("{}", runtime.block_on(mixed::measure(&engine))?);
        }
        [kind, folder, streams, tokens] if kind == "streams" => {
            let engine = Engine::start(Path::new(folder)).context("the model does not load")?;
            let work = super::streams::alone(&engine, streams.parse()?, tokens.parse()?);
            println!("{}", runtime.block_on(work)?);
        }
        [kind, file, rows, tokens] if kind == "bare" => {
            let [rate, run] = bare::measure(Path::new(file), rows.parse()?, tokens.parse()?)?;
            println!("{rate} {run}");
        }
        _ => bail!("there is no such contender"),
    }
    Ok(())
}

/// Tokens a second of one request, of many at once, of the same held to a schema, one after another
/// and of all rows busy, and the seconds to the first token, alone and beside the others.
async fn round(engine: &Engine) -> Result<[f64; 7]> {
    let [many, busy] = busy(engine).await?;
    let guided = guided::measure(engine).await?;
    let started = Instant::now();
    engine.ask(Request::new(1, 0, TOKENS))?.read().await?;
    let one = TOKENS as f64 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    for row in 0..ROWS {
        engine.ask(Request::new(3, row as i32, TOKENS))?.read().await?;
    }
    let turns = (ROWS * TOKENS) as f64 / started.elapsed().as_secs_f64();
    let alone = first(engine, 4, 0).await?.as_secs_f64();
    let beside = first(engine, 5, ROWS - 1).await?.as_secs_f64();
    Ok([one, many, guided, turns, busy, alone, beside])
}

/// Tokens a second of as many requests as there are rows, their prompts counted, and of the steps
/// alone in which all rows take a token.
///
/// The latter is what twice as many tokens take longer, so that neither prompts nor the rows that
/// begin and end are in it.
async fn busy(engine: &Engine) -> Result<[f64; 2]> {
    // So that no figure has the first run's allocations.
    crowd(engine, 20, 2 * TOKENS).await?;
    let mut shortest = [Duration::MAX; 2];
    for repeat in 0..REPEATS {
        for (times, shortest) in (1..).zip(&mut shortest) {
            let seed = 21 + 2 * repeat as i32 + times as i32;
            *shortest = crowd(engine, seed, times * TOKENS).await?.min(*shortest);
        }
    }
    let [once, twice] = shortest;
    let rate = |time: Duration| (ROWS * TOKENS) as f64 / time.as_secs_f64();
    Ok([rate(once), rate(twice.saturating_sub(once))])
}

/// How long as many requests as there are rows take for so many tokens each.
async fn crowd(engine: &Engine, seed: i32, tokens: usize) -> Result<Duration> {
    let requests = (0..ROWS).map(|row| Request::new(seed, row as i32, tokens));
    together(engine, requests, tokens).await
}

/// How long some requests take that are made at once, for so many tokens each.
async fn together(
    engine: &Engine,
    requests: impl Iterator<Item = Request>,
    tokens: usize,
) -> Result<Duration> {
    let started = Instant::now();
    let asked = requests.map(|request| engine.ask(request));
    for answer in asked.collect::<Result<Vec<_>>>()? {
        let made = answer.read().await?;
        ensure!(made == tokens, "a text has {made} tokens, not {tokens}");
    }
    Ok(started.elapsed())
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
