//! Starts one of Consort's programs on free ports and stops it again.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take for anything; a debug build on a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A running program and what it has logged.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// The folder of the checkout.
pub(crate) fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout")
}

/// The path of a program that the same build made.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = above_the_test(2).join(name);
    assert!(path.exists(), "{} is missing; run `cargo xtask test`", path.display());
    path
}

/// A path in the target folder, wherever cargo was told to have it.
pub(crate) fn target(relative: &str) -> PathBuf {
    above_the_test(3).join(relative)
}

fn above_the_test(levels: usize) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().nth(levels);
    folder.expect("a test lies in target/<profile>/deps").to_owned()
}

impl Program {
    /// Starts `name` with `arguments` and free ports for everything it has.
    pub(crate) fn start<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> Self {
        Self::start_with(name, arguments, &[])
    }

    /// The same with more environment variables.
    pub(crate) fn start_with<S: AsRef<OsStr>>(
        name: &str,
        arguments: &[S],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.push(OsStr::new("--grpc-port=0"));
        Self::start_on(name, &all, variables)
    }

    /// The same, with the port of the gRPC front among the arguments.
    pub(crate) fn start_on<S: AsRef<OsStr>>(
        name: &str,
        arguments: &[S],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(binary(name));
        command.args(arguments).arg("--metrics-port=0");
        command.args(["--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"]);
        if matches!(name, "consort" | "consort-gateway") {
            command.args(["--http-port=0", "--http-address=127.0.0.1"]);
        }
        command.envs(variables.iter().copied());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let stderr = child.stderr.take().expect("it was piped a line ago");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The address in the line that says `what` was started, such as `HTTPService`.
    pub(crate) fn address(&mut self, what: &str) -> String {
        let line = self.line_with(&format!("Started {what} at "));
        let address = line.rsplit(" at ").next().unwrap_or_default();
        address.trim().to_owned()
    }

    /// The first line that contains `text`, waiting for it.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no line with `{text}` among:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells the program to stop, as an orchestrator does.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Kills it, as a failing machine does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Waits for the program's end; gives its status and everything it logged.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("it can be waited for") {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("it did not end"),
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        self.seen.extend(self.lines.iter());
        let log = self.seen.join("\n");
        (status, log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
