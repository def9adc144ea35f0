//! Reading a snapshot: verified blocks for a peer, or the body from front to back.

use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

use super::super::{Disk, DiskFile};
use super::block::{self, FOOTER_BLOCK_LEN, Fault, Footer, HEAD_LEN, Kind, Tally};
use super::{FRONT_LEN, SNAPSHOT_BLOCK_LEN_MAX, SnapshotError, SnapshotFront, SnapshotHeader, SnapshotId};

/// A header block that was checked, and what follows from it.
pub(super) struct Opening {
    pub(super) header: SnapshotHeader,
    pub(super) id: SnapshotId,
    /// With which the checksums of all other blocks start.
    pub(super) salt: u32,
    /// The block's length.
    pub(super) len: usize,
    pub(super) tally: Tally,
}

impl Opening {
    /// Checks the bytes of a header block; `name` is the file that they are from or will be in.
    pub(super) fn check<D: Disk>(disk: &D, name: &str, bytes: &[u8]) -> Result<Opening, SnapshotError> {
        let (salt, payload) = block::check(bytes, Kind::Header, 0, 0)
            .map_err(|fault| SnapshotError::bad_block(disk, name, 0, FRONT_LEN as u64, fault))?;
        let header = SnapshotHeader::decode(payload)
            .map_err(|source| SnapshotError::BadHeader { file: disk.path(name), source })?;
        let id = SnapshotId { index: header.index, digest: xxh3_64(bytes) };
        Ok(Opening { header, id, salt, len: bytes.len(), tally: Tally::new(bytes) })
    }

    /// Reads the header block of a file.
    pub(super) fn read<D: Disk>(disk: &D, name: &str, file: &D::File) -> Result<Opening, SnapshotError> {
        let size = file.size().map_err(SnapshotError::io(disk, name))?;
        // As much as a block may be long; it is seldom half a kilobyte.
        let rest = usize::try_from(size.saturating_sub(FRONT_LEN as u64)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; rest.min(SNAPSHOT_BLOCK_LEN_MAX)];
        let read = file.read_at(FRONT_LEN as u64, &mut bytes).map_err(SnapshotError::io(disk, name))?;
        bytes.truncate(read);
        if let Ok(len) = block::announced_len(&bytes) {
            bytes.truncate(len);
        }
        Opening::check(disk, name, &bytes)
    }

    /// Where the body block with this number begins; they are counted from 1.
    pub(super) fn offset(&self, number: u32) -> u64 {
        let before = u64::from(number.saturating_sub(1)) * SNAPSHOT_BLOCK_LEN_MAX as u64;
        (FRONT_LEN + self.len) as u64 + before
    }
}

/// An open snapshot file, whose front, header and footer are right and whose length is what they say.
pub struct SnapshotReader<D: Disk> {
    disk: D,
    name: String,
    file: D::File,
    size: u64,
    front: SnapshotFront,
    opening: Opening,
    footer: Footer,
    /// The next body block of [`SnapshotReader::next_payload`].
    next: u32,
    tally: Tally,
    block: Vec<u8>,
}

impl<D: Disk> SnapshotReader<D> {
    /// Opens a snapshot and checks its front, header, footer and length.
    ///
    /// # Errors
    /// Damage, a newer format, or what the system says.
    pub fn open(disk: &D, name: &str) -> Result<SnapshotReader<D>, SnapshotError> {
        let file = disk.open(name).map_err(SnapshotError::io(disk, name))?;
        SnapshotReader::of(disk, name, file)
    }

    pub(super) fn of(disk: &D, name: &str, file: D::File) -> Result<SnapshotReader<D>, SnapshotError> {
        let front = SnapshotFront::read(disk, name, &file)?;
        let opening = Opening::read(disk, name, &file)?;
        let size = file.size().map_err(SnapshotError::io(disk, name))?;
        let cut = |expected: u64| SnapshotError::Damaged {
            file: disk.path(name),
            offset: size.min(expected),
            what: "it does not have the length that its blocks have",
        };
        let body_begins = opening.offset(1);
        let least = body_begins + FOOTER_BLOCK_LEN as u64;
        let area = size.checked_sub(least).ok_or_else(|| cut(least))?;
        let count = area.div_ceil(SNAPSHOT_BLOCK_LEN_MAX as u64);
        let (Ok(body_blocks), true) = (
            u32::try_from(count),
            area % SNAPSHOT_BLOCK_LEN_MAX as u64 > HEAD_LEN as u64 || area == count << 16,
        ) else {
            return Err(cut(size));
        };
        let mut bytes = [0; FOOTER_BLOCK_LEN];
        let offset = size - FOOTER_BLOCK_LEN as u64;
        let read = file.read_at(offset, &mut bytes).map_err(SnapshotError::io(disk, name))?;
        let number = body_blocks.checked_add(1).ok_or_else(|| cut(size))?;
        let footer = block::check(&bytes[..read], Kind::Footer, number, opening.salt)
            .and_then(|(_, payload)| Footer::decode(payload))
            .and_then(|footer| match footer.body_blocks == body_blocks {
                true => Ok(footer),
                false => Err(Fault::new("number of body blocks", body_blocks, footer.body_blocks)),
            })
            .map_err(|fault| SnapshotError::bad_block(disk, name, number, offset, fault))?;
        let tally = opening.tally.clone();
        let (disk, name, block) = (disk.clone(), name.to_owned(), Vec::new());
        Ok(SnapshotReader { disk, name, file, size, front, opening, footer, next: 1, tally, block })
    }

