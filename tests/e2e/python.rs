//! Scripts of `tests/python` that serve something for as long as a test needs them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::program::{PATIENCE, checkout, target};

/// A running script, killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    /// Where it listens.
    pub(crate) address: String,
}

impl Server {
    /// Starts a script that prints its port first.
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(target("venv/bin/python"))
            .arg(checkout().join("tests/python").join(script))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("run `cargo xtask test`, which makes the Python environment");
        let stdout = child.stdout.take().expect("it was piped a line ago");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let port = lines.recv_timeout(PATIENCE).expect("it prints its port");
        Self { child, lines, address: format!("127.0.0.1:{port}") }
    }

    /// What it prints next, waiting a second for it.
    pub(crate) fn next_line(&self) -> Option<String> {
        self.line_within(Duration::from_secs(1))
    }

    /// What it prints within this time.
    pub(crate) fn line_within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
