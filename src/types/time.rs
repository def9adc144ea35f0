//! Numbers that only ever rise: logical timestamps, views, positions, indexes, log sequence
//! numbers and milliseconds.

use std::fmt;

use super::NodeId;

/// A Lamport timestamp (Lamport 1978). Zero is before every entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Before every entry.
    pub const ZERO: Timestamp = Timestamp(0);
    /// After every entry: the frontier of a lane of which nothing is left to come.
    pub const INFINITE: Timestamp = Timestamp(u64::MAX);

    /// The timestamp after this one.
    ///
    /// # Panics
    /// After 2^64 - 1 timestamps. A peer cannot bring that about: timestamps more than 2^48 above
    /// one's own clock, or above 2^63, are refused.
    #[must_use]
    pub fn next(self) -> Timestamp {
        Timestamp(self.0.checked_add(1).expect("the Lamport clock never reaches 2^64"))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Timestamp::INFINITE { f.write_str("inf") } else { write!(f, "{}", self.0) }
    }
}

/// The number of a view: 0 before the cluster is founded, then 1, 2, 3 …
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ViewNumber(pub u64);

impl ViewNumber {
    /// The view after this one.
    #[must_use]
    pub fn next(self) -> ViewNumber {
        ViewNumber(self.0.checked_add(1).expect("views never reach 2^64"))
    }
}

impl fmt::Display for ViewNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// A place in the total order: entries are delivered in lexicographic order of
/// `(view, t, node)`, the same on every node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// The view whose lane the entry is in.
    pub view: ViewNumber,
    /// The entry's Lamport timestamp.
    pub t: Timestamp,
    /// The lane's sender; decides between equal timestamps.
    pub node: NodeId,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{},{})", self.view, self.t, self.node)
    }
}

/// Counts delivered commands: 1, 2, 3 … The same number for the same command on every node
/// (the *revision*). Zero: nothing delivered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Index(pub u64);

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A log sequence number: counts the records of one node's log, 1, 2, 3 … Zero: nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number of the next record.
    #[must_use]
    pub fn next(self) -> Lsn {
        Lsn(self.0.checked_add(1).expect("log sequence numbers never reach 2^64"))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Milliseconds: a point on a clock or a length of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// How long after `earlier` this is; zero if the clock went back.
    #[must_use]
    pub const fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// This point in time, `length` later.
    #[must_use]
    pub const fn plus(self, length: Millis) -> Millis {
        Millis(self.0.saturating_add(length.0))
    }

    /// This length, `factor` times.
    #[must_use]
    pub const fn times(self, factor: u64) -> Millis {
        Millis(self.0.saturating_mul(factor))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// Nanoseconds, of what the parts of a turn take.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// So many microseconds.
    #[must_use]
    pub const fn of_micros(micros: u64) -> Nanos {
        Nanos(micros.saturating_mul(1_000))
    }

    /// This, `length` later.
    #[must_use]
    pub const fn plus(self, length: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(length.0))
    }

    /// How long after `earlier` this is; zero if the clock went back.
    #[must_use]
    pub const fn since(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What the clocks say at the beginning of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The monotonic clock, from an arbitrary origin. Timers use it.
    pub mono: Millis,
    /// The wall clock, since 1970. Only written into entries; nothing is decided by it locally.
    pub wall: Millis,
}
