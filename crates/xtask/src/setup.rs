//! Fetches ONNX Runtime out of its Python wheel into `target/onnxruntime/`, once.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::checkout::Checkout;
use crate::pip::{self, Platform};
use crate::progress;

/// The release that the `onnxruntime` backends are written against.
pub(crate) const VERSION: &str = "1.31.1";

/// Says in `target/onnxruntime/` which pinned wheel its files came from.
const STAMP: &str = "wheel.txt";

/// Which build of ONNX Runtime.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// The CPU execution provider alone.
    Cpu,
    /// CPU, CUDA and TensorRT.
    Gpu,
}

impl Variant {
    /// What a `--gpu` flag asks for.
    pub(crate) fn from_gpu(gpu: bool) -> Self {
        if gpu { Self::Gpu } else { Self::Cpu }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Cpu => "onnxruntime",
            Self::Gpu => "onnxruntime-gpu",
        }
    }

    fn requirements(self, checkout: &Checkout) -> PathBuf {
        checkout.path(&format!("crates/xtask/wheels/{}.txt", self.package()))
    }

    fn members(self) -> Vec<String> {
        let providers: &[&str] = match self {
            Self::Cpu => &[],
            Self::Gpu => &["shared", "cuda", "tensorrt"],
        };
        let mut members = vec![format!("onnxruntime/capi/{}", library())];
        members
            .extend(["LICENSE", "ThirdPartyNotices.txt"].map(|file| format!("onnxruntime/{file}")));
        let providers = providers
            .iter()
            .map(|name| format!("onnxruntime/capi/libonnxruntime_providers_{name}.so"));
        members.extend(providers);
        members
    }
}

/// Makes sure that ONNX Runtime is there and returns its library.
pub(crate) fn run(checkout: &Checkout, variant: Variant) -> Result<PathBuf> {
    if let Some(library) = env::var_os("ORT_DYLIB_PATH") {
        let library = PathBuf::from(library);
        progress::say(&format!("ONNX Runtime: `ORT_DYLIB_PATH` names `{}`", library.display()));
        return Ok(library);
    }
    let folder = checkout.target("onnxruntime");
    let library = folder.join(library());
    if !is_there(checkout, variant, &folder)? {
        progress::step(
            &format!("fetching ONNX Runtime {VERSION} ({})", variant.package()),
            || fetch(checkout, variant, &folder),
        )?;
    }
    progress::say(&format!("ONNX Runtime {VERSION}: `{}`", library.display()));
    Ok(library)
}

fn library() -> String {
    format!("libonnxruntime.so.{VERSION}")
}

/// Whether the folder holds what is pinned now; the GPU build serves the CPU as well.
fn is_there(checkout: &Checkout, variant: Variant, folder: &Path) -> Result<bool> {
    let Ok(stamp) = fs::read_to_string(folder.join(STAMP)) else {
        return Ok(false);
    };
    for enough in [variant, Variant::Gpu] {
        if stamp == fs::read_to_string(enough.requirements(checkout))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fills a folder beside the final one and swaps it in, so that a broken download leaves nothing half done.
fn fetch(checkout: &Checkout, variant: Variant, folder: &Path) -> Result<()> {
    let requirements = variant.requirements(checkout);
    let wheel = pip::download(&requirements, Platform::Native, &checkout.target("xtask/wheel"))?;
    let fresh = checkout.target(&format!("xtask/onnxruntime-{}", std::process::id()));
    fs::create_dir_all(&fresh)?;
    let members = variant.members();
    pip::extract(&wheel, &members.iter().map(String::as_str).collect::<Vec<_>>(), &fresh)?;
    fs::copy(&requirements, fresh.join(STAMP))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(&fresh, folder)
        .with_context(|| format!("cannot put ONNX Runtime into `{}`", folder.display()))?;
    Ok(fs::remove_dir_all(checkout.target("xtask/wheel"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_wheels_are_pinned_to_the_version_the_library_is_named_after() {
        let checkout = Checkout::find().unwrap();
        for variant in [Variant::Cpu, Variant::Gpu] {
            let pinned = fs::read_to_string(variant.requirements(&checkout)).unwrap();
            assert!(pinned.contains(&format!("{}=={VERSION} ", variant.package())));
            assert!(pinned.contains("--hash=sha256:"));
        }
    }
}
