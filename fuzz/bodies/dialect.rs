//! What clients send, in whatever dialect, and what they are answered.

use lanekv::dialect::{DecodeLimits, Decoded, Decoder, ReplyStyle, RespVersion, encode};
use lanekv::store::{Class, check, lookup, unknown_command};
use lanekv::types::{Plain, Reply};
use lanekv::wire::batch::{BatchCommand, SessionSeq};
use lanekv::wire::client::{Consistency, WireReply, decode_response};
use lanekv::wire::{FRAME_HEADER_LEN, MAGIC, split_frame};

use super::Parts;
use super::batches::{EmptyStore, tight_limits};
use super::frames;
use super::script::pieces;

/// The parts of what a client sends are its frames, arrays and lines, as far as that can be told at a glance.
pub(super) const REQUESTS: Parts = Parts { head_len: 1, split, seal: |part| seal(part) };

pub(super) const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b" ",
    b"\"",
    b"'",
    b"\\x41",
    b"*",
    b"$",
    b"*-1\r\n",
    b"$-1\r\n",
    b"*2\r\n",
    b"$0\r\n\r\n",
    b"$3\r\nGET\r\n",
    b"$1\r\na\r\n",
    b"9223372036854775807",
    b"-1",
    b"65536",
    b"65537",
    b"268435457",
    b"SET ",
    b"GET ",
    b"PUT ",
    b"DEL ",
    b"MSET ",
    b"MGET ",
    b"INCRBY ",
    b"DECRBY ",
    b"APPEND ",
    b"STRLEN ",
    b"CAS ",
    b"GETSET ",
    b"SETNX ",
    b"KEYS ",
    b"DBSIZE",
    b"FLUSHALL ",
    b"EXISTS ",
    b"SESSION OPEN",
    b"SESSION ",
    b"HELLO 3",
    b"HELLO 2 AUTH a b",
    b"PING ",
    b"ECHO ",
    b"QUIT",
    b"RESET",
    b"CLIENT SETNAME ",
    b"CLIENT ID",
    b"COMMAND DOCS ",
    b"COMMAND INFO ",
    b"COMMAND COUNT",
    b"CONSISTENCY local",
    b"CONSISTENCY ordered",
    b"INFO ",
    b"HELP ",
    b"DEBUG ",
    b"ROLE",
    b"WAIT 1 0",
    b"CONFIG GET ",
    b"SELECT 0",
    b"TIME",
    b"READONLY",
    b"NX",
    b"XX",
    b"GET / HTTP/1.1\r\n",
    b"POST /",
    b"Host: a\r\n",
    b"\x16\x03\x01",
    b"\xb1\x41\0\0",
];

fn split(input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let line_end =
            |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let mut end = match rest[0] {
            MAGIC => frames::frame_end(rest).max(1),
            _ => line_end(rest),
        };
        if rest[0] == b'*' {
            // The lines that follow belong to the array up to the next one.
            while let Some(next) =
                rest.get(end..).filter(|next| !next.is_empty() && ![b'*', MAGIC].contains(&next[0]))
            {
                end += line_end(next);
            }
        }
        let (part, tail) = rest.split_at(end.min(rest.len()));
        parts.push(part);
        rest = tail;
    }
    parts
}

fn seal(part: &mut [u8]) {
    if part.len() >= FRAME_HEADER_LEN && part[0] == MAGIC {
        frames::seal(part);
    }
}

/// What the decoder says, owned.
#[derive(Clone, PartialEq, Debug)]
enum Event {
    Request {
        arguments: Vec<Vec<u8>>,
        style: ReplyStyle,
        session: Option<SessionSeq>,
        consistency: Option<Consistency>,
    },
    Nothing,
    Bad {
        style: ReplyStyle,
        reply: Reply,
    },
}

/// A connection's bytes in whatever pieces they come; until the first mistake.
struct Connection<'l> {
    decoder: Decoder,
    limits: &'l DecodeLimits,
    buffer: Vec<u8>,
    events: Vec<Event>,
    ended: bool,
}

