//! The binary client dialect: requests and responses as frames.
//!
//! # Format
//!
//! Request (kind [`KIND_REQUEST`]): `id: u64`, `consistency: u8`, `session: u64`, `seq: u64`, `acked: u64`, number of
//! arguments `u32` (the command's name is the first), each argument as length and bytes. Session 0 means none.
//!
//! Response (kind [`KIND_RESPONSE`]): `id: u64`, reply. A reply is a tag byte and: 0 nil, nothing; 1 status, 2 bulk
//! and 4 error, length and bytes; 3 integer, `i64`; 5 array, number of elements, then the elements.

use crate::types::{Plain, Reply, SessionId, limits};

use super::batch::SessionSeq;
use super::{DecodeError, PayloadSum, Reader, Writer, begin_frame, end_frame};

/// Frame kind of a request.
pub const KIND_REQUEST: u8 = 0x41;
/// Frame kind of a response.
pub const KIND_RESPONSE: u8 = 0x42;

/// How fresh a read has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// Sees every write acknowledged anywhere before the read began.
    #[default]
    Linearizable,
    /// Multicast like a write.
    Ordered,
    /// The node's store as it is; may be stale, never goes back on one connection.
    Local,
}

impl Consistency {
    const ALL: [Consistency; 3] = [Consistency::Linearizable, Consistency::Ordered, Consistency::Local];

    /// What CONSISTENCY calls it.
    pub fn name(self) -> &'static str {
        match self {
            Consistency::Linearizable => "linearizable",
            Consistency::Ordered => "ordered",
            Consistency::Local => "local",
        }
    }

    /// The one with this name, in upper or lower case.
    pub fn from_name(name: &[u8]) -> Option<Consistency> {
        Consistency::ALL.into_iter().find(|level| level.name().as_bytes().eq_ignore_ascii_case(name))
    }

    fn code(self) -> u8 {
        match self {
            Consistency::Linearizable => 1,
            Consistency::Ordered => 2,
            Consistency::Local => 3,
        }
    }
}

/// One command from a client that speaks frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// Chosen by the client, repeated in the response.
    pub id: u64,
    /// `None`: what the connection was set to with CONSISTENCY.
    pub consistency: Option<Consistency>,
    /// The place in the client's session; writes with it may be repeated safely.
    pub session: Option<SessionSeq>,
    /// The name and the arguments.
    pub arguments: Vec<&'a [u8]>,
}

/// The answer to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The request's id.
    pub id: u64,
    /// The reply.
    pub reply: WireReply,
}

/// A reply as a client sees it: like [`Reply`], with owned status text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WireReply {
    /// Missing.
    Nil,
    /// A short word: `OK`.
    Status(String),
    /// Any bytes.
    Bulk(Vec<u8>),
    /// A number.
    Integer(i64),
    /// An error with its code in front.
    Error(String),
    /// Several answers.
    Array(Vec<WireReply>),
}

/// Appends a request frame.
pub fn encode_request<A: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    id: u64,
    consistency: Option<Consistency>,
    session: Option<SessionSeq>,
    arguments: &[A],
) {
    let start = begin_frame(out, KIND_REQUEST);
    let mut w = Writer::new(out);
    w.u64(id);
    w.u8(consistency.map_or(0, Consistency::code));
    let s = session.unwrap_or(SessionSeq { session: SessionId(0), seq: 0, acked: 0 });
    w.u64(s.session.0);
    w.u64(s.seq);
    w.u64(s.acked);
    w.count(arguments.len());
    for argument in arguments {
        w.blob(argument.as_ref());
    }
    end_frame(out, start);
}

/// Reads a request's payload.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_request(payload: &[u8]) -> Result<Request<'_>, DecodeError> {
    let mut r = Reader::new(payload);
    let id = r.u64()?;
    let consistency = match r.u8()? {
        0 => None,
        1 => Some(Consistency::Linearizable),
        2 => Some(Consistency::Ordered),
        3 => Some(Consistency::Local),
        found => {
            return Err(DecodeError::Invalid { what: "consistency", found: u64::from(found) });
        }
    };
    let session = SessionSeq { session: SessionId(r.u64()?), seq: r.u64()?, acked: r.u64()? };
    let count = r.count("argument count", limits::ARGUMENT_COUNT_MAX, 4)?;
    let mut arguments = Vec::with_capacity(count);
    for _ in 0..count {
        arguments.push(r.blob("argument", limits::VALUE_LEN_CEILING)?);
    }
    r.finish()?;
    let session = (session.session != SessionId(0)).then_some(session);
    Ok(Request { id, consistency, session, arguments })
}

/// Appends a response frame.
pub fn encode_response(out: &mut Vec<u8>, id: u64, reply: &Reply) {
    let start = begin_frame(out, KIND_RESPONSE);
    Writer::new(out).u64(id);
    encode_reply(out, reply);
    end_frame(out, start);
}

/// Appends a reply as it is in a response.
pub fn encode_reply(out: &mut Vec<u8>, reply: &Reply) {
    // An explicit stack instead of recursion; the top is the next to be written.
    let mut todo = vec![reply];
    while let Some(reply) = todo.pop() {
        let mut w = Writer::new(out);
        match reply.plain() {
            Plain::Nil => w.u8(0),
            Plain::Status(text) => {
                w.u8(1);
                w.blob(text.as_bytes());
            }
            Plain::Bulk(bytes) => encode_bulk(out, bytes),
            Plain::Integer(value) => {
                w.u8(3);
                w.i64(value);
            }
            Plain::Error(text) => {
                w.u8(4);
                w.blob(text.as_bytes());
            }
            Plain::Array(items) => {
                encode_array_head(out, items.len());
                todo.extend(items.iter().rev());
            }
        }
    }
}

