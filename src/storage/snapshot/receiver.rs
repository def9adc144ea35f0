//! Receiving a snapshot from a peer.
//!
//! Each block is checked and written to its place in a `.part` file. What is there after a crash, from the first block
//! on as far as the blocks are right, is not asked for again.

use super::super::{Disk, DiskFile};
use super::block::{self, Fault, Footer, Kind, Tally};
use super::reader::Opening;
use super::writer::UnpublishedSnapshot;
use super::{
    FRONT_LEN, SNAPSHOT_BLOCK_LEN_MAX, SYNC_EVERY, SnapshotError, SnapshotFront, SnapshotHeader, SnapshotId,
    is_ours, part_name, remove_all,
};

/// A snapshot on its way from a peer.
pub struct SnapshotReceiver<D: Disk> {
    disk: D,
    name: String,
    file: D::File,
    opening: Opening,
    tally: Tally,
    /// The block that is to come next.
    next: u32,
    /// Where it will begin.
    position: u64,
    synced: u64,
    /// A body block was shorter than the others: the footer is next.
    body_ended: bool,
    complete: bool,
}

impl<D: Disk> SnapshotReceiver<D> {
    /// Begins with a header block, or goes on with what is there of the same snapshot. Anything else
    /// that was on its way is removed.
    ///
    /// # Errors
    /// A header block that is damaged or of a newer format, or what the system says.
    pub fn begin(disk: &D, header_block: &[u8]) -> Result<SnapshotReceiver<D>, SnapshotError> {
        let opening = Opening::check(disk, &part_name(Default::default()), header_block)?;
        if let Some(receiver) = SnapshotReceiver::resume(disk)?
            && receiver.id() == opening.id
        {
            return Ok(receiver);
        }
        let name = part_name(opening.header.index);
        Self::remove_parts(disk).map_err(SnapshotError::io(disk, &name))?;
        let file = disk.create(&name).map_err(SnapshotError::io(disk, &name))?;
        // The front is written when all of it is there.
        file.write_at(FRONT_LEN as u64, header_block).map_err(SnapshotError::io(disk, &name))?;
        // The name becomes durable with the first sync; until then there is nothing to be resumed.
        disk.sync_dir().map_err(SnapshotError::io(disk, &name))?;
        Ok(SnapshotReceiver::at(disk, name, file, opening))
    }

    fn at(disk: &D, name: String, file: D::File, opening: Opening) -> SnapshotReceiver<D> {
        let (tally, position) = (opening.tally.clone(), opening.offset(1));
        SnapshotReceiver {
            disk: disk.clone(),
            name,
            file,
            opening,
            tally,
            next: 1,
            position,
            synced: position,
            body_ended: false,
            complete: false,
        }
    }

    /// Goes on with what a connection or a process left unfinished, if there is anything. Reads all of it and
    /// writes it once more.
    ///
    /// # Errors
    /// What the system says. What is damaged is not received.
    pub fn resume(disk: &D) -> Result<Option<SnapshotReceiver<D>>, SnapshotError> {
        let names = disk.list().map_err(SnapshotError::io(disk, "."))?;
        for name in names.into_iter().rev().filter(|name| is_ours(name, ".part")) {
            let file = disk.open(&name).map_err(SnapshotError::io(disk, &name))?;
            let opening = match Opening::read(disk, &name, &file) {
                Ok(opening) => opening,
                Err(error @ SnapshotError::Io { .. }) => return Err(error),
                Err(_) => continue,
            };
            if part_name(opening.header.index) != name {
                continue;
            }
            let mut receiver = SnapshotReceiver::at(disk, name, file, opening);
            receiver.take_stock()?;
            return Ok(Some(receiver));
        }
        Ok(None)
    }

