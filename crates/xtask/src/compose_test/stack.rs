//! The composed services of one test: a project of their own, on ports of their own, taken down at the end.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::docker::Docker;
use crate::http;
use crate::process;
use crate::progress;
use crate::venv::{self, Requirements};

/// Apart from what a person may have started from the same folder.
const PROJECT: &str = "consort-test";

/// Where the gateway answers HTTP during the test; not 8000, where something may run.
pub(crate) const GATEWAY: &str = "127.0.0.1:18000";

/// Where it answers gRPC.
pub(crate) const GATEWAY_GRPC: &str = "127.0.0.1:18001";

/// A prompt and how ferris continues it, from the reference implementation.
pub(crate) struct Reference {
    pub prompt: String,
    pub greedy_text: String,
    pub tokens: usize,
}

/// The services, up or not yet.
pub(crate) struct Stack<'a> {
    checkout: &'a Checkout,
    docker: &'a Docker,
    python: PathBuf,
    pub references: Vec<Reference>,
}

impl<'a> Stack<'a> {
    pub(crate) fn new(checkout: &'a Checkout, docker: &'a Docker) -> Result<Self> {
        let file = checkout.path("tests/fixtures/ferris/reference.json");
        let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(&file)?)?;
        let references = cases.iter().map(Reference::read).collect::<Option<_>>();
        let references =
            references.with_context(|| format!("`{}` has an unknown form", file.display()))?;
        let python = venv::ensure(checkout, Requirements::Tests)?;
        Ok(Self { checkout, docker, python, references })
    }

    /// Starts what is not running, with so many replicas of `model`, and waits for the gateway.
    pub(crate) fn up(&self, models: usize) -> Result<()> {
        let scale = format!("model={models}");
        process::run(self.compose().args(["up", "--detach", "--no-build", "--scale", &scale]))
    }

    /// The containers of a service.
    pub(crate) fn containers(&self, service: &str) -> Result<Vec<String>> {
        let listed = process::capture(self.compose().args(["ps", "--quiet", service]))?;
        Ok(listed.lines().map(Into::into).collect())
    }

    /// What the engine knows of a container, by a Go template.
    pub(crate) fn inspect(&self, container: &str, template: &str) -> Result<String> {
        let found = process::capture(
            self.docker.docker().args(["inspect", "--format", template, container]),
        )?;
        Ok(found.trim().into())
    }

    /// `docker` with some arguments.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Result<()> {
        process::capture(self.docker.docker().args(arguments)).map(drop)
    }

    /// The address of a container on the network of the containers, which Linux can reach.
    pub(crate) fn address(&self, container: &str, port: u16) -> Result<String> {
        let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        Ok(format!("{}:{port}", self.inspect(container, address)?))
    }

    /// Runs a script of `tests/python`, the same that the end-to-end tests run against processes.
    pub(crate) fn python(&self, script: &str, arguments: &[&str]) -> Result<()> {
        let script = self.checkout.path("tests/python").join(script);
        process::run(Command::new(&self.python).arg(script).args(arguments))
    }

    /// The model repository that the containers see.
    pub(crate) fn repository(&self) -> String {
        self.checkout.path("model_repository").display().to_string()
    }

    /// Stops every container, as `docker-compose stop` does.
    pub(crate) fn stop(&self) -> Result<()> {
        process::run(self.compose().arg("stop"))
    }

    /// Shows the last lines of every service.
    pub(crate) fn print_logs(&self) {
        if let Err(error) =
            process::run(self.compose().args(["logs", "--no-color", "--tail", "40"]))
        {
            progress::say(&format!("the logs cannot be shown: {error}"));
        }
    }

    fn compose(&self) -> Command {
        let mut compose = self.docker.compose();
        compose.current_dir(self.checkout.root()).args(["--project-name", PROJECT]).envs([
            ("CONSORT_HTTP_PORT", "18000"),
            ("CONSORT_GRPC_PORT", "18001"),
            ("CONSORT_METRICS_PORT", "18002"),
        ]);
        compose
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        let down = process::run(self.compose().args(["down", "--volumes", "--timeout", "10"]));
        if let Err(error) = down {
            progress::say(&format!("the services are still up: {error}"));
        }
    }
}

impl Reference {
    fn read(case: &Value) -> Option<Self> {
        Some(Self {
            prompt: case["prompt"].as_str()?.into(),
            greedy_text: case["greedy_text"].as_str()?.into(),
            tokens: case["greedy_ids"].as_array()?.len(),
        })
    }

    /// The text that the gateway continues the prompt with, by as many tokens as the reference has.
    pub(crate) fn generate(&self, path: &str) -> Result<String> {
        let answer = http::post(GATEWAY, path, &self.request())?;
        let body: Value = serde_json::from_str(&answer.body)
            .with_context(|| format!("no JSON: `{}`", answer.body))?;
        let text = body["text_output"].as_str();
        Ok(text.with_context(|| format!("status {}: {body}", answer.status))?.into())
    }

    /// The body of a request for the same continuation.
    pub(crate) fn request(&self) -> String {
        serde_json::json!({ "text_input": self.prompt, "max_tokens": self.tokens }).to_string()
    }
}
