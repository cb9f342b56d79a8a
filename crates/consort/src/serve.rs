//! `consort serve`: the gateway and every stage in one process, with nothing serialised between.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use consort_gateway::{Catalog, CatalogOptions, FrontOptions, router};
use consort_repository::{Foreign, IDENTITY, IndexEntry, Kind, Loader, Local, Models, State};
use consort_scheduler::Threads;
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
        threads: Threads::default(),
    };
    let local = Local::open(server.local(Foreign::Reported)?, loader)?;
    let options = CatalogOptions {
        repositories: server.model_repository.clone(),
        mode: server.control.mode()?,
        // The local models are all there are, and list themselves.
        foreign: Foreign::Ignored,
        cache,
    };
    let catalog = Catalog::open(options, local, metrics.clone())?;
    let models = Lifecycle::new(catalog as Arc<_>);
    let http = router(models.clone(), front.to_http(&server.model_repository, &metrics));
    let http = Some((front.address(), http));
    tokio::spawn(invite(models.clone(), front.clone()));
    let gpus = consort_model::gpus();
    run(server, Service { name: NAME, models, metrics, gpus, http, loads_models: true }).await
}

/// Says, once the fronts listen and everything is loaded, what is served where and what to try.
async fn invite(models: Arc<Lifecycle>, front: FrontOptions) {
    models.opened().await;
    let mut generation = models.generation();
    while models.index().iter().any(|row| row.state == State::Loading) {
        if generation.changed().await.is_err() {
            return;
        }
    }
    let (ready, all) = count(&models.index());
    let address = format!("localhost:{}", front.http_port);
    let hint = match models.get(&front.generate_model, None) {
        Ok(_) => format!(
            r#"try: curl {address}/generate -d '{{"text_input":"The borrow checker","max_tokens":40}}'"#
        ),
        Err(_) => format!("try: curl {address}/"),
    };
    tracing::info!("{ready} of {all} models are ready at http://{address}; {hint}");
}

/// How many models have a version that is ready, and how many there are.
fn count(index: &[IndexEntry]) -> (usize, usize) {
    let all: BTreeSet<_> = index.iter().map(|row| &row.name).collect();
    let ready = index.iter().filter(|row| row.state == State::Ready);
    (ready.map(|row| &row.name).collect::<BTreeSet<_>>().len(), all.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_counts_once_however_many_versions_it_has() {
        let row = |name: &str, version, state| IndexEntry {
            name: name.into(),
            version,
            state,
            reason: String::new(),
        };
        let index = [
            row("a", Some(1), State::Ready),
            row("a", Some(2), State::Ready),
            row("b", Some(1), State::Unavailable),
            row("b", Some(2), State::Ready),
            row("c", None, State::Unavailable),
        ];
        assert_eq!(count(&index), (2, 3));
    }
}
