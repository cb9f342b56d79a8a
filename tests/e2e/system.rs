//! The whole system, in one process or as separate services: the same tests run against both.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{PATIENCE, Program};
use crate::repository::shipped;

/// How the system runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `consort serve`.
    OneProcess,
    /// A gateway and three services.
    Services,
}

impl Layout {
    /// Both of them.
    pub(crate) const ALL: [Self; 2] = [Self::OneProcess, Self::Services];
}

/// A running system.
pub(crate) struct System {
    /// The program that has the HTTP front.
    pub(crate) front: Program,
    /// The stage services, by name.
    pub(crate) stages: Vec<(&'static str, Program, String)>,
    /// Where the HTTP front listens.
    pub(crate) http: String,
    /// Where the gRPC front listens.
    pub(crate) grpc: String,
    /// Where the metrics are.
    pub(crate) metrics: String,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }
}

impl System {
    /// Starts the system over `repository` and waits until it is ready.
    pub(crate) fn start(layout: Layout, repository: &Path) -> Self {
        let system = Self::launch(layout, repository, &[]);
        system.wait_until_ready();
        system
    }

    /// Starts the system with the shipped ensemble `generate` and what it calls, and without the
    /// embedding model, whose instances take seconds to load.
    pub(crate) fn start_text(layout: Layout) -> Self {
        let only = [("CONSORT_MODEL_CONTROL_MODE", "explicit"), ("CONSORT_LOAD_MODEL", "generate")];
        let system = Self::launch(layout, &shipped(), &only);
        system.wait_until_ready();
        system
    }

    /// Starts the system with more environment variables, without waiting for it to be ready.
    pub(crate) fn launch(layout: Layout, repository: &Path, variables: &[(&str, &str)]) -> Self {
        let repository = format!("--model-repository={}", repository.display());
        let (front, stages) = match layout {
            Layout::OneProcess => {
                (Program::start_with("consort", &["serve", &repository], variables), Vec::new())
            }
            Layout::Services => {
                let stages: Vec<_> = ["preprocess", "model", "postprocess"]
                    .map(|stage| start_stage(stage, &repository, variables))
                    .into();
                let mut arguments: Vec<String> = stages
                    .iter()
                    .map(|(name, _, at)| format!("--stage={name}=dns:///{at}"))
                    .collect();
                arguments.push(repository);
                (Program::start_with("consort-gateway", &arguments, variables), stages)
            }
        };
        Self::of(front, stages)
    }

    /// The system of these programs, which have just been started.
    pub(crate) fn of(mut front: Program, stages: Vec<(&'static str, Program, String)>) -> Self {
        let metrics = front.address("Metrics Service");
        let grpc = front.address("GRPCInferenceService");
        let http = front.address("HTTPService");
        Self { front, stages, http, grpc, metrics }
    }

    /// Waits until the front says that everything is ready.
    pub(crate) fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/v2/health/ready").status != 200 {
            assert!(Instant::now() < deadline, "not ready: {}", self.index());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The repository index.
    pub(crate) fn index(&self) -> Value {
        self.post("/v2/repository/index", "{}").json()
    }

    /// GETs a path of the HTTP front.
    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(agent().get(format!("http://{}{path}", self.http)).call())
    }

    /// POSTs a body to a path of the HTTP front.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, body, &[])
    }

    /// The same with headers.
    pub(crate) fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = agent().post(format!("http://{}{path}", self.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }

    /// The value of a metric line that starts with `prefix`, at the front.
    pub(crate) fn metric(&self, prefix: &str) -> f64 {
        metric(&self.metrics, prefix)
    }
}

/// The sum of the metric lines that start with `prefix`.
pub(crate) fn metric(address: &str, prefix: &str) -> f64 {
    let text = answer(agent().get(format!("http://{address}/metrics")).call()).text;
    let values = text.lines().filter(|line| line.starts_with(prefix));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// POSTs a body to a URL.
pub(crate) fn post(url: &str, body: &str) -> Answer {
    answer(agent().post(url).send(body))
}

/// Starts one stage service; gives its name, the program and its gRPC address.
pub(crate) fn start_stage(
    stage: &'static str,
    repository: &str,
    variables: &[(&str, &str)],
) -> (&'static str, Program, String) {
    let mut program = Program::start_with(&format!("consort-{stage}"), &[repository], variables);
    let address = program.address("GRPCInferenceService");
    (stage, program, address)
}

/// A client that gives every status as an answer.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.expect("the server answers");
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().expect("the answer is whole");
    Answer { status, text }
}

/// Waits until something is so, and gives how long that took; a test that waits in vain fails and
/// says for what.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun_at = Instant::now();
    while !is_so() {
        assert!(begun_at.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
    begun_at.elapsed()
}
