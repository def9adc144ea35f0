//! From the records of a log to the core's memory.

use std::fmt;

use crate::protocol::{Record, Recovery, RecoveryError, Settings, decode_record, encode_record, record_kind};
use crate::storage::RecordGroup;
use crate::types::{Incarnation, Lsn};
use crate::wire::DecodeError;

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

/// Reads a log back, record by record, and then begins a new start of the node.
#[derive(Debug)]
pub struct Replay {
    recovery: Recovery,
}

impl Replay {
    /// Nothing read yet.
    pub fn new(settings: &Settings) -> Replay {
        Replay { recovery: Recovery::new(settings) }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// It cannot be decoded, or contradicts the ones before it.
    pub fn push(&mut self, lsn: Lsn, kind: u8, payload: &[u8]) -> Result<(), ReplayError> {
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

    pub(super) fn into_recovery(self) -> Recovery {
        self.recovery
    }
}
