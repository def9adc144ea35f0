//! Commands that are applied in pieces: they do the same as at once, each piece does its share and not much more, and
//! nobody who froze the store before sees any of it.

use super::*;

/// A command with arguments of its own.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) session: Option<SessionSeq>,
    pub(super) code: u8,
    arguments: Vec<Vec<u8>>,
}

impl Given {
    pub(super) fn new(name: &str, arguments: Vec<Vec<u8>>) -> Given {
        Given { session: None, code: lookup(name.as_bytes()).expect("a command").code, arguments }
    }

    /// From a line of words.
    pub(super) fn line(line: &str) -> Given {
        let mut words = line.split(' ');
        let name = words.next().expect("a name");
        Given::new(name, words.map(|word| word.as_bytes().to_vec()).collect())
    }

    pub(super) fn transaction(watched: &[(&[u8], Index)], commands: &[Given]) -> Given {
        let mut builder = TransactionBuilder::default();
        for (key, revision) in watched {
            builder.watch(key, *revision);
        }
        for command in commands {
            let arguments: Vec<&[u8]> = command.arguments.iter().map(Vec::as_slice).collect();
            assert!(builder.push(command.code, &arguments), "there is room");
        }
        let arguments = builder.finish().into_iter().map(Vec::from).collect();
        Given { session: None, code: TRANSACTION_CODE, arguments }
    }

    pub(super) fn as_command(&self) -> BatchCommand<'_> {
        let arguments = self.arguments.iter().map(Vec::as_slice).collect();
        BatchCommand { session: self.session, code: self.code, arguments }
    }
}

/// Applies a command in pieces with the fund that is drawn for each; after each, `between` is called.
pub(super) fn in_pieces(
    store: &mut Store,
    at: Applied,
    given: &Given,
    want_reply: bool,
    mut draw: impl FnMut() -> u64,
    mut between: impl FnMut(&mut Store),
) -> (Reply, usize) {
    let (command, mut under_way) = (given.as_command(), None);
    for pieces in 1.. {
        let (drawn, before) = (draw(), store.work());
        let mut fund = Fund(drawn);
        let reply = store.apply_some(at, &command, want_reply, &mut under_way, &mut fund);
        let work = store.work() - before;
        assert_eq!(fund, Fund(drawn.saturating_sub(work)), "what was done is paid");
        assert!(work > 0, "every piece does something");
        assert!(reply.is_some() || fund.is_spent(), "nobody stops early: {under_way:?}");
        assert_eq!(reply.is_none(), under_way.is_some());
        between(store);
        if let Some(reply) = reply {
            return (reply, pieces);
        }
    }
    unreachable!("numbers do not end")
}

fn random_key(random: &mut SplitMix) -> Vec<u8> {
    let number = random.below(40);
    match random.below(3) {
        0 => format!("k{number}"),
        1 => format!("{{tag}}{number}"),
        _ => format!("key:{number}"),
    }
    .into_bytes()
}

fn random_keys(random: &mut SplitMix) -> Vec<Vec<u8>> {
    let count = *random.pick(&[0, 1, 1, 2, 3, 30, 70, 200]);
    (0..count).map(|_| random_key(random)).collect()
}

