//! Segments: the files of the log, their headers, and reading records from them.
//!
//! # Format
//! A segment is named `wal-<number>.log`, sixteen hexadecimal digits, and begins with a header of 512
//! bytes, which is durable before the file has that name:
//! ```text
//!   0  8 bytes  magic "lanekvWL"
//!   8  u32      format version, 1
//!  12  u32      CRC32C of bytes 0..12
//!  16  u64      node id
//!  24  u64      disk id
//!  32  u64      number of the segment: 1, 2, 3 …
//!  40  u64      log sequence number of its first record
//!  48  u32      salt, random
//!  52  u32      CRC of the last record of the segment before, 0 if there is none
//!  56           zeros
//! 508  u32      CRC32C of bytes 0..508
//! ```
//! Records follow without gaps, then zeros. Only the last segment may end in the middle of
//! something: the next one is not made before this one is synced.

use std::io;

use crate::types::{DiskId, Lsn, NodeId};
use crate::wire::{Reader, Writer};

use super::identity::{PREAMBLE_LEN, Preamble, check_preamble, write_preamble};
use super::record::{RECORD_HEADER_LEN, RecordHeader, record_crc};
use super::{Disk, DiskFile, OpenError};

/// Length of the header; the first record begins here.
pub(super) const SEGMENT_HEADER_LEN: usize = 512;
const MAGIC: [u8; 8] = *b"lanekvWL";
const FORMAT_VERSION: u32 = 1;
/// How much a scan reads at once, unless a record is longer.
const READ_LEN: usize = 256 << 10;

/// The name of the segment with this number.
pub(super) fn name(seq: u64) -> String {
    format!("wal-{seq:016x}.log")
}

/// The name of a segment that is still being made.
pub(super) fn temporary_name(seq: u64) -> String {
    format!("wal-{seq:016x}.tmp")
}

/// The name under which the torn end of a segment is kept.
pub(super) fn torn_name(seq: u64) -> String {
    format!("wal-{seq:016x}.torn")
}

/// The number of the segment with this name, or `None` if it is no segment's name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let seq = parse(name, ".log")?;
    (self::name(seq) == name).then_some(seq)
}

/// The number of the segment whose torn end has this name, or `None` if it is no such name.
pub(super) fn parse_torn_name(name: &str) -> Option<u64> {
    let seq = parse(name, ".torn")?;
    (torn_name(seq) == name).then_some(seq)
}

fn parse(name: &str, end: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("wal-")?.strip_suffix(end)?, 16).ok()
}

/// Whether this is a segment that a crash kept from being finished.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with("wal-") && name.ends_with(".tmp")
}

