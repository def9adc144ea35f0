//! Frames from peers, and the payloads of all frames and records.

use lanekv::protocol::{
    HELLO_KIND, Hello, Message, REFUSAL_KIND, Refusal, decode_hello, decode_message, decode_record,
    decode_refusal, encode_hello, encode_message, encode_record, encode_refusal, record_kind,
};
use lanekv::types::limits;
use lanekv::wire::client::{
    KIND_REQUEST, Response, WireReply, decode_request, decode_response, encode_request,
};
use lanekv::wire::{DecodeError, FRAME_HEADER_LEN, FrameError, FrameHeader, MAGIC, Writer, split_frame};

use super::Parts;
use super::script::pieces;

/// The parts of a stream are its frames.
pub(super) const FRAMES: Parts = Parts { head_len: 0, split, seal: |frame| seal(frame) };

/// Where the frame at the front ends, going by its length alone.
pub(super) fn frame_end(bytes: &[u8]) -> usize {
    let len = bytes.get(4..8).map_or(0, |len| u32::from_le_bytes([len[0], len[1], len[2], len[3]]));
    FRAME_HEADER_LEN.saturating_add(len as usize).min(bytes.len())
}

fn split(stream: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (frame, tail) = rest.split_at(frame_end(rest).max(1).min(rest.len()));
        parts.push(frame);
        rest = tail;
    }
    parts
}

