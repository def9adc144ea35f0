//! The store against dumb twins: a map and a list that do the same in the most obvious way.

mod commands;
mod pieces;
mod slot_reads;

use std::collections::BTreeMap;

use super::*;
use crate::types::{Plain, SessionId};
use crate::wire::batch::{BatchCommand, SessionSeq};

/// Random numbers for tests (Steele, Lea and Flood 2014).
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        crate::types::splitmix64(&mut self.0)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % bound
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A store with the index that counts its commands.
struct Node {
    store: Store,
    index: u64,
    now: u64,
}

impl Node {
    fn new(limits: Limits, seed: u64) -> Node {
        Node { store: Store::new(limits, seed), index: 0, now: 1000 }
    }

    fn apply(
        &mut self,
        session: Option<SessionSeq>,
        code: u8,
        arguments: &[&[u8]],
        want_reply: bool,
    ) -> Reply {
        self.index += 1;
        let at = Applied { index: Index(self.index), now: Millis(self.now) };
        let command = BatchCommand { session, code, arguments: arguments.to_vec() };
        self.store.apply(at, &command, want_reply)
    }

    /// Applies a line of words.
    fn run(&mut self, line: &str) -> String {
        self.run_in(None, line)
    }

    fn run_in(&mut self, session: Option<SessionSeq>, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let spec = lookup(words[0]).expect("a command");
        show(&self.apply(session, spec.code, &words[1..], true))
    }
}

fn show(reply: &Reply) -> String {
    match reply {
        Reply::NilArray => "aborted".into(),
        other => match other.plain() {
            Plain::Nil => "nil".into(),
            Plain::Status(text) => text.into(),
            Plain::Bulk(bytes) => bytes.escape_ascii().to_string(),
            Plain::Integer(value) => format!("({value})"),
            Plain::Error(text) => text.to_string(),
            Plain::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(" "),
        },
    }
}

#[test]
fn every_command_does_what_it_says() {
    let mut node = Node::new(Limits::default(), 0);
    for (line, reply) in [
        ("GET name", "nil"),
        ("SET name john", "OK"),
        ("GET name", "john"),
        ("PUT name jane", "OK"),
        ("SET name x NX", "nil"),
        ("SET name x NX GET", "jane"),
        ("SET other x XX", "nil"),
        ("SET other x XX GET", "nil"),
        ("SET other x nx get", "nil"),
        ("SET other y xx get", "x"),
        ("EXISTS name other other none", "(3)"),
        ("DBSIZE", "(2)"),
        ("APPEND name doe", "(7)"),
        ("GET name", "janedoe"),
        ("APPEND fresh abc", "(3)"),
        ("STRLEN name", "(7)"),
        ("STRLEN none", "(0)"),
        ("GETSET name a", "janedoe"),
        ("GETSET unset 1", "nil"),
        ("SETNX name b", "(0)"),
        ("SETNX set b", "(1)"),
        ("MSET a 1 b 2 a 3", "OK"),
        ("MGET a none b", "3 nil 2"),
        ("KEYS [ab]", "a b"),
        ("KEYS none*", ""),
        ("INCR a", "(4)"),
        ("INCRBY a -10", "(-6)"),
        ("DECR a", "(-7)"),
        ("DECRBY a -7", "(0)"),
        ("INCR new", "(1)"),
        ("INCR name", "ERR value is not an integer or out of range"),
        ("SET a 9223372036854775807", "OK"),
        ("INCR a", "ERR increment or decrement would overflow"),
        ("GET a", "9223372036854775807"),
        ("SET a -9223372036854775808", "OK"),
        ("DECR a", "ERR increment or decrement would overflow"),
        ("CAS b 2 3", "OK"),
        ("CAS b 2 4", "nil"),
        ("CAS none 2 4", "nil"),
        ("GET b", "3"),
        ("EXISTS none", "(0)"),
        ("DEL a b none a", "(2)"),
        ("KEYS *", "fresh name new other set unset"),
        ("SESSION OPEN", "(44)"),
        ("PING", "ERR 'PING' belongs to a connection and cannot be replicated"),
        ("FLUSHDB async", "OK"),
        ("DBSIZE", "(0)"),
    ] {
        assert_eq!(node.run(line), reply, "{line}");
        assert_eq!(node.store.digest(), node.store.digest_recomputed(), "{line}");
    }
    assert_eq!(show(&node.store.read(by_code(2).expect("GET").code, &[b"a"])), "nil");
    assert!(node.store.read(1, &[b"a", b"1"]).is_error());
}

