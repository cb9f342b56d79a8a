//! The command line `consort`: serve a model repository in one process, check it, show its plans.

mod check;
mod plan;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs NVIDIA Triton ensembles as services
#[derive(Parser)]
#[command(version, name = "consort")]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::Arguments>),
    Check(check::Arguments),
    Plan(plan::Arguments),
}

fn main() -> ExitCode {
    match Program::parse().command {
        Command::Serve(arguments) => serve::main(&arguments),
        Command::Check(arguments) => told(check::run(&arguments)),
        Command::Plan(arguments) => told(plan::run(&arguments)),
    }
}

/// The exit code of a command that prints; one that could not says why.
fn told(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("consort: {error:#}");
        ExitCode::FAILURE
    })
}
