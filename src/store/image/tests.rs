use std::collections::BTreeMap;

use super::*;
use crate::store::leaves::Slot;
use crate::store::tests::SplitMix;
use crate::store::{Applied, Limits, lookup, slot_of};
use crate::types::{Index, Millis, Reply};
use crate::wire::batch::{BatchCommand, SessionSeq};

fn apply(
    store: &mut Store,
    index: u64,
    session: Option<SessionSeq>,
    name: &str,
    arguments: &[&[u8]],
) -> Reply {
    let code = lookup(name.as_bytes()).expect("a command").code;
    let at = Applied { index: Index(index), now: Millis(1000 + index / 8) };
    store.apply(at, &BatchCommand { session, code, arguments: arguments.to_vec() }, true)
}

/// What a store holds, in plain words.
fn contents(image: &StoreImage) -> BTreeMap<Vec<u8>, (Vec<u8>, u64, Option<Millis>)> {
    let keys = (0..SLOT_COUNT).flat_map(|slot| image.slot(slot));
    keys.map(|key| (key.key.to_vec(), (key.value.to_vec(), key.revision.0, key.deadline))).collect()
}

fn encode(image: StoreImage, mut max: impl FnMut() -> usize) -> Vec<Vec<u8>> {
    let mut encoder = image.into_encoder();
    let mut chunks = Vec::new();
    loop {
        let (mut chunk, max) = (vec![7; 3], max());
        if !encoder.next_chunk(&mut chunk, max) {
            assert_eq!(chunk.len(), 3);
            return chunks;
        }
        assert!(chunk.len() > 3 && chunk.len() - 3 <= max && chunk.starts_with(&[7; 3]));
        chunks.push(chunk.split_off(3));
    }
}

fn build(chunks: &[Vec<u8>], digest: u64) -> Result<Store, ImageError> {
    let mut builder = StoreBuilder::new(99);
    let mut checker = ImageChecker::default();
    for chunk in chunks {
        builder.push(chunk)?;
        checker.push(chunk)?;
    }
    let store = builder.finish(Limits::default(), digest)?;
    checker.finish(digest)?;
    Ok(store)
}

/// A store that something of everything has happened to, and the last index.
fn busy_store(seed: u64, count: u64) -> (Store, u64) {
    let mut random = SplitMix(seed);
    let mut store = Store::new(Limits::default(), seed);
    let mut last: Vec<(u64, u64)> = Vec::new();
    for index in 1..=count {
        step(&mut store, &mut random, &mut last, index);
    }
    (store, count)
}

fn step(store: &mut Store, random: &mut SplitMix, last: &mut Vec<(u64, u64)>, index: u64) {
    let key = format!("key-{}", random.below(300));
    let value = vec![b'v'; [0, 3, 40, 5000][random.below(4)]];
    let key: &[u8] = if random.below(20) == 0 { b"\0{tag}\xff" } else { key.as_bytes() };
    match random.below(12) {
        0 => {
            assert!(!apply(store, index, None, "SESSION", &[b"OPEN"]).is_error());
            last.push((index, 0));
        }
        1..5 if !last.is_empty() => {
            let at = random.below(last.len());
            let (session, seq) = last[at];
            let acked = seq.saturating_sub(random.next() % 4);
            let place = SessionSeq { session: SessionId(session), seq: seq + 1, acked };
            let (name, arguments): (_, &[&[u8]]) = match random.below(4) {
                0 => ("SET", &[key, &value]),
                1 => ("INCR", &[key]),
                2 => ("GETSET", &[key, &value]),
                _ => ("SET", &[key, b"1", b"XX", b"GET"]),
            };
            apply(store, index, Some(place), name, arguments);
            last[at].1 += 1;
        }
        5 => drop(apply(store, index, None, "DEL", &[key])),
        6 => drop(apply(store, index, None, "APPEND", &[key, &value])),
        8 => drop(apply(store, index, None, "PEXPIRE", &[key, b"60"])),
        9 => drop(apply(store, index, None, "SET", &[key, &value, b"PX", b"90"])),
        7 if random.below(200) == 0 => drop(apply(store, index, None, "FLUSHALL", &[])),
        _ => drop(apply(store, index, None, "SET", &[key, &value])),
    }
}