impl<'l> Connection<'l> {
    fn new(resp3: bool, limits: &'l DecodeLimits) -> Connection<'l> {
        let mut decoder = Decoder::new();
        decoder.set_resp(if resp3 { RespVersion::Resp3 } else { RespVersion::Resp2 });
        Connection { decoder, limits, buffer: Vec::new(), events: Vec::new(), ended: false }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while !self.ended {
            let rest = &self.buffer[at..];
            let (event, len) = match self.decoder.decode(rest, self.limits) {
                Decoded::Incomplete { needed } => {
                    assert!(needed > rest.len(), "{needed} bytes are needed and {} are there", rest.len());
                    break;
                }
                Decoded::Request { consumed, arguments, style, session, consistency } => {
                    assert!(!arguments.is_empty(), "a request has a name");
                    let arguments = arguments.into_iter().map(<[u8]>::to_vec).collect();
                    (Event::Request { arguments, style, session, consistency }, consumed)
                }
                Decoded::Nothing { consumed } => (Event::Nothing, consumed),
                Decoded::Bad { style, reply } => {
                    assert!(reply.is_error());
                    self.ended = true;
                    (Event::Bad { style, reply }, 0)
                }
            };
            assert!(self.ended || (1..=rest.len()).contains(&len), "{len} bytes of {} are taken", rest.len());
            self.events.push(event);
            at += len;
        }
        self.buffer.drain(..at);
    }
}

/// Limits that a short input can reach; of the default ones it may only announce to break them.
fn limits(choice: u8) -> DecodeLimits {
    if choice & 2 == 0 {
        return DecodeLimits::default();
    }
    DecodeLimits {
        argument_count_max: 4,
        bulk_len_max: 12,
        command_len_max: 24,
        inline_len_max: 40,
        frame_len_max: 90,
    }
}

/// The first byte chooses the version of RESP and the limits, the rest comes from the client.
pub(super) fn dialect(input: &[u8]) {
    let [choice, bytes @ ..] = input else { return };
    let (resp3, limits) = (choice & 1 == 1, limits(*choice));
    let mut whole = Connection::new(resp3, &limits);
    whole.hear(bytes);
    let mut parted = Connection::new(resp3, &limits);
    let mut rest = bytes;
    for len in pieces(bytes) {
        if rest.is_empty() || parted.ended {
            break;
        }
        let (piece, tail) = rest.split_at(len.min(rest.len()));
        parted.hear(piece);
        rest = tail;
    }
    assert_eq!(whole.events, parted.events, "in one piece and in several");
    if !whole.ended {
        assert_eq!(whole.buffer, parted.buffer, "what is left of it");
    }
    EmptyStore::lend(|store| {
        for (number, event) in whole.events.iter().enumerate() {
            match event {
                Event::Request { arguments, style, session, .. } => {
                    let reply = carry_out(store, number as u64 + 1, arguments, *session);
                    answer(*style, &reply);
                    answer(ReplyStyle::Text, &reply);
                    answer(ReplyStyle::Resp2, &reply);
                    answer(ReplyStyle::Resp3, &reply);
                    answer(ReplyStyle::Binary { id: 7 }, &reply);
                }
                Event::Nothing => {}
                Event::Bad { style, reply } => answer(*style, reply),
            }
        }
    });
}

/// Does with a command what a node would do, without multicast.
fn carry_out(store: &mut EmptyStore, index: u64, words: &[Vec<u8>], session: Option<SessionSeq>) -> Reply {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let Some(spec) = lookup(words[0]) else { return unknown_command(words[0], &words[1..]) };
    if let Err(refusal) = check(spec, &words[1..], &tight_limits()) {
        assert!(refusal.is_error());
        return refusal;
    }
    match spec.class {
        Class::Connection => Reply::Status("CONNECTION"),
        Class::Read if session.is_none() => store.read(spec.code, &words[1..]),
        Class::Read | Class::Write | Class::Internal => {
            let command = BatchCommand { session, code: spec.code, arguments: words[1..].to_vec() };
            store.apply(index, index * 9, &command)
        }
    }
}

/// Encodes a reply and looks at the bytes as a client does.
fn answer(style: ReplyStyle, reply: &Reply) {
    let mut out = Vec::new();
    encode(&mut out, style, reply);
    match style {
        ReplyStyle::Text => {
            assert_eq!(out.last(), Some(&b'\n'), "a text reply is a line");
            if reply.is_error() {
                assert_eq!(
                    out.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count(),
                    1,
                    "an error is one line"
                );
            }
        }
        ReplyStyle::Silent => assert!(out.is_empty()),
        ReplyStyle::Resp2 => assert_eq!(resp_len(&out, false), Some(out.len()), "{}", out.escape_ascii()),
        ReplyStyle::Resp3 => assert_eq!(resp_len(&out, true), Some(out.len()), "{}", out.escape_ascii()),
        ReplyStyle::Binary { id } => {
            let (_, payload, len) = split_frame(&out, usize::MAX).expect("a whole frame");
            assert_eq!(len, out.len());
            let response = decode_response(payload).expect("clients can read it");
            assert_eq!(response.id, id);
            assert!(same(reply, &response.reply), "{reply:?} became {:?}", response.reply);
        }
    }
}

/// Whether a client sees the reply that was given. Without recursion, as in what is tested.
fn same(reply: &Reply, seen: &WireReply) -> bool {
    let mut todo = vec![(reply, seen)];
    while let Some((reply, seen)) = todo.pop() {
        let is_same = match (reply.plain(), seen) {
            (Plain::Nil, WireReply::Nil) => true,
            (Plain::Status(a), WireReply::Status(b)) => a == b,
            (Plain::Bulk(a), WireReply::Bulk(b)) => *a == b[..],
            (Plain::Integer(a), WireReply::Integer(b)) => a == *b,
            (Plain::Error(a), WireReply::Error(b)) => *a == **b,
            (Plain::Array(a), WireReply::Array(b)) => {
                todo.extend(a.iter().zip(b));
                a.len() == b.len()
            }
            _ => false,
        };
        if !is_same {
            return false;
        }
    }
    true
}

/// The length of the RESP value at the front, if it is one.
pub(super) fn resp_len(bytes: &[u8], resp3: bool) -> Option<usize> {
    let (mut at, mut left) = (0, 1_usize);
    while left > 0 {
        let rest = bytes.get(at..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (kind, content) = rest.get(..end)?.strip_suffix(b"\r")?.split_first()?;
        if content.contains(&b'\r') {
            return None;
        }
        at += end + 1;
        left -= 1;
        let number = || std::str::from_utf8(content).ok()?.parse::<i64>().ok();
        match kind {
            b'+' | b'-' => {}
            b':' => drop(number()?),
            b'_' if resp3 && content.is_empty() => {}
            b'$' | b'*' if content == b"-1" && !resp3 => {}
            b'$' => {
                at += usize::try_from(number()?).ok()?;
                (bytes.get(at..at + 2)? == b"\r\n").then_some(())?;
                at += 2;
            }
            b'*' => left += usize::try_from(number()?).ok()?,
            b'%' if resp3 => left += 2 * usize::try_from(number()?).ok()?,
            _ => return None,
        }
    }
    Some(at)
}
