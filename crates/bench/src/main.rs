//! Measures Consort's programs beside what they cannot beat: bare tonic, bare HTTP, bare ONNX Runtime.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod cases;
mod conditions;
mod echo;
mod load;
mod program;
mod report;
mod repository;
mod sample;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::cases::{Case, Settings};
use crate::report::Report;

// As every program has it, so that the yardsticks are measured on equal terms.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the programs beside this one and prints tables.
#[derive(Parser)]
#[command(version, name = "consort-bench")]
struct Program {
    /// What to measure; everything when none is named.
    cases: Vec<Case>,

    /// Folder of the programs; this one's own by default.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,

    /// The shipped model repository, for `embed`.
    #[arg(long, value_name = "DIR", default_value = "model_repository")]
    models: PathBuf,

    /// A Python that has onnxruntime-genai 0.18, to compare `generate` with.
    #[arg(long, value_name = "FILE")]
    genai: Option<PathBuf>,

    /// Rounds of each comparison; figures are medians over them.
    #[arg(long, default_value_t = 7)]
    rounds: usize,

    /// Seconds that each contender works in a round.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,

    /// File that the tables are also written to, as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Be the yardstick that everything is compared with instead: a server that only echoes.
    #[arg(long, hide = true)]
    serve_echo: bool,

    /// Be a contender of `generate` instead, and print its figures.
    #[arg(long, hide = true, num_args = 2..)]
    contender: Vec<String>,
}

fn main() -> ExitCode {
    let program = Program::parse();
    let done = if program.serve_echo {
        echo::serve()
    } else if program.contender.is_empty() {
        measure(&program)
    } else {
        cases::contend(&program.contender)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(program: &Program) -> Result<()> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let beside = own.parent().context("a program lies in a folder")?;
    let settings = Settings {
        programs: program.programs.clone().unwrap_or_else(|| beside.to_owned()),
        models: program.models.clone(),
        genai: program.genai.clone(),
        rounds: program.rounds.max(1),
        time: Duration::from_secs_f64(program.seconds),
    };
    let mut report = Report::default();
    let before = conditions::load();
    for case in Case::chosen(&program.cases) {
        println!("==> {}", case.title());
        let section = case.run(&settings).with_context(|| format!("case `{}`", case.name()))?;
        println!("{}", section.as_text());
        report.add(section);
    }
    let conditions = conditions::of_this_run(&settings, &before);
    println!("{}", report.verdicts());
    println!("{conditions}");
    if let Some(file) = &program.markdown {
        std::fs::write(file, report.as_markdown(&conditions))
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    Ok(())
}
