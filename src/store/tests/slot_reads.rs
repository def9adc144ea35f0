//! Reads of single slots, be there one key or very many: the answer is the same at once, in steps of any size, as a
//! part of the total order and within a transaction, on every node, and no step does much more than its share.

use std::collections::BTreeSet;

use super::pieces::{Given, OVER_MAX, in_pieces};
use super::*;

/// All dead keys are in their slots, or none.
const AT: Applied = Applied { index: Index(7), now: Millis(10) };

/// One slot with so many keys, every eighth of them dead, and some hundred with few. The order of their tables comes
/// from `seed`.
fn mixed(seed: u64, tagged: usize) -> Store {
    let mut store = Store::new(Limits::default(), seed);
    let mut put = |name: String, i: usize| {
        let deadline = i.is_multiple_of(8).then_some(Millis(5));
        store.keys.set_until(name.as_bytes(), b"v", Index(1), deadline);
    };
    (0..tagged).for_each(|i| put(format!("{{t}}{i}"), i));
    (0..600).for_each(|i| put(format!("key-{i}"), i));
    store.apply(AT, &Given::line("DBSIZE").as_command(), true);
    assert!(store.keys.has_unfreed());
    store
}

/// Steps of a long read, with the bound of each.
fn in_steps(store: &Store, line: &str, max: usize) -> (Reply, usize) {
    let given = Given::line(line);
    let arguments = given.as_command().arguments;
    let mut read = store.begin_long_read(given.code, &arguments).expect("may take long");
    for steps in 1.. {
        let before = read.work();
        let reply = read.step(max);
        let work = read.work() - before;
        assert!(work <= max as u64 + OVER_MAX, "{line}: {work} instead of {max}");
        if let Some(reply) = reply {
            return (reply.into_reply(), steps);
        }
    }
    unreachable!("numbers do not end")
}

fn at_once(store: &Store, line: &str) -> Reply {
    let given = Given::line(line);
    store.read(given.code, &given.as_command().arguments)
}

/// `None`: it takes long. However that ends, it is bounded.
fn briefly(store: &Store, line: &str) -> Option<Reply> {
    let (given, before) = (Given::line(line), store.work());
    let reply = store.read_briefly(given.code, &given.as_command().arguments);
    let work = store.work() - before;
    assert!(work <= super::super::slot_read::BRIEF_MAX as u64 + OVER_MAX, "{line}: {work}");
    reply
}

/// The same as one command, and as the second one of a transaction.
fn ordered(store: &mut Store, line: &str, share: u64) -> [Reply; 2] {
    let transaction = Given::transaction(&[], &[Given::line("DBSIZE"), Given::line(line)]);
    [Given::line(line), transaction].map(|given| {
        let mut last = store.work();
        let (reply, _) = in_pieces(
            store,
            AT,
            &given,
            true,
            || share,
            |store| {
                let work = store.work() - std::mem::replace(&mut last, store.work());
                assert!(work <= share + OVER_MAX, "{line}: a piece of {work} instead of {share}");
                // What has died may be freed under it.
                store.free_expired(10);
            },
        );
        match reply {
            Reply::Array(mut replies) if given.code == TRANSACTION_CODE => replies.swap_remove(1),
            reply => reply,
        }
    })
}

/// Follows the cursors, asks in every way at each, and returns the keys in the order in which they came.
fn scan(store: &mut Store, other: &Store, options: &str) -> (Vec<Reply>, usize) {
    let (mut cursor, mut found, mut long) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let line = format!("SCAN {cursor}{options}");
        let reply = at_once(store, &line);
        assert!(at_once(other, &line) == reply, "{line} on another node");
        let brief = briefly(store, &line);
        assert!(brief.as_ref().is_none_or(|brief| *brief == reply), "{line}");
        if brief.is_none() {
            long += 1;
            for max in [300, 5_000] {
                let (in_steps, steps) = in_steps(store, &line, max);
                assert!(in_steps == reply && steps > 3_000 / max, "{line} in {steps} steps");
            }
            assert!(ordered(store, &line, 700).iter().all(|ordered| *ordered == reply), "{line}");
        }
        let Reply::Array(parts) = reply else { panic!("{line}: {reply:?}") };
        let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else { panic!("a cursor and keys") };
        found.extend_from_slice(keys);
        cursor = String::from_utf8(next.to_vec()).expect("digits");
        if cursor == "0" {
            return (found, long);
        }
    }
}

