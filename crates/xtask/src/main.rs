//! The tasks of this repository, run as `cargo xtask <task>`: set-up, serve, test, bench, models, tidy, compose-test.
#![expect(clippy::print_stdout, reason = "a task tells the person who runs it what it does")]

mod bench;
mod checkout;
mod compose_test;
mod deploy;
mod docker;
mod http;
mod images;
mod models;
mod pip;
mod process;
mod progress;
mod serve;
mod setup;
mod test;
mod tidy;
mod venv;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::checkout::Checkout;

/// The tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
enum Task {
    /// Fetch ONNX Runtime out of its Python wheel, once.
    Setup {
        /// Take the build with CUDA and TensorRT (250 MB) instead of the one for the CPU.
        #[arg(long)]
        gpu: bool,
    },
    /// Set up, build and serve `model_repository/` in one process.
    Serve {
        /// Serve with the CUDA build of ONNX Runtime.
        #[arg(long)]
        gpu: bool,
        /// Options for `consort serve`, after `--`.
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// Run every check and test, or some of them.
    Test {
        /// Run only these parts.
        #[arg(long, value_delimiter = ',')]
        only: Vec<test::Part>,
    },
    /// Measure the programs as they are deployed, beside what they cannot beat.
    Bench {
        /// Measure only these: identity, steps, generate, streams, embed, batching, start, memory, reload.
        cases: Vec<String>,
        /// Put the figures into `docs/benchmarks.md`.
        #[arg(long, conflicts_with = "cases")]
        write: bool,
    },
    /// Build the models that are too large to commit: all-MiniLM-L6-v2 for `embed`.
    Models,
    /// Check the house rules: layering, walls, names, sizes, first lines, links.
    Tidy,
    /// Check `deploy/` and `docker-compose.yml` against schemas and the programs' own options.
    Deploy,
    /// Compile the programs and build the four images from them.
    Images,
    /// Build the images, start them with docker-compose and try them.
    ComposeTest,
}

fn main() -> ExitCode {
    match Checkout::find().and_then(|checkout| run(&checkout, Task::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that `RUST_BACKTRACE` would add: the message names the remedy.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(checkout: &Checkout, task: Task) -> Result<()> {
    match task {
        Task::Setup { gpu } => setup::run(checkout, setup::Variant::from_gpu(gpu)).map(drop),
        Task::Serve { gpu, options } => {
            serve::run(checkout, setup::Variant::from_gpu(gpu), &options)
        }
        Task::Test { only } => test::run(checkout, &only),
        Task::Bench { cases, write } => bench::run(checkout, &cases, write),
        Task::Models => models::run(checkout),
        Task::Tidy => tidy::run(checkout),
        Task::Deploy => deploy::run(checkout),
        Task::Images => images::build(checkout, &docker::Docker::connect()?),
        Task::ComposeTest => compose_test::run(checkout),
    }
}