/// What a command does to a sorted map, in the most obvious words.
fn naive(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, name: &str, arguments: &[&[u8]]) -> Reply {
    let optional = |value: Option<&Vec<u8>>| value.map_or(Reply::Nil, |v| Reply::bulk(v));
    let key = arguments.first().map(|key| key.to_vec()).unwrap_or_default();
    let second = arguments.get(1).map(|value| value.to_vec()).unwrap_or_default();
    let number = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.parse::<i64>().ok().filter(|n| n.to_string() == text)
    };
    let not_a_number = || Reply::error("ERR value is not an integer or out of range");
    match name {
        "GET" => optional(map.get(&key)),
        "SET" => {
            let has = |word: &[u8]| arguments[2..].contains(&word);
            let old = optional(map.get(&key));
            let refused = (has(b"NX") && map.contains_key(&key)) || (has(b"XX") && !map.contains_key(&key));
            if !refused {
                map.insert(key, second);
            }
            match (has(b"GET"), refused) {
                (true, _) => old,
                (false, true) => Reply::Nil,
                (false, false) => Reply::OK,
            }
        }
        "DEL" => Reply::Integer(arguments.iter().filter(|key| map.remove(**key).is_some()).count() as i64),
        "APPEND" => {
            let value = map.entry(key).or_default();
            value.extend(second);
            Reply::Integer(value.len() as i64)
        }
        "INCRBY" => {
            let Some(delta) = number(&second) else { return not_a_number() };
            let Some(old) = map.get(&key).map_or(Some(0), |v| number(v)) else { return not_a_number() };
            let Some(sum) = old.checked_add(delta) else {
                return Reply::error("ERR increment or decrement would overflow");
            };
            map.insert(key, sum.to_string().into_bytes());
            Reply::Integer(sum)
        }
        "MGET" => Reply::Array(arguments.iter().map(|key| optional(map.get(*key))).collect()),
        "CAS" => {
            if map.get(&key) != Some(&second) {
                return Reply::Nil;
            }
            map.insert(key, arguments[2].to_vec());
            Reply::OK
        }
        "KEYS" => Reply::Array(map.keys().map(|key| Reply::bulk(key)).collect()),
        "DBSIZE" => Reply::Integer(map.len() as i64),
        "FLUSHALL" => {
            map.clear();
            Reply::OK
        }
        other => panic!("{other}"),
    }
}

