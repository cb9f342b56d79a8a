//! `consort serve`: the gateway and every stage in one process, with nothing serialised between.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use consort_gateway::{Catalog, CatalogOptions, FrontOptions, router};
use consort_repository::{Foreign, IDENTITY, Kind, Loader, Local, Models, State};
use consort_server::{Lifecycle, Options, Service, block_on, cores, finish, healthcheck, run};

const NAME: &str = "consort";

/// Serve a model repository, ensembles and all, in this process
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Options,

    #[command(flatten)]
    front: FrontOptions,
}

/// Every backend there is.
pub(crate) fn kinds() -> Vec<Kind> {
    let services = [consort_preprocess::ALL, consort_model::ALL, consort_postprocess::ALL];
    services.concat().into_iter().chain([IDENTITY]).collect()
}

/// Serves until it is told to stop.
pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    if arguments.server.healthcheck {
        return healthcheck(&arguments.server);
    }
    finish(NAME, block_on(NAME, &arguments.server, || serve(arguments)))
}

async fn serve(arguments: &Arguments) -> Result<()> {
    let Arguments { server, front } = arguments;
    if server.model_repository.is_empty() {
        bail!("no model repository; give one with `--model-repository DIR`");
    }
    let metrics = server.shown.to_metrics();
    let cache = server.cache.cache();
    let loader = Loader {
        kinds: kinds().into(),
        metrics: metrics.clone(),
        cores: cores(),
        cache: cache.clone(),
        limiter: server.limit.limiter(),
    };
    let local = Local::open(server.local(Foreign::Reported)?, loader)?;
    let options = CatalogOptions {
        repositories: server.model_repository.clone(),
        mode: server.control.mode()?,
        cache,
    };
    let catalog = Catalog::open(options, local, metrics.clone())?;
    let models = Lifecycle::new(catalog as Arc<_>);
    let http = router(models.clone(), front.to_http(&server.model_repository));
    let http = Some((front.address(), http));
    tokio::spawn(invite(models.clone(), front.clone()));
    let gpus = consort_model::gpus();
    run(server, Service { name: NAME, models, metrics, gpus, http, loads_models: true }).await
}

/// Says, once everything is loaded, what is served where and what to try.
async fn invite(models: Arc<Lifecycle>, front: FrontOptions) {
    let mut generation = models.generation();
    while models.index().iter().any(|row| row.state == State::Loading) {
        if generation.changed().await.is_err() {
            return;
        }
    }
    let index = models.index();
    let ready = index.iter().filter(|row| row.state == State::Ready).count();
    let address = format!("localhost:{}", front.http_port);
    let hint = match models.get(&front.generate_model, None) {
        Ok(_) => format!(
            r#"try: curl {address}/generate -d '{{"text_input":"The borrow checker","max_tokens":40}}'"#
        ),
        Err(_) => format!("try: curl {address}/"),
    };
    tracing::info!("{ready} of {} models are ready at http://{address}; {hint}", index.len());
}
