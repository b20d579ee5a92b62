//! What processes have cost so far.

use std::time::Duration;

/// The kernel counts in hundredths of a second on every platform that Linux runs on today
/// (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// User and system time of these processes, summed; a process that is gone counts nothing.
#[must_use]
pub fn spent(pids: &[u32]) -> Duration {
    pids.iter().filter_map(|pid| of(*pid)).sum()
}

/// The memory that each process has resident, in bytes, the largest first.
#[must_use]
pub fn resident(pids: &[u32]) -> Vec<u64> {
    let mut bytes: Vec<u64> = pids
        .iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .map(|kibibytes| kibibytes * 1_024)
        .collect();
    bytes.sort_unstable_by(|a, b| b.cmp(a));
    bytes
}

fn of(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; what follows is regular.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some(TICK * (ticks(11)? + ticks(12)?))
}
