//! The program `consort-gateway`: ensembles over services that it is told by `--stage`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Parser;
use consort_client::{Fleet, FleetOptions, StageAddress};
use consort_gateway::{Catalog, CatalogOptions, FrontOptions, router};
use consort_repository::Foreign;
use consort_server::{Lifecycle, Options, Service, block_on, finish, healthcheck, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "consort-gateway";

/// Runs Triton ensembles over services that each scale on their own
#[derive(Parser)]
#[command(version, name = NAME)]
struct Program {
    #[command(flatten)]
    server: Options,

    #[command(flatten)]
    front: FrontOptions,

    /// A stage's name and where its replicas are, such as `model=dns:///model:8001`; repeatable, in the variable separated by spaces
    #[arg(long, env = "CONSORT_STAGE", value_delimiter = ' ', value_name = "NAME=ADDRESS")]
    stage: Vec<StageAddress>,
}

fn main() -> ExitCode {
    let program = Program::parse();
    if program.server.healthcheck {
        return healthcheck(&program.server);
    }
    finish(NAME, block_on(NAME, &program.server, || serve(&program)))
}

async fn serve(program: &Program) -> Result<()> {
    if program.stage.is_empty() {
        tracing::warn!("no stage is named, so nothing can be served; give `--stage NAME=ADDRESS`");
    }
    let metrics = program.server.shown.to_metrics();
    let options = FleetOptions {
        model_repositories: program.server.model_repository.clone(),
        ..FleetOptions::new(metrics.clone())
    };
    let fleet = Fleet::start(program.stage.clone(), options);
    let control = &program.server.control;
    let options = CatalogOptions {
        repositories: program.server.model_repository.clone(),
        mode: control.mode()?,
        foreign: Foreign::Reported,
        cache: program.server.cache.cache(),
    };
    let catalog = Catalog::open(options, fleet, metrics.clone())?;
    let misstated = catalog.misstated();
    if control.exit_on_error && !misstated.is_empty() {
        bail!("ensembles cannot be loaded:\n{}", misstated.join("\n"));
    }
    let models = Lifecycle::new(catalog as Arc<_>);
    let options = program.front.to_http(&program.server.model_repository, &metrics);
    let http = router(models.clone(), options);
    let http = Some((program.front.address(), http));
    // Its services say what they cannot load; it may start before any of them.
    let service = Service { name: NAME, models, metrics, gpus: None, http, loads_models: false };
    run(&program.server, service).await
}
