//! Builds the images from programs compiled here, on a base that is pulled or, without a registry, made with debootstrap.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::checkout::Checkout;
use crate::docker::Docker;
use crate::process;
use crate::progress;
use crate::serve::cargo;
use crate::setup::{self, Variant};

/// The base of every image.
const PULLED_BASE: &str = "debian:bookworm-slim";

/// The base made here; a name of its own, so that it never hides the published one.
const MADE_BASE: &str = "consort-base:bookworm-slim";

/// What Debian's own slim image leaves out as well.
const LEFT_OUT: [&str; 6] = [
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Compiles the programs and builds the four images from them.
pub(crate) fn build(checkout: &Checkout, docker: &Docker) -> Result<()> {
    progress::step("building the release programs", || collect(checkout))?;
    let base = progress::step("finding a base image", || base(checkout, docker))?;
    progress::step("building the images", || {
        let mut build = docker.compose();
        build.current_dir(checkout.root()).arg("build").envs([
            ("CONSORT_BINARIES", "prebuilt"),
            // Nothing is compiled inside, so the stage that would needs no toolchain.
            ("CONSORT_BUILD_IMAGE", base),
            ("CONSORT_RUNTIME_IMAGE", base),
        ]);
        process::run(&mut build)
    })
}

/// Puts the programs and ONNX Runtime where the Dockerfile takes them from.
fn collect(checkout: &Checkout) -> Result<()> {
    let library = setup::run(checkout, Variant::Cpu)?;
    let packages = Checkout::SERVICES.iter().flat_map(|program| ["--package", *program]);
    process::run(cargo(checkout).args(["build", "--release"]).args(packages))?;
    let image = checkout.path("target/image");
    if image.exists() {
        fs::remove_dir_all(&image)?;
    }
    for program in Checkout::SERVICES {
        copy(&checkout.target(&format!("release/{program}")), &image.join("bin").join(program))?;
    }
    let beside = library.parent().context("the library lies in no folder")?;
    let name = library.file_name().context("the library has no name")?;
    copy(&library, &image.join("onnxruntime").join(name))?;
    for text in ["LICENSE", "ThirdPartyNotices.txt"].map(|text| beside.join(text)) {
        if text.exists() {
            copy(&text, &image.join("onnxruntime").join(text.file_name().expect("it was joined")))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().expect("it lies in a folder of the image"))?;
    fs::copy(from, to).with_context(|| format!("cannot copy `{}`", from.display()))?;
    Ok(())
}

/// The name of a base image that the engine has.
fn base(checkout: &Checkout, docker: &Docker) -> Result<&'static str> {
    for image in [PULLED_BASE, MADE_BASE] {
        if process::succeeds(docker.docker().args(["image", "inspect", image])) {
            return Ok(image);
        }
    }
    if process::succeeds(docker.docker().args(["pull", "--quiet", PULLED_BASE])) {
        return Ok(PULLED_BASE);
    }
    progress::say("no registry answers: making a Debian base with debootstrap");
    let archive = debootstrap(checkout)?;
    process::run(docker.docker().arg("import").arg(archive).arg(MADE_BASE))?;
    Ok(MADE_BASE)
}

/// A minimal Debian as an archive, kept for the next time.
fn debootstrap(checkout: &Checkout) -> Result<PathBuf> {
    let archive = checkout.target("xtask/bookworm-slim.tar");
    if archive.exists() {
        return Ok(archive);
    }
    if !process::succeeds(Command::new("debootstrap").arg("--version")) {
        bail!(
            "no registry answers and there is no debootstrap: install it (Debian: `apt install debootstrap`)"
        );
    }
    let root = checkout.target("xtask/bookworm-slim");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(&root)?;
    process::run(Command::new("debootstrap").args(["--variant=minbase", "bookworm"]).arg(&root))?;
    for left_out in LEFT_OUT {
        fs::remove_dir_all(root.join(left_out))
            .with_context(|| format!("debootstrap made no `{left_out}`"))?;
    }
    let unfinished = archive.with_extension("unfinished");
    process::run(
        Command::new("tar")
            .arg("--create")
            .arg("--file")
            .arg(&unfinished)
            .arg("--directory")
            .arg(&root)
            .arg("."),
    )?;
    fs::remove_dir_all(&root)?;
    fs::rename(unfinished, &archive)?;
    Ok(archive)
}
