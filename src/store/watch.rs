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
    /// The processor time at the beginning of the turn.
    pub cpu_begun: Nanos,
    /// After so much work the clock is looked at.
    pub look_every: u64,
}

/// Tells whether a part of a turn has taken too long. As made by default it never has.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The clock, how long the part may take, and what the wall's clock said when it began.
    limit: Option<(TurnClock, Nanos, Nanos)>,
    /// Work done since the clock was looked at.
    unwatched: Cell<u64>,
    is_late: Cell<bool>,
}

impl Watch {
    /// For a part of a turn that begins now and may take so long. Without a clock it may take any time.
    pub fn new(clock: Option<TurnClock>, length: Nanos) -> Watch {
        let limit = clock.map(|clock| (clock, length, (clock.wall)()));
        Watch { limit, ..Watch::default() }
    }

    /// So much work was done. Looks at the clock if that is due.
    pub fn note(&self, work: u64) {
        let Some((clock, length, begun)) = &self.limit else { return };
        let unwatched = self.unwatched.get().saturating_add(work);
        self.unwatched.set(unwatched);
        if unwatched >= clock.look_every && !self.is_late.get() {
            self.unwatched.set(0);
            let is_over = |clock: Clock, begun| clock().since(begun) >= *length;
            self.is_late.set(is_over(clock.wall, *begun) && is_over(clock.cpu, clock.cpu_begun));
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
            cpu_begun: Nanos(30),
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
    }
}
