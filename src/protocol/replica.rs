//! Skeleton.
use super::api::*;
use super::message::{Hello, Record, Refusal};
use crate::types::{Incarnation, Lsn, Millis, Now};

/// Reads a log back.
#[derive(Debug)]
pub struct Recovery;
/// Why a log makes no sense.
#[derive(Debug)]
pub struct RecoveryError;
impl std::fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("")
    }
}
impl Recovery {
    /// Nothing read yet.
    pub fn new(_settings: &Settings) -> Recovery {
        todo!()
    }
    /// Takes the next record of the log.
    ///
    /// # Errors
    /// The record contradicts the ones before it.
    pub fn push(&mut self, _lsn: Lsn, _record: Record) -> Result<(), RecoveryError> {
        todo!()
    }
    /// The incarnation of the last start in the log; the next start has one more.
    pub fn last_incarnation(&self) -> Incarnation {
        todo!()
    }
    /// The last record.
    pub fn last_lsn(&self) -> Lsn {
        todo!()
    }
}
/// The core.
#[derive(Debug)]
pub struct Replica;
impl Replica {
    /// Begins with what the log had. The record `Start` of this incarnation is the last one pushed to `recovery`.
    pub fn new(_settings: Settings, _identity: Identity, _recovery: Recovery, _now: Now) -> Replica {
        todo!()
    }
    /// Takes one input.
    pub fn handle(&mut self, _now: Now, _input: Input, _out: &mut Vec<Output>) {
        todo!()
    }
    /// Ends a turn of the loop: at most one Status per peer, and timers that are due.
    pub fn end_turn(&mut self, _now: Now, _out: &mut Vec<Output>) {
        todo!()
    }
    /// When [`Input::Tick`] is wanted at the latest, on the monotonic clock.
    pub fn deadline(&self) -> Option<Millis> {
        todo!()
    }
    /// The hello for this peer.
    pub fn hello(&self, _to: crate::types::NodeId) -> Hello {
        todo!()
    }
    /// Whether a peer's hello is acceptable.
    ///
    /// # Errors
    /// The refusal to be told to the peer.
    pub fn check_hello(&self, _hello: &Hello) -> Result<(), Refusal> {
        todo!()
    }
    /// Whether commands of clients may be offered.
    pub fn intake(&self) -> Intake {
        todo!()
    }
    /// Where it stands.
    pub fn report(&self) -> Report {
        todo!()
    }
}