#[test]
fn an_image_stays_what_it_was_while_the_store_goes_on() {
    for seed in 0..6 {
        let mut random = SplitMix(seed);
        let (mut store, mut last) = (Store::new(Limits::default(), 1), Vec::new());
        let mut images: Vec<(StoreImage, BTreeMap<_, _>, u64, usize)> = Vec::new();
        for index in 1..=3000 {
            step(&mut store, &mut random, &mut last, index);
            if random.below(300) == 0 {
                let image = store.freeze();
                assert_eq!(image.digest(), store.digest());
                images.push((image.clone(), contents(&image), store.digest(), store.session_count()));
            }
            if random.below(600) == 0 && !images.is_empty() {
                images.remove(random.below(images.len()));
            }
        }
        assert_eq!(store.digest(), store.digest_recomputed(), "seed {seed}");
        for (image, kept, digest, sessions) in images {
            assert_eq!(contents(&image), kept, "seed {seed}");
            assert_eq!((image.digest(), image.key_count()), (digest, kept.len()));
            let rebuilt = build(&encode(image, || 1000), digest).expect("its own bytes");
            assert_eq!(rebuilt.digest_recomputed(), digest, "seed {seed}");
            assert_eq!((rebuilt.key_count(), rebuilt.session_count()), (kept.len(), sessions));
        }
    }
}

#[test]
fn the_bytes_follow_from_the_state_alone() {
    let (one, mut index) = busy_store(3, 2000);
    let digest = one.digest();
    let whole = encode(one.freeze(), || usize::MAX).concat();
    let mut random = SplitMix(8);
    let chunks = encode(one.freeze(), || 1 + random.below(100));
    assert_eq!(chunks.concat(), whole);
    // Another seed, other histories of the hash maps, the same bytes.
    let mut two = build(&chunks, digest).expect("its own bytes");
    assert_eq!(encode(two.freeze(), || 50).concat(), whole);
    // And the same replies from now on.
    let mut one = one;
    for seq in 1..200 {
        index += 1;
        let place = SessionSeq { session: one.sessions.freeze().ids()[0], seq, acked: 0 };
        let replies = [&mut one, &mut two].map(|store| apply(store, index, Some(place), "INCR", &[b"n"]));
        assert_eq!(replies[0], replies[1]);
    }
    assert_eq!(one.digest(), two.digest());
}

/// Cuts an image's bytes where its items end.
fn items(bytes: &[u8]) -> Vec<&[u8]> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (mut items, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let len = match bytes[at] {
            KIND_KEY => 17 + word(at + 9) + word(at + 13),
            KIND_MORTAL => 25 + word(at + 17) + word(at + 21),
            KIND_TIME => 9,
            KIND_SESSION => 33,
            KIND_REPLY => 13 + word(at + 9),
            _ => 17,
        };
        items.push(&bytes[at..at + len]);
        at += len;
    }
    items
}

#[test]
fn slots_may_come_in_any_order_and_nothing_may_be_missing_or_double() {
    let (store, _) = busy_store(6, 2000);
    let digest = store.digest();
    let whole = encode(store.freeze(), || usize::MAX).concat();
    let mut list = items(&whole);
    // The time stays in front.
    let time = list.remove(0).to_vec();
    assert_eq!(time[0], KIND_TIME);
    let build = |chunks: &[Vec<u8>], digest| {
        let timeless = chunks.first().is_some_and(|chunk| chunk[0] != KIND_TIME);
        let front = if timeless { vec![time.clone()] } else { Vec::new() };
        build(&[front, chunks.to_vec()].concat(), digest)
    };
    let end = list.len() - 1;
    let keys = list.iter().take_while(|item| [KIND_KEY, KIND_MORTAL].contains(&item[0])).count();
    assert!(list.iter().filter(|item| item[0] == KIND_MORTAL).count() > 3);
    assert!(keys > 50 && list.iter().any(|item| item[0] == KIND_REPLY), "{keys} keys");
    let mut random = SplitMix(1);
    for at in (1..keys).rev() {
        list.swap(at, random.below(at + 1));
    }
    assert_eq!(build(&[list.concat()], digest).expect("all of it").digest_recomputed(), digest);
    list.rotate_left(keys);
    let end_item = list.remove(end - keys);
    list.push(end_item);
    assert!(build(&[list.concat()], digest).is_ok(), "sessions first");
    for at in [0, keys / 2, end - 1] {
        let mut missing = list.clone();
        missing.remove(at);
        assert!(build(&[missing.concat()], digest).is_err());
        let mut double = list.clone();
        double.insert(at, list[at]);
        assert!(matches!(build(&[double.concat()], digest), Err(ImageError::Contradiction { .. })));
    }
    let short = whole[..whole.len() - 1].to_vec();
    assert_eq!(build(&[short], digest).map(drop), Err(ImageError::Unfinished { at: whole.len() as u64 - 1 }));
    assert!(matches!(build(&[whole.clone(), vec![0]], digest), Err(ImageError::Unfinished { .. })));
    assert!(matches!(build(&[whole.clone(), whole], digest), Err(ImageError::Contradiction { .. })));
}

