//! Asks a running server whether it is ready, for container health checks without `curl`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::options::Options;

/// Long enough for a busy server, short enough for an orchestrator's own time limit.
const PATIENCE: Duration = Duration::from_secs(2);

/// Success when the server that was started with the same options says it is ready.
pub fn check(options: &Options) -> ExitCode {
    // The log is not set up: this is the caller's terminal, or what an orchestrator shows of it.
    let unasked = "cannot ask the server for its health";
    if !options.allow_metrics {
        eprintln!("{unasked}: `--allow-metrics=false` closes the port that answers");
        return ExitCode::FAILURE;
    }
    let ip = match options.metrics_address {
        everywhere if everywhere.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address,
    };
    match ask(SocketAddr::new(ip, options.metrics_port), PATIENCE) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{unasked}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the server at `address` says that it is ready, within `patience` in all.
fn ask(address: SocketAddr, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(
        b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )?;
    let mut head = [0; 12];
    let mut filled = 0;
    while filled < head.len() {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut head[filled..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(head.ends_with(b" 200"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What comes of a server that sends `answer` a byte at a time, with `pause` before each.
    fn ask_one(answer: &'static [u8], pause: Duration) -> io::Result<bool> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for byte in answer {
                thread::sleep(pause);
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
            }
            // Closed with what was asked unread, it would be reset.
            let _ = stream.read(&mut [0; 512]);
        });
        ask(address, Duration::from_millis(400))
    }

    #[test]
    fn the_status_decides_and_a_trickle_is_not_waited_for() {
        assert!(ask_one(b"HTTP/1.1 200 OK\r\n\r\n", Duration::ZERO).unwrap());
        assert!(!ask_one(b"HTTP/1.1 400 Bad Request\r\n\r\n", Duration::ZERO).unwrap());
        let begun_at = Instant::now();
        let error = ask_one(b"HTTP/1.1 200 OK", Duration::from_millis(150)).unwrap_err();
        // Which of the two depends on who notices.
        assert!([ErrorKind::TimedOut, ErrorKind::WouldBlock].contains(&error.kind()), "{error}");
        assert!(begun_at.elapsed() < Duration::from_millis(1200), "{:?}", begun_at.elapsed());
    }
}
