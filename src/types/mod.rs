//! The nouns of lanekv. Everything here is plain data: no I/O, no clock, no thread.
//!
//! Numbers that mean different things have different types, so that a timestamp can never be
//! handed over where a sequence number is wanted. `docs/glossary.md` defines each word once.

pub mod decimal;
mod entry;
mod id;
pub mod limits;
mod random;
mod reply;
mod time;

pub use entry::{Batch, BatchError, Entry, Label, OriginPair};
pub use id::{ClusterId, DiskId, Incarnation, NodeId, NodeSet, SessionId, SnapshotId};
pub use random::splitmix64;
pub use reply::{Plain, Reply};
pub use time::{Index, Lsn, Millis, Now, Position, Timestamp, ViewNumber};