fn random_command(random: &mut SplitMix, index: u64, depth: usize) -> Given {
    let value = |random: &mut SplitMix| match random.below(8) {
        0 => vec![b'a'; random.below(5_000)],
        1 => random.below(100).to_string().into_bytes(),
        2 => Vec::new(),
        _ => (0..random.below(12)).map(|_| *random.pick(b"ab\xff\0")).collect(),
    };
    let pairs = |random: &mut SplitMix| {
        let keys = random_keys(random);
        let mut pairs: Vec<Vec<u8>> = keys.into_iter().flat_map(|key| [key, value(random)]).collect();
        if random.below(20) == 0 {
            pairs.pop();
        }
        pairs
    };
    match random.below(if depth == 0 { 17 } else { 13 }) {
        0 | 1 => Given::new("MSET", pairs(random)),
        2 => {
            let mut pairs = pairs(random);
            if random.below(2) == 0 {
                pairs.iter_mut().step_by(2).for_each(|key| key.extend_from_slice(b"new"));
            }
            Given::new("MSETNX", pairs)
        }
        3 => Given::new("DEL", random_keys(random)),
        4 => {
            let revision = random.below(usize::try_from(index).expect("small") + 2).to_string();
            Given::new("DEL", vec![random_key(random), b"IFREV".to_vec(), revision.into_bytes()])
        }
        5 => {
            let name = random.pick(&[&b"AND"[..], b"OR", b"XOR", b"NOT", b"NAND"]).to_vec();
            Given::new("BITOP", [vec![name, random_key(random)], random_keys(random)].concat())
        }
        6 => {
            let deadline = (1_000 + random.below(3_000)).to_string().into_bytes();
            Given::new("SET", vec![random_key(random), value(random), b"PXAT".to_vec(), deadline])
        }
        7 => Given::new("KEYS", vec![random.pick(&[&b"*"[..], b"k?", b"*:1*", b"[", b"\\"]).to_vec()]),
        8 => Given::new("LCS", vec![random_key(random), random_key(random)]),
        9 => {
            let keys = random_keys(random);
            let name = *random.pick(&["MGET", "EXISTS"]);
            Given::new(name, keys.iter().cycle().take(keys.len() * 40).cloned().collect())
        }
        10 => {
            let lines = [
                "DBSIZE",
                "INCR number",
                "GET k1",
                "APPEND k2 x",
                "PUBLISH a b",
                "SCAN 0",
                "RANDOMKEY",
                "SCAN 0 COUNT 999",
            ];
            Given::line(lines[random.below(lines.len())])
        }
        11 => {
            let lines = ["PING", "LOCK l 100", "SET a", "MSET", "RENAME k1 k2", "GETDEL k3"];
            Given::line(lines[random.below(lines.len())])
        }
        12 if random.below(10) == 0 => Given::line("FLUSHALL"),
        12 => Given { code: 255, ..Given::line("GET k1") },
        13 => Given::line("SESSION OPEN"),
        _ => {
            let commands: Vec<Given> =
                (0..random.below(12)).map(|_| random_command(random, index, depth + 1)).collect();
            let watched = random_key(random);
            let watched: &[(&[u8], Index)] = if random.below(4) == 0 { &[(&watched, Index(0))] } else { &[] };
            let mut given = Given::transaction(watched, &commands);
            if random.below(20) == 0 {
                given.arguments.pop();
            }
            given
        }
    }
}

#[test]
fn in_pieces_or_at_once_the_same_is_done() {
    let (mut most, mut transactions) = (0, 0);
    for seed in 0..15 {
        let mut random = SplitMix(seed);
        let new = |seed| {
            let mut store = Store::new(Limits { session_idle: Millis(700), ..Limits::default() }, seed);
            store.tell_of_keys(true);
            store
        };
        let (mut whole, mut pieces, mut silent) = (new(1), new(2), new(3));
        let (mut now, mut session, mut seq) = (1_000, None, 0);
        for index in 1..150 {
            let mut given = random_command(&mut random, index, 0);
            if let Some(id) = session
                && random.below(2) == 0
            {
                seq += 1;
                let seq = seq - random.below(2).min(usize::try_from(seq - 1).expect("small")) as u64;
                given.session =
                    Some(SessionSeq { session: SessionId(id), seq, acked: seq.saturating_sub(3) });
            }
            now += random.next() % 40;
            let at = Applied { index: Index(index), now: Millis(now) };
            let expected = whole.apply(at, &given.as_command(), true);
            let told = whole.take_events();
            let mut frees = SplitMix(random.next());
            let mut moods = SplitMix(frees.0 ^ 1);
            let mut draw = || *random.pick(&[0, 1, 2, 5, 20, 100]);
            let mut events = Vec::new();
            let (reply, count) = in_pieces(&mut pieces, at, &given, true, &mut draw, |store| {
                events.extend(store.take_events());
                store.free_expired(frees.below(4));
            });
            // Here somebody listens at times, perhaps to a half of it.
            in_pieces(&mut silent, at, &given, false, &mut draw, |store| {
                store.tell_of_keys(moods.below(3) == 0);
                store.free_expired(moods.below(3));
            });
            silent.take_events();
            let what = format!("seed {seed}: {index} {given:?}");
            assert_eq!(format!("{reply:?}"), format!("{expected:?}"), "{what}");
            assert_eq!(events, told, "{what}");
            let digests = [&whole, &pieces, &silent].map(Store::digest);
            assert_eq!(digests, [digests[0]; 3], "{what}");
            if index % 10 == 0 {
                assert_eq!(pieces.digest_recomputed(), digests[0], "{what}");
            }
            if let (Reply::Integer(_), true) = (&reply, given.code == Given::line("SESSION").code) {
                (session, seq) = (Some(index), 0);
            }
            transactions += usize::from(given.code == TRANSACTION_CODE && count > 1);
            most = most.max(count);
        }
    }
    assert!(most > 300 && transactions > 100, "{most} pieces, {transactions} transactions");
}

