//! Entries of lanes and what they carry.

use std::fmt;
use std::sync::Arc;

use super::{Incarnation, Millis, NodeId, Position, Timestamp, ViewNumber, limits};

/// Encoded client commands that travel together: one entry, one vote, one record. Cheap to clone.
///
/// The bytes begin with the number of commands (`u32`, little endian); `wire::batch` writes and
/// reads the rest.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch(Arc<[u8]>);

/// Why bytes are no batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// Fewer than four bytes.
    Short {
        /// How many there are.
        len: usize,
    },
    /// More bytes than a batch may have.
    TooLong {
        /// How many there are.
        len: usize,
        /// How many there may be.
        max: usize,
    },
    /// More commands than a batch may have.
    TooMany {
        /// How many are announced.
        count: u32,
        /// How many there may be.
        max: u32,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::Short { len } => write!(f, "batch of {len} bytes, expected at least 4"),
            BatchError::TooLong { len, max } => {
                write!(f, "batch of {len} bytes, expected at most {max}")
            }
            BatchError::TooMany { count, max } => {
                write!(f, "batch of {count} commands, expected at most {max}")
            }
        }
    }
}

impl std::error::Error for BatchError {}

impl Batch {
    /// Takes encoded commands, after a look at their length and number. The commands themselves are read
    /// when they are applied.
    ///
    /// # Errors
    /// Too short, too long, too many commands.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Result<Batch, BatchError> {
        let bytes = bytes.into();
        if bytes.len() > limits::BATCH_LEN_MAX {
            return Err(BatchError::TooLong { len: bytes.len(), max: limits::BATCH_LEN_MAX });
        }
        let Some(head) = bytes.first_chunk::<4>() else {
            return Err(BatchError::Short { len: bytes.len() });
        };
        let count = u32::from_le_bytes(*head);
        if count > limits::BATCH_COUNT_MAX {
            return Err(BatchError::TooMany { count, max: limits::BATCH_COUNT_MAX });
        }
        Ok(Batch(bytes))
    }

    /// How many commands it announces.
    pub fn count(&self) -> u32 {
        self.0.first_chunk::<4>().map_or(0, |head| u32::from_le_bytes(*head))
    }

    /// The encoded commands, their number first.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch({} commands, {} bytes)", self.count(), self.0.len())
    }
}

/// One start of one registered disk: batches are numbered from 1 within it. A later pair of the same
/// origin is higher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct OriginPair {
    /// The view that registered the origin's disk identity.
    pub registered: ViewNumber,
    /// The origin's incarnation.
    pub incarnation: Incarnation,
}

/// Names a batch once and for all, however often it is offered (`docs/protocol.md`, section 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label {
    /// The node whose clients' commands these are.
    pub origin: NodeId,
    /// Which start of it.
    pub pair: OriginPair,
    /// 1, 2, 3 … within the pair.
    pub seq: u64,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}#{}", self.origin, self.pair.registered, self.pair.incarnation, self.seq)
    }
}

/// One element of a lane: a batch with its place in the total order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The view whose lane this is.
    pub view: ViewNumber,
    /// The Lamport timestamp.
    pub t: Timestamp,
    /// The lane's sender.
    pub node: NodeId,
    /// The timestamp of the entry before it in the lane, 0 for the first.
    pub prev: Timestamp,
    /// Whose batch it is.
    pub label: Label,
    /// The median of the voters' wall clocks, as the sender knew them.
    pub wall: Millis,
    /// The commands.
    pub batch: Batch,
}

impl Entry {
    /// Its place in the total order.
    pub fn position(&self) -> Position {
        Position { view: self.view, t: self.t, node: self.node }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} prev={} {}", self.position(), self.prev, self.label)
    }
}
