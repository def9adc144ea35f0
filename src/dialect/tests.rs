//! All dialects through [`Decoder::decode`] and [`encode`], whole, in pieces, and damaged.

use super::*;
use crate::types::SessionId;
use crate::wire::client::{decode_response, encode_request};
use crate::wire::{begin_frame, end_frame, split_frame};

/// Random numbers (Steele, Lea and Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        crate::types::splitmix64(&mut self.0)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % bound
    }
}

/// What came out of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    Request(Vec<Vec<u8>>, ReplyStyle, Option<SessionSeq>, Option<Consistency>),
    Bad(ReplyStyle, Reply),
    /// So many bytes were left over.
    Rest(usize),
}

/// A small limit for everything, so that tests reach them.
fn small() -> DecodeLimits {
    DecodeLimits {
        argument_count_max: 8,
        bulk_len_max: 40,
        command_len_max: 60,
        inline_len_max: 50,
        frame_len_max: 150,
    }
}

/// Feeds a connection with the pieces that end at `cuts` and with what is left.
fn feed(bytes: &[u8], cuts: impl IntoIterator<Item = usize>, limits: &DecodeLimits) -> Vec<Event> {
    let mut decoder = Decoder::new();
    let mut events = Vec::new();
    let mut start = 0;
    for end in cuts.into_iter().chain([bytes.len()]) {
        loop {
            match decoder.decode(&bytes[start..end], limits) {
                Decoded::Request { consumed, arguments, style, session, consistency } => {
                    assert!(consumed > 0 && consumed <= end - start && !arguments.is_empty());
                    let arguments = arguments.into_iter().map(<[u8]>::to_vec).collect();
                    events.push(Event::Request(arguments, style, session, consistency));
                    start += consumed;
                }
                Decoded::Nothing { consumed } => {
                    assert!(consumed > 0 && consumed <= end - start);
                    start += consumed;
                }
                Decoded::Incomplete { needed } => {
                    assert!(needed > end - start);
                    break;
                }
                Decoded::Bad { style, reply } => {
                    events.push(Event::Bad(style, reply));
                    return events;
                }
            }
        }
    }
    if start < bytes.len() {
        events.push(Event::Rest(bytes.len() - start));
    }
    events
}

/// The same in one piece, in compact words.
fn show(bytes: &[u8], limits: &DecodeLimits) -> String {
    let words = |arguments: Vec<Vec<u8>>| {
        arguments.iter().map(|a| a.escape_ascii().to_string()).collect::<Vec<_>>().join(",")
    };
    let events = feed(bytes, [], limits).into_iter().map(|event| match event {
        Event::Request(arguments, style, _, _) => format!("{style:?}[{}]", words(arguments)),
        Event::Bad(style, Reply::Error(text)) => format!("{style:?} {text}"),
        Event::Bad(_, other) => panic!("{other:?}"),
        Event::Rest(len) => format!("+{len}"),
    });
    events.collect::<Vec<_>>().join(" ")
}

/// A request of every kind, one after the other.
fn mixed() -> Vec<u8> {
    let mut bytes = b"GET name\n\n*2\r\n$3\r\nGET\r\n$4\r\n\r\n\0\xb1\r\nPING\r\n\r\n*0\r\n*-5\r\n".to_vec();
    let session = SessionSeq { session: SessionId(9), seq: 2, acked: 1 };
    encode_request(&mut bytes, 3, Some(Consistency::Local), Some(session), &["SET", "a", "1"]);
    bytes.extend_from_slice(b"SET k \"a\\nb\" ''\n*1\r\n$0\r\n\r\n");
    encode_request(&mut bytes, 4, None, None, &["GET"]);
    bytes.extend_from_slice(b"last 'one'\r\n");
    bytes
}

#[test]
fn the_bytes_say_which_dialect_they_are() {
    let events = feed(&mixed(), [], &DecodeLimits::default());
    let session = SessionSeq { session: SessionId(9), seq: 2, acked: 1 };
    let request = |words: &[&[u8]], style| {
        Event::Request(words.iter().map(|word| word.to_vec()).collect(), style, None, None)
    };
    let words = [&b"SET"[..], b"a", b"1"].map(<[u8]>::to_vec).to_vec();
    let expected = [
        request(&[b"GET", b"name"], ReplyStyle::Text),
        request(&[b"GET", b"\r\n\0\xb1"], ReplyStyle::Resp2),
        request(&[b"PING"], ReplyStyle::Resp2),
        Event::Request(words, ReplyStyle::Binary { id: 3 }, Some(session), Some(Consistency::Local)),
        request(&[b"SET", b"k", b"a\nb", b""], ReplyStyle::Text),
        request(&[b""], ReplyStyle::Resp2),
        request(&[b"GET"], ReplyStyle::Binary { id: 4 }),
        request(&[b"last", b"one"], ReplyStyle::Resp2),
    ];
    assert_eq!(events, expected);
}

