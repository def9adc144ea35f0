//! The log on disk and the data directory.
//!
//! A node promises nothing that its disk does not hold: a vote, a promise or a reply that rests on
//! a record leaves only after the record is durable. This module keeps that record.
//!
//! | part | is |
//! |---|---|
//! | [`Disk`], [`DiskFile`] | the few operations of a directory of files that all the rest uses |
//! | [`FileDisk`] | the real one |
//! | [`MemoryDisk`] | one that can lose power, for tests and the simulator |
//! | [`DataDir`], [`Identity`] | the lock, and whose directory this is |
//! | [`RecordGroup`] | records on their way to the log, built by the event loop |
//! | [`Log`] | the write-ahead log: segments of checksummed records, and recovery |
//! | [`LogWriter`] | the thread that writes groups and syncs them |
//! | [`SnapshotWriter`], [`SnapshotReceiver`], [`SnapshotReader`] | the state at one index in a file |
//!
//! The rules that hold everywhere:
//!
//! - **Published whole.** A file appears under its name only complete: written under another name,
//!   synced, renamed, directory synced ([`publish`]). Nothing is deleted before that.
//! - **Cut or stop.** At the end of the log a torn group is cut away. Damage to what had been synced
//!   is never cut: the node stops and says where (`recovery`, and `docs/formats.md`).
//! - **Read back is not durable.** What recovery read may come from a page cache that never reached
//!   the disk. It is written anew and synced before [`Log::open`] returns (rule D of
//!   `docs/protocol.md`).
//! - **One error is the last.** After a failed write or sync the log takes nothing more. A second
//!   sync would succeed without having written anything (Rebello et al., *Can Applications Recover
//!   from fsync Failures?*, ATC 2020).
//!
//! Left out: when a snapshot is made and what may be forgotten; the core decides that.

mod directory;
mod disk;
mod error;
mod identity;
mod inspect;
mod log;
mod memory;
mod record;
mod recovery;
mod segment;
mod snapshot;
mod sync_mode;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod truncation_tests;
mod writer;

pub use directory::{DataDir, LockState};
pub use disk::{Disk, DiskFile, FileDisk, publish, publish_written};
pub use error::OpenError;
pub use identity::Identity;
pub use inspect::{LogEnd, LogInspection, SegmentInspection, SegmentRecords, inspect_log, is_torn_name};
pub use log::{Log, LogOptions, SegmentSpan};
pub use memory::{Call, MemoryDisk, MemoryFile, Operation};
pub use record::{RECORD_HEADER_LEN, RECORD_LEN_MAX, RecordGroup};
pub use recovery::{Recovered, stored_bytes};
pub use snapshot::{
    SnapshotError, SnapshotFile, SnapshotFront, SnapshotHeader, SnapshotReader, SnapshotReceiver,
    SnapshotWriter, UnpublishedSnapshot, parse_snapshot_name, remove_old_snapshots,
    remove_unfinished_snapshots, snapshot_name, snapshots_on,
};
pub use sync_mode::SyncMode;
pub use writer::LogWriter;