#[test]
fn random_commands_do_the_same_to_a_sorted_map() {
    for seed in 0..200 {
        let mut random = SplitMix(seed);
        // The second node has another hash seed and builds no replies.
        let mut nodes = [Node::new(Limits::default(), 1), Node::new(Limits::default(), random.next())];
        let mut map = BTreeMap::new();
        for _ in 0..200 {
            let keys: [&[u8]; 5] = [b"a", b"b", b"c{a}", b"", b"\0\xff"];
            let values: [&[u8]; 7] =
                [b"", b"1", b"-7", b"x", b"9223372036854775807", b"-9223372036854775808", b"01"];
            let (key, value) = (*random.pick(&keys), *random.pick(&values));
            let names =
                ["GET", "SET", "DEL", "APPEND", "INCRBY", "MGET", "CAS", "KEYS", "DBSIZE", "FLUSHALL"];
            let name = if random.below(20) == 0 { *random.pick(&names) } else { *random.pick(&names[..7]) };
            let mut arguments: Vec<&[u8]> = match name {
                "DBSIZE" | "FLUSHALL" => vec![],
                "KEYS" => vec![b"*"],
                "GET" => vec![key],
                "DEL" | "MGET" => vec![key, *random.pick(&keys)],
                "CAS" => vec![key, value, *random.pick(&values)],
                _ => vec![key, value],
            };
            if name == "SET" {
                for option in [&b"NX"[..], b"XX", b"GET"] {
                    if random.below(4) == 0 && !(option == b"XX" && arguments.contains(&&b"NX"[..])) {
                        arguments.push(option);
                    }
                }
            }
            let code = lookup(name.as_bytes()).expect("a command").code;
            let replies =
                [true, false].map(|want| nodes[usize::from(!want)].apply(None, code, &arguments, want));
            let expected = naive(&mut map, name, &arguments);
            assert_eq!(show(&replies[0]), show(&expected), "seed {seed}: {name} {arguments:?}");
            let digests = nodes.each_ref().map(|node| node.store.digest());
            assert_eq!(digests[0], digests[1], "seed {seed}: {name} {arguments:?}");
        }
        for node in &nodes {
            assert_eq!(node.store.digest(), node.store.digest_recomputed(), "seed {seed}");
            assert_eq!(node.store.key_count(), map.len());
        }
    }
}

#[test]
fn commands_that_make_no_sense_change_nothing() {
    let mut random = SplitMix(5);
    let mut node = Node::new(Limits::default(), 0);
    node.run("SET a 1");
    let mut errors = 0;
    for _ in 0..100_000 {
        let before = (node.store.digest(), node.store.session_count());
        let bytes: Vec<Vec<u8>> = (0..random.below(5))
            .map(|_| {
                let words: [&[u8]; 8] = [b"a", b"NX", b"GET", b"OPEN", b"-1", b"1.5", b"[", b"\0"];
                random.pick(&words).to_vec()
            })
            .collect();
        let arguments: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let code = u8::try_from(random.below(256)).expect("a byte");
        let reply = node.apply(None, code, &arguments, true);
        if reply.is_error() || by_code(code).is_none_or(|spec| spec.class != Class::Write) {
            assert_eq!(before, (node.store.digest(), node.store.session_count()), "{code} {arguments:?}");
        }
        errors += u32::from(reply.is_error());
        assert!(node.store.read(code, &arguments) != Reply::OK);
    }
    assert!(errors > 10_000);
}

#[test]
fn the_setting_of_a_node_does_not_decide_what_applying_does() {
    let limits = Limits { value_len_max: 1, ..Limits::default() };
    let mut node = Node::new(limits.clone(), 0);
    let append = lookup(b"APPEND").expect("a command");
    assert!(check(append, &[b"a", b"xx"], &limits).is_err());
    assert_eq!(node.run("APPEND a xx"), "(2)");
}

#[test]
fn a_reply_of_many_values_is_bounded() {
    let mut node = Node::new(Limits::default(), 0);
    let value = vec![b'x'; 1 << 20];
    assert_eq!(node.apply(None, 1, &[b"a", &value], true), Reply::OK);
    let code = lookup(b"MGET").expect("a command").code;
    let most = limits::REPLY_LEN_MAX >> 20;
    assert!(!node.store.read(code, &vec![&b"a"[..]; most]).is_error());
    let reply = show(&node.store.read(code, &vec![&b"a"[..]; most + 1]));
    assert_eq!(reply, format!("ERR reply exceeds {} bytes, ask for fewer keys", limits::REPLY_LEN_MAX));
}

fn place(session: u64, seq: u64, acked: u64) -> Option<SessionSeq> {
    Some(SessionSeq { session: SessionId(session), seq, acked })
}