#[test]
fn every_flipped_bit_is_an_error() {
    let mut store = Store::new(Limits::default(), 1);
    apply(&mut store, 1, None, "SESSION", &[b"OPEN"]);
    let place = |seq| Some(SessionSeq { session: SessionId(1), seq, acked: 0 });
    apply(&mut store, 2, place(1), "SET", &[b"a", b"some words"]);
    apply(&mut store, 3, place(2), "GETSET", &[b"a", b"1"]);
    apply(&mut store, 4, place(3), "INCR", &[b"b"]);
    apply(&mut store, 5, place(4), "PEXPIRE", &[b"b", b"5000"]);
    let digest = store.digest();
    let whole = encode(store.freeze(), || usize::MAX).concat();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let chunks: Vec<Vec<u8>> = bytes.chunks(50).map(<[u8]>::to_vec).collect();
        assert!(build(&chunks, digest).is_err(), "bit {bit}");
    }
}

#[test]
fn kept_replies_of_all_kinds_come_back() {
    let mut store = Store::new(Limits::default(), 1);
    apply(&mut store, 1, None, "SESSION", &[b"OPEN"]);
    let place = |seq| Some(SessionSeq { session: SessionId(1), seq, acked: 0 });
    let replies = [
        apply(&mut store, 2, place(1), "SET", &[b"a", b"1"]),
        apply(&mut store, 3, place(2), "GETSET", &[b"a", &[0xff; 300]]),
        apply(&mut store, 4, place(3), "INCR", &[b"a"]),
        apply(&mut store, 5, place(4), "SETNX", &[b"a", b"1"]),
        apply(&mut store, 6, place(5), "GETSET", &[b"b", b"1"]),
    ];
    let digest = store.digest();
    let mut rebuilt = build(&encode(store.freeze(), || 5), digest).expect("its own bytes");
    for (seq, reply) in (1..).zip(replies) {
        assert_eq!(apply(&mut rebuilt, 7, place(seq), "SET", &[b"never", b"0"]), reply);
    }
    let nested = Reply::Array(vec![Reply::Array(vec![]), Reply::Array(vec![Reply::Nil, Reply::bulk(b"x")])]);
    let mut session = Session::new(Millis(5), 9, 3);
    assert!(!session.restore_reply(3, Reply::OK) && !session.restore_reply(10, Reply::OK));
    assert!(session.restore_reply(4, nested) && !session.restore_reply(4, Reply::OK));
    assert!(rebuilt.sessions.restore(SessionId(4), session));
    let digest = rebuilt.digest();
    assert_eq!(rebuilt.digest_recomputed(), digest);
    assert_eq!(build(&encode(rebuilt.freeze(), || 64), digest).map(|store| store.digest()), Ok(digest));
}

