//! The options of programs with an HTTP front, with tritonserver's names.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use consort_telemetry::Metrics;

use crate::http;

/// The options of programs with an HTTP front.
#[derive(Args, Clone, Debug)]
pub struct FrontOptions {
    /// Address that the HTTP front listens on
    #[arg(long, env = "CONSORT_HTTP_ADDRESS", default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub http_address: IpAddr,

    /// Port of the HTTP front; 0 takes any free one
    #[arg(long, env = "CONSORT_HTTP_PORT", default_value_t = 8000, value_name = "PORT")]
    pub http_port: u16,

    /// Largest request body in bytes, before and after decompression
    #[arg(
        long,
        env = "CONSORT_HTTP_MAX_INPUT_SIZE",
        default_value_t = 64 << 20,
        value_name = "BYTES"
    )]
    pub http_max_input_size: usize,

    /// Model that `/generate` and `/generate_stream` call
    #[arg(long, env = "CONSORT_GENERATE_MODEL", default_value = "generate", value_name = "MODEL")]
    pub generate_model: String,
}

impl FrontOptions {
    /// Where the HTTP front listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.http_address, self.http_port)
    }

    /// The same in the words of the HTTP front, for a server over these repositories that counts here.
    pub fn to_http(&self, model_repositories: &[PathBuf], metrics: &Arc<Metrics>) -> http::Options {
        http::Options {
            generate_model: self.generate_model.clone(),
            max_input_size: self.http_max_input_size,
            model_repositories: model_repositories.to_vec(),
            metrics: metrics.clone(),
        }
    }
}
