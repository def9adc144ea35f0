//! What must be true of what clients saw.
//!
//! The history is judged group by group of keys by [`crate::linearizability`], which includes what every node said
//! at the end when all was read back. Some of the same promises are checked once more in a plainer way, for these
//! checks cannot give up and say in simpler words what is wrong:
//!
//! - **kept**: what was set once, acknowledged, and never touched again is there at the end;
//! - **exactly once**: a counter that one session client adds to answers each number once, in order, and ends as
//!   high as there were increments; the bytes of each append that was acknowledged are in the list once, those of
//!   one without an answer once at most, and nothing else is there;
//! - **equal**: all nodes read back the same.
//!
//! Everything here is a function of the evidence, so that tests can hand it spoilt evidence.

use std::collections::BTreeMap;
use std::fmt;

use crate::linearizability::{self, Command, Operation, Outcome, Verdict};

use super::clients::{LEDGER, OWN, TALLY};
use super::keys::group_of;

/// Values of keys as a node read them back at the end; `None`: missing.
pub(crate) type Values = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// What clients saw; of the last reads too.
    pub(crate) history: Vec<Operation>,
    /// What each node had at the end, and when that was.
    pub(crate) finals: Vec<(String, Values)>,
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    /// Which one.
    pub(crate) promise: &'static str,
    /// What is wrong.
    pub(crate) what: String,
    /// The group of keys that it is about.
    pub(crate) group: Vec<u8>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// The outcome of all checks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) violations: Vec<Violation>,
    /// How many groups of keys there were.
    pub(crate) groups: usize,
    /// Groups that were too much for the linearizability checker.
    pub(crate) gave_up: usize,
}

/// All keys that any operation named, in order.
pub(crate) fn keys_of(history: &[Operation]) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> =
        history.iter().flat_map(|operation| operation.command.keys()).map(<[u8]>::to_vec).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The operations of each group of keys.
pub(crate) fn groups(history: &[Operation]) -> BTreeMap<&[u8], Vec<&Operation>> {
    let mut groups: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if let Some(key) = operation.command.keys().first() {
            groups.entry(group_of(key)).or_default().push(operation);
        }
    }
    groups
}

/// Checks everything; the linearizability checker may look at so many states in each group.
pub(crate) fn check(evidence: &Evidence, states_max: u64) -> Judgement {
    let mut judgement = Judgement::default();
    let groups = groups(&evidence.history);
    judgement.groups = groups.len();
    check_equal(evidence, &mut judgement.violations);
    for (group, operations) in &groups {
        check_plainly(group, operations, evidence, &mut judgement.violations);
        let history: Vec<Operation> = operations.iter().map(|operation| (*operation).clone()).collect();
        match linearizability::check(&history, states_max) {
            Verdict::Linearizable => {}
            Verdict::GaveUp { .. } => judgement.gave_up += 1,
            Verdict::NotLinearizable(explanation) => judgement.violations.push(Violation {
                promise: "linearizable",
                what: format!("keys {}\n{explanation}", group.escape_ascii()),
                group: group.to_vec(),
            }),
        }
    }
    judgement
}

fn check_equal(evidence: &Evidence, violations: &mut Vec<Violation>) {
    let Some(((first, expected), others)) = evidence.finals.split_first() else { return };
    for (node, values) in others {
        for (key, value) in values {
            if expected.get(key) != Some(value) {
                violations.push(Violation {
                    promise: "equal",
                    what: format!(
                        "key {}: {first} has {}, {node} has {}",
                        key.escape_ascii(),
                        shown(expected.get(key).and_then(Option::as_deref)),
                        shown(value.as_deref())
                    ),
                    group: group_of(key).to_vec(),
                });
            }
        }
    }
}

/// The checks that need no search.
fn check_plainly(
    group: &[u8],
    operations: &[&Operation],
    evidence: &Evidence,
    violations: &mut Vec<Violation>,
) {
    let starts = |name: &str| group.starts_with(name.as_bytes());
    for (node, values) in &evidence.finals {
        let found = values.get(group).and_then(Option::as_deref);
        let wrong = if starts(LEDGER) {
            kept(operations, found).map(|what| ("kept", what))
        } else if starts(OWN) || group == TALLY.as_bytes() {
            counted(operations, found).map(|what| ("exactly once", what))
        } else if operations.iter().any(|operation| matches!(operation.command, Command::Append { .. })) {
            appended(operations, found).map(|what| ("exactly once", what))
        } else {
            None
        };
        if let Some((promise, what)) = wrong {
            let what = format!("key {}, {node}: {what}", group.escape_ascii());
            violations.push(Violation { promise, what, group: group.to_vec() });
            return;
        }
    }
    if starts(OWN)
        && let Some(what) = answered_in_order(operations)
    {
        let what = format!("key {}: {what}", group.escape_ascii());
        violations.push(Violation { promise: "exactly once", what, group: group.to_vec() });
    }
}