#[test]
fn lengths_are_not_believed() {
    let push = |bytes: &[u8]| StoreBuilder::new(1).push(bytes);
    let mut key = vec![KIND_KEY, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(push(&key), Ok(()), "a long value may come, and nothing is set aside for it");
    key[16] = 0x20;
    assert!(matches!(push(&key), Err(ImageError::Item { at: 0, .. })));
    key[16] = 0;
    key[12] = 1;
    assert!(matches!(push(&key), Err(ImageError::Item { at: 0, .. })));
    assert!(matches!(push(&[9]), Err(ImageError::Item { at: 0, .. })));
    let mut nested = vec![KIND_SESSION];
    nested.extend([0; 32]);
    nested[9 + 8] = 5;
    nested.push(KIND_REPLY);
    nested.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    let reply = [5u8, 1, 0, 0, 0].repeat(9);
    nested.extend((reply.len() as u32 + 1).to_le_bytes());
    nested.extend(reply);
    nested.push(0);
    let error = push(&nested).expect_err("nested too deep");
    assert_eq!(error.to_string(), "item at byte 33 of the image: nesting of 9, expected at most 8");
}

/// While an image is held, a write copies one slot, once.
#[test]
fn a_write_copies_its_slot_and_no_other() {
    let mut keys = Keyspace::new(1);
    for i in 0..50_000u64 {
        keys.set(format!("key-{i}").as_bytes(), b"v", Index(i));
    }
    let kept = keys.clone();
    let shared = |keys: &Keyspace| {
        let same = |slot: &usize| match (keys.slot(*slot), kept.slot(*slot)) {
            (Some(a), Some(b)) => a.places() == b.places(),
            (a, b) => a.is_none() == b.is_none(),
        };
        (0..SLOT_COUNT).filter(same).count()
    };
    assert_eq!(shared(&keys), SLOT_COUNT);
    keys.set(b"key-1", b"w", Index(1));
    assert_eq!(shared(&keys), SLOT_COUNT - 1);
    let copy = keys.slot(slot_of(b"key-1")).expect("it has a key").places();
    keys.set(b"key-1", b"x", Index(2));
    assert_eq!(keys.slot(slot_of(b"key-1")).expect("it has a key").places(), copy);
    assert!(keys.remove(b"key-2").is_some());
    assert_eq!(shared(&keys), SLOT_COUNT - 2);
    let value = |keys: &Keyspace| keys.get(b"key-3").map(|item| item.value().as_ptr());
    assert_eq!(value(&keys), value(&kept), "values are shared in a copied slot too");
}

/// A store need not copy what its image's encoder is done with.
#[test]
fn an_encoder_lets_go_of_what_it_is_done_with() {
    let mut store = Store::new(Limits::default(), 1);
    for i in 0..20_000u64 {
        store.keys.set(format!("key-{i}").as_bytes(), b"v", Index(i));
    }
    let mut encoder = store.freeze().into_encoder();
    let place = |store: &Store, key: &[u8]| store.keys.slot(slot_of(key)).map(Slot::places);
    let key = |first: bool| {
        let mut keys = (0..20_000).map(|i| format!("key-{i}").into_bytes());
        keys.find(|key| if first { slot_of(key) < 100 } else { slot_of(key) > SLOT_COUNT - 100 })
            .expect("many keys")
    };
    let (early, late) = (key(true), key(false));
    let before = [place(&store, &early), place(&store, &late)];
    let mut out = Vec::new();
    while out.len() < 300_000 {
        assert!(encoder.next_chunk(&mut out, 1000));
    }
    for key in [&early, &late] {
        store.keys.set(key, b"w", Index(1));
    }
    assert_eq!(place(&store, &early), before[0]);
    assert_ne!(place(&store, &late), before[1]);
    while encoder.next_chunk(&mut out, 1000) {}
    assert_eq!(items(&out).len(), 20_001);
}

/// The sessions come last and can be many: by then it has no keys left.
#[test]
fn an_encoder_lets_go_of_the_last_slot_too() {
    let mut keys = (0..).map(|i: u64| format!("key-{i}").into_bytes());
    let last = keys.find(|key| slot_of(key) == SLOT_COUNT - 1).expect("numbers do not end");
    let mut store = Store::new(Limits::default(), 1);
    store.keys.set(&last, b"v", Index(1));
    let mut encoder = store.freeze().into_encoder();
    let mut out = Vec::new();
    while encoder.next_chunk(&mut out, 1000) {}
    let place = |store: &Store| store.keys.slot(SLOT_COUNT - 1).map(Slot::places);
    let before = place(&store);
    store.keys.set(&last, b"w", Index(2));
    assert_eq!(place(&store), before);
}
