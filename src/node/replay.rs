//! From the records of a log to the core's memory.

use std::fmt;

use crate::protocol::{Record, Recovery, RecoveryError, Settings, decode_record, encode_record, record_kind};
use crate::storage::RecordGroup;
use crate::store::Store;
use crate::types::{Incarnation, Lsn, ViewNumber};
use crate::wire::DecodeError;

use super::keeper::SnapshotInfo;
use super::snapshot::LoadedSnapshot;
use super::snapshots::{Snapshots, base_of};

/// Why a log cannot be replayed.
#[derive(Debug)]
pub enum ReplayError {
    /// A record whose checksum is right makes no sense: a newer version wrote it, or this program has a
    /// fault.
    Record {
        /// Which.
        lsn: Lsn,
        /// Its kind.
        kind: u8,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A record contradicts those before it.
    Contradiction {
        /// Which.
        lsn: Lsn,
        /// How.
        error: RecoveryError,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Record { lsn, kind, error } => {
                write!(f, "record lsn={lsn} kind={kind} is unknown to this version: {error}")
            }
            ReplayError::Contradiction { lsn, error } => {
                write!(f, "record lsn={lsn} contradicts those before it: {error}")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

/// Reads a log back, record by record, on top of a snapshot if there is one, and then begins a new start of the
/// node.
#[derive(Debug)]
pub struct Replay {
    recovery: Recovery,
    needed: Lsn,
    /// Bytes read.
    len: u64,
    store: Option<Store>,
    newest: Option<SnapshotInfo>,
    older_from: Option<Lsn>,
}

/// What a replay has led to.
pub(super) struct Replayed {
    pub(super) recovery: Recovery,
    /// The state of the snapshot.
    pub(super) store: Option<Store>,
    pub(super) snapshots: Snapshots,
}

impl Replay {
    /// Nothing read yet, and no snapshot.
    pub fn new(settings: &Settings) -> Replay {
        let recovery = Recovery::new(settings);
        Replay { recovery, needed: Lsn(1), len: 0, store: None, newest: None, older_from: None }
    }

    /// Nothing read yet but a snapshot. `older_from` is the record from which the log is needed for the snapshot
    /// before it, if that is there.
    ///
    /// # Errors
    /// What the snapshot says about the order makes no sense.
    pub fn on_snapshot(
        settings: &Settings,
        snapshot: LoadedSnapshot,
        older_from: Option<Lsn>,
    ) -> Result<Replay, DecodeError> {
        let LoadedSnapshot { header, front, id, len, blocks, store } = snapshot;
        let base = base_of(&header)?;
        let needed = front.log_from.max(Lsn(1));
        // State that was restored for a new cluster is no snapshot of this one.
        let info = SnapshotInfo { id, position: base.position, len, log_from: needed, blocks };
        let newest = (base.view.number > ViewNumber(0)).then_some(info);
        let recovery = Recovery::from_base(settings, base, needed, front.incarnation);
        Ok(Replay { recovery, needed, len: 0, store: Some(store), newest, older_from })
    }

    /// The first record of the log that is needed; what comes before it is not to be pushed.
    pub fn needed(&self) -> Lsn {
        self.needed
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// It cannot be decoded, or contradicts the ones before it.
    pub fn push(&mut self, lsn: Lsn, kind: u8, payload: &[u8]) -> Result<(), ReplayError> {
        self.len += payload.len() as u64;
        let record =
            decode_record(kind, payload).map_err(|error| ReplayError::Record { lsn, kind, error })?;
        self.recovery.push(lsn, record).map_err(|error| ReplayError::Contradiction { lsn, error })
    }

    /// Ends the replay: appends to `group` the record of the start that begins now, and returns its
    /// incarnation. The record must be durable before the node is made.
    ///
    /// # Errors
    /// The core cannot accept what the log says.
    pub fn begin(&mut self, group: &mut RecordGroup) -> Result<Incarnation, ReplayError> {
        let incarnation = Incarnation(self.recovery.last_incarnation().0 + 1);
        let lsn = self.recovery.last_lsn().next();
        let record = Record::Start { incarnation };
        group.push(lsn, record_kind(&record), |buffer| {
            encode_record(buffer, &record);
        });
        group.require_sync();
        self.recovery.push(lsn, record).map_err(|error| ReplayError::Contradiction { lsn, error })?;
        Ok(incarnation)
    }

    pub(super) fn into_parts(self) -> Replayed {
        let snapshots = Snapshots::new(self.newest, self.older_from, self.len, self.recovery.last_lsn());
        Replayed { recovery: self.recovery, store: self.store, snapshots }
    }
}
