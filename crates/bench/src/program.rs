//! The programs under measurement: started, waited for, watched from outside, and stopped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a program may take to be ready before it counts as broken.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two questions whether a program is ready; small beside what is measured.
const PAUSE: Duration = Duration::from_millis(1);
/// How often the kernel counts processor time in a second; Linux shows it so on every machine.
const TICKS: u64 = 100;

/// A running program; it is stopped when this is dropped.
pub(crate) struct Program {
    child: Child,
    /// Its gRPC port.
    pub(crate) grpc: u16,
    /// Its HTTP port, if it has one.
    pub(crate) http: u16,
    metrics: u16,
    /// How long it took from its start until it said that it was ready.
    pub(crate) ready_after: Duration,
}

/// How a program is started.
pub(crate) struct Launch<'a> {
    program: PathBuf,
    arguments: Vec<String>,
    repository: &'a Path,
    has_http: bool,
}

impl<'a> Launch<'a> {
    /// `consort serve` over `repository`.
    pub(crate) fn serve(programs: &Path, repository: &'a Path) -> Self {
        let arguments = vec!["serve".to_owned()];
        Self { program: programs.join("consort"), arguments, repository, has_http: true }
    }

    /// The stage service `name` over `repository`.
    pub(crate) fn stage(programs: &Path, name: &str, repository: &'a Path) -> Self {
        Self { program: programs.join(name), arguments: Vec::new(), repository, has_http: false }
    }

    /// The gateway over `repository`, with the stages that listen at these ports.
    pub(crate) fn gateway(programs: &Path, stages: &[&Program], repository: &'a Path) -> Self {
        let named = stages.iter().enumerate();
        let arguments = named.flat_map(|(index, stage)| {
            ["--stage".to_owned(), format!("stage{index}=dns:///127.0.0.1:{}", stage.grpc)]
        });
        let program = programs.join("consort-gateway");
        Self { program, arguments: arguments.collect(), repository, has_http: true }
    }

    /// The same, with every model loaded at the start and callers free to load others.
    pub(crate) fn explicit(mut self) -> Self {
        let options = ["--model-control-mode=explicit", "--load-model=*"];
        self.arguments.extend(options.map(str::to_owned));
        self
    }

    /// Starts the program and waits until it is ready.
    pub(crate) fn start(self) -> Result<Program> {
        let (grpc, http, metrics) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("--model-repository").arg(self.repository);
        for (option, port) in [("--grpc-port", grpc), ("--metrics-port", metrics)] {
            command.args([option, &port.to_string()]);
        }
        if self.has_http {
            command.args(["--http-port", &http.to_string()]);
        }
        // Its log would be measured too; what it says when it fails is read below.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started_at = Instant::now();
        let child = command.spawn().with_context(|| self.cannot_start())?;
        let ready_after = Duration::ZERO;
        let mut program = Program { child, grpc, http, metrics, ready_after };
        while !program.is_ready() {
            if started_at.elapsed() > PATIENCE || program.child.try_wait()?.is_some() {
                bail!("`{}` did not become ready; run it by hand", self.program.display());
            }
            thread::sleep(PAUSE);
        }
        program.ready_after = started_at.elapsed();
        Ok(program)
    }

    fn cannot_start(&self) -> String {
        format!("cannot start `{}`; build it with `cargo xtask bench`", self.program.display())
    }
}

impl Program {
    /// This very program as the echo that the others are compared with.
    pub(crate) fn echo() -> Result<Self> {
        let started_at = Instant::now();
        let own = std::env::current_exe()?;
        let mut child = Command::new(own).arg("--serve-echo").stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ports = line.trim().split_once(' ').context("the echo did not start")?;
        let (grpc, http) = (ports.0.parse()?, ports.1.parse()?);
        Ok(Self { child, grpc, http, metrics: 0, ready_after: started_at.elapsed() })
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics))?;
            stream.write_all(b"GET /v2/health/ready HTTP/1.0\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer.get(9..12) == Some(b"200"))
        };
        ask().unwrap_or(false)
    }

    /// The processor time it has used since it was started, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        processor_time(&self.child.id().to_string())
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.child.id()))?.count())
    }

    /// The memory it occupies, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kilobytes.context("no such field")?.parse::<u64>()? * 1024)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has nothing to save, and one that has gone already needs no stopping.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processor time that a process, `self` or one by its number, has used since it was started.
pub(crate) fn processor_time(process: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in brackets, which may hold anything.
    let fields = stat.rsplit_once(')').context("no such field")?.1;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks =
        |place: usize| -> Result<u64> { Ok(fields.get(place).context("no such field")?.parse()?) };
    // utime and stime, fields 14 and 15 of the whole line.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
