//! Runs a service: opens its ports, serves until it is told to stop, and lets requests finish.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::serve::ListenerExt;
use consort_middleware::{Edge, EnforceDeadline, JoinTrace, LoadShed};
use consort_repository::{Models, State};
use consort_telemetry::{Metrics, Sampler};
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tower::ServiceBuilder;

use crate::arrivals::Arrivals;
use crate::grpc;
use crate::lifecycle::Lifecycle;
use crate::listen::listen;
use crate::options::Options;
use crate::{metrics, table};

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
/// drain → unload → return.
pub async fn run(options: &Options, service: Service) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let mut servers = tokio::task::JoinSet::new();
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
        tokio::spawn(serve_http(listener, router, never()));
    }
    let address = SocketAddr::new(options.grpc_address, options.grpc_port);
    let listener = listen(address, "--grpc-port").await?;
    tracing::info!("Started GRPCInferenceService at {}", listener.local_addr()?);
    servers.spawn(serve_grpc(listener, models.clone(), options.max_in_flight, stopping.clone()));

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
        servers.spawn(serve_http(listener, router, stopped(stopping)));
    }
    service.models.open();
    let must_load = options.control.exit_on_error && service.loads_models;
    until_stopped(&service.models, must_load).await?;
    tracing::info!("stopping: waiting up to {:?} for requests to finish", options.exit_timeout());
    service.models.drain();
    // Every server holds a receiver or has ended.
    let _ = stop.send(true);
    let drained = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(options.exit_timeout(), drained).await.is_err() {
        tracing::warn!("some requests were still running after {:?}", options.exit_timeout());
    }
    if tokio::time::timeout(CLOSING, service.models.close()).await.is_err() {
        tracing::warn!("some models were still in memory {CLOSING:?} after their last request");
    }
    Ok(())
}

async fn serve_grpc(
    listener: TcpListener,
    models: Arc<dyn Models>,
    max_in_flight: usize,
    stopping: watch::Receiver<bool>,
) {
    let layers = ServiceBuilder::new()
        // Joins the caller's trace, so that every later event belongs to the request.
        .layer(JoinTrace)
        // Cuts off what its caller no longer waits for.
        .layer(EnforceDeadline::new(Edge::Grpc))
        // Answers at once that the server is overloaded when every place is taken.
        .layer(LoadShed::new(Edge::Grpc, max_in_flight))
        .into_inner();
    // A streamed response goes out in several small writes; each would wait for the caller's
    // delayed acknowledgement, 40 ms. The builder's own setting does not reach a given listener.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let arrivals = Arrivals::default();
    let counted = arrivals.clone();
    let incoming = incoming.inspect(move |_| counted.note());
    let served = grpc::builder()
        .layer(layers)
        .add_routes(grpc::routes(models))
        .serve_with_incoming_shutdown(incoming, arrivals.quiet_after(stopped(stopping)))
        .await;
    if let Err(error) = served {
        tracing::error!("the gRPC front ended: {error}");
    }
}

async fn serve_http(
    listener: TcpListener,
    router: Router,
    until: impl Future<Output = ()> + Send + 'static,
) {
    // Answers are small and wanted at once, a streamed token above all.
    let arrivals = Arrivals::default();
    let counted = arrivals.clone();
    let listener = listener.tap_io(move |stream| {
        counted.note();
        drop(stream.set_nodelay(true));
    });
    let until = arrivals.quiet_after(until);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until).await {
        tracing::error!("the HTTP front ended: {error}");
    }
}

/// Waits until the server is told to stop; an error when a model cannot be loaded at the start
/// although it `must_load`.
async fn until_stopped(models: &Arc<Lifecycle>, must_load: bool) -> Result<()> {
    let mut told = pin!(told_to_stop());
    tokio::select! {
        told = &mut told => return told,
        () = announce(&**models) => {}
    }
    let failures = models.failures();
    if must_load && !failures.is_empty() {
        bail!("models cannot be loaded at the start:\n{}", failures.join("\n"));
    }
    told.await
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

async fn never() {
    std::future::pending::<()>().await;
}

async fn told_to_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C")?,
    }
    Ok(())
}
