//! Just enough of gRPC to put load on etcd the way its own clients do: unary calls of `etcdserverpb.KV`, each in an
//! HTTP/2 stream of its own, many at a time over one connection.
//!
//! What a client may leave out is left out. Responses' headers are not decoded: a unary call that failed has no
//! message, so a stream that ends without one is an error (its text is lost; etcd's log has it). Requests' headers
//! go into the compression table with the first request and are six bytes from then on (RFC 7541, 6.1 and 6.2.1).
//! The windows for what the server sends are opened so far that it never waits (RFC 9113, 6.9); its own are kept.

use std::collections::VecDeque;

use super::dialect::{Answer, Taken, shown};
use super::workload::{Command, Operation};

/// Within a stream's first window even if the server never opens it further.
pub(super) const VALUE_LEN_MAX: usize = 48 << 10;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_LEN: usize = 9;
/// The longest frame unless a side says otherwise, which neither does.
const FRAME_LEN_MAX: usize = 16 << 10;
const WINDOW_FIRST: i64 = 65_535;
const WINDOW_MAX: u32 = (1 << 31) - 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const SETTING_TABLE_SIZE: u16 = 1;
const SETTING_WINDOW: u16 = 4;

/// A call under way.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// A GET, for which an empty response means a missing key.
    reads: bool,
    has_message: bool,
    is_missing: bool,
    ended: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Etcd {
    authority: String,
    /// Reads need not be linearizable.
    local: bool,
    /// What is in the compression table, the oldest first.
    table: Vec<(u8, String)>,
    /// The calls from `first_seq` on.
    streams: VecDeque<Stream>,
    first_seq: u64,
    /// What the server still takes, over all streams.
    window: i64,
    /// Messages that wait for the window: which stream, and the bytes.
    delayed: VecDeque<(u32, Vec<u8>)>,
    /// Bytes of messages since the window for the server was last opened.
    received: u32,
    message: Vec<u8>,
}

impl Etcd {
    pub(super) fn new(authority: &str, local: bool) -> Etcd {
        Etcd {
            authority: authority.to_owned(),
            local,
            table: Vec::new(),
            streams: VecDeque::new(),
            first_seq: 0,
            window: WINDOW_FIRST,
            delayed: VecDeque::new(),
            received: 0,
            message: Vec::new(),
        }
    }