#[test]
fn hello_3_changes_what_comes_after_it() {
    let mut decoder = Decoder::new();
    let bytes = b"PING\r\nPING\n*1\r\n$4\r\nPING\r\n";
    let mut start = 0;
    decoder.set_resp(RespVersion::Resp3);
    for expected in [ReplyStyle::Resp3, ReplyStyle::Text, ReplyStyle::Resp3] {
        let Decoded::Request { consumed, style, .. } =
            decoder.decode(&bytes[start..], &DecodeLimits::default())
        else {
            panic!("a request")
        };
        assert_eq!(style, expected);
        start += consumed;
    }
    assert_eq!(decoder.resp_style(), ReplyStyle::Resp3);
}

#[test]
fn the_pieces_do_not_matter() {
    let bytes = mixed();
    let limits = DecodeLimits::default();
    let whole = feed(&bytes, [], &limits);
    for first in 0..bytes.len() {
        assert_eq!(feed(&bytes, [first], &limits), whole, "cut at {first}");
        for second in first..bytes.len() {
            assert_eq!(feed(&bytes, [first, second], &limits), whole, "cut at {first} and {second}");
        }
    }
    assert_eq!(feed(&bytes, 0..bytes.len(), &limits), whole, "byte by byte");
}

#[test]
fn a_long_value_in_many_pieces_is_not_scanned_again() {
    let limits = DecodeLimits::default();
    let mut decoder = Decoder::new();
    let mut bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n".to_vec();
    let needed = bytes.len() + 1_000_002;
    // If it looked at these bytes again, it would find the other length.
    let expect = Decoded::Incomplete { needed };
    assert_eq!(decoder.decode(&bytes, &limits), expect);
    bytes[0..4].copy_from_slice(b"*9\r\n");
    bytes.resize(needed - 1, b'\n');
    assert_eq!(decoder.decode(&bytes, &limits), expect);
    let end = bytes.len();
    bytes[end - 1] = b'\r';
    bytes.push(b'\n');
    let Decoded::Request { consumed, arguments, .. } = decoder.decode(&bytes, &limits) else {
        panic!("all is there")
    };
    assert_eq!((consumed, arguments.len(), arguments[2].len()), (needed, 3, 1_000_000));
    // The same for a line: the first half is not searched for its end once more.
    assert_eq!(decoder.decode(b"abc", &limits), Decoded::Incomplete { needed: 4 });
    assert_eq!(decoder.decode(b"a\nc", &limits), Decoded::Incomplete { needed: 4 });
    assert!(matches!(decoder.decode(b"a\ncd\n", &limits), Decoded::Request { consumed: 5, .. }));
}

