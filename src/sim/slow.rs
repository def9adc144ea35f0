//! A machine on which everything takes long, for some of the plans: parts of turns end when their time is up.

use std::cell::RefCell;

use crate::store::TurnClock;
use crate::types::Nanos;

use super::random::Random;

/// Between two looks at the clock so much time passes at most.
const STEP_MAX: Nanos = Nanos::of_micros(1_000);

thread_local! {
    /// A thread has one world at a time.
    static CLOCK: RefCell<(Random, Nanos)> = RefCell::new((Random::new(0, 10), Nanos(0)));
}

/// A world begins.
pub(super) fn reset(seed: u64) {
    CLOCK.with_borrow_mut(|clock| *clock = (Random::new(seed, 10), Nanos(0)));
}

fn read() -> Nanos {
    CLOCK.with_borrow_mut(|(random, now)| {
        now.0 += random.below(STEP_MAX.0);
        *now
    })
}

/// For a turn that begins now.
pub(super) fn turn_clock() -> TurnClock {
    let now = read();
    TurnClock { wall: read, cpu: read, begun: (now, now), look_every: 1 }
}