    /// Removes whatever was on its way.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_parts(disk: &D) -> std::io::Result<()> {
        remove_all(disk, disk.list()?.into_iter().filter(|name| is_ours(name, ".part")))
    }

    /// Goes over the blocks that are there.
    fn take_stock(&mut self) -> Result<(), SnapshotError> {
        let mut block = vec![0; self.opening.len];
        let read = self.file.read_at(FRONT_LEN as u64, &mut block);
        read.map_err(SnapshotError::io(&self.disk, &self.name))?;
        let written = self.file.write_at(FRONT_LEN as u64, &block);
        written.map_err(SnapshotError::io(&self.disk, &self.name))?;
        while !self.complete {
            block.resize(SNAPSHOT_BLOCK_LEN_MAX, 0);
            let read = self.file.read_at(self.position, &mut block);
            let read = read.map_err(SnapshotError::io(&self.disk, &self.name))?;
            block.truncate(read);
            match block::announced_len(&block) {
                Ok(len) if len <= block.len() => block.truncate(len),
                _ => break,
            }
            let position = self.position;
            if self.admit(&block).is_err() {
                break;
            }
            // Read back is not durable: after a sync that failed, the kernel takes pages for clean that the disk
            // never got. Written once more, they are in the next sync.
            self.file.write_at(position, &block).map_err(SnapshotError::io(&self.disk, &self.name))?;
        }
        self.synced = self.opening.offset(1);
        Ok(())
    }

    /// What it will be of.
    pub fn header(&self) -> &SnapshotHeader {
        &self.opening.header
    }

    /// Its name among all snapshots.
    pub fn id(&self) -> SnapshotId {
        self.opening.id
    }

    /// The number of the block to ask for.
    pub fn next_block(&self) -> u32 {
        self.next
    }

    /// How many bytes are there.
    pub fn len_bytes(&self) -> u64 {
        self.position
    }

    /// Whether all blocks are there.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes a block of this snapshot. One that is not the next is ignored. From time to time this waits for a
    /// sync.
    ///
    /// # Errors
    /// The block is not right: the peer, its disk or the way is not to be trusted. Nothing has changed then. Or
    /// what the system says.
    pub fn push(&mut self, number: u32, block: &[u8]) -> Result<(), SnapshotError> {
        if number != self.next || self.complete {
            return Ok(());
        }
        let position = self.position;
        self.admit(block)
            .map_err(|fault| SnapshotError::bad_block(&self.disk, &self.name, number, position, fault))?;
        self.file.write_at(position, block).map_err(SnapshotError::io(&self.disk, &self.name))?;
        if self.position - self.synced >= SYNC_EVERY {
            self.file.sync_data().map_err(SnapshotError::io(&self.disk, &self.name))?;
            self.synced = self.position;
        }
        Ok(())
    }

    /// Counts a block as there, if it is the next one.
    fn admit(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if block::claims_footer(bytes) {
            let (_, payload) = block::check(bytes, Kind::Footer, self.next, self.opening.salt)?;
            self.tally.check(&Footer::decode(payload)?)?;
            self.complete = true;
        } else {
            block::check(bytes, Kind::Body, self.next, self.opening.salt)?;
            if self.body_ended {
                return Err(Fault::new("kind", 1u8, 2u8));
            }
            // The footer's number has to fit too.
            if self.next >= u32::MAX - 1 {
                return Err(Fault::new("number", self.next, u32::MAX - 1));
            }
            self.tally.add(bytes);
            self.body_ended = bytes.len() < SNAPSHOT_BLOCK_LEN_MAX;
        }
        self.next += 1;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Ends it: writes what is this node's own, and syncs.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// If blocks are missing.
    pub fn finish(self, front: SnapshotFront) -> Result<UnpublishedSnapshot<D>, SnapshotError> {
        assert!(self.complete, "all blocks are there");
        let io = || SnapshotError::io(&self.disk, &self.name);
        self.file.write_at(0, &front.encode()).map_err(io())?;
        // A file that was resumed may have had more behind what was right of it.
        self.file.set_len(self.position).map_err(io())?;
        self.file.sync_all().map_err(io())?;
        let index = self.opening.header.index;
        UnpublishedSnapshot::new(self.disk, self.file, self.name, index)
    }
}
