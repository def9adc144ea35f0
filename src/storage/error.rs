//! Why a data directory or its log cannot be opened.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::types::{DiskId, Lsn, NodeId};
use crate::wire::DecodeError;

use super::{Disk, SyncMode};

/// Why a data directory or its log cannot be opened. Each variant is one exit code of `kvnode`.
#[derive(Debug)]
pub enum OpenError {
    /// Another process holds the directory.
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process id; `None` in the moment before it has written it down.
        pid: Option<u32>,
    },
    /// No permission, or a file system mounted read-only.
    NotWritable {
        /// What could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed at something.
    Io {
        /// What it was working on.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The directory belongs to another node.
    WrongNode {
        /// The directory's node.
        found: NodeId,
        /// This node.
        expected: NodeId,
    },
    /// A segment of the log was made in another data directory.
    WrongDisk {
        /// The segment.
        file: PathBuf,
        /// The disk it was made on.
        found: DiskId,
        /// The disk it is on.
        expected: DiskId,
    },
    /// A file was written by a newer version of the program.
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this program reads.
        supported: u32,
    },
    /// Bytes that had been durable are not what they were.
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A record whose checksum is right, but which does not say anything that makes sense.
    BadRecord {
        /// The file.
        file: PathBuf,
        /// Where in it the record begins.
        offset: u64,
        /// What is wrong with the record.
        source: DecodeError,
    },
    /// The log begins after the first record that the snapshot leaves to it.
    MissingRecords {
        /// The data directory.
        log: PathBuf,
        /// The first record that is there.
        found: Lsn,
        /// The first that is needed.
        needed: Lsn,
    },
    /// The log ends before records that were durable when the snapshot was made.
    LostRecords {
        /// The data directory.
        log: PathBuf,
        /// The last record that is there.
        last: Lsn,
        /// The last that was durable then.
        expected: Lsn,
    },
    /// In a mode that does not sync every group, the machine was restarted without a clean stop:
    /// what was promised last may be gone.
    WeakSyncLost {
        /// The mode it ran in.
        mode: SyncMode,
    },
}

impl OpenError {
    /// For `map_err` after an operation on `path`.
    pub(super) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> OpenError {
        move |source| {
            let path = path.as_ref().to_path_buf();
            match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    OpenError::NotWritable { path, source }
                }
                _ => OpenError::Io { path, source },
            }
        }
    }

    /// For `map_err` after an operation on a disk's file `name`.
    pub(super) fn on<D: Disk>(disk: &D, name: &str) -> impl FnOnce(io::Error) -> OpenError {
        OpenError::io(disk.path(name))
    }

    pub(super) fn damaged<D: Disk>(disk: &D, name: &str, offset: u64, what: &'static str) -> OpenError {
        OpenError::Damaged { file: disk.path(name), offset, what }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse { path, pid: Some(pid) } => {
                write!(f, "data directory {} is in use by process {pid}", path.display())
            }
            OpenError::InUse { path, pid: None } => {
                write!(f, "data directory {} is in use by another process", path.display())
            }
            OpenError::NotWritable { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            OpenError::Io { path, source } => write!(f, "{}: {source}", path.display()),
            OpenError::WrongNode { found, expected } => {
                write!(f, "the data directory belongs to node {found}, this is node {expected}")
            }
            OpenError::WrongDisk { file, found, expected } => {
                write!(f, "{} was made on disk {found}, this is disk {expected}", file.display())
            }
            OpenError::NewerFormat { file, found, supported } => write!(
                f,
                "{} has format version {found}, this program reads up to {supported}",
                file.display()
            ),
            OpenError::Damaged { file, offset, what } => {
                write!(f, "{} is damaged at offset {offset}: {what}", file.display())
            }
            OpenError::BadRecord { file, offset, source } => {
                write!(
                    f,
                    "{} holds a record at offset {offset} that cannot be read: {source}",
                    file.display()
                )
            }
            OpenError::MissingRecords { log, found, needed: Lsn(1) } => write!(
                f,
                "the log in {} begins with record {found}, and no sound snapshot covers what came before",
                log.display()
            ),
            OpenError::MissingRecords { log, found, needed } => write!(
                f,
                "the log in {} begins with record {found}, the snapshot needs it from record {needed} on",
                log.display()
            ),
            OpenError::LostRecords { log, last, expected } => write!(
                f,
                "the log in {} ends with record {last}, the snapshot was made when record {expected} was durable",
                log.display()
            ),
            OpenError::WeakSyncLost { mode } => write!(
                f,
                "the machine was restarted without a clean stop while running with sync {mode}; \
                 the last records may be lost"
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::NotWritable { source, .. } | OpenError::Io { source, .. } => Some(source),
            OpenError::BadRecord { source, .. } => Some(source),
            _ => None,
        }
    }
}
