//! Where and with what was measured, for whoever compares the figures with their own.

use std::fs;
use std::process::Command;

use crate::cases::Settings;

/// The load average as the kernel states it: 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// One sentence a fact; `before` is the load average at the start.
pub(crate) fn of_this_run(settings: &Settings, before: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let date = told_by("date", &["-u", "+%Y-%m-%d %H:%M UTC"]);
    let compiler = told_by("rustc", &["--version"]);
    let kernel = told_by("uname", &["-sr"]);
    let Settings { rounds, time, .. } = settings;
    format!(
        "{date}; {cores} cores ({}) with the load generator on the same ones; {kernel}; {compiler}; \
         Consort {}; {rounds} rounds of {} s for each contender in turn, figures are medians over \
         the rounds; load average {before} before and {} after.\n",
        processor(),
        env!("CARGO_PKG_VERSION"),
        time.as_secs_f64(),
        load()
    )
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    name.map_or_else(|| "unknown".into(), |name| name.trim_start_matches(['\t', ' ', ':']).into())
}

fn told_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| format!("no `{program}`"))
}