#[test]
fn protocol_errors_have_redis_words() {
    for (bytes, expected) in [
        ("*x\r\n", "Resp2 ERR Protocol error: invalid multibulk length"),
        ("*\r\n", "Resp2 ERR Protocol error: invalid multibulk length"),
        ("*1\n", "Resp2 ERR Protocol error: invalid multibulk length"),
        ("*+1\r\n", "Resp2 ERR Protocol error: invalid multibulk length"),
        ("*9\r\n", "Resp2 ERR Protocol error: invalid multibulk length"),
        ("*2147483648\r\n", "Resp2 ERR Protocol error: invalid multibulk length"),
        ("*99999999999999999999\r\n", "Resp2 ERR Protocol error: invalid multibulk length"),
        ("*1\r\nx", "Resp2 ERR Protocol error: expected '$', got 'x'"),
        ("*1\r\n\r", "Resp2 ERR Protocol error: expected '$', got '\\r'"),
        ("*1\r\n'", "Resp2 ERR Protocol error: expected '$', got '''"),
        ("*1\r\n$\r\n", "Resp2 ERR Protocol error: invalid bulk length"),
        ("*1\r\n$-1\r\n", "Resp2 ERR Protocol error: invalid bulk length"),
        ("*1\r\n$x\r\n", "Resp2 ERR Protocol error: invalid bulk length"),
        ("*1\r\n$41\r\n", "Resp2 ERR Protocol error: invalid bulk length"),
        ("*1\r\n$1\n", "Resp2 ERR Protocol error: invalid bulk length"),
        ("*1\r\n$1\r\nabc", "Resp2 ERR Protocol error: invalid bulk length"),
        ("*1\r\n$1\r\na\rb", "Resp2 ERR Protocol error: invalid bulk length"),
        ("\"a\n", "Text ERR Protocol error: unbalanced quotes in request"),
        ("GET 'a'b\r\n", "Resp2 ERR Protocol error: unbalanced quotes in request"),
        ("POST /x\r\nSET a b\r\n", "Resp2 ERR Protocol error: this port does not speak HTTP"),
        ("Host: me\nSET a b\n", "Text ERR Protocol error: this port does not speak HTTP"),
        ("PUT /x HTTP/1.1\r\n", "Resp2 ERR Protocol error: this port does not speak HTTP"),
        ("\x16\x03\x01", "Resp2 ERR Protocol error: this port does not speak TLS"),
        ("*8\r\n", "+4"),
        ("*0\r\n*-1\r\n\r\n\n  \n", ""),
        ("*1\r", "+3"),
        ("*1\r\n$40\r\n", "+9"),
        ("GET a\nGET", "Text[GET,a] +3"),
    ] {
        assert_eq!(show(bytes.as_bytes(), &small()), expected, "{bytes:?}");
        let bytes = bytes.as_bytes();
        assert_eq!(feed(bytes, 0..bytes.len(), &small()), feed(bytes, [], &small()), "byte by byte");
    }
}

#[test]
fn limits_hold_before_the_bytes_have_come() {
    let limits = small();
    let x = |len| "x".repeat(len);
    for (bytes, expected) in [
        (x(53), "Resp2 ERR Protocol error: too big inline request".to_owned()),
        (x(51) + "\n", "Resp2 ERR Protocol error: too big inline request".to_owned()),
        (x(50) + "\n", format!("Text[{}]", x(50))),
        (x(50) + "\r\n", format!("Resp2[{}]", x(50))),
        ("*".to_owned() + &x(52), "Resp2 ERR Protocol error: too big mbulk count string".to_owned()),
        ("*1\r\n$".to_owned() + &x(52), "Resp2 ERR Protocol error: too big bulk count string".to_owned()),
        (
            format!("*2\r\n$40\r\n{}\r\n$21\r\n", x(40)),
            "Resp2 ERR Protocol error: too big request".to_owned(),
        ),
        (format!("*2\r\n$40\r\n{}\r\n$20\r\n", x(40)), "+56".to_owned()),
    ] {
        assert_eq!(show(bytes.as_bytes(), &limits), expected, "{bytes}");
        let bytes = bytes.as_bytes();
        assert_eq!(feed(bytes, 0..bytes.len(), &limits), feed(bytes, [], &limits), "byte by byte");
    }
    let mut frame = Vec::new();
    encode_request(&mut frame, 5, None, None, &[&x(40), &x(21)]);
    assert_eq!(show(&frame, &limits), "Binary { id: 5 } ERR Protocol error: too big request");
    frame.clear();
    encode_request(&mut frame, 1, None, None, &[&x(200)]);
    assert_eq!(
        show(&frame[..12], &limits),
        "Binary { id: 0 } ERR Protocol error: frame of 241 bytes, expected at most 150"
    );
}

#[test]
fn frames_that_are_no_requests_are_refused() {
    let frame = |kind: u8, payload: &[u8]| {
        let mut out = Vec::new();
        let start = begin_frame(&mut out, kind);
        out.extend_from_slice(payload);
        end_frame(&mut out, start);
        out
    };
    let mut nameless = Vec::new();
    encode_request::<&[u8]>(&mut nameless, 1, None, None, &[]);
    let mut damaged = Vec::new();
    encode_request(&mut damaged, 1, None, None, &["GET"]);
    *damaged.last_mut().expect("not empty") ^= 1;
    for (bytes, expected) in [
        (frame(0x7f, b""), "unexpected frame of kind 0x7f"),
        (frame(0x41, b""), "message too short: 8 bytes needed, 0 left"),
        (nameless, "request without a command"),
        (damaged, "frame checksum"),
        (vec![MAGIC, 0x41, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], "frame header check 0x"),
    ] {
        let found = show(&bytes, &small());
        let start = format!("Binary {{ id: 0 }} ERR Protocol error: {expected}");
        assert!(found.starts_with(&start), "{found}");
    }
}

