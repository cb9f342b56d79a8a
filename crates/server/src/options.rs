//! The options that every program has, with tritonserver's names; each is also a `CONSORT_*` variable.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use consort_repository::{Foreign, LocalOptions};
use consort_telemetry::LogFormat;

use crate::cache_options::CacheOptions;
use crate::control_options::ControlOptions;
use crate::limit_options::LimitOptions;
use crate::metrics_config::ShownMetrics;

/// The options that every program has.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Folder of models, as Triton's; may be given several times
    #[arg(
        long = "model-repository",
        alias = "model-store",
        env = "CONSORT_MODEL_REPOSITORY",
        value_delimiter = ',',
        value_name = "DIR"
    )]
    pub model_repository: Vec<PathBuf>,

    /// Address that the gRPC front listens on
    #[arg(long, env = "CONSORT_GRPC_ADDRESS", default_value_t = ANYWHERE, value_name = "ADDRESS")]
    pub grpc_address: IpAddr,

    /// Port of the gRPC front; 0 takes any free one
    #[arg(long, env = "CONSORT_GRPC_PORT", default_value_t = 8001, value_name = "PORT")]
    pub grpc_port: u16,

    /// Largest message that the gRPC front takes, in bytes
    #[arg(
        long,
        env = "CONSORT_GRPC_MAX_INPUT_SIZE",
        default_value_t = i32::MAX as usize,
        value_name = "BYTES"
    )]
    pub grpc_max_input_size: usize,

    /// Address that metrics and health listen on
    #[arg(long, env = "CONSORT_METRICS_ADDRESS", default_value_t = ANYWHERE, value_name = "ADDRESS")]
    pub metrics_address: IpAddr,

    /// Port of metrics and health; 0 takes any free one
    #[arg(long, env = "CONSORT_METRICS_PORT", default_value_t = 8002, value_name = "PORT")]
    pub metrics_port: u16,

    /// Whether the port of metrics and health is opened
    #[arg(long, env = "CONSORT_ALLOW_METRICS", default_value_t = true, value_name = "BOOL",
          action = clap::ArgAction::Set)]
    pub allow_metrics: bool,

    /// Whether the server is ready only when every model is; else when one is and none is loading
    #[arg(long, env = "CONSORT_STRICT_READINESS", default_value_t = true, value_name = "BOOL",
          action = clap::ArgAction::Set)]
    pub strict_readiness: bool,

    /// Seconds that requests may still take once the server was told to stop
    #[arg(long, env = "CONSORT_EXIT_TIMEOUT_SECS", default_value_t = 30, value_name = "SECONDS")]
    pub exit_timeout_secs: u64,

    /// Requests that may be in progress at once; more are refused as overloaded
    #[arg(long, env = "CONSORT_MAX_IN_FLIGHT", default_value_t = 8192, value_name = "COUNT")]
    pub max_in_flight: usize,

    /// Which models are loaded
    #[command(flatten)]
    pub control: ControlOptions,

    /// Ask this program's running server whether it is ready, and exit with 0 or 1
    #[arg(long)]
    pub healthcheck: bool,

    /// What the metrics show
    #[command(flatten)]
    pub shown: ShownMetrics,

    /// The response cache
    #[command(flatten)]
    pub cache: CacheOptions,

    /// The rate limiter
    #[command(flatten)]
    pub limit: LimitOptions,

    /// How to log
    #[command(flatten)]
    pub log: LogOptions,
}

/// How to log.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// Form of log lines
    #[arg(long, env = "CONSORT_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    pub log_format: Format,

    /// Detail of the log: 0 for what operators need, 1 and more for debugging
    #[arg(long, env = "CONSORT_LOG_VERBOSE", default_value_t = 0, value_name = "LEVEL")]
    pub log_verbose: u32,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// As tritonserver's default: a container is reached from outside itself.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Options {
    /// How the models of this process are loaded.
    pub fn local(&self, foreign: Foreign) -> Result<LocalOptions> {
        Ok(LocalOptions {
            repositories: self.model_repository.clone(),
            foreign,
            mode: self.control.mode()?,
            load_threads: self.control.model_load_thread_count,
        })
    }

    /// How long requests may still take once the server was told to stop.
    pub fn exit_timeout(&self) -> Duration {
        Duration::from_secs(self.exit_timeout_secs)
    }
}

impl LogOptions {
    /// The same in the words of telemetry.
    pub(crate) fn to_telemetry(&self) -> consort_telemetry::LogOptions {
        let format = match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        consort_telemetry::LogOptions { format, verbose: self.log_verbose }
    }
}
