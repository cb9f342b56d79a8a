//! How long `consort serve` takes until it is ready, with a model that has nothing to load.

use anyhow::Result;

use super::Settings;
use crate::program::Launch;
use crate::report::{Section, Verdict, number};
use crate::repository::Repository;
use crate::sample::median;

const STARTS: usize = 10;

/// Starts it again and again.
pub(super) fn run(settings: &Settings, title: &str) -> Result<Section> {
    let repository = Repository::new()?.identity("identity")?;
    let mut seconds = Vec::new();
    let mut cpu = Vec::new();
    for _ in 0..STARTS {
        let program = Launch::serve(&settings.programs, repository.path()).start()?;
        seconds.push(program.ready_after.as_secs_f64());
        cpu.push(program.cpu()?.as_secs_f64());
    }
    let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let middle = median(seconds);
    let mut section = Section::new(title, &["", "median s", "best s", "CPU s"]);
    let name = format!("consort serve, {STARTS} starts");
    section.row([name, format!("{middle:.3}"), format!("{best:.3}"), number(median(cpu))]);
    section.judge(Verdict::at_most("process start to ready", middle, 0.3, "s"));
    Ok(section)
}
