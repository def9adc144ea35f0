//! When requests are due at a fixed rate, and a timer that is finer than the milliseconds of `epoll`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Requests at even intervals from a beginning on; nanoseconds of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    begin: u64,
    interval: f64,
    number: u64,
}

impl Schedule {
    /// So many requests a second.
    pub(super) fn new(begin: u64, per_second: f64) -> Schedule {
        Schedule { begin, interval: 1e9 / per_second, number: 0 }
    }

    /// When the next request is due.
    pub(super) fn due(&self) -> u64 {
        self.begin + (self.number as f64 * self.interval) as u64
    }

    /// Goes on to the one after it.
    pub(super) fn advance(&mut self) {
        self.number += 1;
    }
}

/// Wakes the loop at a given time.
#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
    armed_for: u64,
}

impl Timer {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Timer { fd, armed_for: 0 })
    }

    /// Wakes the loop at `time`, which is not before `now`, unless that has been arranged.
    pub(super) fn arm(&mut self, now: u64, time: u64) -> io::Result<()> {
        if self.armed_for == time {
            return Ok(());
        }
        self.armed_for = time;
        // Zero would disarm it.
        let wait = time.saturating_sub(now).max(1);
        let it_value =
            Timespec { tv_sec: (wait / 1_000_000_000) as i64, tv_nsec: (wait % 1_000_000_000) as i64 };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(self.fd.as_fd(), TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_intervals() {
        let mut schedule = Schedule::new(500, 3e6);
        let mut due = Vec::new();
        for _ in 0..4 {
            due.push(schedule.due());
            schedule.advance();
        }
        assert_eq!(due, [500, 833, 1166, 1500]);
    }
}
