//! The processors and the memory of the machine, from `/proc`.

use std::fs;

use crate::gauges::{Reading, Sampler};
use crate::semconv::{Family, triton};

/// Where idle time and time spent waiting for input and output lie among the processors' times.
const IDLE_FIELDS: [usize; 2] = [3, 4];

/// How many of the times are counted: those of guests are in those of users already.
const TIMES: usize = 8;

/// Reads the machine; the first reading of the utilization is 0, as it is a difference.
#[derive(Debug, Default)]
pub struct Machine {
    before: Option<Ticks>,
}

/// The time of all processors since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    total: u64,
    idle: u64,
}

impl Sampler for Machine {
    fn sample(&mut self) -> Vec<Reading> {
        let reading = |family: Family, value| Reading { family, labels: Vec::new(), value };
        let mut readings = Vec::new();
        if let Some(ticks) = read("/proc/stat").as_deref().and_then(ticks) {
            let before = self.before.replace(ticks).unwrap_or(ticks);
            readings.push(reading(triton::CPU_UTILIZATION, utilization(before, ticks)));
        }
        if let Some((total, used)) = read("/proc/meminfo").as_deref().and_then(memory) {
            readings.push(reading(triton::CPU_MEMORY_TOTAL, total as f64));
            readings.push(reading(triton::CPU_MEMORY_USED, used as f64));
        }
        readings
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times = line.split_whitespace().take(TIMES).map(str::parse);
    let times: Vec<u64> = times.collect::<Result<_, _>>().ok()?;
    let idle = IDLE_FIELDS.iter().filter_map(|field| times.get(*field)).sum();
    Some(Ticks { total: times.iter().sum(), idle })
}

fn utilization(before: Ticks, now: Ticks) -> f64 {
    let total = now.total.saturating_sub(before.total);
    // The kernel's idle time is known to go backwards by a tick.
    let idle = now.idle.saturating_sub(before.idle).min(total);
    if total == 0 { 0.0 } else { (total - idle) as f64 / total as f64 }
}

/// The memory there is, and what of it cannot be had, in bytes.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    let total = bytes("MemTotal:")?;
    Some((total, total.saturating_sub(bytes("MemAvailable:")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utilization_is_the_share_of_time_that_was_not_idle() {
        let before = ticks("cpu  100 0 50 800 50 0 0 0 9 9\ncpu0 1 2 3 4\n").unwrap();
        assert_eq!(before, Ticks { total: 1000, idle: 850 });
        let now = Ticks { total: 1100, idle: 925 };
        assert!((utilization(before, now) - 0.25).abs() < 1e-9);
        assert!(utilization(now, now).abs() < 1e-9);
        assert!((utilization(now, Ticks { total: 1200, idle: 900 }) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn used_memory_is_what_is_not_available() {
        let meminfo = "MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    400 kB\n";
        assert_eq!(memory(meminfo), Some((1_024_000, 614_400)));
        assert_eq!(memory("MemTotal: 1000 kB\n"), None);
        assert_eq!(ticks("intr 1 2 3\n"), None);
    }
}
