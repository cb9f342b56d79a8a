//! A container engine to test with: the one that runs, or one started for the test and ended with it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::progress;

/// How long an engine may take to answer after its start.
const START: Duration = Duration::from_mins(1);

/// Runs an engine until its standard input is closed, which happens however this program ends.
const KEEPER: &str = r#"
dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" --host "unix://$1/socket" >"$1/log" 2>&1 &
engine=$!
trap : INT TERM HUP
read -r _
kill "$engine"
wait "$engine"
rm -rf "$1"
"#;

/// An engine that answers, and the tool that composes containers on it.
pub(crate) struct Docker {
    compose: Vec<&'static str>,
    started: Option<Started>,
}

/// An engine of our own.
struct Started {
    keeper: Child,
    folder: PathBuf,
}

impl Docker {
    /// Uses the engine that runs, or starts one.
    pub(crate) fn connect() -> Result<Self> {
        let compose = [vec!["docker-compose"], vec!["docker", "compose"]];
        let compose = compose
            .into_iter()
            .find(|tool| process::succeeds(Command::new(tool[0]).args(&tool[1..]).arg("version")));
        let compose = compose.context("no docker-compose was found: install it (Debian: `apt install docker.io docker-compose`)")?;
        let mut docker = Self { compose, started: None };
        if !docker.answers() {
            progress::step("starting a container engine", || docker.start())?;
        }
        Ok(docker)
    }

    /// The `docker` command line.
    pub(crate) fn docker(&self) -> Command {
        self.with_host(Command::new("docker"))
    }

    /// The compose command line, v1 or v2.
    pub(crate) fn compose(&self) -> Command {
        let mut command = self.with_host(Command::new(self.compose[0]));
        command.args(&self.compose[1..]);
        command
    }

    fn with_host(&self, mut command: Command) -> Command {
        if let Some(started) = &self.started {
            command.env("DOCKER_HOST", format!("unix://{}/socket", started.folder.display()));
        }
        command
    }

    fn answers(&self) -> bool {
        // Unlike `docker version`, `docker ps` fails when only the client is there.
        process::succeeds(self.docker().arg("ps"))
    }

    fn start(&mut self) -> Result<()> {
        if !process::succeeds(Command::new("dockerd").arg("--version")) {
            bail!(
                "no container engine runs and there is no `dockerd` to start: install Docker (Debian: `apt install docker.io`)"
            );
        }
        // Not in the target folder: the path of a Unix socket may be 107 bytes long.
        let folder = std::env::temp_dir().join(format!("consort-docker-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(&folder).stdin(Stdio::piped());
        // A group of its own, so that Ctrl-C ends this program first and the engine after its containers.
        let keeper = keeper.process_group(0).spawn().context("cannot start `dockerd`")?;
        self.started = Some(Started { keeper, folder: folder.clone() });
        let started_at = Instant::now();
        while !self.answers() {
            if started_at.elapsed() > START {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("`dockerd` does not answer (it needs root): {}", last.join(" | "));
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        if let Err(error) = self.keeper.wait() {
            progress::say(&format!("the container engine did not end: {error}"));
        }
    }
}