    pub(super) fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        frame(out, SETTINGS, 0, 0, 12);
        for (setting, value) in [(SETTING_TABLE_SIZE, 0), (SETTING_WINDOW, WINDOW_MAX)] {
            out.extend_from_slice(&setting.to_be_bytes());
            out.extend_from_slice(&u32::to_be_bytes(value));
        }
        open_window(out, WINDOW_MAX - WINDOW_FIRST as u32);
    }

    pub(super) fn encode(&mut self, seq: u64, command: &Command, out: &mut Vec<u8>) {
        let stream = u32::try_from(2 * seq + 1).expect("a run has less than a billion calls a connection");
        let reads = command.operation == Operation::Get;
        if self.streams.is_empty() {
            self.first_seq = seq;
        }
        self.streams.push_back(Stream { reads, ..Stream::default() });
        self.headers(stream, if reads { "/etcdserverpb.KV/Range" } else { "/etcdserverpb.KV/Put" }, out);

        let mut message = std::mem::take(&mut self.message);
        message.clear();
        // Not compressed, and a length that is filled in below.
        message.extend_from_slice(&[0; 5]);
        field(&mut message, 1, &command.keys[0]);
        if !reads {
            field(&mut message, 2, command.value);
        } else if self.local {
            // Field 7, `serializable`, a number: 1.
            message.extend_from_slice(&[7 << 3, 1]);
        }
        let len = u32::try_from(message.len() - 5).expect("values are limited");
        message[1..5].copy_from_slice(&len.to_be_bytes());
        if self.delayed.is_empty() && self.window >= message.len() as i64 {
            self.window -= message.len() as i64;
            data(out, stream, &message);
            self.message = message;
        } else {
            self.delayed.push_back((stream, message));
        }
    }

    fn headers(&mut self, stream: u32, path: &str, out: &mut Vec<u8>) {
        let start = out.len();
        frame(out, HEADERS, END_HEADERS, stream, 0);
        // `:method: POST` and `:scheme: http` are in the table that everybody has.
        out.extend_from_slice(&[0x83, 0x86]);
        let authority = self.authority.clone();
        // The number of a name in that table; `te` is not there.
        for (name, value) in [(4, path), (1, &authority), (31, "application/grpc"), (0, "trailers")] {
            let known = self.table.iter().position(|(n, v)| *n == name && v == value);
            if let Some(place) = known {
                let index = 62 + (self.table.len() - 1 - place);
                out.push(0x80 | u8::try_from(index).expect("few entries"));
                continue;
            }
            out.push(0x40 | name);
            if name == 0 {
                literal(out, "te");
            }
            literal(out, value);
            self.table.push((name, value.to_owned()));
        }
        let len = out.len() - start - FRAME_HEADER_LEN;
        out[start..start + 3].copy_from_slice(&u32::try_from(len).expect("short").to_be_bytes()[1..]);
    }

    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Taken, String> {
        let Some(header) = bytes.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(Taken::Incomplete) };
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        if len > FRAME_LEN_MAX {
            return Err(shown(bytes));
        }
        let total = FRAME_HEADER_LEN + len;
        let Some(payload) = bytes.get(FRAME_HEADER_LEN..total) else { return Ok(Taken::Incomplete) };
        let (kind, flags) = (header[3], header[4]);
        let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
        match kind {
            SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, 0),
            PING if flags & ACK == 0 => {
                frame(out, PING, ACK, 0, payload.len());
                out.extend_from_slice(payload);
            }
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().ok_or_else(|| shown(bytes))?;
                self.window += i64::from(u32::from_be_bytes(*more));
                self.send_delayed(out);
            }
            GOAWAY => return Err("that it goes away".to_owned()),
            DATA => {
                self.received += u32::try_from(payload.len()).expect("a frame is short");
                if self.received > WINDOW_MAX / 2 {
                    open_window(out, self.received);
                    self.received = 0;
                }
                let call = self.call(stream).ok_or_else(|| shown(bytes))?;
                // The first frame of a message shows whether anything was found.
                if !call.has_message {
                    call.is_missing = call.reads && payload.get(5..).is_some_and(finds_nothing);
                    call.has_message = true;
                }
            }
            _ => {}
        }
        let resets = kind == RST_STREAM;
        if !resets && (!matches!(kind, DATA | HEADERS) || flags & END_STREAM == 0) {
            return Ok(Taken::Passed(total));
        }
        let call = self.call(stream).filter(|call| !call.ended).ok_or_else(|| shown(bytes))?;
        call.ended = true;
        let answer = match *call {
            Stream { has_message: true, is_missing: true, .. } if !resets => Answer::Missing,
            Stream { has_message: true, .. } if !resets => Answer::Done,
            _ => Answer::Error("etcd: the call failed".to_owned()),
        };
        while self.streams.front().is_some_and(|call| call.ended) {
            self.streams.pop_front();
            self.first_seq += 1;
        }
        Ok(Taken::Reply { len: total, seq: u64::from(stream / 2), answer })
    }

    fn call(&mut self, stream: u32) -> Option<&mut Stream> {
        let index = u64::from(stream / 2).checked_sub(self.first_seq)?;
        self.streams.get_mut(usize::try_from(index).ok()?)
    }

    fn send_delayed(&mut self, out: &mut Vec<u8>) {
        while let Some((stream, message)) = self.delayed.front() {
            let len = message.len() as i64;
            if self.window < len {
                break;
            }
            data(out, *stream, message);
            self.window -= len;
            self.delayed.pop_front();
        }
    }
}

