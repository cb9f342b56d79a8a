//! Keeps a Python environment in `target/venv/` for the clients that the tests run and the scripts that build models.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::checkout::Checkout;
use crate::pip;
use crate::process;
use crate::progress;

/// A requirements file whose packages the environment must hold.
#[derive(Clone, Copy)]
pub(crate) enum Requirements {
    /// What building an ONNX graph needs.
    Convert,
    /// What the tests need: clients, checkers, references.
    Tests,
}

impl Requirements {
    fn file(self) -> &'static str {
        match self {
            Self::Convert => "crates/xtask/python/requirements.txt",
            Self::Tests => "tests/requirements.txt",
        }
    }

    fn stamp(self) -> &'static str {
        match self {
            Self::Convert => "convert.txt",
            Self::Tests => "tests.txt",
        }
    }
}

/// Makes sure that the environment holds the requirements and returns its Python.
pub(crate) fn ensure(checkout: &Checkout, requirements: Requirements) -> Result<PathBuf> {
    let folder = checkout.target("venv");
    let python = folder.join("bin/python");
    let file = checkout.path(requirements.file());
    let wanted = fs::read_to_string(&file)?;
    let stamp = folder.join(requirements.stamp());
    // The tests' packages include what the scripts need, in versions that must not go back.
    if holds(checkout, &folder, requirements)? || holds(checkout, &folder, Requirements::Tests)? {
        return Ok(python);
    }
    progress::step(
        &format!("installing `{}` into `{}`", requirements.file(), folder.display()),
        || {
            if !python.exists() {
                create(&folder)?;
            }
            let mut install = Command::new(&python);
            install.args(["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]);
            // Root in a container has no other environment to break.
            install.env("PIP_ROOT_USER_ACTION", "ignore");
            if let Some(site) = site_of_a_bare_environment(&folder) {
                install.args(["--upgrade", "--target"]).arg(site);
            }
            process::run(install.arg("--requirement").arg(&file))?;
            Ok(fs::write(&stamp, &wanted)?)
        },
    )?;
    Ok(python)
}

/// Whether the environment was made with these requirements as they are now.
fn holds(checkout: &Checkout, folder: &Path, requirements: Requirements) -> Result<bool> {
    let wanted = fs::read_to_string(checkout.path(requirements.file()))?;
    let held = fs::read_to_string(folder.join(requirements.stamp()));
    Ok(held.is_ok_and(|held| held == wanted))
}

/// Makes a virtual environment, or, where Debian's `python3-venv` is missing, a folder of packages with a Python that looks there.
fn create(folder: &Path) -> Result<()> {
    let python = pip::python()?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    if process::succeeds(Command::new(python).args(["-m", "venv"]).arg(folder)) {
        return Ok(());
    }
    progress::say("`venv` is missing: packages go into a plain folder instead");
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let site = folder.join("site");
    fs::create_dir_all(&site)?;
    fs::create_dir_all(folder.join("bin"))?;
    let program = folder.join("bin/python");
    let script = format!("#!/bin/sh\nPYTHONPATH='{}' exec {python} \"$@\"\n", site.display());
    fs::write(&program, script)?;
    process::run(Command::new("chmod").arg("+x").arg(&program))
        .context("cannot make the environment's `python` executable")
}

fn site_of_a_bare_environment(folder: &Path) -> Option<PathBuf> {
    let site = folder.join("site");
    site.is_dir().then_some(site)
}