/// Makes bytes a frame with a right length and a right checksum, whatever the rest is.
pub(super) fn seal(frame: &mut [u8]) {
    if frame.len() < FRAME_HEADER_LEN {
        return;
    }
    let len = u32::try_from(frame.len() - FRAME_HEADER_LEN).expect("inputs are short");
    frame[0] = MAGIC;
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..8]), &frame[FRAME_HEADER_LEN..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// What a connection makes of the bytes of a peer.
#[derive(PartialEq, Debug)]
enum Said {
    Hello(Hello),
    Refusal(Refusal),
    Message(Message),
    Payload(DecodeError),
    Frame(FrameError),
}

/// A connection to a peer: first a hello, then messages. It ends with the first mistake.
#[derive(Default)]
struct Listener {
    buffer: Vec<u8>,
    said: Vec<Said>,
    greeted: bool,
    ended: bool,
}

impl Listener {
    fn hear(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while !self.ended {
            let rest = &self.buffer[at..];
            let len_max = if self.greeted { limits::FRAME_LEN_MAX } else { limits::HELLO_LEN_MAX };
            let header = FrameHeader::decode(rest, len_max);
            let (kind, payload, len) = match split_frame(rest, len_max) {
                Ok(frame) => frame,
                Err(FrameError::Incomplete { needed }) => {
                    assert!(needed > 0, "no bytes are needed and yet some are missing");
                    if let Ok(header) = header {
                        assert_eq!(rest.len() + needed, header.frame_len(), "the rest of the frame");
                    }
                    break;
                }
                Err(error) => {
                    self.said.push(Said::Frame(error));
                    self.ended = true;
                    break;
                }
            };
            assert_eq!(header.map(|header| (header.kind, header.frame_len())), Ok((kind, len)));
            assert_eq!(payload.len() + FRAME_HEADER_LEN, len);
            self.said.push(if !self.greeted && kind == REFUSAL_KIND {
                decode_refusal(payload).map_or_else(Said::Payload, Said::Refusal)
            } else if !self.greeted {
                decode_hello(kind, payload).map_or_else(Said::Payload, Said::Hello)
            } else {
                decode_message(kind, payload).map_or_else(Said::Payload, Said::Message)
            });
            self.greeted = true;
            self.ended = matches!(self.said.last(), Some(Said::Payload(_) | Said::Refusal(_)));
            at += len;
        }
        self.buffer.drain(..at);
    }
}

/// Frames from a peer: the same in one piece, in pieces, and written again.
pub(super) fn peer_stream(input: &[u8]) {
    let mut whole = Listener::default();
    whole.hear(input);
    let mut parted = Listener::default();
    let mut rest = input;
    for len in pieces(input) {
        let (piece, tail) = rest.split_at(len.min(rest.len()));
        parted.hear(piece);
        rest = tail;
        if rest.is_empty() || parted.ended {
            break;
        }
    }
    assert_eq!(whole.said, parted.said, "in one piece and in several");
    let mut again = Vec::new();
    for said in &whole.said {
        match said {
            Said::Hello(hello) if hello.protocol != Hello::PROTOCOL => return,
            Said::Hello(hello) => encode_hello(&mut again, hello),
            Said::Refusal(refusal) => encode_refusal(&mut again, refusal),
            Said::Message(message) => encode_message(&mut again, message),
            Said::Payload(_) | Said::Frame(_) => break,
        }
    }
    assert!(input.starts_with(&again), "what was understood, written again");
}

/// One payload: what it is read as in the first byte, its kind in the second.
pub(super) fn payload(input: &[u8]) {
    let [family, kind, payload @ ..] = input else { return };
    let kind = *kind;
    let mut again = Vec::new();
    let start = match family % 4 {
        0 => {
            let Ok(message) = decode_message(kind, payload) else { return };
            encode_message(&mut again, &message);
            assert!(!message.to_string().is_empty());
            FRAME_HEADER_LEN
        }
        1 => {
            let Ok(record) = decode_record(kind, payload) else { return };
            assert_eq!(encode_record(&mut again, &record), kind);
            assert_eq!(record_kind(&record), kind);
            assert!(!record.to_string().is_empty());
            0
        }
        2 => {
            let Ok(hello) = decode_hello(kind, payload) else { return };
            assert_eq!(kind, HELLO_KIND);
            if hello.protocol != Hello::PROTOCOL {
                return;
            }
            encode_hello(&mut again, &hello);
            FRAME_HEADER_LEN
        }
        _ => {
            let Ok(refusal) = decode_refusal(payload) else { return };
            assert!(!refusal.to_string().is_empty());
            encode_refusal(&mut again, &refusal);
            FRAME_HEADER_LEN
        }
    };
    assert_eq!(&again[start..], payload, "what is accepted encodes to the same bytes");
}

/// One payload of the binary client dialect; the first byte says in which direction it goes.
pub(super) fn client_payload(input: &[u8]) {
    match input {
        [0, payload @ ..] => request(payload),
        [_, payload @ ..] => response(payload),
        [] => {}
    }
}

fn request(payload: &[u8]) {
    let Ok(request) = decode_request(payload) else { return };
    let mut again = Vec::new();
    encode_request(&mut again, request.id, request.consistency, request.session, &request.arguments);
    let (kind, again, _) = split_frame(&again, usize::MAX).expect("an encoder writes whole frames");
    assert_eq!(kind, KIND_REQUEST);
    // Without a session its other two numbers mean nothing.
    let (ours, theirs) =
        if request.session.is_some() { (again, payload) } else { (&again[33..], &payload[33..]) };
    assert_eq!(ours, theirs, "what is accepted encodes to the same bytes");
    assert_eq!(again[..17], payload[..17]);
}

fn response(payload: &[u8]) {
    let Ok(Response { id, reply }) = decode_response(payload) else { return };
    let mut again = Vec::new();
    Writer::new(&mut again).u64(id);
    // Bytes that are no UTF-8 cannot come back from a text.
    if write_reply(&mut again, &reply) {
        assert_eq!(again, payload, "what is accepted encodes to the same bytes");
    }
}

/// Writes a reply as the specification says, without the project's encoder, which takes replies of nodes only. `false`
/// if a text in it may be a replacement.
fn write_reply(out: &mut Vec<u8>, reply: &WireReply) -> bool {
    let mut faithful = true;
    let mut todo = vec![reply];
    while let Some(reply) = todo.pop() {
        let mut w = Writer::new(out);
        match reply {
            WireReply::Nil => w.u8(0),
            WireReply::Status(text) | WireReply::Error(text) => {
                faithful &= !text.contains('\u{fffd}');
                w.u8(if matches!(reply, WireReply::Status(_)) { 1 } else { 4 });
                w.blob(text.as_bytes());
            }
            WireReply::Bulk(bytes) => {
                w.u8(2);
                w.blob(bytes);
            }
            WireReply::Integer(number) => {
                w.u8(3);
                w.i64(*number);
            }
            WireReply::Array(items) => {
                w.u8(5);
                w.count(items.len());
                todo.extend(items.iter().rev());
            }
        }
    }
    faithful
}