/// How far a piece may go beyond its fund: the arguments of the largest command are looked at, a leaf and its group
/// are copied, or a group of empty slots is passed over.
pub(super) const OVER_MAX: u64 = 500;

fn filled(count: usize) -> Store {
    let mut store = Store::new(Limits::default(), 1);
    for i in 0..count {
        store.keys.set(format!("key-{i}").as_bytes(), b"value", Index(1));
    }
    store
}

fn names(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("key-{i}").into_bytes()).collect()
}

/// Applies a command with one fund for each piece. A snapshot from before sees none of it.
fn bounded(store: &mut Store, given: &Given, share: u64) -> Reply {
    let image = store.clone();
    let (digest, at) = (image.digest(), Applied { index: Index(9), now: Millis(1) });
    let before = store.work();
    let mut last = before;
    let (reply, pieces) = in_pieces(
        store,
        at,
        given,
        true,
        || share,
        |store| {
            let work = store.work() - std::mem::replace(&mut last, store.work());
            assert!(work <= share + OVER_MAX, "a piece of {work} instead of {share}");
        },
    );
    let expected = usize::try_from((store.work() - before) / (share + OVER_MAX)).expect("not so many");
    assert!(pieces > 1 && pieces >= expected, "{pieces} pieces");
    assert_eq!((image.digest(), image.digest_recomputed()), (digest, digest));
    assert_eq!(store.digest(), store.digest_recomputed());
    reply
}

#[test]
fn many_keys_are_set_in_bounded_pieces() {
    for (share, count) in [(1, 2_000), (100, 10_000), (2_000, 30_000)] {
        let pairs: Vec<Vec<u8>> = names(count).into_iter().flat_map(|key| [key, b"new".to_vec()]).collect();
        let mut store = filled(count / 2);
        assert_eq!(bounded(&mut store, &Given::new("MSET", pairs.clone()), share), Reply::OK);
        assert_eq!(store.key_count(), count);
        let fresh = pairs.iter().map(|word| [b"{other}", &word[..]].concat()).collect();
        assert_eq!(bounded(&mut store, &Given::new("MSETNX", fresh), share), Reply::Integer(1));
        let deleted = Reply::Integer(i64::try_from(count).expect("small"));
        assert_eq!(bounded(&mut store, &Given::new("DEL", names(2 * count)), share), deleted);
        assert_eq!(store.key_count(), count);
    }
}

#[test]
fn transactions_are_run_in_bounded_pieces() {
    for share in [10, 2_000] {
        let mut store = filled(60_000);
        let deletions: Vec<Given> =
            names(50_000).chunks(100).map(|keys| Given::new("DEL", keys.to_vec())).collect();
        let expected = Reply::Array(vec![Reply::Integer(100); 500]);
        assert_eq!(bounded(&mut store, &Given::transaction(&[], &deletions), share), expected);
        let reads = ["SET a 1", "KEYS key-5*", "DEL a", "KEYS *", "DBSIZE"].map(Given::line);
        let Reply::Array(replies) = bounded(&mut store, &Given::transaction(&[], &reads), share) else {
            panic!("an array")
        };
        let lens: Vec<Option<usize>> = replies
            .iter()
            .map(|reply| match reply {
                Reply::Array(keys) => Some(keys.len()),
                _ => None,
            })
            .collect();
        assert_eq!(lens, [None, Some(10_000), None, Some(10_000), None]);
        assert_eq!(bounded(&mut store, &Given::line("KEYS *"), share), replies[3]);
        let watched: Vec<Vec<u8>> = names(4_000);
        let watched: Vec<(&[u8], Index)> = watched.iter().map(|key| (&key[..], Index(0))).collect();
        bounded(&mut store, &Given::transaction(&watched, &reads), share);
    }
}

/// Keys that expire in the same moment, before a command that has nothing to do with them.
#[test]
fn the_dead_are_told_of_in_bounded_pieces() {
    const COUNT: usize = 5_000;
    let mut store = Store::new(Limits::default(), 1);
    let mut names = names(COUNT);
    for name in &names {
        store.keys.set_until(name, b"value", Index(1), Some(Millis(10)));
    }
    store.tell_of_keys(true);
    let at = Applied { index: Index(2), now: Millis(10) };
    let (mut told, mut before) = (Vec::new(), store.work());
    let given = Given::line("SET key-7 back");
    let (reply, pieces) = in_pieces(
        &mut store,
        at,
        &given,
        true,
        || 100,
        |store| {
            let work = store.work() - std::mem::replace(&mut before, store.work());
            assert!(work <= 100 + OVER_MAX, "a piece of {work}");
            assert!(store.key_count() <= 1, "they are dead, told of or not");
            told.extend(store.take_events());
        },
    );
    assert_eq!(reply, Reply::OK);
    assert!(pieces > COUNT / 100, "{pieces} pieces");
    names.sort();
    let expired = names.into_iter().map(|key| (EventClass::Expired, "expired", key));
    let expected: Vec<_> = expired.chain([(EventClass::String, "set", b"key-7".to_vec())]).collect();
    let told = told.into_iter().map(|event| match event {
        Event::Key { class, name, key } => (class, name, key.to_vec()),
        Event::Published { .. } => panic!("nobody published anything"),
    });
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert!(!store.keys.has_unfreed() && store.digest() == store.digest_recomputed());
}

