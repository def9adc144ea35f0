//! Long replies in every style: bytes piece by piece, and the same bytes as at a stroke.

use std::ops::Range;

use super::long::{KEY_COUNT, OUTPUT_MAX, filled, listen, one_turn};
use super::*;
use crate::dialect::{ReplyStyle, encode};
use crate::node::pouring::{POURED_PER_TURN, PourFund, Pouring, is_long};
use crate::node::queue::Remains;
use crate::store::{Found, LongReply};
use crate::types::{Bytes, Item, Reply, limits};
use crate::wire::FRAME_HEADER_LEN;

const STYLES: [ReplyStyle; 5] = [
    ReplyStyle::Text,
    ReplyStyle::Resp2,
    ReplyStyle::Resp3,
    ReplyStyle::Silent,
    ReplyStyle::Binary { id: 9 },
];

fn at_once(style: ReplyStyle, reply: LongReply) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    encode(&mut bytes, style, &reply.into_reply());
    bytes
}

/// Pours all of it, and returns the bytes, the number of steps and the work that they say they were.
fn in_pieces(style: ReplyStyle, reply: LongReply) -> (Vec<u8>, usize, usize) {
    let mut bytes = b"before".to_vec();
    let mut pouring = Pouring::begin(&mut bytes, style, reply, &PourFund::of_turn()).expect("a long reply");
    assert!(bytes.len() < 100, "it only begins");
    let (mut steps, mut work) = (0, 0);
    loop {
        let len = bytes.len();
        let Some(step) = pouring.pour(&mut bytes) else { return (bytes, steps, work) };
        assert!(bytes.len() - len < 256 * step + 100, "{} bytes for the work of {step}", bytes.len() - len);
        steps += 1;
        work += step;
    }
}

fn numbers(count: usize) -> Reply {
    Reply::Array((0..count).map(|i| Reply::bulk(i.to_string().as_bytes())).collect())
}

/// Arrays in arrays: long ones and short ones, as first, middle and last elements.
fn nested() -> Reply {
    let pairs = (0..1_500).map(|i| Reply::Array(vec![Reply::Integer(i), Reply::Array(vec![]), Reply::Nil]));
    let large = Reply::Bulk(Bytes::from(vec![b'v'; 300_000]));
    Reply::Array(vec![
        Reply::Array(vec![numbers(1_100), numbers(3), Reply::Array(vec![large.clone(), Reply::OK])]),
        Reply::error("ERR no"),
        Reply::Map(vec![Reply::bulk(b"a"), numbers(4), Reply::bulk(b"b"), Reply::Boolean(true)]),
        Reply::Array(pairs.collect()),
        large,
        Reply::Array(vec![Reply::Array(vec![Reply::Array(vec![numbers(2_000)])])]),
    ])
}

fn found(cursor: Option<usize>, count: usize) -> LongReply {
    let items = (0..count).map(|i| Item::new(name(i).as_bytes(), b"value", Index(1), None)).collect();
    LongReply::Keys(Found { cursor, items })
}

#[test]
fn the_bytes_are_the_same_in_every_style() {
    let replies: [fn() -> LongReply; 5] = [
        || LongReply::Reply(numbers(2_000)),
        || LongReply::Reply(nested()),
        || LongReply::Reply(Reply::Array(vec![Reply::Bulk(Bytes::from(vec![0; 1 << 20]))])),
        || found(None, 2_000),
        || found(Some(77), 2_000),
    ];
    for (number, reply) in replies.iter().enumerate() {
        for style in STYLES {
            let (bytes, steps, work) = in_pieces(style, reply());
            assert!(bytes == at_once(style, reply()), "reply {number} in {style:?}");
            assert!(number == 2 || steps >= 2_000, "{steps} steps");
            let passes = if let ReplyStyle::Binary { .. } = style { 2 } else { 1 };
            assert!(work >= passes * bytes.len() / 256, "{work} for {} bytes", bytes.len());
        }
    }
}