/// What a segment says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) node: NodeId,
    pub(super) disk_id: DiskId,
    pub(super) seq: u64,
    pub(super) first: Lsn,
    pub(super) salt: u32,
    pub(super) previous: u32,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_LEN);
        write_preamble(&mut bytes, MAGIC, FORMAT_VERSION);
        let mut w = Writer::new(&mut bytes);
        w.u64(u64::from(self.node.get()));
        w.u64(self.disk_id.0);
        w.u64(self.seq);
        w.u64(self.first.0);
        w.u32(self.salt);
        w.u32(self.previous);
        bytes.resize(SEGMENT_HEADER_LEN - 4, 0);
        let crc = crc32c::crc32c(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    /// Reads and checks the header of the segment `name`.
    pub(super) fn read<D: Disk>(
        disk: &D,
        name: &str,
        file: &D::File,
        node: NodeId,
        disk_id: DiskId,
    ) -> Result<SegmentHeader, OpenError> {
        let damaged = |offset, what| Err(OpenError::damaged(disk, name, offset, what));
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        let len = file.read_at(0, &mut bytes).map_err(OpenError::on(disk, name))?;
        match check_preamble(&bytes[..len], MAGIC, FORMAT_VERSION) {
            Preamble::Ours => {}
            Preamble::Newer(found) => {
                let file = disk.path(name);
                return Err(OpenError::NewerFormat { file, found, supported: FORMAT_VERSION });
            }
            Preamble::Damaged(what) => return damaged(0, what),
        }
        if len < SEGMENT_HEADER_LEN {
            return damaged(len as u64, "shorter than its header");
        }
        let (body, crc) = bytes.split_at(SEGMENT_HEADER_LEN - 4);
        if crc32c::crc32c(body).to_le_bytes() != *crc {
            return damaged(PREAMBLE_LEN as u64, "wrong checksum of the header");
        }
        let Ok((found, header)) = Self::decode(&body[PREAMBLE_LEN..]) else {
            return damaged(PREAMBLE_LEN as u64, "no valid header");
        };
        if found != u64::from(node.get()) || header.disk_id != disk_id {
            return Err(OpenError::WrongDisk {
                file: disk.path(name),
                found: header.disk_id,
                expected: disk_id,
            });
        }
        if parse_name(name) != Some(header.seq) {
            return damaged(32, "it has the name of another segment");
        }
        Ok(SegmentHeader { node, ..header })
    }

    fn decode(bytes: &[u8]) -> Result<(u64, SegmentHeader), crate::wire::DecodeError> {
        let mut r = Reader::new(bytes);
        let node = r.u64()?;
        let header = SegmentHeader {
            node: NodeId::default(),
            disk_id: DiskId(r.u64()?),
            seq: r.u64()?,
            first: Lsn(r.u64()?),
            salt: r.u32()?,
            previous: r.u32()?,
        };
        Ok((node, header))
    }
}

/// Reads a segment from front to back through one buffer.
pub(super) struct SegmentReader<'a, F: DiskFile> {
    file: &'a F,
    size: u64,
    salt: u32,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
}

impl<'a, F: DiskFile> SegmentReader<'a, F> {
    pub(super) fn new(file: &'a F, salt: u32) -> io::Result<SegmentReader<'a, F>> {
        Ok(SegmentReader { file, size: file.size()?, salt, buffer: Vec::new(), start: 0 })
    }

    /// The length of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Up to `len` bytes at `offset`; fewer only at the end of the file.
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let end = self.start + self.buffer.len() as u64;
        if offset < self.start || offset + len as u64 > end {
            // Both are bounded by what the file really holds.
            self.buffer.resize(len.max(READ_LEN).min(left), 0);
            let read = self.file.read_at(offset, &mut self.buffer)?;
            self.buffer.truncate(read);
            self.start = offset;
        }
        let at = usize::try_from(offset - self.start).expect("within the buffer");
        let at = at.min(self.buffer.len());
        let to = (at + len).min(self.buffer.len());
        Ok(&self.buffer[at..to])
    }

    /// The header of the valid record at `offset`, or `None` if there is none.
    pub(super) fn record(&mut self, offset: u64) -> io::Result<Option<RecordHeader>> {
        let salt = self.salt;
        let Some(bytes) = self.bytes(offset, RECORD_HEADER_LEN)?.first_chunk::<RECORD_HEADER_LEN>() else {
            return Ok(None);
        };
        let Some(header) = RecordHeader::decode(bytes, salt) else { return Ok(None) };
        let record = self.bytes(offset, header.size())?;
        Ok((record.len() == header.size() && record_crc(record, salt) == header.crc).then_some(header))
    }

    /// The payload of the record that [`SegmentReader::record`] has just found.
    pub(super) fn payload(&mut self, offset: u64, header: &RecordHeader) -> io::Result<&[u8]> {
        self.bytes(offset + RECORD_HEADER_LEN as u64, header.payload_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        assert_eq!(parse_name(&name(0x1f)), Some(0x1f));
        for other in [
            "wal-1.log",
            "wal-000000000000001F.log",
            "wal-000000000000001f.tmp",
            "IDENTITY",
            "wal-+00000000000001f.log",
        ] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        assert!(is_temporary(&temporary_name(3)));
        assert_eq!((parse_torn_name(&torn_name(0x1f)), parse_torn_name(&name(0x1f))), (Some(0x1f), None));
    }
}
