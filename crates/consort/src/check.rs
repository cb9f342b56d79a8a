//! `consort check`: everything that is wrong with a model repository, told without serving it.

mod ensembles;
mod files;
mod finding;
mod inspection;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

pub(crate) use self::finding::Finding;
pub(crate) use self::inspection::{Inspected, Inspection};

/// Check a model repository without serving it: configurations, files, tensors and ensembles
#[derive(Args)]
pub(crate) struct Arguments {
    /// Folder of models; several are checked as one repository
    #[arg(required = true, value_name = "REPOSITORY")]
    repositories: Vec<PathBuf>,

    /// Also load every model once, which finds what only the whole file tells
    #[arg(long)]
    load: bool,

    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Checks and prints; the exit code is 0 exactly when there is no problem.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let inspection = Inspection::of(&arguments.repositories, arguments.load)?;
    let text = if arguments.json { report::json(&inspection)? } else { report::text(&inspection) };
    io::stdout().lock().write_all(text.as_bytes())?;
    let is_good = inspection.problems().next().is_none();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