#[test]
fn what_is_long_is_much_work() {
    let bulk = |len| Reply::Bulk(Bytes::from(vec![0; len]));
    assert!(!is_long(&numbers(1_024)) && is_long(&numbers(1_025)));
    assert!(!is_long(&bulk(1 << 20)), "a single value is sent at a stroke");
    assert!(!is_long(&Reply::Array(vec![bulk(100_000), bulk(100_000)])));
    assert!(is_long(&Reply::Array(vec![bulk(100_000), Reply::Array(vec![bulk(200_000)])])));
}

/// The limit for the bytes of keys and values leaves some room for what comes before each, but not for very many.
#[test]
fn a_response_that_fits_no_frame_is_an_error() {
    let large = Reply::Bulk(Bytes::from(vec![0; 64 << 20]));
    let mut elements = vec![large; 1 + limits::FRAME_LEN_MAX / (64 << 20)];
    elements.push(numbers(3_000));
    let reply = LongReply::Reply(Reply::Array(elements));
    let mut bytes = Vec::new();
    let mut pouring = Pouring::begin(&mut bytes, ReplyStyle::Binary { id: 7 }, reply, &PourFund::of_turn())
        .expect("a long reply");
    while pouring.pour(&mut bytes).is_some() {}
    let (_, payload, len) = split_frame(&bytes, 1 << 10).expect("a frame");
    assert_eq!(len, bytes.len());
    let response = decode_response(payload).expect("well formed");
    let text = format!("ERR reply exceeds {} bytes, ask for less at a time", limits::FRAME_LEN_MAX);
    assert_eq!((response.id, response.reply), (7, WireReply::Error(text)));
}

#[test]
fn what_is_left_behind_is_all_that_was_not_sent() {
    for style in STYLES {
        for steps in [0, 1, 1_500, 3_500] {
            let mut bytes = Vec::new();
            let found = found(Some(1), 3_000);
            let LongReply::Keys(Found { items, .. }) = &found else { panic!("keys") };
            let end = items.as_ptr_range().end;
            let mut pouring =
                Pouring::begin(&mut bytes, style, found, &PourFund::of_turn()).expect("a long reply");
            let poured = (0..steps).filter(|_| pouring.pour(&mut bytes).is_some()).count();
            let measured = if let ReplyStyle::Binary { .. } = style { 3_001 } else { 0 };
            let mut remains = Remains::default();
            pouring.leave_to(&mut remains);
            let left: usize = remains.items.iter().map(|items| items.len()).sum();
            assert!(
                remains.items.iter().all(|items| items.as_slice().as_ptr_range().end == end),
                "{style:?} after {steps}: none was moved"
            );
            assert_eq!(left, 3_000 - poured.saturating_sub(measured).min(3_000), "{style:?} after {steps}");
        }
    }
}

fn command(style: ReplyStyle, words: &[&str]) -> Vec<u8> {
    match style {
        ReplyStyle::Text => (words.join(" ") + "\n").into_bytes(),
        ReplyStyle::Binary { id } => {
            let mut bytes = Vec::new();
            encode_request(&mut bytes, id, None, None, words);
            bytes
        }
        _ => (words.join(" ") + "\r\n").into_bytes(),
    }
}

/// KEYS twice, the second time in a transaction where there are some, with short commands around them.
fn pipeline(style: ReplyStyle) -> (Vec<u8>, Vec<u8>) {
    let keys = || Reply::Array((0..KEY_COUNT).map(|i| Reply::bulk(name(i).as_bytes())).collect());
    let queued = || Reply::Status("QUEUED");
    let some = |range: Range<usize>| Reply::Array(range.map(|i| Reply::bulk(name(i).as_bytes())).collect());
    let mut told: Vec<(&[&str], Reply)> = vec![
        (&["ECHO", "a"], Reply::bulk(b"a")),
        (&["KEYS", "*"], keys()),
        (&["SET", "key-00000", "new"], Reply::OK),
    ];
    if let ReplyStyle::Binary { .. } = style {
        told.push((&["KEYS", "*"], keys()));
    } else {
        told.push((&["MULTI"], Reply::OK));
        told.push((&["KEYS", "key-0001?"], queued()));
        told.push((&["KEYS", "*"], queued()));
        told.push((&["GET", "key-00000"], queued()));
        told.push((&["EXEC"], Reply::Array(vec![some(10..20), keys(), Reply::bulk(b"new")])));
    }
    told.push((&["KEYS", "key-0000[12]"], some(1..3)));
    told.push((&["ECHO", "z"], Reply::bulk(b"z")));
    let (mut asked, mut answers) = (Vec::new(), Vec::new());
    for (words, reply) in told {
        asked.extend(command(style, words));
        encode(&mut answers, style, &reply);
    }
    (asked, answers)
}

