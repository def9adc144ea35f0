//! Processor time of the servers and of the generator itself.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::BenchError;

/// What some processes have used so far, and this one.
#[derive(Clone, Debug)]
pub(super) struct CpuTimes {
    servers: Vec<Option<Duration>>,
    own: Duration,
}

/// What was used between two looks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CpuUse {
    /// By the servers together; `None` if none were named, or one of them is gone.
    pub servers: Option<Duration>,
    /// By this program.
    pub own: Duration,
}

impl CpuTimes {
    pub(super) fn now(pids: &[u32]) -> CpuTimes {
        let own = clock_gettime(ClockId::ProcessCPUTime);
        CpuTimes {
            servers: pids.iter().map(|pid| of_process(*pid)).collect(),
            own: Duration::try_from(own).unwrap_or_default(),
        }
    }

    pub(super) fn since(&self, earlier: &CpuTimes) -> CpuUse {
        let used = self.servers.iter().zip(&earlier.servers).map(|(now, then)| now.zip(*then));
        let servers: Option<Duration> =
            used.map(|both| both.map(|(now, then)| now.saturating_sub(then))).sum();
        CpuUse {
            servers: servers.filter(|_| !self.servers.is_empty()),
            own: self.own.saturating_sub(earlier.own),
        }
    }
}

/// Refuses pids of processes that do not exist.
pub(super) fn check(pids: &[u32]) -> Result<(), BenchError> {
    match pids.iter().find(|pid| of_process(**pid).is_none()) {
        None => Ok(()),
        Some(pid) => Err(BenchError::Usage(format!("--pid: there is no process {pid}"))),
    }
}

/// User and system time of a process with all its threads.
fn of_process(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; the numbers are after it, these two 11 fields further.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Option<u64> =
        fields.split_ascii_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().ok()).sum();
    let millis = ticks?.checked_mul(1000)? / rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_is_seen_from_both_sides() {
        let pids = [std::process::id()];
        assert!(check(&pids).is_ok());
        let before = CpuTimes::now(&pids);
        // Ticks are of ten milliseconds.
        let mut after = before.clone();
        while after.since(&before).own < Duration::from_millis(60) {
            after = CpuTimes::now(&pids);
        }
        let used = after.since(&before);
        assert!(used.servers >= Some(Duration::from_millis(30)), "{used:?}");
        assert_eq!(CpuTimes::now(&[]).since(&CpuTimes::now(&[])).servers, None);
        assert!(check(&[u32::MAX]).is_err());
    }
}