fn sorted(replies: &[Reply]) -> BTreeSet<Vec<u8>> {
    let key = |reply: &Reply| match reply {
        Reply::Bulk(key) => key.to_vec(),
        other => panic!("no key: {other:?}"),
    };
    replies.iter().map(key).collect()
}

#[test]
fn scan_tells_each_key_of_small_and_huge_slots_once() {
    const TAGGED: usize = 20_000;
    let mut store = mixed(1, TAGGED);
    let mut other = mixed(2, TAGGED);
    while other.free_expired(1_000) {}
    let alive = |store: &Store| store.keys.iter().map(|item| item.key().to_vec()).collect::<BTreeSet<_>>();
    let all = alive(&store);
    assert_eq!(all.len(), (TAGGED + 600) * 7 / 8);
    for (options, long_count) in [("", 1), (" COUNT 1000", 1), (" MATCH *9* COUNT 200", 1), (" TYPE list", 1)]
    {
        let (found, long) = scan(&mut store, &other, options);
        let keys = sorted(&found);
        assert_eq!((keys.len(), long), (found.len(), long_count), "twice with{options}");
        let expected = all.iter().filter(|key| match options {
            " TYPE list" => false,
            _ => !options.contains("MATCH") || key.contains(&b'9'),
        });
        assert!(keys.iter().eq(expected), "with{options}");
    }
    assert!(!store.keys.has_unfreed());
}

/// What comes between its steps does not change an answer, and a costly pattern is refused at the same place.
#[test]
fn a_scan_that_has_begun_sees_one_moment() {
    let mut store = mixed(1, 8_000);
    let cursor = slot_of(b"{t}");
    let line = format!("SCAN {cursor} MATCH *1*");
    let (given, expected) = (Given::line(&line), at_once(&store, &line));
    let mut read = store.begin_long_read(given.code, &given.as_command().arguments).expect("long");
    let mut number = 0;
    let reply = loop {
        if let Some(reply) = read.step(400) {
            break reply.into_reply();
        }
        store.keys.set(format!("{{t}}1new{number}").as_bytes(), b"", Index(9));
        store.keys.remove(format!("{{t}}{}", 8 * number + 1).as_bytes());
        store.free_expired(100);
        number += 1;
    };
    assert!(reply == expected && number > 10, "{number} steps");
    store.discard(read);
    while store.free_expired(1_000) {}
    store.keys.set(&[b"{t}".to_vec(), vec![b'a'; 20_000]].concat(), b"", Index(9));
    let costly = format!("SCAN {cursor} MATCH *{}b", "a".repeat(2_000));
    let refused = Reply::from(CommandError::PatternTooCostly);
    assert_eq!(at_once(&store, &costly), refused);
    assert_eq!((briefly(&store, &costly), in_steps(&store, &costly, 500).0), (None, refused.clone()));
    assert_eq!(ordered(&mut store, &costly, 500), [refused.clone(), refused]);
}

#[test]
fn some_key_is_any_key_and_the_same_on_every_node() {
    let (mut store, mut other) = (mixed(1, 8_000), mixed(2, 8_000));
    while other.free_expired(1_000) {}
    let mut told = BTreeSet::new();
    for drawn in 0..20_u64 {
        let tagged = slot_of(b"{t}") as u64 + (drawn << 14);
        for first in [drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15), tagged] {
            let pick = |store: &Store, max| {
                let mut read = LongRead::new(&store.keys, long_read::Task::Pick(slot_read::Pick::new(first)));
                (1..).find_map(|steps| Some((read.step(max)?.into_reply(), steps))).expect("an end")
            };
            let (key, _) = pick(&store, usize::MAX);
            assert!(matches!(&key, Reply::Bulk(bytes) if store.keys.get(bytes).is_some()));
            for max in [100, 3_000] {
                let (in_steps, steps) = pick(&store, max);
                assert!(in_steps == key && (first != tagged || steps >= 8_000 / max), "{steps} steps");
            }
            assert_eq!(pick(&other, usize::MAX).0, key);
            told.extend(sorted(&[key]));
        }
    }
    assert!(told.len() > 30, "{} different ones", told.len());
    // As a part of the total order it is the same everywhere, whatever else was drawn there.
    (0..3).for_each(|_| drop(at_once(&store, "RANDOMKEY")));
    let mut given = Given::transaction(&[], &["RANDOMKEY", "RANDOMKEY", "SET a b"].map(Given::line));
    let id = [&mut store, &mut other]
        .map(|store| store.apply(AT, &Given::line("SESSION OPEN").as_command(), true));
    assert_eq!(id, [Reply::Integer(7), Reply::Integer(7)]);
    given.session = Some(SessionSeq { session: SessionId(7), seq: 1, acked: 0 });
    let reply = [&mut store, &mut other].map(|store| store.apply(AT, &given.as_command(), false));
    assert_eq!(reply[0], reply[1]);
    assert_eq!(store.digest(), other.digest(), "what a session keeps is state");
}

