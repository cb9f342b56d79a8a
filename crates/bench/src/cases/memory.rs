//! How much memory the programs occupy while nobody calls, stages connected and models loaded.

use std::time::Duration;

use anyhow::Result;

use super::Settings;
use super::steps::Apart;
use crate::program::{Launch, Program};
use crate::report::{Section, Verdict, number};
use crate::repository::Repository;

/// After which what a start leaves behind has settled.
const SETTLED: Duration = Duration::from_secs(2);

/// Reads what the kernel says they occupy.
pub(super) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let repository = Repository::new()?.identity("identity")?;
    let together = Launch::serve(&settings.programs, repository.path()).start()?;
    let apart = Apart::start(settings)?;
    tokio::time::sleep(SETTLED).await;
    let mut section = Section::new(title, &["", "MB"]);
    let gateway = megabytes(&apart.gateway)?;
    section.row(["consort-gateway, three stages connected".into(), number(gateway)]);
    for (name, stage) in Apart::names().into_iter().zip(&apart.stages) {
        section.row([format!("{name}, one `identity`"), number(megabytes(stage)?)]);
    }
    section.row(["consort serve, one `identity`".into(), number(megabytes(&together)?)]);
    section.judge(Verdict::at_most("resident memory of `consort-gateway`", gateway, 25.0, "MB"));
    Ok(section)
}

fn megabytes(program: &Program) -> Result<f64> {
    Ok(program.resident()? as f64 / 1e6)
}