/// Whether a RangeResponse has no key: after field 1, the header, there is no field 2.
fn finds_nothing(response: &[u8]) -> bool {
    match response {
        [] => true,
        // A header is far shorter than 128 bytes: its length is one byte.
        [0x0a, len, rest @ ..] => rest.get(usize::from(*len)) != Some(&0x12),
        [first, ..] => *first != 0x12,
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, len: usize) {
    let len = u32::try_from(len).expect("frames are short");
    out.extend_from_slice(&len.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// A message as the end of a stream, in as many frames as it needs.
fn data(out: &mut Vec<u8>, stream: u32, message: &[u8]) {
    let mut rest = message;
    loop {
        let (part, after) = rest.split_at(rest.len().min(FRAME_LEN_MAX));
        rest = after;
        frame(out, DATA, if rest.is_empty() { END_STREAM } else { 0 }, stream, part.len());
        out.extend_from_slice(part);
        if rest.is_empty() {
            return;
        }
    }
}

fn open_window(out: &mut Vec<u8>, more: u32) {
    frame(out, WINDOW_UPDATE, 0, 0, 4);
    out.extend_from_slice(&more.to_be_bytes());
}

/// A string of the compression table, as it is.
fn literal(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("paths and hosts are short"));
    out.extend_from_slice(text.as_bytes());
}

/// A field of a message that is a string of bytes.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut rest = bytes.len();
    while rest > 0x7f {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::super::workload::Key;
    use super::*;

    const KEYS: [Key; 1] = [*b"key:000000000001"];

    fn put(etcd: &mut Etcd, seq: u64, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        etcd.encode(seq, &Command { operation: Operation::Set, keys: &KEYS, value }, &mut out);
        out
    }

    fn server_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, kind, flags, stream, payload.len());
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn headers_are_short_from_the_second_request_on() {
        let mut etcd = Etcd::new("localhost:1", false);
        put(&mut etcd, 0, b"v");
        let second = put(&mut etcd, 1, b"v");
        assert_eq!(second[..15], [0, 0, 6, 1, 4, 0, 0, 0, 3, 0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe]);
        let message = [&[0, 0, 0, 0, 21, 0x0a, 16][..], &KEYS[0], &[0x12, 1, b'v']].concat();
        assert_eq!(second[15..24], [0, 0, 26, 0, 1, 0, 0, 0, 3]);
        assert_eq!(second[24..], message);
    }

    #[test]
    fn calls_end_in_any_order_and_without_a_message_they_have_failed() {
        let mut etcd = Etcd::new("localhost:1", false);
        let mut out = Vec::new();
        for seq in 0..3 {
            put(&mut etcd, seq, b"v");
        }
        let mut take = |bytes: &[u8]| {
            for len in 0..bytes.len() {
                assert_eq!(etcd.take(&bytes[..len], &mut out), Ok(Taken::Incomplete));
            }
            etcd.take(bytes, &mut out).expect("good frames")
        };
        assert_eq!(take(&server_frame(DATA, 0, 5, &[0, 0, 0, 0, 0])), Taken::Passed(14));
        let done = Taken::Reply { len: 9, seq: 2, answer: Answer::Done };
        assert_eq!(take(&server_frame(HEADERS, END_STREAM | END_HEADERS, 5, &[])), done);
        let failed = take(&server_frame(HEADERS, END_STREAM | END_HEADERS, 1, &[]));
        assert!(matches!(failed, Taken::Reply { seq: 0, answer: Answer::Error(_), .. }));
        assert_eq!(take(&server_frame(PING, 0, 0, b"12345678")), Taken::Passed(17));
        assert_eq!(out, server_frame(PING, ACK, 0, b"12345678"));
        // What has ended, and what never was.
        for stream in [1, 5, 7] {
            assert!(etcd.take(&server_frame(RST_STREAM, 0, stream, &[0; 4]), &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn messages_wait_for_the_window() {
        let mut etcd = Etcd::new("localhost:1", false);
        let value = [b'x'; 40_000];
        assert!(put(&mut etcd, 0, &value).len() > 40_000);
        assert!(put(&mut etcd, 1, &value).len() < 100);
        assert!(put(&mut etcd, 2, b"v").len() < 100, "one does not pass another");
        let mut out = Vec::new();
        let update = server_frame(WINDOW_UPDATE, 0, 0, &20_000_u32.to_be_bytes());
        assert_eq!(etcd.take(&update, &mut out), Ok(Taken::Passed(13)));
        assert!(out.len() > 40_000 && etcd.delayed.is_empty());
    }

    #[test]
    fn empty_responses_to_reads_are_missing_keys() {
        assert!(finds_nothing(&[]));
        assert!(finds_nothing(&[0x0a, 2, 8, 1]));
        assert!(!finds_nothing(&[0x0a, 2, 8, 1, 0x12, 0]));
        assert!(!finds_nothing(&[0x12, 0]));
    }
}
