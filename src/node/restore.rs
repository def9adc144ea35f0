//! The state that a start goes on from: the newest snapshot that is sound, if there is one.
//!
//! If the newest is damaged, the one before it will do, since the log is kept from where that one ends. A damaged file
//! is set aside under another name, never silently: the caller says so in its log. It does that last, when the log is
//! open and the start is in it ([`DamagedSnapshot::set_aside`]): a start that is refused, because the log does not go
//! back far enough for what is left, leaves the directory as it was for whoever looks at it. A start that is cut short
//! before that meets the same damage again, and takes the same way.

use std::fmt;
use std::io;

use crate::protocol;
use crate::storage::{Disk, SnapshotError, SnapshotReader, snapshots_on};
use crate::store::Limits;
use crate::types::{DiskId, Lsn};
use crate::wire::DecodeError;

use super::keeper::set_aside;
use super::replay::Replay;
use super::snapshot::{SnapshotFailure, load_snapshot};

/// What was found.
#[derive(Debug)]
pub struct Restored {
    /// To be given the log.
    pub replay: Replay,
    /// Keys in the snapshot, and its length in bytes; `None` if there is none.
    pub snapshot: Option<(u64, u64)>,
    /// Newer ones, which are damaged; to be set aside once the start is known to succeed without them.
    pub damaged: Vec<DamagedSnapshot>,
}

/// A snapshot that cannot be used, still under its own name.
#[derive(Debug)]
pub struct DamagedSnapshot {
    /// The file.
    pub name: String,
    /// What is wrong with it.
    pub failure: SnapshotFailure,
}

impl DamagedSnapshot {
    /// Gives it a name under which it does not count, and returns where it is then.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_aside<D: Disk>(&self, disk: &D) -> io::Result<String> {
        set_aside(disk, &self.name)
    }
}

/// Why a node cannot start from its snapshots.
#[derive(Debug)]
pub enum RestoreError {
    /// The disk fails, or the newest is of a newer format.
    Snapshot(SnapshotFailure),
    /// It was made on another disk: somebody has copied it here.
    Foreign {
        /// The file.
        name: String,
        /// The disk that it was made on.
        found: DiskId,
        /// The disk that it lies on.
        expected: DiskId,
    },
    /// What it says about the order makes no sense.
    Header {
        /// The file.
        name: String,
        /// Why.
        error: DecodeError,
    },
}

impl RestoreError {
    /// What `kvnode` exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            RestoreError::Snapshot(error) => error.exit_code(),
            RestoreError::Foreign { .. } => 6,
            RestoreError::Header { .. } => 4,
        }
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Snapshot(error) => error.fmt(f),
            RestoreError::Foreign { name, found, expected } => {
                write!(f, "{name} was made on disk {found}, this is disk {expected}")
            }
            RestoreError::Header { name, error } => write!(f, "the header of {name} makes no sense: {error}"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// Loads the newest sound snapshot, and changes nothing. `progress` is told how many bytes of how many are done.
///
/// # Errors
/// The disk fails, or the snapshot is not one for this node. Damage is no error as long as there is the log: whether it
/// reaches back far enough is seen when it is opened.
pub fn restore<D: Disk>(
    disk: &D,
    disk_id: DiskId,
    settings: &protocol::Settings,
    limits: &Limits,
    seed: u64,
    mut progress: impl FnMut(u64, u64),
) -> Result<Restored, RestoreError> {
    let io = |source| {
        RestoreError::Snapshot(SnapshotFailure::File(SnapshotError::Io { path: disk.path("."), source }))
    };
    let mut damaged = Vec::new();
    let files = snapshots_on(disk).map_err(io)?;
    for (i, file) in files.iter().enumerate() {
        let loaded = match load_snapshot(disk, &file.name, limits.clone(), seed, &mut progress) {
            Ok(loaded) => loaded,
            Err(error) if is_final(&error) => return Err(RestoreError::Snapshot(error)),
            Err(failure) => {
                damaged.push(DamagedSnapshot { name: file.name.clone(), failure });
                continue;
            }
        };
        let (name, found) = (file.name.clone(), loaded.front.disk_id);
        if found != disk_id {
            return Err(RestoreError::Foreign { name, found, expected: disk_id });
        }
        let snapshot = Some((loaded.header.keys, loaded.len));
        let replay = Replay::on_snapshot(settings, loaded, older_from(disk, &files[i + 1..]))
            .map_err(|error| RestoreError::Header { name, error })?;
        return Ok(Restored { replay, snapshot, damaged });
    }
    Ok(Restored { replay: Replay::new(settings), snapshot: None, damaged })
}

/// Whether another snapshot would be no help. A place that the disk cannot read is damage like any other.
fn is_final(error: &SnapshotFailure) -> bool {
    match error {
        SnapshotFailure::File(SnapshotError::NewerFormat { .. }) => true,
        SnapshotFailure::File(SnapshotError::Io { source, .. }) => {
            matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory)
        }
        SnapshotFailure::File(_) | SnapshotFailure::Image { .. } => false,
    }
}

/// From which record on the log is needed for the snapshot before the one that is used.
fn older_from<D: Disk>(disk: &D, older: &[crate::storage::SnapshotFile]) -> Option<Lsn> {
    let reader = SnapshotReader::open(disk, &older.first()?.name).ok()?;
    Some(reader.front().log_from)
}

#[cfg(test)]
mod tests;
