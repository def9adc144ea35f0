//! How long a part of a turn has taken, for whoever does work in pieces.
//!
//! Work is counted ([`Fund`](super::Fund)), and a turn does so much of it at most. What that takes is another matter:
//! on a slow machine, or where memory is slow for a while because the host is busy with it or it was moved to a disk,
//! the same reads take ten or a hundred times as long. So whoever counts looks at the clock as well now and then, and
//! stops when the time is up. Where a piece ends makes no difference to what is done, so nodes need not agree about it.

use std::cell::Cell;

use crate::types::Nanos;

/// Reads a clock.
pub type Clock = fn() -> Nanos;

/// How the time of a turn is measured.
#[derive(Clone, Copy, Debug)]
pub struct TurnClock {
    /// A clock that costs next to nothing to read, the wall's for instance.
    pub wall: Clock,
    /// The thread's processor time. It is only asked where the other one says that the time is up: the thread may have
    /// waited for a processor, and then it has not worked.
    pub cpu: Clock,
    /// What both said at the beginning of the turn, the thread's processor time second.
    pub begun: (Nanos, Nanos),
    /// After so much work the clock is looked at.
    pub look_every: u64,
}

/// Tells whether a part of a turn has taken too long. As made by default it never has.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The clocks, and for both: when the time is up.
    limit: Option<(TurnClock, Nanos, Nanos)>,
    /// Work done since the clock was looked at.
    unwatched: Cell<u64>,
    is_late: Cell<bool>,
}

impl Watch {
    /// For a part of a turn that begins now and may take so long. Without a clock it may take any time.
    pub fn new(clock: Option<TurnClock>, length: Nanos) -> Watch {
        let limit = |clock: TurnClock| {
            let (wall_begun, cpu_begun) = clock.begun;
            let now = (clock.wall)();
            // The turn has had a processor for that long at most.
            let cpu = cpu_begun.plus(now.since(wall_begun));
            (clock, now.plus(length), cpu.plus(length))
        };
        Watch { limit: clock.map(limit), ..Watch::default() }
    }

    /// So much work was done. Looks at the clock if that is due.
    pub fn note(&self, work: u64) {
        let Some((clock, wall_end, cpu_end)) = &self.limit else { return };
        let unwatched = self.unwatched.get().saturating_add(work);
        self.unwatched.set(unwatched);
        if unwatched >= clock.look_every && !self.is_late.get() {
            self.unwatched.set(0);
            self.is_late.set((clock.wall)() >= *wall_end && (clock.cpu)() >= *cpu_end);
        }
    }

    /// Whether the time is up, as was seen when the clock was looked at last.
    pub fn is_late(&self) -> bool {
        self.is_late.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    static WALL: AtomicU64 = AtomicU64::new(100);
    static CPU: AtomicU64 = AtomicU64::new(40);

    #[test]
    fn a_part_is_late_when_both_clocks_are_past_its_time_and_somebody_has_looked() {
        let clock = TurnClock {
            wall: || Nanos(WALL.load(Relaxed)),
            cpu: || Nanos(CPU.load(Relaxed)),
            begun: (Nanos(90), Nanos(20)),
            look_every: 8,
        };
        let watch = Watch::new(Some(clock), Nanos(50));
        let is_late = |work| {
            watch.note(work);
            watch.is_late()
        };
        CPU.store(90, Relaxed);
        assert!(!is_late(100), "by the wall's clock no time has passed");
        WALL.store(149, Relaxed);
        CPU.store(79, Relaxed);
        assert!(!is_late(8));
        WALL.store(150, Relaxed);
        assert!(!is_late(8), "it has waited for a processor");
        CPU.store(80, Relaxed);
        assert!(!is_late(7), "nobody looks yet");
        assert!(is_late(1));
        WALL.store(0, Relaxed);
        assert!(is_late(100), "and stays so");
        assert!(!Watch::default().is_late());

        // A part that begins when the turn has gone on for longer than that already.
        WALL.store(1_000, Relaxed);
        let clock = TurnClock { begun: (Nanos(900), Nanos(20)), ..clock };
        let watch = Watch::new(Some(clock), Nanos(50));
        let is_late = |wall, cpu| {
            WALL.store(wall, Relaxed);
            CPU.store(cpu, Relaxed);
            watch.note(8);
            watch.is_late()
        };
        assert!(!is_late(1_060, 120), "it has waited for a processor ever since it began");
        assert!(!is_late(1_100, 169));
        assert!(is_late(1_101, 170));
    }
}
