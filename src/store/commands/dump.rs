//! `DUMP` and `RESTORE`: one value in the format of Redis' own files, so that it can be taken from a Redis to here and
//! back.
//!
//! ```text
//! 1 byte   kind of value, 0: a string
//! length and bytes, or a number, or bytes compressed by LZF
//! 2 bytes  version of the format
//! 8 bytes  CRC-64 (Jones) of everything before
//! ```
//! Written are strings as they are and small numbers as numbers; Redis compresses, this does not. Read is all that.

use crate::store::command::{Answer, CommandSpec, Group, Run};
use crate::store::error::CommandError;
use crate::store::{Applied, EventClass, Store};
use crate::types::{Millis, Reply, decimal, limits};

use super::{READ, WRITE, exactly, is, parse_integer};

/// That of Redis 7.0; a newer one is refused.
const VERSION: u16 = 10;
const KIND_STRING: u8 = 0;
const FOOTER_LEN: usize = 10;

pub(crate) static COMMANDS: [CommandSpec; 2] = [
    CommandSpec {
        name: "DUMP",
        code: 51,
        group: Group::Generic,
        summary: "answers a value in the form that RESTORE takes, here and in Redis",
        run: Run::Read(dump),
        ..READ
    },
    CommandSpec {
        name: "RESTORE",
        code: 52,
        arity: -4,
        group: Group::Generic,
        usage: "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
        summary: "sets a key to a value that DUMP answered; ttl in milliseconds, 0: it does not expire",
        check: check_restore,
        run: Run::Write(restore),
        ..WRITE
    },
];

