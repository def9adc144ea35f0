//! The clock and randomness of a node: read here and handed inwards.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::types::{Millis, Now, splitmix64};

/// Reads the clocks; the monotonic one counts from its creation.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { origin: Instant::now() }
    }

    pub(super) fn now(&self) -> Now {
        let millis = |length: std::time::Duration| {
            Millis(u64::try_from(length.as_millis()).expect("2^64 ms are longer than any machine runs"))
        };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // One millisecond on, so that zero is before everything.
        Now { mono: millis(self.origin.elapsed()).plus(Millis(1)), wall: millis(wall) }
    }
}

/// A number that nobody can foresee, never zero: the standard library seeds its hashes from the system.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

/// Cheap numbers for jitter (splitmix64).
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// Something between half of `length` and one and a half.
    pub(super) fn around(&mut self, length: Millis) -> Millis {
        Millis(length.0 / 2 + splitmix64(&mut self.0) % (length.0 + 1))
    }
}
