//! Why a node does not start, or stops.

use std::fmt;
use std::io;

use crate::config::{Address, Fault};
use crate::node::{ReplayError, RestoreError};
use crate::protocol::{HaltReason, Refusal};
use crate::storage::OpenError;
use crate::types::NodeId;

/// Why a node does not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration has no such node.
    NotMember {
        /// The node.
        id: NodeId,
    },
    /// Settings that do not fit each other.
    Settings(Fault),
    /// The data directory or the log cannot be opened.
    Data(OpenError),
    /// A snapshot cannot be used.
    Snapshot(RestoreError),
    /// The log can be read, but makes no sense.
    Replay(ReplayError),
    /// The record of this start could not be made durable.
    Disk(io::Error),
    /// An address cannot be listened on.
    Bind {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses something else that the event loop needs.
    System {
        /// What.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl StartError {
    /// What `kvnode` exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::NotMember { .. } | StartError::Settings(_) | StartError::Bind { .. } => 2,
            StartError::Data(error) => match error {
                OpenError::InUse { .. } => 3,
                OpenError::Damaged { .. }
                | OpenError::BadRecord { .. }
                | OpenError::MissingRecords { .. }
                | OpenError::LostRecords { .. }
                | OpenError::WeakSyncLost { .. } => 4,
                OpenError::NotWritable { .. } | OpenError::Io { .. } => 5,
                OpenError::WrongNode { .. } | OpenError::WrongDisk { .. } => 6,
                OpenError::NewerFormat { .. } => 8,
            },
            StartError::Snapshot(error) => error.exit_code(),
            StartError::Replay(_) => 4,
            StartError::Disk(_) => 5,
            StartError::System { .. } => 1,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WAY_OUT: &str = "nothing was deleted; the data is still on the other nodes, and --rebuild gets it from \
                               there";
        match self {
            StartError::NotMember { id } => {
                write!(f, "node {} is not in the configuration file", id.get())
            }
            StartError::Settings(fault) => fault.fmt(f),
            StartError::Data(error) if self.exit_code() == 4 => write!(f, "{error}; {WAY_OUT}"),
            StartError::Data(error @ OpenError::WrongDisk { .. }) => write!(f, "{error}; {REBUILD}"),
            StartError::Data(error) => error.fmt(f),
            StartError::Snapshot(error @ RestoreError::Foreign { .. }) => write!(f, "{error}; {REBUILD}"),
            StartError::Snapshot(error) if self.exit_code() == 4 => write!(f, "{error}; {WAY_OUT}"),
            StartError::Snapshot(error) => error.fmt(f),
            StartError::Replay(error) => write!(f, "{error}; {WAY_OUT}"),
            StartError::Disk(error) => write!(f, "cannot write the log: {error}"),
            StartError::Bind { address, source } => write!(f, "cannot listen on {address}: {source}"),
            StartError::System { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> StartError {
        StartError::Data(error)
    }
}

impl From<RestoreError> for StartError {
    fn from(error: RestoreError) -> StartError {
        StartError::Snapshot(error)
    }
}

impl From<ReplayError> for StartError {
    fn from(error: ReplayError) -> StartError {
        StartError::Replay(error)
    }
}

/// What to do about a disk that cannot be believed.
const REBUILD: &str = "if no other process runs with this id, --rebuild gets the data from the other nodes";

/// What to do about a refusal, to be put behind it; nothing where the cause decides.
fn way_out(refusal: &Refusal) -> String {
    match refusal {
        Refusal::OtherDisk { .. } | Refusal::OldIncarnation { .. } => format!("; {REBUILD}"),
        // The copy was the older one or it was not: the next start compares what its log has with what peers remember.
        Refusal::Clone => "; if that one has ended, start this one again".to_owned(),
        _ => String::new(),
    }
}

/// Why a running node stopped without being asked to.
#[derive(Debug)]
pub enum RunError {
    /// The log could not be written or synced; it is never tried again.
    Disk(io::Error),
    /// A snapshot could not be written or read; it is never tried again.
    Snapshots(io::Error),
    /// The core says that this process must not go on.
    Halted(HaltReason),
    /// Most other nodes refuse this one.
    Refused {
        /// What they say.
        refusal: Refusal,
    },
    /// The event loop itself cannot go on.
    System {
        /// What it was about to do.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The thread of the event loop ended by a fault in the program.
    Panicked,
}

impl RunError {
    /// What `kvnode` exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Disk(_) | RunError::Snapshots(_) => 5,
            RunError::Halted(HaltReason::LostVotes { .. }) => 4,
            RunError::Halted(HaltReason::Identity { .. }) => 6,
            RunError::Refused { refusal: Refusal::NotMember } => 7,
            RunError::Refused { .. } => 6,
            RunError::System { .. } | RunError::Panicked => 1,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Disk(error) => write!(f, "disk error, the log is closed: {error}"),
            RunError::Snapshots(error) => write!(f, "disk error in a snapshot: {error}"),
            RunError::Halted(reason @ HaltReason::LostVotes { .. }) => write!(f, "{reason}; {REBUILD}"),
            RunError::Halted(reason @ HaltReason::Identity { refusal, .. }) => {
                write!(f, "{reason}{}", way_out(refusal))
            }
            RunError::Refused { refusal } => {
                write!(f, "most other nodes refuse this one: {refusal}{}", way_out(refusal))
            }
            RunError::System { what, source } => write!(f, "{what}: {source}"),
            RunError::Panicked => f.write_str("the event loop ended by a fault in the program"),
        }
    }
}

impl std::error::Error for RunError {}
