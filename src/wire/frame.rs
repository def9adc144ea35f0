//! The frame: a fixed header with a checksum, then the payload.
//!
//! # Format
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | magic, `0xB1` |
//! | 1 | 1 | kind: which message the payload is |
//! | 2 | 2 | low half of the CRC32C of bytes 0, 1 and 4 to 8 |
//! | 4 | 4 | payload length |
//! | 8 | 4 | CRC32C of bytes 0 to 8 and of the payload |
//! | 12 | … | payload |
//!
//! The header has a check of its own, since a length is used before the payload is there: one wrong bit in it would
//! otherwise leave a connection waiting for megabytes that never come, while it looks alive.

use std::fmt;

/// The first byte of every frame. No text or RESP command begins with it.
pub const MAGIC: u8 = 0xB1;
/// Bytes before the payload.
pub const FRAME_HEADER_LEN: usize = 12;

/// A frame's header once all of it has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Which message the payload is.
    pub kind: u8,
    /// Payload bytes.
    pub len: usize,
    crc: u32,
}

/// Why bytes are no frame. `Incomplete` is no failure: more bytes are to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// So far so good; at least so many more bytes are needed.
    Incomplete {
        /// How many.
        needed: usize,
    },
    /// The first byte is not [`MAGIC`].
    Magic {
        /// The byte found.
        found: u8,
    },
    /// The header changed on the way.
    Header {
        /// The check in the header.
        stated: u16,
        /// The check of what arrived.
        found: u16,
    },
    /// The payload is longer than allowed.
    TooLong {
        /// Announced.
        len: usize,
        /// Allowed.
        max: usize,
    },
    /// The payload changed on the way.
    Checksum {
        /// The sum in the header.
        stated: u32,
        /// The sum of what arrived.
        found: u32,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Incomplete { needed } => write!(f, "{needed} more bytes needed"),
            FrameError::Magic { found } => {
                write!(f, "frame begins with {found:#04x}, expected {MAGIC:#04x}")
            }
            FrameError::Header { stated, found } => {
                write!(f, "frame header check {found:#06x}, expected {stated:#06x}")
            }
            FrameError::TooLong { len, max } => {
                write!(f, "frame of {len} bytes, expected at most {max}")
            }
            FrameError::Checksum { stated, found } => {
                write!(f, "frame checksum {found:#010x}, expected {stated:#010x}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

impl FrameHeader {
    /// Reads the header at the front of `bytes`.
    ///
    /// # Errors
    /// Incomplete, wrong magic, wrong check, payload longer than `len_max`. The checksum is looked at
    /// when the payload is there.
    pub fn decode(bytes: &[u8], len_max: usize) -> Result<FrameHeader, FrameError> {
        if let Some(&found) = bytes.first()
            && found != MAGIC
        {
            return Err(FrameError::Magic { found });
        }
        let Some(h) = bytes.first_chunk::<FRAME_HEADER_LEN>() else {
            return Err(FrameError::Incomplete { needed: FRAME_HEADER_LEN - bytes.len() });
        };
        let (stated, found) = (u16::from_le_bytes([h[2], h[3]]), header_check(h));
        if stated != found {
            return Err(FrameError::Header { stated, found });
        }
        let len = u32::from_le_bytes([h[4], h[5], h[6], h[7]]) as usize;
        if len > len_max {
            return Err(FrameError::TooLong { len, max: len_max });
        }
        Ok(FrameHeader { kind: h[1], len, crc: u32::from_le_bytes([h[8], h[9], h[10], h[11]]) })
    }

    /// Header and payload together.
    pub fn frame_len(&self) -> usize {
        FRAME_HEADER_LEN + self.len
    }
}

/// The check of kind and length.
fn header_check(header: &[u8; FRAME_HEADER_LEN]) -> u16 {
    let [magic, kind, _, _, a, b, c, d, ..] = *header;
    let crc = crc32c::crc32c(&[magic, kind, a, b, c, d]);
    let [low, high, ..] = crc.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Splits the frame at the front of `bytes` off: its kind, its payload, and the length of the whole frame.
///
/// # Errors
/// See [`FrameError`].
pub fn split_frame(bytes: &[u8], len_max: usize) -> Result<(u8, &[u8], usize), FrameError> {
    let header = FrameHeader::decode(bytes, len_max)?;
    let Some(payload) = bytes.get(FRAME_HEADER_LEN..header.frame_len()) else {
        return Err(FrameError::Incomplete { needed: header.frame_len() - bytes.len() });
    };
    let found = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), payload);
    if found != header.crc {
        return Err(FrameError::Checksum { stated: header.crc, found });
    }
    Ok((header.kind, payload, header.frame_len()))
}

/// Appends a frame header of this kind to `out`; what is appended after it is the payload, until
/// [`end_frame`] gets the value returned here.
pub fn begin_frame(out: &mut Vec<u8>, kind: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[MAGIC, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    start
}

/// Fills in the length and the checksum of the frame that begins at `start`.
///
/// # Panics
/// If `start` is not from [`begin_frame`] on the same vector, or the payload has 4 GiB.
pub fn end_frame(out: &mut [u8], start: usize) {
    let (header, payload) = out[start..]
        .split_first_chunk_mut()
        .expect("a frame begins with the header that begin_frame appended");
    fill_header(header, payload.len(), |crc| crc32c::crc32c_append(crc, payload));
}

/// Fills in what depends on the payload. `append` gets the checksum of what stands before it, and returns that of both.
fn fill_header(header: &mut [u8; FRAME_HEADER_LEN], len: usize, append: impl FnOnce(u32) -> u32) {
    let len = u32::try_from(len).expect("payloads are limited below 4 GiB");
    header[4..8].copy_from_slice(&len.to_le_bytes());
    let check = header_check(header);
    header[2..4].copy_from_slice(&check.to_le_bytes());
    let crc = append(crc32c::crc32c(&header[..8]));
    header[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// What the header says about a payload, gathered piece by piece: for one that is never in memory as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PayloadSum {
    len: usize,
    /// CRC32C of the payload alone.
    crc: u32,
}

impl PayloadSum {
    /// Takes in the next bytes of the payload.
    pub fn add(&mut self, piece: &[u8]) {
        self.len += piece.len();
        self.crc = crc32c::crc32c_append(self.crc, piece);
    }

    /// Payload bytes so far.
    pub fn payload_len(&self) -> usize {
        self.len
    }

    /// Appends the header of the frame with this payload, which has to follow.
    ///
    /// # Panics
    /// If the payload has 4 GiB.
    pub fn encode_header(&self, out: &mut Vec<u8>, kind: u8) {
        let start = begin_frame(out, kind);
        let header = out[start..].first_chunk_mut().expect("it was just appended");
        fill_header(header, self.len, |crc| crc32c::crc32c_combine(crc, self.crc, self.len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![7];
        let start = begin_frame(&mut out, kind);
        out.extend_from_slice(payload);
        end_frame(&mut out, start);
        out.remove(0);
        out
    }

    #[test]
    fn a_frame_comes_back_and_every_prefix_is_incomplete() {
        let bytes = frame(9, b"payload");
        assert_eq!(split_frame(&bytes, 100), Ok((9, &b"payload"[..], bytes.len())));
        for len in 0..bytes.len() {
            assert!(matches!(split_frame(&bytes[..len], 100), Err(FrameError::Incomplete { .. })));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = frame(9, b"payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(split_frame(&bad, 100).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_payload_in_pieces_has_the_same_header() {
        let payload: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for (len, piece_len) in [(0, 1), (1, 1), (12, 5), (1000, 7), (payload.len(), 4099)] {
            let mut sum = PayloadSum::default();
            payload[..len].chunks(piece_len).for_each(|piece| sum.add(piece));
            assert_eq!(sum.payload_len(), len);
            let mut out = vec![7];
            sum.encode_header(&mut out, 9);
            out.extend_from_slice(&payload[..len]);
            assert!(out[1..] == frame(9, &payload[..len]), "{len} bytes");
        }
    }

    #[test]
    fn an_announced_length_is_refused_before_its_payload_arrives() {
        let bytes = frame(9, &[0; 101]);
        assert_eq!(
            split_frame(&bytes[..FRAME_HEADER_LEN], 100),
            Err(FrameError::TooLong { len: 101, max: 100 })
        );
        assert_eq!(split_frame(b"GET", 100), Err(FrameError::Magic { found: b'G' }));
    }
}
