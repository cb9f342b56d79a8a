//! Sets up, builds and turns into `consort serve`.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::checkout::Checkout;
use crate::models;
use crate::process;
use crate::progress;
use crate::setup::{self, Variant};

/// Serves the shipped repository, or the one the options name.
///
/// The server takes this process's place, so Ctrl-C and SIGTERM reach it without anyone in between.
pub(crate) fn run(checkout: &Checkout, variant: Variant, options: &[String]) -> Result<()> {
    let library = setup::run(checkout, variant)?;
    progress::step("building consort (the first time takes a few minutes)", || {
        process::run(cargo(checkout).args(["build", "--release", "--package", "consort"]))
    })?;
    let mut server = Command::new(checkout.target("release/consort"));
    server.arg("serve").env("ORT_DYLIB_PATH", library);
    if !names_a_repository(options) && env::var_os("CONSORT_MODEL_REPOSITORY").is_none() {
        server.arg("--model-repository").arg(checkout.path("model_repository"));
        if !models::are_built(checkout) {
            progress::say(
                "`embed` has no weights yet and is not served: `cargo xtask models` fetches them (84 MB)",
            );
        }
    }
    server.args(options);
    progress::say("starting consort serve");
    Err(server.exec()).context("cannot start `consort serve`")
}

/// Cargo, in the root of the checkout.
pub(crate) fn cargo(checkout: &Checkout) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(checkout.root());
    cargo
}

fn names_a_repository(options: &[String]) -> bool {
    // `--model-store` is the older name that tritonserver still takes.
    ["--model-repository", "--model-store"].iter().any(|name| {
        options.iter().any(|option| {
            option.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(options: &[&str]) -> bool {
        names_a_repository(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_shipped_repository_is_served_unless_another_is_named() {
        assert!(named(&["--http-port", "9000", "--model-repository", "models"]));
        assert!(named(&["--model-repository=models"]));
        assert!(!named(&["--http-port", "9000"]));
        assert!(!named(&["--model-repository-poll-secs", "3"]));
    }
}
