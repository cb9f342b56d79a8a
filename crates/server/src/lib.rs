//! The chassis that every service runs on: gRPC front, health, metrics, shutdown.
//!
//! A service is a list of backends: [`stage_main`] makes a whole program of it.

mod arrivals;
mod cache_options;
mod control_options;
mod grpc;
mod healthcheck;
mod http;
mod identity;
mod incoming;
mod lifecycle;
mod limit_options;
mod listen;
mod metrics;
mod metrics_config;
pub mod not_offered;
#[cfg(test)]
mod nothing;
mod options;
mod run;
mod signals;
mod stage_main;
mod table;

pub use cache_options::CacheOptions;
pub use control_options::{ControlOptions, Mode};
pub use grpc::Grpc;
pub use healthcheck::check as healthcheck;
pub use identity::{EXTENSIONS, NAME, VERSION};
pub use lifecycle::Lifecycle;
pub use limit_options::LimitOptions;
pub use metrics_config::{MetricsSetting, ShownMetrics};
pub use options::{LogOptions, Options};
pub use run::{Service, block_on, finish, run};
pub use stage_main::{FindGpus, cores, stage_main, stage_main_on_gpus};