    /// What it is of.
    pub fn header(&self) -> &SnapshotHeader {
        &self.opening.header
    }

    /// Its name among all snapshots.
    pub fn id(&self) -> SnapshotId {
        self.opening.id
    }

    /// What it says about the node that it lies at.
    pub fn front(&self) -> SnapshotFront {
        self.front
    }

    /// Where it is, for messages.
    pub fn path(&self) -> PathBuf {
        self.disk.path(&self.name)
    }

    /// The length of the file in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.size
    }

    /// How many blocks there are, header and footer included: their numbers are below this.
    pub fn block_count(&self) -> u32 {
        self.footer.body_blocks + 2
    }

    /// Replaces `out` by the block with this number, as it goes to a peer.
    ///
    /// # Errors
    /// Damage, or what the system says.
    ///
    /// # Panics
    /// If there is no block with this number.
    pub fn read_block(&self, number: u32, out: &mut Vec<u8>) -> Result<(), SnapshotError> {
        assert!(number < self.block_count(), "block {number} of {}", self.block_count());
        let (kind, offset, salt) = match number {
            0 => (Kind::Header, FRONT_LEN as u64, 0),
            _ if number <= self.footer.body_blocks => {
                (Kind::Body, self.opening.offset(number), self.opening.salt)
            }
            _ => (Kind::Footer, self.size - FOOTER_BLOCK_LEN as u64, self.opening.salt),
        };
        let end = match kind {
            Kind::Header => self.opening.offset(1),
            Kind::Body => (offset + SNAPSHOT_BLOCK_LEN_MAX as u64).min(self.size - FOOTER_BLOCK_LEN as u64),
            Kind::Footer => self.size,
        };
        let len = usize::try_from(end - offset).expect("a block has at most 64 KiB");
        out.resize(len, 0);
        let read = self.file.read_at(offset, out).map_err(SnapshotError::io(&self.disk, &self.name))?;
        out.truncate(read);
        block::check(out, kind, number, salt)
            .map(drop)
            .map_err(|fault| SnapshotError::bad_block(&self.disk, &self.name, number, offset, fault))
    }

    /// The next bytes of the body, or `None` at its end. All of it is verified only when the end has come: then
    /// the digest over all blocks was right too.
    ///
    /// # Errors
    /// Damage, or what the system says.
    pub fn next_payload(&mut self) -> Result<Option<&[u8]>, SnapshotError> {
        if self.next > self.footer.body_blocks {
            let offset = self.size - FOOTER_BLOCK_LEN as u64;
            return match self.tally.check(&self.footer) {
                Ok(()) => Ok(None),
                Err(fault) => Err(SnapshotError::bad_block(&self.disk, &self.name, self.next, offset, fault)),
            };
        }
        let mut block = std::mem::take(&mut self.block);
        let read = self.read_block(self.next, &mut block);
        self.block = block;
        read?;
        self.tally.add(&self.block);
        self.next += 1;
        Ok(Some(&self.block[HEAD_LEN..]))
    }

    /// As [`SnapshotReader::next_payload`], but replaces `out` by the bytes. Says whether there were any.
    ///
    /// # Errors
    /// As [`SnapshotReader::next_payload`].
    pub fn read_payload(&mut self, out: &mut Vec<u8>) -> Result<bool, SnapshotError> {
        out.clear();
        let payload = self.next_payload()?;
        out.extend_from_slice(payload.unwrap_or_default());
        Ok(payload.is_some())
    }

    /// How many bytes of the file [`SnapshotReader::next_payload`] has gone through.
    pub fn done_bytes(&self) -> u64 {
        let Footer { body_len, body_blocks, .. } = self.tally.footer();
        self.opening.offset(1) + u64::from(body_blocks) * HEAD_LEN as u64 + body_len
    }

    pub(super) fn into_file(self) -> D::File {
        self.file
    }
}