fn dump(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    let Some(value) = store.keys.value(key) else { return Ok(Reply::Nil) };
    let mut out = vec![KIND_STRING];
    match decimal::parse(value).filter(|_| value.len() <= 11) {
        Some(number) if push_number(&mut out, number) => {}
        _ => {
            push_len(&mut out, value.len());
            out.extend_from_slice(value);
        }
    }
    out.extend_from_slice(&VERSION.to_le_bytes());
    let crc = crc64(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(Reply::Bulk(out.into()))
}

/// Appends a number if it is a small one.
fn push_number(out: &mut Vec<u8>, number: i64) -> bool {
    if let Ok(number) = i8::try_from(number) {
        out.push(0xc0);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = i16::try_from(number) {
        out.push(0xc1);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(0xc2);
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        return false;
    }
    true
}

fn push_len(out: &mut Vec<u8>, len: usize) {
    let [.., b3, b2, b1, b0] = (len as u64).to_be_bytes();
    match len {
        0..0x40 => out.push(b0),
        0x40..0x4000 => out.extend_from_slice(&[0x40 | b1, b0]),
        _ => out.extend_from_slice(&[0x80, b3, b2, b1, b0]),
    }
}

struct Options {
    over: bool,
    is_absolute: bool,
}

fn options(mut rest: &[&[u8]]) -> Result<Options, CommandError> {
    let mut parsed = Options { over: false, is_absolute: false };
    while let [option, after @ ..] = rest {
        rest = after;
        match (option, after) {
            _ if is(option, "REPLACE") => parsed.over = true,
            _ if is(option, "ABSTTL") => parsed.is_absolute = true,
            (_, [idle, after @ ..]) if is(option, "IDLETIME") => {
                if parse_integer(idle)? < 0 {
                    return Err(CommandError::InvalidIdleTime);
                }
                rest = after;
            }
            (_, [frequency, after @ ..]) if is(option, "FREQ") => {
                if !(0..=255).contains(&parse_integer(frequency)?) {
                    return Err(CommandError::InvalidFrequency);
                }
                rest = after;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(parsed)
}

fn check_restore(arguments: &[&[u8]]) -> Result<(), CommandError> {
    options(arguments.get(3..).unwrap_or_default()).map(|_| ())
}

fn restore(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, ttl, payload, rest @ ..] = arguments else { return Err(CommandError::Syntax) };
    let options = options(rest)?;
    if !options.over && store.keys.get(key).is_some() {
        return Err(CommandError::KeyExists);
    }
    let ttl = u64::try_from(parse_integer(ttl)?).map_err(|_| CommandError::InvalidTtl)?;
    let body = payload.len().checked_sub(FOOTER_LEN).ok_or(CommandError::WrongPayload)?;
    let (body, footer) = payload.split_at(body);
    let version = u16::from_le_bytes([footer[0], footer[1]]);
    let crc = crc64(&payload[..payload.len() - 8]);
    if version > VERSION || crc.to_le_bytes() != footer[2..] {
        return Err(CommandError::WrongPayload);
    }
    let value = read_string(body).ok_or(CommandError::BadData)?;
    let deadline = match (ttl, options.is_absolute) {
        (0, _) => None,
        (ttl, true) => Some(Millis(ttl)),
        (ttl, false) => Some(at.now.plus(Millis(ttl))),
    };
    store.keys.set_until(key, &value, at.index, deadline);
    store.note(EventClass::Generic, "restore", key);
    Ok(Reply::OK)
}

/// The value, if it is a string and nothing comes behind it.
fn read_string(body: &[u8]) -> Option<Vec<u8>> {
    let [KIND_STRING, rest @ ..] = body else { return None };
    let text = |number: i64| {
        let mut text = Vec::new();
        decimal::push(&mut text, number);
        Some(text)
    };
    match rest {
        [0xc0, byte] => text(i64::from(i8::from_le_bytes([*byte]))),
        [0xc1, a, b] => text(i64::from(i16::from_le_bytes([*a, *b]))),
        [0xc2, a, b, c, d] => text(i64::from(i32::from_le_bytes([*a, *b, *c, *d]))),
        [0xc3, rest @ ..] => {
            let (compressed, rest) = read_len(rest)?;
            let (len, rest) = read_len(rest)?;
            if rest.len() != compressed || len > limits::VALUE_LEN_CEILING {
                return None;
            }
            decompress(rest, len)
        }
        _ => {
            let (len, rest) = read_len(rest)?;
            (rest.len() == len && len <= limits::VALUE_LEN_CEILING).then(|| rest.to_vec())
        }
    }
}

fn read_len(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [first @ 0..=0x3f, rest @ ..] => Some((usize::from(*first), rest)),
        [first @ 0x40..=0x7f, second, rest @ ..] => {
            Some((usize::from(first & 0x3f) << 8 | usize::from(*second), rest))
        }
        [0x80, a, b, c, d, rest @ ..] => {
            Some((usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?, rest))
        }
        [0x81, rest @ ..] => {
            let (len, rest) = rest.split_first_chunk::<8>()?;
            Some((usize::try_from(u64::from_be_bytes(*len)).ok()?, rest))
        }
        _ => None,
    }
}

/// LZF: runs of bytes as they are, and repetitions of what is at most 8 KiB back. What is set aside grows with what
/// comes out, and each byte of input gives at most 264.
fn decompress(mut input: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while let [control, rest @ ..] = input {
        let control = usize::from(*control);
        if control < 32 {
            let run = rest.get(..=control)?;
            out.extend_from_slice(run);
            input = &rest[control + 1..];
        } else {
            let mut rest = rest;
            let mut count = control >> 5;
            if count == 7 {
                let (more, after) = rest.split_first()?;
                count += usize::from(*more);
                rest = after;
            }
            let (low, after) = rest.split_first()?;
            let back = ((control & 0x1f) << 8 | usize::from(*low)) + 1;
            let start = out.len().checked_sub(back)?;
            for place in start..start + count + 2 {
                out.push(out[place]);
            }
            input = after;
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ CRC64_TABLE[usize::from(low ^ byte)]
    })
}

/// The remainders of all bytes by Jones' polynomial, lowest bit first.
static CRC64_TABLE: [u64; 256] = {
    const POLYNOMIAL: u64 = 0xad93_d235_94c9_35a9_u64.reverse_bits();
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ POLYNOMIAL };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn what_is_compressed_comes_back() {
        // "aaaaaaaaaa": one byte, then nine more from one back.
        assert_eq!(decompress(&[0, b'a', 7 << 5, 0, 0], 10), Some(vec![b'a'; 10]));
        assert_eq!(decompress(&[0, b'a', 7 << 5, 0, 0], 9), None);
        assert_eq!(decompress(&[0, b'a', 1 << 5, 1], 4), None, "from before the beginning");
        assert_eq!(decompress(&[5, b'a'], 6), None, "cut");
    }
}
