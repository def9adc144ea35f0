//! Reading a log back: from its records to the state that they stand for.
//!
//! Nothing is delivered here; that happens through the ordinary path once the replica runs, so that a restart and a
//! calm run cannot differ.

use std::collections::BTreeMap;
use std::fmt;

use crate::types::{ClusterId, DiskId, Incarnation, Lsn, Millis, Timestamp, ViewNumber, limits};

use super::api::Settings;
use super::base::Base;
use super::lane::{Said, Taken, ViewLog};
use super::message::{Ballot, LaneVector, Record, Value, View, Voter};
use super::mutation::{Mutation, mutated};

/// Why a log makes no sense. The records were whole, so this is a log of something else, or a mistake of this program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryError {
    /// The record's number.
    pub lsn: Lsn,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log record {}: {}", self.lsn, self.what)
    }
}

impl std::error::Error for RecoveryError {}

/// Collects the records of a log.
#[derive(Clone, Debug)]
pub struct Recovery {
    views: BTreeMap<ViewNumber, ViewLog>,
    current: ViewNumber,
    incarnation: Incarnation,
    last_lsn: Lsn,
    clock: Timestamp,
    /// What the snapshot says that the log goes on from.
    base: Base,
    /// The incarnation that wrote the snapshot; the record of its start may be gone.
    snapshot_by: Incarnation,
}

impl Recovery {
    /// Nothing read yet: view 0, in which all members of the configuration file vote and nobody sends.
    pub fn new(settings: &Settings) -> Recovery {
        let mut members = settings.members.clone();
        members.sort_unstable();
        let voters = members
            .into_iter()
            .map(|node| Voter {
                node,
                disk: DiskId(0),
                registered: ViewNumber(0),
                drops: 0,
                drops_at: Millis(0),
            })
            .collect();
        let view = View {
            number: ViewNumber(0),
            cluster: ClusterId(0),
            format: View::FORMAT,
            genesis: 0,
            voters,
            senders: Vec::new(),
        };
        Recovery::on(Base::of_view(view))
    }

    /// Nothing read yet beside a snapshot: `log_from` is the first record that is still needed, `incarnation` the one
    /// that wrote the snapshot.
    pub fn from_base(settings: &Settings, base: Base, log_from: Lsn, incarnation: Incarnation) -> Recovery {
        let mut recovery = if base.view.number > ViewNumber(0) {
            Recovery::on(base)
        } else {
            // State for a new cluster: who is in it, the configuration file says.
            let members = Recovery::new(settings).base.view;
            Recovery::on(Base { view: View { genesis: base.view.genesis, ..members }, ..base })
        };
        recovery.last_lsn = Lsn(log_from.0.saturating_sub(1));
        recovery.snapshot_by = incarnation;
        recovery
    }

    fn on(base: Base) -> Recovery {
        let number = base.view.number;
        let mut log = ViewLog::new(base.view.clone());
        log.install(&base.lanes);
        Recovery {
            views: BTreeMap::from([(number, log)]),
            current: number,
            incarnation: Incarnation(0),
            last_lsn: Lsn(0),
            clock: base.position.t,
            base,
            snapshot_by: Incarnation(0),
        }
    }

    /// Takes the next record of the log.
    ///
    /// # Errors
    /// The record contradicts the ones before it.
    pub fn push(&mut self, lsn: Lsn, record: Record) -> Result<(), RecoveryError> {
        if lsn != self.last_lsn.next() {
            let what = format!("expected record {}", self.last_lsn.next());
            return Err(RecoveryError { lsn, what });
        }
        self.last_lsn = lsn;
        self.apply(record).map_err(|what| RecoveryError { lsn, what })
    }

