//! What an operator does with a data directory before its node starts: give a node that has lost its disk an empty one
//! ([`prepare_rebuild`]), or begin a new cluster from a backup ([`restore_backup`]).
//!
//! Both end with a directory that the node then starts from as from any other, so that a crash afterwards needs no
//! further thought: it is started again, without the flag.

mod rebuild;
mod restore;

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::node::SnapshotFailure;
use crate::storage::OpenError;
use crate::wire::DecodeError;

pub use rebuild::prepare_rebuild;
pub use restore::restore_backup;

/// Why nothing was done.
#[derive(Debug)]
pub enum MaintenanceError {
    /// A running process has the directory.
    InUse(PathBuf),
    /// The directory is not empty.
    NotEmpty(PathBuf),
    /// Too few other nodes answer as serving.
    NoMajority {
        /// So many do.
        serving: usize,
        /// So many must.
        needed: usize,
        /// What is wrong with the others.
        others: Vec<String>,
    },
    /// Somebody hears this node: it is running.
    Running {
        /// Who says so.
        says: String,
    },
    /// The backup cannot be read.
    Backup(SnapshotFailure),
    /// The backup can be read, but its header makes no sense.
    Header(DecodeError),
    /// The directory cannot be made.
    Data(OpenError),
    /// The system refuses.
    Io {
        /// What was about to be done.
        what: String,
        /// What it said.
        source: io::Error,
    },
}

impl MaintenanceError {
    /// What `kvnode` exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            MaintenanceError::InUse(_) | MaintenanceError::Running { .. } => 3,
            MaintenanceError::NotEmpty(_) | MaintenanceError::NoMajority { .. } => 2,
            MaintenanceError::Backup(error) => error.exit_code(),
            MaintenanceError::Header(_) => 4,
            MaintenanceError::Data(_) | MaintenanceError::Io { .. } => 5,
        }
    }
}

impl fmt::Display for MaintenanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaintenanceError::InUse(path) => {
                write!(f, "{} is in use by a running process", path.display())
            }
            MaintenanceError::NotEmpty(path) => write!(
                f,
                "{} is not empty: a backup is restored into a new cluster only; move the directory away, or start \
                 without --restore",
                path.display()
            ),
            MaintenanceError::NoMajority { serving, needed, others } => write!(
                f,
                "nothing was changed: {serving} of the other nodes serve, {needed} are needed, so that everything \
                 that was acknowledged is held without this node ({})",
                others.join("; ")
            ),
            MaintenanceError::Running { says } => write!(f, "nothing was changed: {says} hears this node"),
            MaintenanceError::Backup(error) => error.fmt(f),
            MaintenanceError::Header(error) => write!(f, "the backup's header makes no sense: {error}"),
            MaintenanceError::Data(error) => error.fmt(f),
            MaintenanceError::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for MaintenanceError {}
