//! What clients are promised, and that all nodes do the same: checked from what is delivered and from what
//! clients are answered, and remembered across restarts. Names are those of section 10 of
//! `docs/protocol.md`; `invariants` has the others.

use std::collections::BTreeMap;
use std::fmt;

use crate::protocol::{Delivery, Verdict};
use crate::types::{Index, Label, NodeId, Position};
use crate::wire::client::Consistency;

use super::client::{Answer, Kind, Operation, TOKEN_LEN};

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
    /// By key: the highest count that any client has an answer from, of lists and of counters.
    lists_answered: Vec<u64>,
    counters_answered: Vec<u64>,
    /// By key: the longest content that anybody has seen.
    contents: Vec<Vec<u8>>,
    /// By key: tokens that must be there in the end, with their places; and those that may be.
    acknowledged: Vec<BTreeMap<u64, [u8; TOKEN_LEN]>>,
    /// By key: increments that must and that may be counted in the end.
    counted: Vec<(u64, u64)>,
    pub(crate) violations: Vec<Violation>,
}

impl Checker {
    pub(super) fn fail(&mut self, invariant: &'static str, what: String) {
        self.violations.push(Violation { invariant, what });
    }

    /// How many entries have been delivered by anybody.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// A node delivered its `count`-th entry since its start. Returns whether it is the first to do so.
    pub(crate) fn delivered(
        &mut self,
        node: NodeId,
        count: usize,
        delivery: &Delivery,
        digest: u64,
        index: Index,
    ) -> bool {
        let entry = &delivery.entry;
        let seen = Canonical {
            position: entry.position(),
            label: entry.label,
            verdict: delivery.verdict,
            digest,
            index,
        };
        let first = self.order.get(count).is_none();
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
        first
    }

    /// A node goes on from a snapshot. Returns how many entries are in it.
    pub(crate) fn at_snapshot(
        &mut self,
        node: NodeId,
        position: Position,
        index: Index,
        digest: u64,
    ) -> usize {
        let count = self.order.partition_point(|entry| entry.position <= position);
        let last = count.checked_sub(1).map(|last| &self.order[last]);
        let known = last.map_or((Index(0), digest), |last| (last.index, last.digest));
        if known != (index, digest) {
            let what = format!(
                "{node} has a snapshot of {position} with index {index} and digest {digest:016x}, others had index {} \
                 and digest {:016x} there",
                known.0, known.1
            );
            self.fail("Agreement", what);
        }
        count
    }

    /// Makes room for so many keys.
    pub(crate) fn with_keys(keys: usize) -> Checker {
        Checker {
            lists_answered: vec![0; keys],
            counters_answered: vec![0; keys],
            contents: vec![Vec::new(); keys],
            acknowledged: vec![BTreeMap::new(); keys],
            counted: vec![(0, 0); keys],
            ..Checker::default()
        }
    }

    /// What an operation that begins now has to come after.
    pub(crate) fn floor(&self, kind: &Kind, key: usize) -> u64 {
        match kind {
            Kind::Open | Kind::Register(..) | Kind::Any(_) => 0,
            Kind::Incr => self.counters_answered[key],
            Kind::Append | Kind::Get(_) => self.lists_answered[key],
        }
    }

    /// An operation was answered; `seen` is what its connection has seen of the key before.
    pub(crate) fn answered(&mut self, node: NodeId, operation: &Operation, answer: &Answer, seen: &mut u64) {
        let (key, floor) = (operation.key, operation.floor);
        match (&operation.kind, answer) {
            (Kind::Append, Answer::Count(count)) => {
                // A repeated command gets the reply of its first application, which may be older than the repetition.
                if *count <= floor {
                    let what = format!("{node}: {operation} is number {count} although {floor} was answered");
                    self.fail("Real time", what);
                }
                if let Some(before) = self.acknowledged[key].insert(*count, operation.token()) {
                    let what = format!("{node}: {operation} and {before:?} are both number {count}");
                    self.fail("Agreement", what);
                }
                self.lists_answered[key] = self.lists_answered[key].max(*count);
                *seen = (*seen).max(*count);
            }
            (Kind::Incr, Answer::Count(count)) => {
                if *count <= floor {
                    let what = format!("{node}: {operation} is number {count} although {floor} was answered");
                    self.fail("Real time", what);
                }
                self.counters_answered[key] = self.counters_answered[key].max(*count);
                self.counted[key].0 += 1;
            }
            (Kind::Get(consistency), Answer::List(content)) => {
                let count = (content.len() / TOKEN_LEN) as u64;
                let local = *consistency == Consistency::Local;
                if !local && count < floor {
                    let what = format!("{node}: {operation} reads {count} although {floor} was answered");
                    self.fail("Read safety", what);
                }
                if count < *seen {
                    let what = format!("{node}: {operation} reads {count} after {seen} on one connection");
                    self.fail("Monotonic reads", what);
                }
                *seen = (*seen).max(count);
                if !local {
                    self.lists_answered[key] = self.lists_answered[key].max(count);
                }
                self.content(node, key, content);
            }
            (kind, answer) => self.fail("Replies", format!("{node}: {answer} to {kind:?}")),
        }
    }

    /// Nobody will ever know whether this was applied.
    pub(crate) fn given_up(&mut self, operation: &Operation) {
        if operation.kind == Kind::Incr {
            self.counted[operation.key].1 += 1;
        }
    }

    /// All that is ever seen of a list is a prefix of one content.
    fn content(&mut self, node: NodeId, key: usize, content: &[u8]) {
        let known = &self.contents[key];
        let common = known.len().min(content.len());
        if known[..common] != content[..common] {
            let what = format!("{node}: list{key} has two histories");
            return self.fail("Agreement", what);
        }
        if content.len() > known.len() {
            self.contents[key] = content.to_vec();
        }
    }

    /// The end: what was acknowledged is there, once, in its place.
    pub(crate) fn last_look(&mut self, node: NodeId, key: usize, list: &[u8], counter: u64) {
        self.content(node, key, list);
        let mut missing = None;
        for (count, token) in &self.acknowledged[key] {
            let end = usize::try_from(*count).expect("few tokens") * TOKEN_LEN;
            if list.get(end - TOKEN_LEN..end) != Some(&token[..]) {
                missing =
                    Some(format!("{node}: number {count} of list{key} was acknowledged and is not there"));
            }
        }
        if let Some(what) = missing {
            self.fail("Durability", what);
        }
        let mut tokens: Vec<&[u8]> = list.chunks(TOKEN_LEN).collect();
        tokens.sort_unstable();
        if let Some(twice) = tokens.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = format!("{node}: {} is twice in list{key}", String::from_utf8_lossy(twice[0]));
            self.fail("Exactly once", what);
        }
        let (sure, perhaps) = self.counted[key];
        if counter < sure || counter > sure + perhaps {
            let what = format!(
                "{node}: counter{key} is {counter} after {sure} acknowledged increments and {perhaps} unknown ones"
            );
            self.fail("Exactly once", what);
        }
    }

    /// A node refuses to start, or says something that no node should ever say.
    pub(crate) fn broken(&mut self, what: String) {
        self.fail("Health", what);
    }

    /// Reports what did not come to its end.
    pub(crate) fn stuck(&mut self, what: String) {
        self.fail("Liveness", what);
    }
}