#[test]
fn every_reply_in_every_dialect() {
    let nested = Reply::Array(vec![
        Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![]), Reply::Array(vec![Reply::Nil])]),
        Reply::bulk(b"x"),
    ]);
    let nested_text = "1) 1) 1\n   2) (empty)\n   3) 1) Not Found\n2) x\n";
    let cases = [
        (Reply::Nil, "Not Found\n", "$-1\r\n", "_\r\n"),
        (Reply::OK, "OK\n", "+OK\r\n", "+OK\r\n"),
        (Reply::bulk(b"john"), "john\n", "$4\r\njohn\r\n", "$4\r\njohn\r\n"),
        (Reply::bulk(b""), "\n", "$0\r\n\r\n", "$0\r\n\r\n"),
        (Reply::bulk(b"a\r\nb\n"), "a\r\nb\n\n", "$5\r\na\r\nb\n\r\n", "$5\r\na\r\nb\n\r\n"),
        (Reply::Integer(-12), "-12\n", ":-12\r\n", ":-12\r\n"),
        (Reply::Integer(0), "0\n", ":0\r\n", ":0\r\n"),
        (Reply::error("ERR no"), "ERR no\n", "-ERR no\r\n", "-ERR no\r\n"),
        (Reply::error("ERR a\r\nb"), "ERR a  b\n", "-ERR a  b\r\n", "-ERR a  b\r\n"),
        (Reply::Array(vec![]), "(empty)\n", "*0\r\n", "*0\r\n"),
        (
            Reply::Array(vec![Reply::bulk(b"a"), Reply::Nil]),
            "1) a\n2) Not Found\n",
            "*2\r\n$1\r\na\r\n$-1\r\n",
            "*2\r\n$1\r\na\r\n_\r\n",
        ),
        (
            nested,
            nested_text,
            "*2\r\n*3\r\n:1\r\n*0\r\n*1\r\n$-1\r\n$1\r\nx\r\n",
            "*2\r\n*3\r\n:1\r\n*0\r\n*1\r\n_\r\n$1\r\nx\r\n",
        ),
    ];
    for (reply, text, resp2, resp3) in cases {
        let styles = [(ReplyStyle::Text, text), (ReplyStyle::Resp2, resp2), (ReplyStyle::Resp3, resp3)];
        for (style, expected) in styles {
            // Behind what is there already.
            let mut out = b"before".to_vec();
            encode(&mut out, style, &reply);
            assert_eq!(out.escape_ascii().to_string(), format!("before{}", expected.escape_default()));
        }
        let mut out = Vec::new();
        encode(&mut out, ReplyStyle::Binary { id: 77 }, &reply);
        let (_, payload, len) = split_frame(&out, 1 << 20).expect("a frame");
        assert_eq!((decode_response(payload).expect("well formed").id, len), (77, out.len()));
    }
}

#[test]
fn deep_replies_need_no_deep_stack() {
    let mut reply = Reply::bulk(b"x");
    // Building and dropping it recurses, encoding does not.
    for _ in 0..1000 {
        reply = Reply::Array(vec![reply]);
    }
    for style in [ReplyStyle::Text, ReplyStyle::Resp2] {
        let mut out = Vec::new();
        encode(&mut out, style, &reply);
        assert!(out.len() > 3000);
    }
}

#[test]
fn damaged_bytes_are_refused_the_same_way_in_any_pieces() {
    let mut random = SplitMix(11);
    let good = mixed();
    let (mut requests, mut bad) = (0, 0);
    for round in 0..100_000 {
        let mut bytes = if round % 2 == 0 {
            let start = random.below(good.len());
            good[start..].to_vec()
        } else {
            let alphabet = b"*$123450-\r\n\r\n \"'\\xGET\xb1\x41\0";
            (0..random.below(60)).map(|_| alphabet[random.below(alphabet.len())]).collect()
        };
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() + 1);
            match random.below(3) {
                0 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, u8::try_from(random.below(256)).expect("a byte")),
            }
        }
        let mut cuts: Vec<usize> = (0..random.below(5)).map(|_| random.below(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = feed(&bytes, [], &small());
        assert_eq!(feed(&bytes, cuts.iter().copied(), &small()), whole, "{} {cuts:?}", bytes.escape_ascii());
        requests += whole.iter().filter(|event| matches!(event, Event::Request(..))).count();
        bad += whole.iter().filter(|event| matches!(event, Event::Bad(..))).count();
    }
    assert!(requests > 10_000 && bad > 10_000, "{requests} requests, {bad} errors");
}