/// What died before a read began and was freed under it is held by nothing but the read in the end.
#[test]
fn what_was_freed_under_a_read_is_freed_in_pieces_when_that_ends() {
    const COUNT: usize = 20_000;
    for line in ["KEYS *", "SCAN 0 COUNT 1000"] {
        let mut store = filled(100);
        for i in 0..COUNT {
            store.keys.set_until(format!("{{t}}{i}").as_bytes(), b"value", Index(1), Some(Millis(10)));
        }
        let at = Applied { index: Index(2), now: Millis(10) };
        in_pieces(
            &mut store,
            at,
            &Given::line(line),
            true,
            || 50,
            |store| {
                store.free_expired(200);
            },
        );
        while store.keys.has_unfreed() {
            store.free_expired(200);
        }
        let mut pieces = 0;
        while store.free_expired(200) {
            pieces += 1;
        }
        assert!(pieces >= COUNT / 400, "{line}: {pieces} pieces");
        assert_eq!(store.digest(), store.digest_recomputed());
    }
}

#[test]
fn what_was_found_is_let_go_before_the_next_write() {
    let mut store = filled(20_000);
    let commands = ["KEYS *", "SET key-1 a", "KEYS *", "SET key-1 b"].map(Given::line);
    store.apply(Applied { index: Index(8), now: Millis(1) }, &Given::line("SET key-1 x").as_command(), true);
    let places = |store: &Store| store.keys.slot(slot_of(b"key-1")).expect("there").places();
    let before = places(&store);
    let at = Applied { index: Index(9), now: Millis(1) };
    in_pieces(&mut store, at, &Given::transaction(&[], &commands), true, || 500, |_| {});
    assert_eq!(places(&store), before, "no leaf was copied");
}

#[test]
fn long_values_are_compared_and_put_together_in_bounded_pieces() {
    let mut random = SplitMix(7);
    let mut store = Store::new(Limits::default(), 1);
    for key in [b"a", b"b"] {
        let value: Vec<u8> = (0..4_095).map(|_| *random.pick(b"abcd")).collect();
        store.keys.set(key, &value, Index(1));
    }
    for share in [40, 500] {
        let Reply::Bulk(common) = bounded(&mut store, &Given::line("LCS a b"), share) else {
            panic!("bytes")
        };
        let len = i64::try_from(common.len()).expect("short");
        assert_eq!(bounded(&mut store, &Given::line("LCS a b LEN"), share), Reply::Integer(len));
    }
    let before = store.work();
    store.read(Given::line("LCS a b").code, &[b"a", b"b"]);
    assert!(store.work() - before > 4_095 * 4_095 / 1024, "reads show their work");
    let sources = ["a", "b"].map(|key| key.as_bytes().to_vec());
    let mut words = vec![b"XOR".to_vec(), b"c".to_vec()];
    words.extend(sources.iter().cycle().take(10_001).cloned());
    assert_eq!(bounded(&mut store, &Given::new("BITOP", words), 50), Reply::Integer(4_095));
    assert_eq!(store.keys.value(b"c"), store.keys.value(b"a"), "the others cancel out");
}

/// Everything that looks at many keys shows it.
#[test]
fn reads_show_their_work() {
    let store = filled(20_000);
    let cost = |line: &str| {
        let (given, before) = (Given::line(line), store.work());
        let reply = store.read(given.code, &given.as_command().arguments);
        assert!(!reply.is_error(), "{line}: {reply:?}");
        store.work() - before
    };
    assert!((1..=3).contains(&cost("GET key-1")));
    assert!((100..=110).contains(&cost(&format!("MGET{}", " key-1".repeat(100)))));
    assert!((1_000..=1_200).contains(&cost("SCAN 0 COUNT 1000")));
    assert!(cost("KEYS *") > 20_000);
    let empty = filled(0);
    empty.read(Given::line("SCAN 0").code, &[b"0"]);
    assert!((1_000..=2_000).contains(&empty.work()), "slots without keys are cheap: {}", empty.work());
}
