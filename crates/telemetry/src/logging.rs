//! Sets up logs and, when the environment asks for it, the export of spans.

use std::io::{self, IsTerminal};

use opentelemetry::trace::TracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt;

use crate::Error;
use crate::environment::Environment;
use crate::export::Export;
use crate::semconv::span::TARGET;

/// What is logged when nobody says otherwise, by verbosity: libraries speak up only when something
/// is wrong, because their `info` is about themselves.
const DEFAULT_FILTERS: [&str; 3] =
    ["warn,consort=info", "info,consort=debug", "debug,consort=trace"];

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line, for collectors.
    Json,
}

/// How to log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOptions {
    /// How a line looks.
    pub format: LogFormat,
    /// How much is said: 0 what an operator needs, 1 what a developer needs, 2 and more
    /// everything. `CONSORT_LOG` and `RUST_LOG` go before it.
    pub verbose: u32,
}

/// Keeps telemetry running; dropping it sends the last spans, for at most five seconds.
#[must_use = "telemetry stops when the guard is dropped"]
pub struct Guard {
    /// Sends what is left when it is dropped.
    _export: Option<Export>,
}

/// Sets up logging to standard error and, when the `OTEL_*` variables ask for it, the export of
/// spans under the name `service_name`.
///
/// Once a process; works inside and outside a tokio runtime.
pub fn init(options: &LogOptions, service_name: &str) -> Result<Guard, Error> {
    let environment = Environment::read()?;
    let export = match environment.export {
        Some(settings) => Some(Export::start(settings, service_name)?),
        None => None,
    };
    let filter = match environment.log_filter {
        Some(filter) => filter,
        None => default_filter(options.verbose),
    };
    let is_coloured = !environment.no_color && io::stderr().is_terminal();
    let log = log_layer(options.format, filter, is_coloured, io::stderr);
    let registry = Registry::default().with(log);
    match &export {
        Some(export) => registry.with(trace_layer(export.provider())).try_init()?,
        // Not an absent layer: beside one, a disabled span is asked about each time it is opened.
        None => registry.try_init()?,
    }
    Ok(Guard { _export: export })
}

fn default_filter(verbose: u32) -> EnvFilter {
    let last = DEFAULT_FILTERS.len() - 1;
    EnvFilter::new(DEFAULT_FILTERS[last.min(verbose as usize)])
}

/// The layer that logs. Spans are not logged: without an exporter they are disabled where they
/// would be opened.
fn log_layer<S, W>(
    format: LogFormat,
    filter: EnvFilter,
    is_coloured: bool,
    writer: W,
) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(is_coloured);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    layer.with_filter(without_spans(filter))
}

fn without_spans(filter: EnvFilter) -> EnvFilter {
    let directive = format!("{TARGET}=off");
    filter.add_directive(directive.parse().expect("a target and a level make a directive"))
}

/// The layer that hands spans to the exporter.
pub(crate) fn trace_layer<S, P>(provider: &P) -> impl Layer<S> + use<S, P>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    P: TracerProvider<Tracer: Send + Sync + 'static>,
    <P::Tracer as opentelemetry::trace::Tracer>::Span: Send + Sync,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("consort"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // Parents are named where a span is opened; a thread-local would cost every entry.
        .with_context_activation(false)
        .with_filter(spans_only())
}

fn spans_only() -> FilterFn {
    filter_fn(|metadata| metadata.target() == TARGET)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat, verbose: u32, act: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = log_layer(format, default_filter(verbose), false, move || writer.clone());
        tracing::subscriber::with_default(Registry::default().with(layer), act);
        let bytes = written.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn verbosity_decides_what_is_logged() {
        let act = || {
            tracing::debug!("for developers");
            tracing::info!("for operators");
            tracing::info!(target: "h2", "about a library");
        };
        let quiet = log(LogFormat::Text, 0, act);
        assert!(quiet.contains("for operators"));
        assert!(!quiet.contains("for developers") && !quiet.contains("about a library"));
        let loud = log(LogFormat::Text, 1, act);
        assert!(loud.contains("for developers") && loud.contains("about a library"));
    }

    #[test]
    fn a_json_line_has_its_fields_at_the_top() {
        let line = log(LogFormat::Json, 0, || {
            tracing::info!(request_id = "r\"1", "served");
        });
        assert!(line.contains(r#""request_id":"r\"1""#), "{line}");
        assert!(line.contains(r#""message":"served""#), "{line}");
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn spans_are_disabled_and_not_logged_without_an_exporter() {
        let written = log(LogFormat::Text, 2, || {
            let span = crate::request_span(crate::Protocol::Grpc, "m", "1", "r1");
            assert!(span.is_disabled());
            span.in_scope(|| tracing::info!("inside"));
        });
        assert!(written.contains("inside"));
        assert!(!written.contains("r1"), "{written}");
    }
}