#[test]
fn long_replies_keep_their_place_in_a_pipeline() {
    let mut cluster = filled();
    for style in [ReplyStyle::Text, ReplyStyle::Resp2, ReplyStyle::Binary { id: 3 }] {
        let (asked, expected) = pipeline(style);
        cluster.say(0, 1, &asked);
        let (turns, heard) = listen(&mut cluster, expected.len());
        assert!(heard == expected, "{style:?}");
        let passes = if let ReplyStyle::Binary { .. } = style { 2 } else { 1 };
        let work = 2 * passes * KEY_COUNT / POURED_PER_TURN;
        assert!(turns > work, "{style:?}: {turns} turns for the work of {work}");
        cluster.run();
        assert!(!cluster.hosts[0].node.has_work(), "{style:?}");
    }
}

/// While a frame is measured nothing is sent, and while the client does not read nothing is measured.
#[test]
fn a_frame_is_measured_some_elements_a_turn() {
    let style = ReplyStyle::Binary { id: 3 };
    let mut cluster = filled();
    cluster.say(0, 1, &command(style, &["KEYS", "*"]).repeat(20));
    let pours =
        |cluster: &Cluster| cluster.hosts[0].node.clients.get(key(1)).unwrap().queue.long_counts().1 > 0;
    while !pours(&cluster) {
        one_turn(&mut cluster);
    }
    let mut silent = 0;
    while cluster.hosts[0].node.client_output(key(1)).is_empty() {
        assert!(cluster.hosts[0].node.has_work(), "it goes on by itself");
        one_turn(&mut cluster);
        silent += 1;
    }
    assert!(silent >= KEY_COUNT / POURED_PER_TURN, "{silent} turns");
    // As much as it may have unread is prepared for it.
    cluster.run();
    let output = cluster.hosts[0].node.client_output(key(1)).len();
    assert!((OUTPUT_MAX..OUTPUT_MAX + 64).contains(&output), "{output} bytes");
    assert!(!cluster.hosts[0].node.has_work());
}

#[test]
fn a_client_that_leaves_during_a_long_reply_leaves_what_is_freed_in_pieces() {
    let len = KEY_COUNT * (FRAME_HEADER_LEN + 2);
    let mut cluster = filled();
    for style in [ReplyStyle::Text, ReplyStyle::Binary { id: 3 }] {
        for turns in [0, 2, 4] {
            cluster.say(0, 1, &command(style, &["KEYS", "*"]));
            while cluster.hosts[0].node.clients.get(key(1)).unwrap().queue.long_counts().1 == 0 {
                one_turn(&mut cluster);
            }
            let mut heard = 0;
            for _ in 0..turns {
                one_turn(&mut cluster);
                let node = &mut cluster.hosts[0].node;
                let output = node.client_output(key(1)).len();
                node.client_sent(cluster.now, key(1), output);
                heard += output;
            }
            let node = &mut cluster.hosts[0].node;
            let is_begun = node.clients.get(key(1)).unwrap().queue.long_counts() != (0, 0);
            let is_all = heard + node.client_output(key(1)).len() >= len && !is_begun;
            node.client_gone(key(1));
            assert!(is_all || node.store().has_expired(), "{style:?}, after {turns} turns");
            cluster.run();
            assert!(!cluster.hosts[0].node.has_work());
            cluster.open(0, 1);
        }
    }
}
