//! The whole program of a stage service: a list of backends and nothing else of its own.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Args, Command, FromArgMatches};
use consort_repository::{Foreign, IDENTITY, Kind, Loader, Local};
use consort_scheduler::Threads;
use consort_telemetry::Sampler;

use crate::lifecycle::Lifecycle;
use crate::options::Options;
use crate::run::{Service, block_on, finish, run};

/// What looks for GPUs and says what it finds.
pub type FindGpus = fn() -> Option<Box<dyn Sampler>>;

/// Runs the service `name`, which has the backends `kinds` and `identity`.
pub fn stage_main(name: &'static str, kinds: &[Kind]) -> ExitCode {
    stage_main_on_gpus(name, kinds, || None)
}

/// The same for a service whose backends compute on GPUs, which it shows among its metrics.
pub fn stage_main_on_gpus(name: &'static str, kinds: &[Kind], find: FindGpus) -> ExitCode {
    let matches = command(name, kinds).get_matches();
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if options.healthcheck {
        return crate::healthcheck(&options);
    }
    let kinds: Vec<Kind> = kinds.iter().copied().chain([IDENTITY]).collect();
    finish(name, block_on(name, &options, || serve(name, &options, kinds, find)))
}

/// The command line of the service `name`, which says what it serves.
fn command(name: &'static str, kinds: &[Kind]) -> Command {
    let backends: Vec<&str> = kinds.iter().chain([&IDENTITY]).map(|kind| kind.name).collect();
    let about = format!("Serves a repository's models of the backends {}", backends.join(", "));
    let command = Command::new(name).version(env!("CARGO_PKG_VERSION"));
    // The options' own description would take the place of the program's.
    Options::augment_args(command).about(about)
}

async fn serve(
    name: &'static str,
    options: &Options,
    kinds: Vec<Kind>,
    find_gpus: FindGpus,
) -> Result<()> {
    if options.model_repository.is_empty() {
        bail!("no model repository; give one with `--model-repository DIR`");
    }
    let metrics = options.shown.to_metrics();
    let loader = Loader {
        kinds: kinds.into(),
        metrics: metrics.clone(),
        cores: cores(),
        cache: options.cache.cache(),
        limiter: options.limit.limiter(),
        threads: Threads::default(),
    };
    let models = Local::open(options.local(Foreign::Ignored)?, loader)?;
    let models = Lifecycle::new(models as Arc<_>);
    let gpus = find_gpus();
    run(options, Service { name, models, metrics, gpus, http: None, loads_models: true }).await
}

/// The cores that the instances of a model share.
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_says_which_service_it_is_and_what_it_serves() {
        let mut command = command("consort-model", &[]);
        let help = command.render_help().to_string();
        assert!(
            help.starts_with("Serves a repository's models of the backends identity\n"),
            "{help}"
        );
        assert!(help.contains("Usage: consort-model"), "{help}");
        assert!(help.contains("--model-repository"), "{help}");
        assert!(command.render_version().starts_with("consort-model "));
    }
}
