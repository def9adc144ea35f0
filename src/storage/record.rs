//! Records: how they are built, framed and recognised.
//!
//! A record stands for itself: its checksum begins with the segment's random salt, so bytes of
//! another segment, of an earlier life of the same disk blocks, or made up by a client in a value never
//! look like a record of this one. It also names its predecessor's checksum and its own number, so
//! records are a chain of which no link can be missing or swapped. And it says how far the log was
//! durable when it was written: that is what tells a torn tail from damage (`recovery`).
//!
//! # Format
//! ```text
//!  0  u32  payload length
//!  4  u32  CRC32C, started with the salt, of bytes 0..4 and 8.. to the end of the padding
//!  8  u64  log sequence number
//! 16  u64  the number up to which the log was durable when this was written
//! 24  u32  CRC of the record before; of the first in a log: 0
//! 28  u8   kind, the caller's
//! 29  u8   flags: 0 a record, 1 the mark of a clean stop, 2 the mark "durable up to here"
//! 30  u16  low half of the CRC32C, started with the salt, of bytes 0..4 and 8..30
//! 32       payload, then zeros up to a multiple of 8
//! ```
//! A mark has no payload and shares the number of the record before it, so the numbers are all the
//! caller's. The small checksum of the header makes a length trustworthy before the payload is looked at, so that
//! the search for records behind a damaged place stays linear whatever clients have stored there.

use crate::types::{Lsn, limits};
use crate::wire::{Reader, Writer};

/// Bytes before a record's payload.
pub const RECORD_HEADER_LEN: usize = 32;
/// Most bytes of a record's payload: a whole frame fits.
pub const RECORD_LEN_MAX: usize = limits::FRAME_LEN_MAX;

/// A record of the caller's.
const FLAG_RECORD: u8 = 0;
/// The mark of a clean stop; nothing follows it.
pub(super) const FLAG_CLEAN: u8 = 1;
/// The mark that everything before it is durable.
pub(super) const FLAG_DURABLE: u8 = 2;

const CRC_AT: usize = 4;
const DURABLE_AT: usize = 16;
const PREVIOUS_AT: usize = 24;
const CHECK_AT: usize = 30;

/// A record's header, as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordHeader {
    pub(super) payload_len: usize,
    pub(super) crc: u32,
    pub(super) lsn: Lsn,
    pub(super) durable: Lsn,
    pub(super) previous: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
}

impl RecordHeader {
    /// The header in these bytes, or `None` if they are none of a segment with this salt.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER_LEN], salt: u32) -> Option<RecordHeader> {
        let mut r = Reader::new(bytes);
        let header = RecordHeader {
            payload_len: r.u32().ok()? as usize,
            crc: r.u32().ok()?,
            lsn: Lsn(r.u64().ok()?),
            durable: Lsn(r.u64().ok()?),
            previous: r.u32().ok()?,
            kind: r.u8().ok()?,
            flags: r.u8().ok()?,
        };
        let check = r.u16().ok()?;
        let sensible = match header.flags {
            FLAG_RECORD => header.lsn > header.durable,
            FLAG_CLEAN | FLAG_DURABLE => header.lsn == header.durable && header.payload_len == 0,
            _ => false,
        };
        let valid = sensible && header.payload_len <= RECORD_LEN_MAX && check == header_check(bytes, salt);
        valid.then_some(header)
    }

    /// How many bytes the record takes.
    pub(super) fn size(&self) -> usize {
        (RECORD_HEADER_LEN + self.payload_len).next_multiple_of(8)
    }

    /// Whether it is the log's own and not the caller's.
    pub(super) fn is_mark(&self) -> bool {
        self.flags != FLAG_RECORD
    }
}