#[test]
fn a_repeated_command_is_applied_once() {
    let mut node = Node::new(Limits::default(), 0);
    assert_eq!(node.run("SESSION OPEN"), "(1)");
    assert_eq!(node.run_in(place(1, 1, 0), "INCR a"), "(1)");
    assert_eq!(node.run_in(place(1, 2, 0), "INCR a"), "(2)");
    assert_eq!(node.run_in(place(1, 1, 0), "INCR a"), "(1)");
    assert_eq!(node.run_in(place(1, 4, 0), "INCR a"), "ERR session gap: expected 3, found 4");
    assert_eq!(node.run_in(place(1, 3, 0), "SET a"), "ERR wrong number of arguments for 'set' command");
    assert_eq!(node.run_in(place(1, 3, 0), "INCR a"), "ERR wrong number of arguments for 'set' command");
    assert_eq!(node.run_in(place(1, 4, 1), "GETSET a x"), "2");
    let forgotten = "ERR session reply 1 is no longer kept, acknowledged up to 1";
    assert_eq!(node.run_in(place(1, 1, 0), "INCR a"), forgotten);
    assert_eq!(node.run_in(place(1, 2, 0), "INCR a"), "(2)");
    // An acknowledgment of what is still to come does not count.
    assert_eq!(node.run_in(place(1, 5, 9), "SETNX b 1"), "(1)");
    assert_eq!(node.run_in(place(1, 5, 9), "SETNX b 1"), forgotten.replace('1', "5"));
    // A read is answered afresh.
    assert_eq!(node.run_in(place(1, 6, 0), "GET b"), "1");
    node.run("SET b 2");
    assert_eq!(node.run_in(place(1, 6, 0), "GET b"), "2");
    assert_eq!(node.run_in(place(2, 1, 0), "INCR a"), "ERR session expired: 2 is not open");
    assert_eq!(node.run_in(place(0, 0, 0), "INCR a"), "ERR session expired: 0 is not open");
    assert_eq!(node.run("GET a"), "x");
    assert_eq!(node.store.digest(), node.store.digest_recomputed());
}

#[test]
fn sessions_end_when_idle_and_when_there_are_too_many() {
    let limits = Limits { session_count_max: 3, session_idle: Millis(100), ..Limits::default() };
    let mut node = Node::new(limits, 0);
    for id in 1..=3 {
        node.run("SESSION OPEN");
        assert_eq!(node.store.session_count(), id);
    }
    node.now += 60;
    assert_eq!(node.run_in(place(1, 1, 0), "INCR a"), "(1)");
    assert_eq!(node.run("SESSION OPEN"), "(5)");
    assert_eq!(node.run_in(place(2, 1, 0), "INCR a"), "ERR session expired: 2 is not open");
    node.now += 40;
    assert_eq!(node.run_in(place(3, 1, 0), "INCR a"), "(2)");
    node.now += 61;
    assert_eq!(node.run_in(place(1, 2, 0), "INCR a"), "ERR session expired: 1 is not open");
    assert_eq!(node.run_in(place(3, 2, 0), "INCR a"), "(3)");
    assert_eq!(node.store.session_count(), 1);
    assert_eq!(node.store.digest(), node.store.digest_recomputed());
}

#[test]
fn replies_that_nobody_acknowledges_are_bounded() {
    let limits = Limits {
        session_reply_count_max: 3,
        session_reply_len_max: 1000,
        session_total_len_max: 2000,
        ..Limits::default()
    };
    let mut node = Node::new(limits, 0);
    node.run("SESSION OPEN");
    node.run("SESSION OPEN");
    for seq in 1..=3 {
        assert_eq!(node.run_in(place(1, seq, 0), "INCR a"), format!("({seq})"));
    }
    assert_eq!(
        node.run_in(place(1, 4, 0), "INCR a"),
        "ERR session full: 3 replies of 192 bytes are not acknowledged"
    );
    assert_eq!(node.run_in(place(1, 4, 2), "INCR a"), "(4)", "nothing was applied, and now there is room");
    node.run(&format!("SET big {}", "x".repeat(1500)));
    assert!(node.run_in(place(2, 1, 0), "GETSET big y").len() > 1000);
    let full = node.run_in(place(2, 2, 0), "INCR a");
    assert!(full.starts_with("ERR session full: 1 replies"), "{full}");
    // Both together are too much: the one that was used longest ago goes.
    node.run(&format!("SET big {}", "x".repeat(900)));
    node.now += 1;
    assert_eq!(node.run_in(place(1, 5, 4), "GETSET big y").len(), 900);
    assert!(node.run_in(place(2, 2, 1), "INCR a").starts_with("ERR session expired"));
    assert_eq!(node.store.digest(), node.store.digest_recomputed());
}

