//! What the operating system knows about this process.

use std::fs;

/// The kernel's unit of processor time in `/proc`, 1/100 s on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where user time lies behind the command name in `/proc/self/stat`; system time follows.
const USER_TIME_FIELD: usize = 11;

/// The memory in use, in bytes; `None` where the system does not say.
pub(crate) fn resident_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The processor time used so far, in seconds; `None` where the system does not say.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command name may hold spaces and parentheses; the last parenthesis ends it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(USER_TIME_FIELD);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_says_what_the_process_uses() {
        assert!(resident_memory_bytes().unwrap() > 100_000);
        assert!(cpu_seconds().unwrap() < 1e6);
    }
}
