//! Runs a service: opens its ports, serves until it is told to stop, and lets requests finish.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use axum::Router;
use consort_middleware::{Edge, EnforceDeadline, JoinTrace, LoadShed};
use consort_repository::{Models, State};
use consort_telemetry::{Metrics, Sampler};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceBuilder;

use crate::grpc::{self, Methods};
use crate::incoming::accept;
use crate::lifecycle::Lifecycle;
use crate::listen::listen;
use crate::options::Options;
use crate::signals::Signals;
use crate::{http, metrics, table};

/// A service to run.
pub struct Service {
    /// The program's name, for logs and traces.
    pub name: &'static str,
    /// What it serves.
    pub models: Arc<Lifecycle>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// What looks at the GPUs, in programs that compute on them; `None` where there are none.
    pub gpus: Option<Box<dyn Sampler>>,
    /// The HTTP front and where it listens, for programs that have one.
    pub http: Option<(SocketAddr, Router)>,
    /// Whether it loads models itself, so that `--exit-on-error` is about them.
    pub loads_models: bool,
}

/// Runs `serve` with logging, tracing and a runtime; the way every program's `main` goes.
pub fn block_on<F: Future<Output = Result<()>>>(
    name: &'static str,
    options: &Options,
    serve: impl FnOnce() -> F,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let guard = {
        let _entered = runtime.enter();
        consort_telemetry::init(&options.log.to_telemetry(), name)?
    };
    let served = runtime.block_on(async { serve().await });
    drop(guard);
    served
}

/// Ends a program: logs why it failed, when it did, and says so to the shell.
pub fn finish(name: &str, served: Result<()>) -> ExitCode {
    let Err(error) = served else { return ExitCode::SUCCESS };
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{error:#}");
    } else {
        // The log itself may be what could not be set up.
        eprintln!("{name}: {error:#}");
    }
    ExitCode::FAILURE
}

/// How long the models may take to leave the memory once their requests are over.
const CLOSING: Duration = Duration::from_secs(5);

/// Serves until a signal comes, then: not ready → accept what is on its way → stop accepting →
/// drain → unload → return. A second signal ends it at once, as does a front that ends, with an error.
pub async fn run(options: &Options, service: Service) -> Result<()> {
    let mut signals = Signals::listen()?;
    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    let models: Arc<dyn Models> = service.models.clone();
    if !options.strict_readiness {
        service.models.relax();
    }

    if options.allow_metrics {
        options.shown.sample(&service.metrics, service.gpus);
        let address = SocketAddr::new(options.metrics_address, options.metrics_port);
        let listener = listen(address, "--metrics-port").await?;
        tracing::info!("Started Metrics Service at {}", listener.local_addr()?);
        let router = metrics::router(service.metrics.clone(), models.clone());
        // Not drained: it answers until the very end, so that the drain can be watched.
        tokio::spawn(http::serve(listener, router, pending()));
    }
    let address = SocketAddr::new(options.grpc_address, options.grpc_port);
    let listener = listen(address, "--grpc-port").await?;
    tracing::info!("Started GRPCInferenceService at {}", listener.local_addr()?);
    let methods = grpc::methods(models, options.grpc_max_input_size);
    servers.spawn(serve_grpc(listener, methods, options.max_in_flight, stopping.clone()));

    if let Some((address, router)) = service.http {
        let listener = listen(address, "--http-port").await?;
        tracing::info!("Started HTTPService at {}", listener.local_addr()?);
        let router = router.layer(
            ServiceBuilder::new()
                // Joins the caller's trace, so that every later event belongs to the request.
                .layer(JoinTrace)
                // Cuts off what its caller no longer waits for.
                .layer(EnforceDeadline::new(Edge::Http))
                // Answers at once that the server is overloaded when every place is taken.
                .layer(LoadShed::new(Edge::Http, options.max_in_flight)),
        );
        servers.spawn(http::serve(listener, router, stopped(stopping)));
    }
    service.models.open();
    let must_load = options.control.exit_on_error && service.loads_models;
    tokio::select! {
        told = until_stopped(&service.models, must_load, &mut signals) => told?,
        ended = an_end(&mut servers) => return Err(ended),
    }
    service.models.drain();
    // Every server holds a receiver or has ended.
    let _ = stop.send(true);
    tokio::select! {
        () = wind_down(servers, &service.models, options.exit_timeout()) => Ok(()),
        () = signals.told_to_stop() => {
            bail!("told to stop once more: what was still running is cut off")
        }
    }
}

