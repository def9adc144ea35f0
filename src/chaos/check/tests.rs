//! Good evidence, and what the checks say once it is spoilt.

use super::*;

const STATES_MAX: u64 = 100_000;

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// What three clients of three nodes saw, one operation after the other.
struct Story {
    evidence: Evidence,
    now: u64,
}

impl Story {
    fn tell(&mut self, client: u64, command: Command, outcome: Option<Outcome>) {
        let begin = self.now;
        self.now += 10;
        let end = begin + 5;
        self.evidence.history.push(Operation { client, command, begin, end, outcome });
    }

    fn set(&mut self, client: u64, key: &str, value: &str, outcome: Option<Outcome>) {
        self.tell(client, Command::Set(vec![(bytes(key), bytes(value))]), outcome);
    }

    fn add(&mut self, client: u64, key: &str, sum: Option<i64>) {
        self.tell(client, Command::Add { key: bytes(key), by: 1 }, sum.map(Outcome::Integer));
    }

    fn append(&mut self, client: u64, piece: &str, len: Option<i64>) {
        let command = Command::Append { key: bytes("l5.0"), bytes: bytes(piece) };
        self.tell(client, command, len.map(Outcome::Integer));
    }

    fn get(&mut self, client: u64, key: &str, value: Option<&str>) {
        let outcome = Outcome::Values(vec![value.map(bytes)]);
        self.tell(client, Command::Get(vec![bytes(key)]), Some(outcome));
    }
}

/// A good run, read back from three nodes.
fn good() -> Evidence {
    let mut story = Story { evidence: Evidence::default(), now: 0 };
    story.set(1, "r0.0", "c1-1", Some(Outcome::Done));
    story.get(2, "r0.0", Some("c1-1"));
    story.set(2, "r0.0", "c2-1", None);
    story.get(3, "r0.0", Some("c1-1"));
    story.get(3, "r0.0", Some("c2-1"));
    story.set(1, "ledger.1.1", "c1-2", Some(Outcome::Done));
    story.set(1, "ledger.1.2", "c1-3", None);
    story.add(0, "own.0", Some(1));
    story.add(0, "own.0", None);
    story.add(0, "own.0", Some(3));
    story.add(0, "tally", Some(1));
    story.add(4, "tally", Some(2));
    story.append(1, "c1-4;", Some(5));
    story.append(2, "c2-2;", None);
    story.append(3, "c3-1;", Some(15));
    let finals = [
        ("r0.0", Some("c2-1")),
        ("ledger.1.1", Some("c1-2")),
        ("ledger.1.2", None),
        ("own.0", Some("3")),
        ("tally", Some("2")),
        ("l5.0", Some("c1-4;c2-2;c3-1;")),
    ];
    for node in 0..3 {
        for (key, value) in finals {
            story.get(1_000 + node, key, value);
        }
        let values = finals.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect();
        story.evidence.finals.push((format!("node {node} at the end"), values));
    }
    story.evidence
}

/// The promises that spoilt evidence breaks.
fn broken(spoil: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
    let mut evidence = good();
    spoil(&mut evidence);
    let judgement = check(&evidence, STATES_MAX);
    assert_eq!(judgement.gave_up, 0);
    let mut promises: Vec<&str> = judgement.violations.iter().map(|violation| violation.promise).collect();
    promises.sort_unstable();
    promises.dedup();
    promises
}

/// What all nodes read back is another value, in the plain checks and in the history.
fn read_back(evidence: &mut Evidence, key: &str, value: Option<&str>) {
    let value = value.map(bytes);
    for (_, values) in &mut evidence.finals {
        values.insert(bytes(key), value.clone());
    }
    for operation in evidence.history.iter_mut().filter(|operation| operation.client >= 1_000) {
        if operation.command == Command::Get(vec![bytes(key)]) {
            operation.outcome = Some(Outcome::Values(vec![value.clone()]));
        }
    }
}

#[test]
fn good_evidence_passes() {
    let judgement = check(&good(), STATES_MAX);
    assert_eq!(judgement.violations, []);
    assert_eq!((judgement.groups, judgement.gave_up), (6, 0));
}

#[test]
fn a_lost_write_is_found() {
    let promises = broken(|evidence| read_back(evidence, "ledger.1.1", None));
    assert_eq!(promises, ["kept", "linearizable"]);
    let promises = broken(|evidence| read_back(evidence, "r0.0", None));
    assert_eq!(promises, ["linearizable"]);
    // The value before a write that was seen.
    let promises = broken(|evidence| read_back(evidence, "r0.0", Some("c1-1")));
    assert_eq!(promises, ["linearizable"]);
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    assert_eq!(broken(|evidence| read_back(evidence, "ledger.1.2", Some("c9-9"))), ["kept", "linearizable"]);
    // It may have been applied after all.
    assert_eq!(broken(|evidence| read_back(evidence, "ledger.1.2", Some("c1-3"))), [""; 0]);
}

#[test]
fn increments_that_are_lost_or_come_twice_are_found() {
    for value in [None, Some("1"), Some("4"), Some("many")] {
        let promises = broken(|evidence| read_back(evidence, "own.0", value));
        assert_eq!(promises, ["exactly once", "linearizable"], "{value:?}");
    }
    for value in [Some("1"), Some("3")] {
        let promises = broken(|evidence| read_back(evidence, "tally", value));
        assert_eq!(promises, ["exactly once", "linearizable"], "{value:?}");
    }
    // The same answer twice: one of both was lost.
    let promises = broken(|evidence| {
        let add =
            |operation: &&mut Operation| operation.command == Command::Add { key: bytes("own.0"), by: 1 };
        evidence
            .history
            .iter_mut()
            .filter(add)
            .for_each(|operation| operation.outcome = Some(Outcome::Integer(1)));
    });
    assert_eq!(promises, ["exactly once", "linearizable"]);
}

#[test]
fn appends_that_are_lost_or_come_twice_are_found() {
    for value in
        ["c1-4;c2-2;", "c1-4;c2-2;c3-1;c1-4;", "c1-4;c2-2;c2-2;c3-1;", "c1-4;c2-2;c3-1;c8-8;", "c1-4;c3-1;c2"]
    {
        let promises = broken(|evidence| read_back(evidence, "l5.0", Some(value)));
        assert_eq!(promises, ["exactly once", "linearizable"], "{value:?}");
    }
}

#[test]
fn nodes_that_differ_are_found() {
    let promises = broken(|evidence| {
        evidence.finals[2].1.insert(bytes("r0.0"), None);
    });
    assert_eq!(promises, ["equal"]);
}

#[test]
fn a_stale_read_is_found() {
    let promises = broken(|evidence| {
        evidence.history[1].outcome = Some(Outcome::Values(vec![None]));
    });
    assert_eq!(promises, ["linearizable"]);
}
