//! Runs every check a change must pass, goes on after a failure, and ends with one line that counts the tests.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::checkout::Checkout;
use crate::models;
use crate::progress;
use crate::serve::cargo;
use crate::setup::{self, Variant};
use crate::tidy;
use crate::venv::{self, Requirements};
use crate::{deploy, process};

/// One part of the checks, in the order they run: the quick ones first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Part {
    /// `cargo fmt --check`
    Fmt,
    /// The house rules.
    Tidy,
    /// `cargo deny`, where it is installed: licences, walls and sources of what is depended on.
    Deny,
    /// `cargo clippy` with warnings refused.
    Clippy,
    /// Set-up, the models the tests serve, and `cargo test`.
    Tests,
    /// The graphs that the Python scripts build, against their references.
    Graphs,
    /// `deploy/` and `docker-compose.yml`.
    Deploy,
}

/// How many tests passed and failed.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
}

/// Runs the parts asked for, or all.
pub(crate) fn run(checkout: &Checkout, only: &[Part]) -> Result<()> {
    let mut total = Count::default();
    let mut times = Vec::new();
    for &part in Part::value_variants() {
        if !only.is_empty() && !only.contains(&part) {
            continue;
        }
        let started_at = Instant::now();
        let count = match progress::step(&name(part), || run_part(checkout, part)) {
            Ok(count) => count,
            Err(_) => Count { passed: 0, failed: 1 },
        };
        total.passed += count.passed;
        total.failed += count.failed;
        times.push((part, count, started_at.elapsed()));
    }
    summarise(&times);
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("not every check passed");
    }
    Ok(())
}

fn run_part(checkout: &Checkout, part: Part) -> Result<Count> {
    const ONE: Count = Count { passed: 1, failed: 0 };
    match part {
        Part::Fmt => process::run(cargo(checkout).args(["fmt", "--all", "--check"]))?,
        Part::Tidy => tidy::run(checkout)?,
        Part::Deny => return deny(checkout),
        Part::Clippy => process::run(cargo(checkout).args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))?,
        Part::Tests => return cargo_test(checkout),
        Part::Graphs => graphs(checkout)?,
        Part::Deploy => deploy::run(checkout)?,
    }
    Ok(ONE)
}

/// Checks the dependencies against `deny.toml`; counts nothing where there is no `cargo deny`.
///
/// Without the advisories, which are fetched and change while the tree stays the same.
fn deny(checkout: &Checkout) -> Result<Count> {
    if !process::succeeds(cargo(checkout).args(["deny", "--version"])) {
        println!("    skipped: `cargo install --locked cargo-deny` gives this check");
        return Ok(Count::default());
    }
    process::run(cargo(checkout).args(["deny", "check", "licenses", "bans", "sources"]))?;
    Ok(Count { passed: 1, failed: 0 })
}

/// Prepares what the tests need and counts what `cargo test` reports.
fn cargo_test(checkout: &Checkout) -> Result<Count> {
    let library = setup::run(checkout, Variant::Cpu)?;
    venv::ensure(checkout, Requirements::Tests)?;
    models::run(checkout)?;
    models::build_for_tests(checkout)?;
    progress::step("building the programs", || process::run(cargo(checkout).arg("build")))?;
    let mut command = cargo(checkout);
    command.args(["test", "--workspace", "--no-fail-fast"]).env("ORT_DYLIB_PATH", library);
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start `cargo test`")?;
    let mut count = Count::default();
    for line in BufReader::new(child.stdout.take().expect("its output is piped")).lines() {
        let line = line?;
        println!("{line}");
        count = count.plus(&line);
    }
    if !child.wait()?.success() && count.failed == 0 {
        // Nothing was counted as failed, so a test did not compile or a test binary died.
        count.failed = 1;
    }
    Ok(count)
}

/// Compares the graphs that the project builds with references computed elsewhere.
fn graphs(checkout: &Checkout) -> Result<()> {
    let python = venv::ensure(checkout, Requirements::Tests)?;
    models::run(checkout)?;
    models::build_for_tests(checkout)?;
    let reference = checkout.path("tests/fixtures/ferris/reference.json");
    let minilm = checkout.path("model_repository/minilm/1/model.onnx");
    let check = |script: &str, model: &Path, against: &Path| {
        let script = checkout.path(&format!("crates/xtask/python/{script}"));
        process::run(Command::new(&python).arg(script).arg(model).arg(against))
    };
    check("check_bert.py", &minilm, &checkout.target("models/minilm"))?;
    let shipped = checkout.path("model_repository/ferris/1/model.onnx");
    let optimum = checkout.target("models/ferris-optimum/model.onnx");
    check("check_llama.py", &shipped, &reference)?;
    check("check_llama.py", &optimum, &reference)
}

impl Count {
    /// Adds what one line of `cargo test` says: `test result: ok. 5 passed; 0 failed; …`.
    fn plus(self, line: &str) -> Self {
        let Some(result) = line.strip_prefix("test result: ") else {
            return self;
        };
        let number_before = |word: &str| {
            let words: Vec<&str> = result.split([' ', ';']).collect();
            let at = words.iter().position(|found| *found == word)?;
            words[at.checked_sub(1)?].parse::<usize>().ok()
        };
        Self {
            passed: self.passed + number_before("passed").unwrap_or(0),
            failed: self.failed + number_before("failed").unwrap_or(0),
        }
    }
}

fn name(part: Part) -> String {
    format!("{part:?}").to_lowercase()
}

fn summarise(times: &[(Part, Count, Duration)]) {
    println!("\n{:<8} {:>10} {:>7} {:>7}", "part", "time", "passed", "failed");
    for (part, count, took) in times {
        let took = progress::seconds(*took);
        println!("{:<8} {took:>10} {:>7} {:>7}", name(*part), count.passed, count.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_cargo_test_reports() {
        let output = [
            "running 7 tests",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ];
        let count = output.iter().fold(Count::default(), |count, line| count.plus(line));
        assert_eq!(count, Count { passed: 6, failed: 2 });
    }
}
