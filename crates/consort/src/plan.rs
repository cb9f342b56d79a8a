//! `consort plan`: how an ensemble runs, as text or as a picture.

mod layout;
mod mermaid;
mod outline;
mod svg;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use consort_config::did_you_mean;

use self::outline::Outline;
use crate::check::{Finding, Inspected, Inspection};

/// Print how an ensemble runs: its steps in order, what runs side by side, and every tensor
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name of the ensemble
    ensemble: String,

    /// Folder of models; may be given several times
    #[arg(
        long = "model-repository",
        alias = "model-store",
        env = "CONSORT_MODEL_REPOSITORY",
        value_delimiter = ',',
        default_value = "model_repository",
        value_name = "DIR"
    )]
    model_repository: Vec<PathBuf>,

    /// Form of the plan
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Form of a plan.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For reading in a terminal.
    Text,
    /// A Mermaid flowchart, for Markdown.
    Mermaid,
    /// A picture.
    Svg,
}

/// Prints the plan; an ensemble without one has its problems told instead.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let inspection = Inspection::of(&arguments.model_repository, false)?;
    let name = &arguments.ensemble;
    let ensemble = inspection.models.get(name).ok_or_else(|| no_such(name, &inspection))?;
    let Some(plan) = &ensemble.plan else {
        return Ok(refused(name, ensemble, &inspection)?);
    };
    let outline = Outline::of(plan, &inspection.models);
    let text = match arguments.format {
        Format::Text => text::print(&outline),
        Format::Mermaid => mermaid::print(&outline),
        Format::Svg => svg::draw(&outline),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn no_such(name: &str, inspection: &Inspection) -> anyhow::Error {
    let is_ensemble = |(_, model): &(&String, &Inspected)| model.spec().is_some();
    let ensembles: Vec<&str> =
        inspection.models.iter().filter(is_ensemble).map(|(name, _)| name.as_str()).collect();
    let remedy = did_you_mean(name, ensembles.iter().copied())
        .unwrap_or_else(|| format!("the ensembles are: {}", ensembles.join(", ")));
    anyhow!("there is no ensemble `{name}`; {remedy}")
}

fn refused(name: &str, ensemble: &Inspected, inspection: &Inspection) -> io::Result<ExitCode> {
    let mut stderr = io::stderr().lock();
    let is_model = ensemble.model.as_ref().is_some_and(|_| ensemble.spec().is_none());
    if is_model {
        writeln!(stderr, "consort: model `{name}` is no ensemble, so it has no plan")?;
        return Ok(ExitCode::FAILURE);
    }
    let parts = ensemble.spec().map(|spec| spec.steps.clone()).unwrap_or_default();
    let concerns = |finding: &&Finding| {
        finding.model == name || parts.iter().any(|step| *step.model == *finding.model)
    };
    for finding in inspection.findings.iter().filter(concerns) {
        writeln!(stderr, "{finding}")?;
    }
    Ok(ExitCode::FAILURE)
}