/// A session as a list of all that ever happened in it.
struct NaiveSession {
    id: u64,
    used: u64,
    acked: u64,
    replies: Vec<String>,
}

#[test]
fn random_sessions_do_the_same_as_a_list() {
    for seed in 0..200 {
        let mut random = SplitMix(seed);
        let limits = Limits {
            session_count_max: 4,
            session_idle: Millis(50),
            session_reply_count_max: 3,
            ..Limits::default()
        };
        let mut nodes = [Node::new(limits.clone(), 1), Node::new(limits, 2)];
        let mut list: Vec<NaiveSession> = Vec::new();
        let mut counter = 0;
        let mut applied = 0;
        for step in 0..300 {
            let now = nodes[0].now + random.next() % 8;
            nodes.iter_mut().for_each(|node| node.now = now);
            list.retain(|session| now - session.used <= 50);
            if random.below(10) == 0 {
                nodes.iter_mut().for_each(|node| assert!(node.run("SESSION OPEN").starts_with('(')));
                if list.len() == 4 {
                    let oldest = (0..4).min_by_key(|&i| (list[i].used, list[i].id)).expect("four");
                    list.remove(oldest);
                }
                list.push(NaiveSession { id: nodes[0].index, used: now, acked: 0, replies: vec![] });
                continue;
            }
            let id = match list.len() {
                0 => 1,
                len => list[random.below(len)].id,
            };
            let session = list.iter_mut().find(|session| session.id == id);
            let last = session.as_ref().map_or(0, |session| session.replies.len() as u64);
            let seq = (last + 2).saturating_sub(random.next() % 4);
            let acked = last.saturating_sub(random.next() % 4);
            let replies = [true, false].map(|want| {
                let code = lookup(b"INCR").expect("a command").code;
                show(&nodes[usize::from(want)].apply(place(id, seq, acked), code, &[b"n"], want))
            });
            let expected = match session {
                None => format!("ERR session expired: {id} is not open"),
                Some(session) => {
                    session.used = now;
                    session.acked = session.acked.max(acked);
                    if seq <= last && seq > session.acked {
                        session.replies[usize::try_from(seq).expect("small") - 1].clone()
                    } else if seq <= last {
                        let acked = session.acked;
                        format!("ERR session reply {seq} is no longer kept, acknowledged up to {acked}")
                    } else if seq > last + 1 {
                        format!("ERR session gap: expected {}, found {seq}", last + 1)
                    } else if last - session.acked >= 3 {
                        "ERR session full: 3 replies of 192 bytes are not acknowledged".into()
                    } else {
                        counter += 1;
                        applied += 1;
                        session.replies.push(format!("({counter})"));
                        format!("({counter})")
                    }
                }
            };
            assert_eq!(replies[0], expected, "seed {seed} step {step}");
            assert_eq!(replies[1], expected, "seed {seed} step {step}");
            assert_eq!(nodes[0].store.session_count(), list.len(), "seed {seed} step {step}");
            assert_eq!(nodes[0].store.digest(), nodes[1].store.digest(), "seed {seed} step {step}");
        }
        assert_eq!(nodes[0].store.digest(), nodes[0].store.digest_recomputed());
        assert!(applied > 10, "seed {seed}");
    }
}

#[test]
fn a_clone_stays_as_it_was() {
    let mut node = Node::new(Limits::default(), 0);
    node.run("SESSION OPEN");
    node.run_in(place(1, 1, 0), "SET a 1");
    let kept = node.store.clone();
    let digest = kept.digest();
    node.run_in(place(1, 2, 1), "SET a 2");
    assert_eq!((kept.digest(), kept.digest_recomputed()), (digest, digest));
    assert_eq!(show(&kept.read(2, &[b"a"])), "1");
}
