//! The whole program of a stage service: a list of backends and nothing else of its own.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Parser;
use consort_repository::{Foreign, IDENTITY, Kind, Loader, Local};
use consort_telemetry::Metrics;

use crate::lifecycle::Lifecycle;
use crate::options::Options;
use crate::run::{Service, block_on, finish, run};

#[derive(Parser)]
#[command(version, about)]
struct Program {
    #[command(flatten)]
    options: Options,
}

/// Runs the service `name`, which has the backends `kinds` and `identity`.
pub fn stage_main(name: &'static str, kinds: &[Kind]) -> ExitCode {
    let options = Program::parse().options;
    if options.healthcheck {
        return crate::healthcheck(&options);
    }
    let kinds: Vec<Kind> = kinds.iter().copied().chain([IDENTITY]).collect();
    finish(name, block_on(name, &options, || serve(name, &options, kinds)))
}

async fn serve(name: &'static str, options: &Options, kinds: Vec<Kind>) -> Result<()> {
    if options.model_repository.is_empty() {
        bail!("no model repository; give one with `--model-repository DIR`");
    }
    let metrics = Metrics::new();
    let loader = Loader { kinds: kinds.into(), metrics: metrics.clone(), cores: cores() };
    let models = Local::open(options.local(Foreign::Ignored)?, loader)?;
    let models = Lifecycle::new(models as Arc<_>);
    run(options, Service { name, models, metrics, http: None, loads_models: true }).await
}

/// The cores that the instances of a model share.
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
