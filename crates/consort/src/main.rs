//! The command line `consort`: serve a model repository in one process, check it, show its plans.

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
}

fn main() -> ExitCode {
    match Program::parse().command {
        Command::Serve(arguments) => serve::main(&arguments),
    }
}