/// What was set once is there, or may be missing if the answer is.
fn kept(operations: &[&Operation], found: Option<&[u8]>) -> Option<String> {
    let set = operations.iter().find_map(|operation| match &operation.command {
        Command::Set(pairs) => Some((&pairs[0].1, operation.outcome.is_some())),
        _ => None,
    });
    let (value, acknowledged) = set?;
    match found {
        Some(found) if found == value => None,
        None if !acknowledged => None,
        found => Some(format!(
            "expected \"{}\"{}, found {}",
            value.escape_ascii(),
            if acknowledged { ", which was acknowledged" } else { "" },
            shown(found)
        )),
    }
}

/// Increments that were answered, and how many got no answer.
fn increments<'a>(operations: &[&'a Operation]) -> (Vec<&'a Operation>, usize) {
    let adds =
        operations.iter().filter(|operation| matches!(operation.command, Command::Add { .. })).copied();
    let (answered, unknown): (Vec<_>, Vec<_>) = adds.partition(|operation| operation.outcome.is_some());
    (answered, unknown.len())
}

/// The number is how often one was added.
fn counted(operations: &[&Operation], found: Option<&[u8]>) -> Option<String> {
    let (answered, unknown) = increments(operations);
    let text = String::from_utf8_lossy(found.unwrap_or(b"0"));
    let number = text.parse::<usize>().ok();
    let most = answered.len() + unknown;
    match number {
        Some(number) if (answered.len()..=most).contains(&number) => None,
        _ => Some(format!(
            "{} increments were answered and {unknown} more got no answer, found \"{text}\"",
            answered.len()
        )),
    }
}

/// The one client that adds gets each number once, in order; one without an answer may take one.
fn answered_in_order(operations: &[&Operation]) -> Option<String> {
    let mut adds: Vec<&&Operation> =
        operations.iter().filter(|operation| matches!(operation.command, Command::Add { .. })).collect();
    adds.sort_by_key(|operation| operation.begin);
    let (mut least, mut most) = (0, 0);
    for operation in adds {
        most += 1;
        match operation.outcome {
            None => {}
            Some(Outcome::Integer(number)) if number > least && number <= most => {
                (least, most) = (number, number)
            }
            _ => return Some(format!("expected {} to {most}: {operation}", least + 1)),
        }
    }
    None
}

/// The list is made of the bytes of appends, each acknowledged one once.
fn appended(operations: &[&Operation], found: Option<&[u8]>) -> Option<String> {
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    for piece in found.unwrap_or_default().split_inclusive(|b| *b == b';') {
        *counts.entry(piece).or_default() += 1;
    }
    for operation in operations {
        let Command::Append { bytes, .. } = &operation.command else { continue };
        let count = counts.remove(bytes.as_slice()).unwrap_or(0);
        if count > 1 {
            return Some(format!("there {count} times: {operation}"));
        }
        if count == 0 && operation.outcome.is_some() {
            return Some(format!("not there: {operation}"));
        }
    }
    let (stray, _) = counts.first_key_value()?;
    Some(format!("found \"{}\", which nobody appended", stray.escape_ascii()))
}

/// A value, of a long one its beginning and its end.
fn shown(value: Option<&[u8]>) -> String {
    const SHOWN_LEN: usize = 60;
    match value {
        None => "nothing".to_owned(),
        Some(value) if value.len() <= SHOWN_LEN => format!("\"{}\"", value.escape_ascii()),
        Some(value) => {
            let (head, tail) = (&value[..SHOWN_LEN / 2], &value[value.len() - SHOWN_LEN / 2..]);
            let len = value.len();
            format!("\"{}\" … \"{}\" ({len} bytes)", head.escape_ascii(), tail.escape_ascii())
        }
    }
}

#[cfg(test)]
mod tests;
