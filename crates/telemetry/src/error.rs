//! What can go wrong when telemetry starts.

/// Why telemetry could not start; each text names the variable and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable has a value that means nothing here.
    #[error("`{variable}={value}` is not supported: {remedy}")]
    Unsupported {
        /// The variable's name.
        variable: &'static str,
        /// The value it has.
        value: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A log filter cannot be read.
    #[error("`{value}` in `{variable}` is not a log filter such as `info,consort_server=debug`")]
    Filter {
        /// The variable's name.
        variable: &'static str,
        /// The value it has.
        value: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A file for TLS cannot be used.
    #[error("`{variable}={path}` {how}; name a file in PEM, or leave the variable out")]
    Pem {
        /// The variable's name.
        variable: &'static str,
        /// The file it names.
        path: String,
        /// What is wrong with the file.
        how: String,
    },
    /// TLS to the collector cannot be set up.
    #[error("traces cannot be exported over TLS: {0}")]
    Tls(String),
    /// The exporter cannot be made from the `OTEL_EXPORTER_OTLP_*` variables.
    #[error(
        "traces cannot be exported as the `OTEL_EXPORTER_OTLP_*` variables say: {0}; \
         correct them or set `OTEL_SDK_DISABLED=true`"
    )]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The exporter's thread cannot be started.
    #[error("the thread that exports traces cannot be started")]
    Thread(#[source] std::io::Error),
    /// Another subscriber is installed in this process.
    #[error("logging is already set up in this process")]
    AlreadyInitialized(#[from] tracing_subscriber::util::TryInitError),
}
