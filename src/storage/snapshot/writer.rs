//! Writing a snapshot, and publishing what is complete.

use std::path::PathBuf;

use crate::types::Index;

use super::super::{Disk, DiskFile, publish_written};
use super::block::{self, HEAD_LEN, Kind, PAYLOAD_LEN_MAX, Tally};
use super::reader::{Opening, SnapshotReader};
use super::{
    FRONT_LEN, SYNC_EVERY, SnapshotError, SnapshotFile, SnapshotFront, SnapshotHeader, snapshot_name,
    temporary_name,
};

/// Writes a snapshot under a temporary name, block by block.
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    index: Index,
    temporary: String,
    file: D::File,
    salt: u32,
    tally: Tally,
    /// The body block that is being filled: a head to be, and payload.
    block: Vec<u8>,
    position: u64,
    synced: u64,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins a snapshot.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// If view, lanes or origins of the header are longer than 16 KiB.
    pub fn create(
        disk: &D,
        front: SnapshotFront,
        header: &SnapshotHeader,
    ) -> Result<SnapshotWriter<D>, SnapshotError> {
        let temporary = temporary_name(header.index);
        let mut first = Vec::new();
        block::begin(&mut first);
        header.encode(&mut first);
        block::seal(&mut first, Kind::Header, 0, 0);
        let Opening { salt, tally, .. } = Opening::check(disk, &temporary, &first)?;
        let mut bytes = front.encode();
        bytes.extend_from_slice(&first);
        let file = disk.create(&temporary).map_err(SnapshotError::io(disk, &temporary))?;
        file.write_at(0, &bytes).map_err(SnapshotError::io(disk, &temporary))?;
        let mut block = Vec::with_capacity(HEAD_LEN + PAYLOAD_LEN_MAX);
        block::begin(&mut block);
        let (index, position) = (header.index, bytes.len() as u64);
        Ok(SnapshotWriter {
            disk: disk.clone(),
            index,
            temporary,
            file,
            salt,
            tally,
            block,
            position,
            synced: 0,
        })
    }

    /// How many bytes of the body fit into the block that is being filled: so many cause one write.
    pub fn room(&self) -> usize {
        HEAD_LEN + PAYLOAD_LEN_MAX - self.block.len()
    }

    /// How many bytes are written.
    pub fn len_bytes(&self) -> u64 {
        self.position
    }

    /// Where it is being written, for messages.
    pub fn path(&self) -> PathBuf {
        self.disk.path(&self.temporary)
    }

    /// Takes the next bytes of the body. From time to time this waits for a sync.
    ///
    /// # Errors
    /// What the system says. The snapshot is of no use then.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(self.room().min(bytes.len()));
            self.block.extend_from_slice(part);
            bytes = rest;
            if self.room() == 0 {
                self.write_body()?;
            }
        }
        Ok(())
    }

    fn write_body(&mut self) -> Result<(), SnapshotError> {
        let number = self.tally.footer().body_blocks + 1;
        block::seal(&mut self.block, Kind::Body, number, self.salt);
        self.tally.add(&self.block);
        self.write()?;
        if self.position - self.synced >= SYNC_EVERY {
            self.file.sync_data().map_err(SnapshotError::io(&self.disk, &self.temporary))?;
            self.synced = self.position;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), SnapshotError> {
        let written = self.file.write_at(self.position, &self.block);
        written.map_err(SnapshotError::io(&self.disk, &self.temporary))?;
        self.position += self.block.len() as u64;
        block::begin(&mut self.block);
        Ok(())
    }

    /// Ends the body, writes the footer and syncs.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self) -> Result<UnpublishedSnapshot<D>, SnapshotError> {
        if self.block.len() > HEAD_LEN {
            self.write_body()?;
        }
        let footer = self.tally.footer();
        footer.encode(&mut self.block);
        block::seal(&mut self.block, Kind::Footer, footer.body_blocks + 1, self.salt);
        self.write()?;
        self.file.sync_all().map_err(SnapshotError::io(&self.disk, &self.temporary))?;
        UnpublishedSnapshot::new(self.disk, self.file, self.temporary, self.index)
    }

    /// Gives up, and removes what was written.
    ///
    /// # Errors
    /// What the system says.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        self.disk.remove(&self.temporary).map_err(SnapshotError::io(&self.disk, &self.temporary))
    }
}

/// A complete snapshot that has not got its name yet. It is read back first.
pub struct UnpublishedSnapshot<D: Disk> {
    disk: D,
    temporary: String,
    index: Index,
    reader: SnapshotReader<D>,
    checked: bool,
}

impl<D: Disk> UnpublishedSnapshot<D> {
    pub(super) fn new(
        disk: D,
        file: D::File,
        temporary: String,
        index: Index,
    ) -> Result<UnpublishedSnapshot<D>, SnapshotError> {
        let reader = SnapshotReader::of(&disk, &temporary, file)?;
        Ok(UnpublishedSnapshot { disk, temporary, index, reader, checked: false })
    }

    /// Reads the next bytes of the body back, verified; `None` when all of it has been read.
    ///
    /// # Errors
    /// The file is not what was written: the disk is not to be trusted.
    pub fn next_payload(&mut self) -> Result<Option<&[u8]>, SnapshotError> {
        let payload = self.reader.next_payload()?;
        self.checked |= payload.is_none();
        Ok(payload)
    }

    /// How many bytes it has.
    pub fn len_bytes(&self) -> u64 {
        self.reader.len_bytes()
    }

    /// Gives up, and removes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        self.disk.remove(&self.temporary).map_err(SnapshotError::io(&self.disk, &self.temporary))
    }

    /// How many bytes have been read back.
    pub fn done_bytes(&self) -> u64 {
        self.reader.done_bytes()
    }

    /// Where it is, for messages.
    pub fn path(&self) -> PathBuf {
        self.reader.path()
    }

    /// Gives it its name. From now on it counts.
    ///
    /// # Errors
    /// What the system says. It may then have its name or not.
    ///
    /// # Panics
    /// If it was not read back to the end.
    pub fn publish(self) -> Result<SnapshotFile, SnapshotError> {
        assert!(self.checked, "a snapshot is verified before it counts");
        let len = self.reader.len_bytes();
        let name = snapshot_name(self.index);
        debug_assert!(len > FRONT_LEN as u64, "it has a header");
        let file = self.reader.into_file();
        publish_written(&self.disk, &file, &self.temporary, &name)
            .map_err(SnapshotError::io(&self.disk, &name))?;
        Ok(SnapshotFile { name, index: self.index, len })
    }
}
