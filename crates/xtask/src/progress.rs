//! Tells what a task is doing, one line a step, with the time each took.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Says what begins now.
pub(crate) fn say(what: &str) {
    println!("==> {what}");
}

/// Runs one named step; says when it begins and how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(name);
    let started_at = Instant::now();
    let result = work();
    let took = seconds(started_at.elapsed());
    match &result {
        Ok(_) => println!("    {name}: done in {took}"),
        Err(error) => println!("    {name}: failed after {took}: {error:#}"),
    }
    result
}

/// A duration as a person reads it.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{} s", duration.as_secs()),
        more => format!("{} min {} s", more / 60, more % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_at_every_size() {
        let read = |seconds_| seconds(Duration::from_secs_f64(seconds_));
        assert_eq!([read(0.26), read(12.4), read(125.0)], ["0.3 s", "12 s", "2 min 5 s"]);
    }
}
