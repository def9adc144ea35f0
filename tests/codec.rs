//! The peer dialect and the log's records as bytes: what is written comes back, and nothing else is taken.
//!
//! Values are drawn from a seeded generator. A decoder has to refuse every prefix of what an encoder wrote. What
//! it does with spoiled bytes is the business of the targets `payload` and `peer_stream` of `tests/fuzz.rs`.

#[path = "codec/draw.rs"]
mod draw;

use draw::Draw;
use lanekv::protocol::{
    HELLO_KIND, Hello, Message, REFUSAL_KIND, Record, decode_hello, decode_message, decode_record,
    decode_refusal, encode_hello, encode_message, encode_record, encode_refusal, record_kind,
};
use lanekv::wire::{DecodeError, split_frame};

/// What a payload can be read as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    Message,
    Record,
    Hello,
    Refusal,
}

use Family::{Message as AMessage, Record as ARecord, Refusal as ARefusal};

/// Bytes of one encoded value, and how to read them.
#[derive(Clone, Debug)]
struct Sample {
    family: Family,
    kind: u8,
    payload: Vec<u8>,
}

/// Takes a frame apart that an encoder wrote.
fn framed(family: Family, write: impl FnOnce(&mut Vec<u8>)) -> Sample {
    let mut bytes = Vec::new();
    write(&mut bytes);
    let (kind, payload, len) = split_frame(&bytes, usize::MAX).expect("an encoder writes whole frames");
    assert_eq!(len, bytes.len(), "one frame and no more");
    Sample { family, kind, payload: payload.to_vec() }
}

fn message(message: &Message) -> Sample {
    framed(AMessage, |out| encode_message(out, message))
}

fn record(record: &Record) -> Sample {
    let mut payload = Vec::new();
    let kind = encode_record(&mut payload, record);
    assert_eq!(kind, record_kind(record));
    Sample { family: ARecord, kind, payload }
}

fn hello(hello: &Hello) -> Sample {
    framed(Family::Hello, |out| encode_hello(out, hello))
}

/// Samples of everything there is, each kind equally often.
fn samples(draw: &mut Draw, rounds: usize) -> Vec<Sample> {
    let mut samples = Vec::new();
    for _ in 0..rounds {
        samples.extend((0..Draw::MESSAGE_KINDS).map(|kind| message(&draw.message(kind))));
        samples.extend((0..Draw::RECORD_KINDS).map(|kind| record(&draw.record(kind))));
        samples.push(hello(&draw.hello()));
        let refusals = (0..Draw::REFUSAL_KINDS).map(|kind| draw.refusal(kind));
        samples.extend(refusals.map(|refusal| framed(ARefusal, |out| encode_refusal(out, &refusal))));
    }
    samples
}

/// Reads bytes and writes again what was read.
fn again(family: Family, kind: u8, payload: &[u8]) -> Result<Sample, DecodeError> {
    Ok(match family {
        AMessage => message(&decode_message(kind, payload)?),
        ARecord => record(&decode_record(kind, payload)?),
        Family::Hello => hello(&decode_hello(kind, payload)?),
        ARefusal => {
            let refusal = decode_refusal(payload)?;
            framed(ARefusal, |out| encode_refusal(out, &refusal))
        }
    })
}

#[test]
fn every_value_comes_back() {
    let draw = &mut Draw::new(1);
    for _ in 0..400 {
        for kind in 0..Draw::MESSAGE_KINDS {
            let value = draw.message(kind);
            let Sample { kind, payload, .. } = message(&value);
            assert_eq!(decode_message(kind, &payload).as_ref(), Ok(&value));
        }
        for kind in 0..Draw::RECORD_KINDS {
            let value = draw.record(kind);
            let Sample { kind, payload, .. } = record(&value);
            assert_eq!(decode_record(kind, &payload).as_ref(), Ok(&value));
        }
        let value = draw.hello();
        let Sample { kind, payload, .. } = hello(&value);
        assert_eq!(kind, HELLO_KIND);
        assert_eq!(decode_hello(kind, &payload).as_ref(), Ok(&value));
        for kind in 0..Draw::REFUSAL_KINDS {
            let value = draw.refusal(kind);
            let sample = framed(ARefusal, |out| encode_refusal(out, &value));
            assert_eq!(sample.kind, REFUSAL_KIND);
            assert_eq!(decode_refusal(&sample.payload).as_ref(), Ok(&value));
        }
    }
}

#[test]
fn every_prefix_is_refused_and_so_is_a_byte_too_many() {
    for Sample { family, kind, payload } in samples(&mut Draw::new(2), 12) {
        for len in 0..payload.len() {
            let cut = again(family, kind, &payload[..len]);
            assert!(cut.is_err(), "{family:?} of kind {kind}, {len} of {} bytes: {cut:?}", payload.len());
        }
        let mut longer = payload.clone();
        longer.push(0);
        assert_eq!(
            again(family, kind, &longer).map(|s| s.payload),
            Err(DecodeError::Trailing { left: 1 }),
            "{family:?} of kind {kind}"
        );
    }
}

#[test]
fn unknown_kinds_are_refused() {
    let known: Vec<(Family, u8)> =
        samples(&mut Draw::new(3), 1).into_iter().map(|s| (s.family, s.kind)).collect();
    let payload = [0; 256];
    for kind in 0..=u8::MAX {
        if !known.contains(&(AMessage, kind)) {
            assert!(matches!(decode_message(kind, &payload), Err(DecodeError::Invalid { .. })), "{kind}");
        }
        if !known.contains(&(ARecord, kind)) {
            assert!(matches!(decode_record(kind, &payload), Err(DecodeError::Invalid { .. })), "{kind}");
        }
        if kind != HELLO_KIND {
            assert!(matches!(decode_hello(kind, &payload), Err(DecodeError::Invalid { .. })), "{kind}");
        }
    }
}

#[test]
fn a_hello_of_another_version_may_be_longer() {
    let draw = &mut Draw::new(4);
    let newer = Hello { protocol: Hello::PROTOCOL + 1, ..draw.hello() };
    let Sample { kind, mut payload, .. } = hello(&newer);
    payload.extend_from_slice(b"a field of the future");
    assert_eq!(decode_hello(kind, &payload), Ok(newer));
}