fn header_check(header: &[u8], salt: u32) -> u16 {
    let crc = crc32c::crc32c_append(salt, &header[..CRC_AT]);
    let crc = crc32c::crc32c_append(crc, &header[CRC_AT + 4..CHECK_AT]);
    let [low, high, ..] = crc.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// The checksum of a whole record, padding included.
pub(super) fn record_crc(record: &[u8], salt: u32) -> u32 {
    let crc = crc32c::crc32c_append(salt, &record[..CRC_AT]);
    crc32c::crc32c_append(crc, &record[CRC_AT + 4..])
}

/// Records that are written and synced together.
///
/// The event loop fills it without knowing the log's segments; the log puts in the checksums. A
/// group is never split: after a crash a beginning of it may be there, but only of the last group.
#[derive(Debug, Default)]
pub struct RecordGroup {
    bytes: Vec<u8>,
    first: Lsn,
    last: Lsn,
    must_sync: bool,
}

impl RecordGroup {
    /// An empty one.
    pub fn new() -> RecordGroup {
        RecordGroup::default()
    }

    /// Adds a record; `write` appends its payload to the buffer.
    ///
    /// # Panics
    /// If `lsn` is not the number after the last one, the payload is longer than
    /// [`RECORD_LEN_MAX`], or `write` took something away.
    pub fn push(&mut self, lsn: Lsn, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        assert_ne!(lsn, Lsn(0), "records are counted from 1");
        if self.is_empty() {
            self.first = lsn;
        } else {
            assert_eq!(lsn, self.last.next(), "a group's records are numbered without a gap");
        }
        self.push_frame(lsn, kind, FLAG_RECORD, write);
    }

    /// Adds a mark; `last` is the number of the record before it.
    pub(super) fn push_mark(&mut self, last: Lsn, flag: u8) {
        self.push_frame(last, 0, flag, |_| {});
    }

    fn push_frame(&mut self, lsn: Lsn, kind: u8, flags: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.reserve(RECORD_HEADER_LEN);
        let mut w = Writer::new(&mut self.bytes);
        w.u64(0); // Length and checksum.
        w.u64(lsn.0);
        w.u64(0); // Durable.
        w.u32(0); // Predecessor.
        w.u8(kind);
        w.u8(flags);
        w.u16(0); // Check.
        let payload_start = self.bytes.len();
        write(&mut self.bytes);
        let payload_len = self.bytes.len().checked_sub(payload_start).expect("a payload is only appended");
        assert!(payload_len <= RECORD_LEN_MAX, "a record of {payload_len} bytes is over the limit");
        let payload_len = u32::try_from(payload_len).expect("below the limit");
        self.bytes[start..start + 4].copy_from_slice(&payload_len.to_le_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.last = lsn;
    }

    /// Asks that this group be synced before it is reported, in whatever mode the log runs.
    pub fn require_sync(&mut self) {
        self.must_sync = true;
    }

    /// Whether [`RecordGroup::require_sync`] was called.
    pub fn must_sync(&self) -> bool {
        self.must_sync
    }

    /// Whether it holds no records.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes it takes in the log.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The number of its last record, or `None` if it has none.
    pub fn last_lsn(&self) -> Option<Lsn> {
        (!self.is_empty()).then_some(self.last)
    }

    /// The number of its first record, or `None` if it has none.
    pub fn first_lsn(&self) -> Option<Lsn> {
        (!self.is_empty()).then_some(self.first)
    }

    /// Empties it for the next records; the memory is kept.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.must_sync = false;
    }

    /// How much memory its buffer holds.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends the records of a group that follows this one.
    pub(super) fn absorb(&mut self, next: &RecordGroup) {
        if self.is_empty() {
            self.first = next.first;
        } else {
            assert_eq!(next.first, self.last.next(), "groups are submitted in their order");
        }
        self.bytes.extend_from_slice(&next.bytes);
        self.last = next.last;
        self.must_sync |= next.must_sync;
    }

    /// Puts in what only the log knows, and returns the CRC of the last record.
    pub(super) fn seal(&mut self, salt: u32, durable: Lsn, mut previous: u32) -> u32 {
        let mut start = 0;
        while start < self.bytes.len() {
            let rest = &mut self.bytes[start..];
            let payload_len = Reader::new(rest).u32().expect("push wrote a length") as usize;
            let size = (RECORD_HEADER_LEN + payload_len).next_multiple_of(8);
            let record = &mut rest[..size];
            record[DURABLE_AT..DURABLE_AT + 8].copy_from_slice(&durable.0.to_le_bytes());
            record[PREVIOUS_AT..PREVIOUS_AT + 4].copy_from_slice(&previous.to_le_bytes());
            let check = header_check(record, salt);
            record[CHECK_AT..CHECK_AT + 2].copy_from_slice(&check.to_le_bytes());
            previous = record_crc(record, salt);
            record[CRC_AT..CRC_AT + 4].copy_from_slice(&previous.to_le_bytes());
            start += size;
        }
        previous
    }

    /// The framed records, ready to be written once sealed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(payload: &[u8]) -> Vec<u8> {
        let mut group = RecordGroup::new();
        group.push(Lsn(8), 3, |out| out.extend_from_slice(payload));
        group.seal(99, Lsn(5), 1234);
        group.bytes().to_vec()
    }

    fn verify(record: &[u8], salt: u32) -> Option<RecordHeader> {
        let header = RecordHeader::decode(record.first_chunk()?, salt)?;
        (header.size() == record.len() && record_crc(record, salt) == header.crc).then_some(header)
    }

    #[test]
    fn every_bit_counts() {
        let mut record = sealed(b"a payload of some bytes");
        let header = verify(&record, 99).expect("as written");
        assert_eq!((header.lsn, header.durable, header.kind), (Lsn(8), Lsn(5), 3));
        assert_eq!((header.previous, header.payload_len), (1234, 23));
        assert_eq!(verify(&record, 98), None, "the salt is part of the checksum");
        for bit in 0..record.len() * 8 {
            record[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&record, 99), None, "bit {bit}");
            record[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn records_are_aligned_and_chained() {
        let mut group = RecordGroup::new();
        assert_eq!((group.first_lsn(), group.last_lsn()), (None, None));
        for lsn in 1..=9 {
            group.push(Lsn(lsn), 0, |out| out.resize(out.len() + lsn as usize, 7));
        }
        assert_eq!(group.last_lsn(), Some(Lsn(9)));
        let last = group.seal(1, Lsn(0), 0);
        let (mut at, mut previous) = (0, 0);
        while at < group.len_bytes() {
            let header = RecordHeader::decode(group.bytes()[at..].first_chunk().unwrap(), 1).unwrap();
            assert_eq!(header.previous, previous);
            assert_eq!(header.size() % 8, 0);
            previous = header.crc;
            at += header.size();
        }
        assert_eq!(previous, last);
        group.clear();
        assert!(group.is_empty());
    }

    #[test]
    #[should_panic(expected = "without a gap")]
    fn a_gap_is_our_own_fault() {
        let mut group = RecordGroup::new();
        group.push(Lsn(1), 0, |_| {});
        group.push(Lsn(3), 0, |_| {});
    }
}
