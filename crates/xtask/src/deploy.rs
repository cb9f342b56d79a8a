//! Checks what is deployed: YAML, Kubernetes schemas, and that every option and port is one the programs have.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::checkout::Checkout;
use crate::process;
use crate::serve::cargo;
use crate::venv::{self, Requirements};

/// Writes down each program's `--help` and hands the folder to `deploy/check.py`.
pub(crate) fn run(checkout: &Checkout) -> Result<()> {
    let python = venv::ensure(checkout, Requirements::Tests)?;
    process::run(cargo(checkout).arg("build"))?;
    let folder = checkout.target("xtask/help");
    fs::create_dir_all(&folder)?;
    for program in Checkout::SERVICES {
        write_help(&checkout.target(&format!("debug/{program}")), &folder.join(program))?;
    }
    process::run(Command::new(python).arg(checkout.path("deploy/check.py")).arg(&folder))
}

fn write_help(program: &Path, file: &Path) -> Result<()> {
    Ok(fs::write(file, process::capture(Command::new(program).arg("--help"))?)?)
}
