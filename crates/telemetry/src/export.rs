//! Sends spans to an OpenTelemetry collector, beside the requests and never in their way.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::Error;
use crate::environment::{ExportSettings, Protocol};
use crate::tls::TlsSettings;

/// How long the last spans may take to leave when the process stops, because an orchestrator
/// counts this time too.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How often a failing export is logged, because a collector that is down fails every batch.
const REPORT_INTERVAL: Duration = Duration::from_mins(1);

/// The way spans take out of the process.
pub(crate) struct Export {
    provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

impl Export {
    /// Starts the exporter on a thread of its own, so it works with and without a runtime around
    /// it and never takes time from the requests'.
    pub(crate) fn start(settings: ExportSettings, program: &str) -> Result<Self, Error> {
        let runtime = runtime().map_err(Error::Thread)?;
        let exporter = {
            let _entered = runtime.enter();
            otlp_exporter(&settings)?
        };
        let exporter = ReportingExporter::new(exporter, runtime.handle().clone());
        Ok(Self {
            provider: provider(exporter, resource(program, settings.service_name)),
            runtime: Some(runtime),
        })
    }

    /// Where spans come from.
    pub(crate) fn provider(&self) -> &SdkTracerProvider {
        &self.provider
    }
}

impl Drop for Export {
    /// Sends what is left and waits for it, at most [`FLUSH_LIMIT`].
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::warn!(%error, "the last spans could not be exported");
        }
        if let Some(runtime) = self.runtime.take() {
            // Not a drop, which panics inside another runtime.
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name("consort-otlp").enable_all().build()
}

/// A provider that batches spans and drops them when the exporter does not keep up.
fn provider(exporter: impl SpanExporter + 'static, resource: Resource) -> SdkTracerProvider {
    SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()
}

/// Who exports. What the environment says replaces what the program says.
fn resource(program: &str, service_name: Option<String>) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(program.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match service_name {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

fn otlp_exporter(settings: &ExportSettings) -> Result<OtlpExporter, Error> {
    let tls = settings.tls.as_ref().map(TlsSettings::read).transpose()?;
    let exporter = match settings.protocol {
        Protocol::Grpc => {
            let builder = OtlpExporter::builder().with_tonic();
            match tls {
                Some(tls) => builder.with_tls_config(tls.for_grpc()).build(),
                None => builder.build(),
            }
        }
        Protocol::Http => {
            let builder = OtlpExporter::builder()
                .with_http()
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary);
            match tls {
                Some(tls) => builder.with_http_client(tls.for_http(settings.timeout)).build(),
                None => builder.build(),
            }
        }
    };
    exporter.map_err(Error::Exporter)
}

/// An exporter that runs on a runtime of its own and says now and then that it fails.
struct ReportingExporter<E> {
    inner: Arc<E>,
    runtime: Handle,
    lost: AtomicU64,
    reported_at: Mutex<Option<Instant>>,
}

impl<E> ReportingExporter<E> {
    fn new(inner: E, runtime: Handle) -> Self {
        Self {
            inner: Arc::new(inner),
            runtime,
            lost: AtomicU64::new(0),
            reported_at: Mutex::new(None),
        }
    }

    fn report(&self, spans: u64, error: &OTelSdkError) {
        let lost = self.lost.fetch_add(spans, Relaxed) + spans;
        let mut reported_at = self.reported_at.lock();
        if reported_at.is_some_and(|at| at.elapsed() < REPORT_INTERVAL) {
            return;
        }
        *reported_at = Some(Instant::now());
        tracing::warn!(%error, lost_spans = lost, "spans could not be exported");
    }
}

impl<E> fmt::Debug for ReportingExporter<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ReportingExporter")
    }
}

impl<E: SpanExporter + 'static> SpanExporter for ReportingExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let inner = Arc::clone(&self.inner);
        // The SDK calls on a bare thread; sockets and timers need a runtime around them.
        let export = self.runtime.spawn(async move { inner.export(batch).await });
        let result = match export.await {
            Ok(result) => result,
            Err(stopped) => Err(OTelSdkError::InternalFailure(stopped.to_string())),
        };
        if let Err(error) = &result {
            self.report(spans, error);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Comes once, before the first export shares the exporter.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An exporter whose collector is down.
    #[derive(Debug)]
    struct Down;

    impl SpanExporter for Down {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            tokio::time::sleep(Duration::ZERO).await;
            Err(OTelSdkError::InternalFailure("collector is down".into()))
        }
    }

    #[test]
    fn failures_are_counted_and_told_once_in_a_while() {
        let runtime = runtime().unwrap();
        let exporter = ReportingExporter::new(Down, runtime.handle().clone());
        assert!(runtime.block_on(exporter.export(Vec::new())).is_err());
        let told_at = *exporter.reported_at.lock();
        assert!(told_at.is_some());
        exporter.report(7, &OTelSdkError::AlreadyShutdown);
        assert_eq!(*exporter.reported_at.lock(), told_at);
        assert_eq!(exporter.lost.load(Relaxed), 7);
    }

    #[test]
    fn an_export_after_the_end_is_an_error() {
        let ended = runtime().unwrap();
        let exporter = ReportingExporter::new(Down, ended.handle().clone());
        ended.shutdown_background();
        let result = runtime().unwrap().block_on(exporter.export(Vec::new()));
        assert!(result.is_err());
    }
}