/// Appends a bulk with these bytes as it is in a response.
pub fn encode_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut w = Writer::new(out);
    w.u8(2);
    w.blob(bytes);
}

/// Appends what comes before the elements of an array in a response.
pub fn encode_array_head(out: &mut Vec<u8>, len: usize) {
    let mut w = Writer::new(out);
    w.u8(5);
    w.count(len);
}

/// A response whose bytes are gone through twice and never kept: first to learn what its header says, then to be sent.
#[derive(Debug)]
pub struct ResponseSum {
    id: u64,
    payload: PayloadSum,
}

impl ResponseSum {
    /// For the response to the request with this id.
    pub fn new(id: u64) -> ResponseSum {
        let mut payload = PayloadSum::default();
        payload.add(&id.to_le_bytes());
        ResponseSum { id, payload }
    }

    /// The request's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Takes in the next bytes of the reply.
    pub fn add(&mut self, piece: &[u8]) {
        self.payload.add(piece);
    }

    /// Whether so long a response can be sent.
    pub fn fits(&self) -> bool {
        self.payload.payload_len() <= limits::FRAME_LEN_MAX
    }

    /// Appends what comes before the reply.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        assert!(self.fits(), "whoever measures a response looks at the limit");
        self.payload.encode_header(out, KIND_RESPONSE);
        Writer::new(out).u64(self.id);
    }
}

/// Reads a response's payload.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_response(payload: &[u8]) -> Result<Response, DecodeError> {
    const DEPTH_MAX: usize = 8;
    let mut r = Reader::new(payload);
    let id = r.u64()?;
    // Arrays that still want elements, the innermost last: an explicit stack instead of recursion.
    let mut open: Vec<(Vec<WireReply>, usize)> = Vec::new();
    let reply = loop {
        let mut done = match r.u8()? {
            0 => WireReply::Nil,
            1 => WireReply::Status(text(r.blob("status", limits::INLINE_LEN_MAX)?)),
            2 => WireReply::Bulk(r.blob("bulk", limits::FRAME_LEN_MAX)?.to_vec()),
            3 => WireReply::Integer(r.i64()?),
            4 => WireReply::Error(text(r.blob("error", limits::INLINE_LEN_MAX)?)),
            5 => {
                let count = r.count("array", limits::FRAME_LEN_MAX, 1)?;
                if count > 0 {
                    if open.len() == DEPTH_MAX {
                        let max = DEPTH_MAX as u64;
                        return Err(DecodeError::TooLong { what: "nesting", len: max + 1, max });
                    }
                    open.push((Vec::new(), count));
                    continue;
                }
                WireReply::Array(Vec::new())
            }
            found => return Err(DecodeError::Invalid { what: "reply", found: u64::from(found) }),
        };
        // Put it where it belongs; a full array is itself an element of the one around it.
        loop {
            match open.pop() {
                None => break,
                Some((mut items, count)) => {
                    items.push(done);
                    if items.len() < count {
                        open.push((items, count));
                        done = WireReply::Nil;
                        break;
                    }
                    done = WireReply::Array(items);
                }
            }
        }
        if open.is_empty() {
            break done;
        }
    };
    r.finish()?;
    Ok(Response { id, reply })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::split_frame;

    fn round_trip(reply: &Reply) -> WireReply {
        let mut out = Vec::new();
        encode_response(&mut out, 5, reply);
        let (kind, payload, len) = split_frame(&out, 1 << 20).expect("a frame");
        assert_eq!((kind, len), (KIND_RESPONSE, out.len()));
        for cut in 0..payload.len() {
            assert!(decode_response(&payload[..cut]).is_err(), "cut at {cut}");
        }
        let response = decode_response(payload).expect("well formed");
        assert_eq!(response.id, 5);
        response.reply
    }

    #[test]
    fn replies_come_back() {
        assert_eq!(round_trip(&Reply::Nil), WireReply::Nil);
        assert_eq!(round_trip(&Reply::OK), WireReply::Status("OK".into()));
        let nested = Reply::Array(vec![
            Reply::Array(vec![]),
            Reply::Integer(-1),
            Reply::Array(vec![Reply::bulk(b"\0"), Reply::Nil]),
            Reply::error("ERR no"),
        ]);
        assert_eq!(
            round_trip(&nested),
            WireReply::Array(vec![
                WireReply::Array(vec![]),
                WireReply::Integer(-1),
                WireReply::Array(vec![WireReply::Bulk(vec![0]), WireReply::Nil]),
                WireReply::Error("ERR no".into()),
            ])
        );
    }

    #[test]
    fn requests_come_back() {
        let session = SessionSeq { session: SessionId(9), seq: 2, acked: 1 };
        let mut out = Vec::new();
        encode_request(&mut out, 3, Some(Consistency::Local), Some(session), &["GET", "a"]);
        let (kind, payload, _) = split_frame(&out, 1 << 20).expect("a frame");
        assert_eq!(kind, KIND_REQUEST);
        let request = decode_request(payload).expect("well formed");
        assert_eq!(request.session, Some(session));
        assert_eq!(request.consistency, Some(Consistency::Local));
        assert_eq!(request.arguments, [b"GET".as_slice(), b"a".as_slice()]);
        for cut in 0..payload.len() {
            assert!(decode_request(&payload[..cut]).is_err(), "cut at {cut}");
        }
    }
}
