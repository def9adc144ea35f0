//! The nouns of lanekv. Everything here is plain data: no I/O, no clock, no thread.
//!
//! Numbers that mean different things have different types, so that a timestamp can never be
//! handed over where a sequence number is wanted. `docs/glossary.md` defines each word once.

mod bytes;
pub mod decimal;
mod entry;
mod id;
mod item;
pub mod limits;
mod random;
mod reply;
mod time;

pub use bytes::Bytes;
pub use entry::{Batch, BatchError, Entry, Label, OriginPair};
pub use id::{ClusterId, DiskId, Incarnation, NodeId, NodeSet, SessionId, SnapshotId};
pub use item::Item;
pub use random::splitmix64;
pub use reply::{Plain, Reply};
pub use time::{Index, Lsn, Millis, Nanos, Now, Position, Timestamp, ViewNumber};