#[test]
fn keys_of_a_slot_are_drawn_alike() {
    const KEYS: usize = 20;
    const DRAWS: usize = 4_000;
    let mut store = Store::new(Limits::default(), 1);
    assert_eq!(at_once(&store, "RANDOMKEY"), Reply::Nil);
    assert_eq!(briefly(&store, "RANDOMKEY"), Some(Reply::Nil));
    for i in 0..KEYS {
        store.keys.set(format!("{{t}}{i}").as_bytes(), b"", Index(1));
    }
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..DRAWS {
        let Some(Reply::Bulk(key)) = briefly(&store, "RANDOMKEY") else { panic!("a key") };
        *counts.entry(key.to_vec()).or_insert(0_usize) += 1;
    }
    let expected = DRAWS / KEYS;
    let square: usize = counts.values().map(|count| count.abs_diff(expected).pow(2)).sum();
    // Nineteen degrees of freedom: more than 50 would be one chance in 7,000.
    assert!(counts.len() == KEYS && square < 50 * expected, "{counts:?}");
}

/// However a slot is asked, it has the same keys: those that are alive.
#[test]
fn keys_of_a_slot_are_counted_and_listed_without_the_dead() {
    let mut store = mixed(1, 8_000);
    let slot = slot_of(b"{t}");
    let count = |slot: usize| format!("CLUSTER COUNTKEYSINSLOT {slot}");
    assert_eq!(briefly(&store, &count(slot)), None, "each is looked at");
    assert_eq!(briefly(&store, &count(slot ^ 1)), Some(Reply::Integer(0)));
    let Reply::Array(all) = in_steps(&store, &format!("CLUSTER GETKEYSINSLOT {slot} 9999"), 500).0 else {
        panic!("an array")
    };
    assert!(all.len() == 7_000 && sorted(&all).len() == 7_000);
    for max in [0, 1, 3_000, 6_999, 7_000, 7_001] {
        let line = format!("CLUSTER GETKEYSINSLOT {slot} {max}");
        assert_eq!(briefly(&store, &line), None);
        let (reply, steps) = in_steps(&store, &line, 500);
        assert!(reply == Reply::Array(all[..max.min(7_000)].to_vec()) && steps >= 16, "{steps} steps");
    }
    for is_freed in [false, true] {
        let (reply, steps) = in_steps(&store, &count(slot), 500);
        assert_eq!((reply, steps == 1), (Reply::Integer(7_000), is_freed));
        assert_eq!(briefly(&store, &count(slot)).is_some(), is_freed);
        while store.free_expired(100) {}
    }
    let first = slot_of(b"key-1");
    let listed = Reply::Array(vec![Reply::bulk(b"key-1")]);
    assert_eq!(briefly(&store, &format!("CLUSTER GETKEYSINSLOT {first} 1")), Some(listed));
    for (line, error) in [
        ("COUNTKEYSINSLOT 16384", CommandError::InvalidSlot),
        ("COUNTKEYSINSLOT x", CommandError::InvalidSlot),
        ("GETKEYSINSLOT -1 1", CommandError::InvalidSlotOrCount),
        ("GETKEYSINSLOT 1 -1", CommandError::InvalidSlotOrCount),
    ] {
        assert_eq!(briefly(&store, &format!("CLUSTER {line}")), Some(error.into()), "{line}");
    }
}

/// Crowds of keys that are dead and not freed yet cost whoever looks for the living.
#[test]
fn the_dead_are_passed_over_in_bounded_steps() {
    let mut store = Store::new(Limits::default(), 1);
    for i in 0..20_000 {
        store.keys.set_until(format!("key-{i}").as_bytes(), b"", Index(1), Some(Millis(5)));
    }
    store.apply(AT, &Given::line("DBSIZE").as_command(), true);
    let nothing = Reply::Array(Vec::new());
    for (line, expected) in [
        ("KEYS *", nothing.clone()),
        ("SCAN 0", Reply::Array(vec![Reply::bulk(b"0"), nothing])),
        ("RANDOMKEY", Reply::Nil),
    ] {
        assert_eq!(briefly(&store, line), None);
        let (reply, steps) = in_steps(&store, line, 1_000);
        assert!(reply == expected && steps > 20, "{line} in {steps} steps");
    }
}
