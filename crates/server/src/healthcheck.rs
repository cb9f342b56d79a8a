//! Asks a running server whether it is ready, for container health checks without `curl`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::options::Options;

/// Long enough for a busy server, short enough for an orchestrator's own time limit.
const PATIENCE: Duration = Duration::from_secs(2);

/// Success when the server that was started with the same options says it is ready.
pub fn check(options: &Options) -> ExitCode {
    match ask(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("cannot ask the server for its health: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(options: &Options) -> std::io::Result<bool> {
    let address = match options.metrics_address {
        everywhere if everywhere.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address,
    };
    let address = SocketAddr::new(address, options.metrics_port);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(
        b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head.ends_with(b" 200"))
}