/// Waits for a front that ends although nobody told it to, and says why.
async fn an_end(servers: &mut JoinSet<()>) -> Error {
    match servers.join_next().await {
        Some(Err(error)) => Error::new(error).context("a front failed"),
        Some(Ok(())) | None => anyhow!("a front ended by itself"),
    }
}

/// Waits for the requests to finish and for the models to leave the memory, each for so long.
async fn wind_down(mut servers: JoinSet<()>, models: &Lifecycle, limit: Duration) {
    tracing::info!("stopping: waiting up to {limit:?} for requests to finish");
    let drained = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, drained).await.is_err() {
        tracing::warn!("some requests were still running after {limit:?}");
    }
    if tokio::time::timeout(CLOSING, models.close()).await.is_err() {
        tracing::warn!("some models were still in memory {CLOSING:?} after their last request");
    }
}

async fn serve_grpc(
    listener: TcpListener,
    methods: Methods,
    max_in_flight: usize,
    stopping: watch::Receiver<bool>,
) {
    let service = ServiceBuilder::new()
        // Joins the caller's trace, so that every later event belongs to the request.
        .layer(JoinTrace)
        // Cuts off what its caller no longer waits for.
        .layer(EnforceDeadline::new(Edge::Grpc))
        // Answers at once that the server is overloaded when every place is taken.
        .layer(LoadShed::new(Edge::Grpc, max_in_flight))
        // Gives the place back of who does not send its message.
        .map_request(grpc::keep_pace)
        .service(methods);
    let serve = |stream, stopping| grpc::serve_connection(stream, service.clone(), stopping);
    accept(listener, stopped(stopping), serve).await;
}

/// Waits until the server is told to stop; an error when a model cannot be loaded at the start
/// although it `must_load`.
async fn until_stopped(
    models: &Arc<Lifecycle>,
    must_load: bool,
    signals: &mut Signals,
) -> Result<()> {
    tokio::select! {
        () = signals.told_to_stop() => return Ok(()),
        () = announce(&**models) => {}
    }
    let failures = models.failures();
    if must_load && !failures.is_empty() {
        bail!("models cannot be loaded at the start:\n{}", failures.join("\n"));
    }
    signals.told_to_stop().await;
    Ok(())
}

/// Logs the table of models once none is loading any more.
async fn announce(models: &dyn Models) {
    let mut generation = models.generation();
    loop {
        let index = models.index();
        if index.iter().all(|entry| entry.state != State::Loading) {
            tracing::info!("{}", table::of(&index));
            return;
        }
        if generation.changed().await.is_err() {
            return;
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error says that the sender is gone, and the server with it.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ::http::{Request, Version};
    use bytes::Bytes;
    use tokio::net::TcpStream;

    use super::*;
    use crate::nothing::Nothing;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_send_its_message_over_grpc_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopping) = watch::channel(false);
        let methods = grpc::methods(Arc::<Nothing>::default(), usize::MAX);
        tokio::spawn(serve_grpc(listener, methods, 1, stopping));
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let call =
            Request::post(format!("http://{address}/inference.GRPCInferenceService/ModelInfer"));
        let call = call.version(Version::HTTP_2).header("content-type", "application/grpc");
        let (response, mut message) = client.send_request(call.body(()).unwrap(), false).unwrap();
        // The head of a message without the rest.
        message.send_data(Bytes::from_static(b"\0\0\x01\0\0"), false).unwrap();
        let hour = Duration::from_hours(1);
        let response = tokio::time::timeout(hour, response).await.unwrap().unwrap();
        assert_eq!(response.headers()["grpc-status"], "4");
    }

    #[tokio::test]
    async fn a_front_that_ends_by_itself_is_an_error_that_says_why() {
        let end_of = async |front: fn()| {
            let mut servers = JoinSet::new();
            servers.spawn(pending());
            servers.spawn(async move { front() });
            format!("{:#}", an_end(&mut servers).await)
        };
        assert_eq!(end_of(|| ()).await, "a front ended by itself");
        let panicked = end_of(|| panic!("on purpose")).await;
        assert!(panicked.starts_with("a front failed: ") && panicked.contains("on purpose"));
    }
}
