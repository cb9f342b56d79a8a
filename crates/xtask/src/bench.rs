//! Measures the programs and writes the figures into `docs/benchmarks.md`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::checkout::Checkout;
use crate::models;
use crate::process;
use crate::progress;
use crate::serve::cargo;
use crate::setup::{self, Variant};

const PAGE: &str = "docs/benchmarks.md";
/// Between these lines of the page stand the figures of the last run that was written down.
const FENCE: [&str; 2] = ["<!-- figures -->", "<!-- end of figures -->"];

/// Builds everything as it is deployed and measures these cases, or all.
///
/// With `write` the page gets the figures of this run; one of all cases, or the others would go.
pub(crate) fn run(checkout: &Checkout, cases: &[String], write: bool) -> Result<()> {
    let library = setup::run(checkout, Variant::Cpu)?;
    models::run(checkout)?;
    models::build_for_bench(checkout)?;
    progress::step("building everything as it is deployed", || {
        process::run(cargo(checkout).args(["build", "--release"]))?;
        process::run(cargo(checkout).args(["build", "--release", "--package", "consort-bench"]))
    })?;
    let figures = checkout.target("xtask/benchmarks.md");
    fs::create_dir_all(checkout.target("xtask"))?;
    let mut bench = Command::new(checkout.target("release/consort-bench"));
    bench.args(cases).arg("--models").arg(checkout.path("model_repository"));
    bench.arg("--markdown").arg(&figures).env("ORT_DYLIB_PATH", library);
    process::run(&mut bench)?;
    if write {
        write_down(&checkout.path(PAGE), &fs::read_to_string(figures)?)?;
        progress::say(&format!("`{PAGE}` has the figures of this run"));
    }
    Ok(())
}

fn write_down(page: &Path, figures: &str) -> Result<()> {
    let text = fs::read_to_string(page)?;
    let fresh = replace(&text, figures);
    let fresh = fresh.with_context(|| format!("`{PAGE}` has lost its lines {FENCE:?}"))?;
    Ok(fs::write(page, fresh)?)
}

fn replace(page: &str, figures: &str) -> Option<String> {
    let [begin, end] = FENCE;
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n\n{}\n\n{end}{after}", figures.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_figures_of_the_page_change() {
        let [begin, end] = FENCE;
        let page = format!("# Title\n{begin}\nold\n{end}\nText.\n");
        let fresh = format!("# Title\n{begin}\n\nnew\n\n{end}\nText.\n");
        assert_eq!(replace(&page, "new\n"), Some(fresh));
        assert_eq!(replace("no figures", "new"), None);
    }
}
