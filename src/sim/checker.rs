//! What must hold, checked outside the nodes and remembered across their restarts. Names are those of
//! section 10 of `docs/protocol.md`.

use std::collections::BTreeMap;
use std::fmt;

use crate::protocol::{Decision, Delivery, Verdict};
use crate::types::{Entry, Index, Label, NodeId, Position, ViewNumber};

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// One delivered entry as the first node delivered it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Canonical {
    position: Position,
    label: Label,
    verdict: Verdict,
    digest: u64,
    index: Index,
}

/// Everything that any node ever did, as far as it can be wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    order: Vec<Canonical>,
    applied: BTreeMap<Label, Position>,
    entries: BTreeMap<Position, (Label, Vec<u8>)>,
    decisions: BTreeMap<ViewNumber, Decision>,
    /// The highest index that any client has an answer from.
    answered: u64,
    pub(crate) violations: Vec<Violation>,
}

impl Checker {
    fn fail(&mut self, invariant: &'static str, what: String) {
        self.violations.push(Violation { invariant, what });
    }

    /// How many entries have been delivered by anybody.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// A node delivered its `count`-th entry since its start.
    pub(crate) fn delivered(
        &mut self,
        node: NodeId,
        count: usize,
        delivery: &Delivery,
        digest: u64,
        index: Index,
    ) {
        let entry = &delivery.entry;
        let seen = Canonical {
            position: entry.position(),
            label: entry.label,
            verdict: delivery.verdict,
            digest,
            index,
        };
        match self.order.get(count) {
            Some(first) if *first != seen => {
                let what = format!("{node} delivers {seen:?} as number {count}, another node {first:?}");
                self.fail("Agreement", what);
            }
            Some(_) => {}
            None => {
                if seen.verdict == Verdict::Applied
                    && let Some(before) = self.applied.insert(seen.label, seen.position)
                {
                    let what = format!("{} at {before} and at {}", seen.label, seen.position);
                    self.fail("Exactly once", what);
                }
                self.order.push(seen);
            }
        }
    }

    /// A node wrote an entry to its log.
    pub(crate) fn stored(&mut self, node: NodeId, entry: &Entry) {
        let seen = (entry.label, entry.batch.bytes().to_vec());
        match self.entries.get(&entry.position()) {
            Some(first) if *first != seen => {
                let what =
                    format!("{node} holds {} at {}, another node {}", seen.0, entry.position(), first.0);
                self.fail("Single writer", what);
            }
            Some(_) => {}
            None => {
                self.entries.insert(entry.position(), seen);
            }
        }
    }

    /// A node learnt a decision.
    pub(crate) fn decided(&mut self, node: NodeId, decision: &Decision) {
        match self.decisions.get(&decision.view) {
            Some(first) if first != decision => {
                let what = format!("{node} learns {decision:?}, another node {first:?}");
                self.fail("One decision", what);
            }
            Some(_) => {}
            None => {
                self.decisions.insert(decision.view, decision.clone());
            }
        }
    }

    /// How many views have been decided.
    pub(crate) fn decisions(&self) -> usize {
        self.decisions.len()
    }

    /// What an operation that begins now has to come after.
    pub(crate) fn floor(&self) -> u64 {
        self.answered
    }

    /// A write that began at `floor` was answered with this index.
    pub(crate) fn wrote(&mut self, node: NodeId, floor: u64, index: Index) {
        if index.0 <= floor {
            let what = format!("{node} answers a write at {index} that began after {floor} was answered");
            self.fail("Real time", what);
        }
        self.answered = self.answered.max(index.0);
    }

    /// A linearizable read that began at `floor` was answered from the state at this index.
    pub(crate) fn read(&mut self, node: NodeId, floor: u64, index: Index) {
        if index.0 < floor {
            let what = format!("{node} reads at {index}, after {floor} was answered");
            self.fail("Read safety", what);
        }
        self.answered = self.answered.max(index.0);
    }

    /// Reports what did not come to its end.
    pub(crate) fn stuck(&mut self, what: String) {
        self.fail("Liveness", what);
    }
}