    fn apply(&mut self, record: Record) -> Result<(), String> {
        let (lsn, covered) = (self.last_lsn, self.base.view.number);
        match record {
            // What a snapshot covers has been.
            Record::Entry(ref entry) | Record::Fill(ref entry) if entry.view < covered => {}
            Record::Promise { view, .. } | Record::Accept { view, .. } if view < covered => {}
            Record::Decision(ref decision) if decision.view < covered => {}
            Record::Installed { index, position } => {
                if position > self.base.position {
                    let found = self.base.index;
                    return Err(format!(
                        "what follows needs the snapshot of index {index}, which is missing or damaged; the \
                         newest that is sound has index {found}"
                    ));
                }
            }
            Record::Start { incarnation } => {
                if incarnation <= self.incarnation {
                    return Err(format!("incarnation {incarnation} after {}", self.incarnation));
                }
                if incarnation.0 == u64::MAX {
                    return Err(format!("no start can follow incarnation {incarnation}"));
                }
                self.incarnation = incarnation;
            }
            Record::Entry(ref entry) | Record::Fill(ref entry) => {
                let log = self.views.get_mut(&entry.view).ok_or_else(|| format!("{entry}: unknown view"))?;
                let lane = log.view.lane_of(entry.node).ok_or_else(|| format!("{entry}: no such lane"))?;
                if entry.t.0 > limits::CLOCK_MAX {
                    return Err(format!("{entry}: no clock gets there"));
                }
                let is_vote = matches!(record, Record::Entry(_));
                if is_vote && (log.frozen.is_some() || log.decided.is_some()) {
                    return Err(format!("{entry} accepted after the promise to seal its view"));
                }
                if log.end(lane).is_some_and(|end| entry.t > end) {
                    return Err(format!("{entry} above the end of its lane"));
                }
                let is_covered = entry.t <= log.lanes[lane].base();
                if !is_covered && log.lanes[lane].take(lsn, entry) != Taken::Added {
                    return Err(format!("{entry} after {}", log.lanes[lane].received()));
                }
                if is_vote || mutated(Mutation::FrozenFromLog) {
                    log.lanes[lane].accept(entry.t);
                }
                self.clock = self.clock.max(entry.t);
            }
            Record::Promise { view, ballot, frozen } => {
                let log = self.open(view)?;
                Self::promise(log, ballot, frozen)?;
                log.said[Said::Promise as usize] = Some(lsn);
            }
            Record::Accept { view, ballot, frozen, value } => {
                let log = self.open(view)?;
                Self::promise(log, ballot, frozen)?;
                Self::check_value(log, &value)?;
                log.accepted = Some((ballot, *value));
                log.said[Said::Accept as usize] = Some(lsn);
            }
            Record::Decision(decision) => {
                let log = self.open(decision.view)?;
                Self::check_value(log, &decision.value)?;
                if !log.is_beyond_delivered(&decision.value) {
                    return Err(format!("{} ends {} before what is delivered", decision.value, log.view));
                }
                let next = decision.value.next.clone();
                log.decide(decision.value);
                log.said[Said::Decision as usize] = Some(lsn);
                self.current = next.number;
                self.views.insert(next.number, ViewLog::new(next));
            }
        }
        Ok(())
    }

    fn open(&mut self, view: ViewNumber) -> Result<&mut ViewLog, String> {
        if view != self.current {
            return Err(format!("about {view} while {} is open", self.current));
        }
        Ok(self.views.get_mut(&view).expect("the current view always has a log"))
    }

    fn check_value(log: &ViewLog, value: &Value) -> Result<(), String> {
        if value.next.genesis != log.view.genesis {
            return Err(
                "the cluster began with a restored state, which is missing here or damaged".to_owned()
            );
        }
        if log.allows(value) { Ok(()) } else { Err(format!("{value} cannot follow {}", log.view)) }
    }

    fn promise(log: &mut ViewLog, ballot: Ballot, frozen: LaneVector) -> Result<(), String> {
        // An own ballot may be a little above what is believed of others.
        if ballot.round > 2 * Ballot::ROUND_MAX {
            return Err(format!("ballot {ballot}: no cluster gets there"));
        }
        log.promised = log.promised.max(Some(ballot));
        Self::freeze(log, frozen)
    }

    /// The frozen vector overrides what the entries in the log say (rule H).
    fn freeze(log: &mut ViewLog, frozen: Vec<Timestamp>) -> Result<(), String> {
        if frozen.len() != log.lanes.len() {
            return Err(format!("{} frozen votes for {} lanes", frozen.len(), log.lanes.len()));
        }
        if mutated(Mutation::FrozenFromLog) {
            log.frozen = Some(log.received());
            return Ok(());
        }
        for (lane, t) in log.lanes.iter_mut().zip(&frozen) {
            if lane.received() < *t {
                return Err(format!("frozen at {t}, entries up to {}", lane.received()));
            }
            lane.override_accepted(*t);
        }
        log.frozen = Some(frozen);
        Ok(())
    }

    /// The incarnation of the last start in the log; the next start has one more.
    pub fn last_incarnation(&self) -> Incarnation {
        self.incarnation.max(self.snapshot_by)
    }

    /// The last record.
    pub fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    pub(crate) fn current(&self) -> (ViewNumber, &ViewLog) {
        (self.current, &self.views[&self.current])
    }

    /// What the cluster begins, or began, with ([`View::genesis`]).
    pub fn genesis(&self) -> u64 {
        self.base.view.genesis
    }

    pub(crate) fn clock(&self) -> Timestamp {
        self.clock
    }

    pub(crate) fn into_base(self) -> Base {
        self.base
    }

    pub(crate) fn into_parts(self) -> (BTreeMap<ViewNumber, ViewLog>, Base) {
        (self.views, self.base)
    }
}
