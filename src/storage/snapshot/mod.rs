//! Snapshots: the state at one index in a file.
//!
//! A snapshot is a sequence of **blocks** of at most 64 KiB, each with its number and its checksum: the header, the
//! body, the footer. What they hold follows from the replicated state alone, so the same snapshot has the same
//! blocks on every node. A peer gets them one by one, and after a broken connection from where it stopped, from
//! another peer if need be. In front of the blocks stand 64 bytes that are this node's own: whose disk it is, and
//! from which record on the node's log goes on where the snapshot ends.
//!
//! | type | does |
//! |---|---|
//! | [`SnapshotWriter`] | makes a file of a header and a body that comes in pieces |
//! | [`SnapshotReceiver`] | makes the same file of blocks from a peer, and goes on with one begun before |
//! | [`UnpublishedSnapshot`] | what both end with: read back, block by block, and then published |
//! | [`SnapshotReader`] | reads it: verified blocks for a peer, or the body |
//!
//! All of them read and write files and belong on a helper thread. Each call does one small step, except for
//! [`SnapshotReceiver::resume`], which goes over all that is there.
//!
//! The rules:
//!
//! - A file has its name only when it is complete, verified and durable. What is unfinished is called `.tmp`
//!   ([`SnapshotWriter`]; of no use after a crash) or `.part` ([`SnapshotReceiver`]; resumed).
//! - The two newest are kept ([`remove_old_snapshots`]): if the newest is damaged, the one before it will do, with
//!   the log from where that one ends.
//! - A checksum covers each byte of a block, started with the checksum of the header block, so that no block
//!   passes for one of another snapshot. The digest in the footer covers all blocks. The error names file, block
//!   and offset, and what was found and expected.
//!
//! What the body is does not matter here: `store::image` knows. Nor do view, lanes and origins, which `protocol`
//! encodes and decodes.

mod block;
mod error;
mod reader;
mod receiver;
#[cfg(test)]
mod tests;
mod writer;

use std::io;

use crate::types::limits::SNAPSHOT_BLOCK_LEN_MAX;
use crate::types::{
    ClusterId, DiskId, Incarnation, Index, Lsn, Millis, NodeId, Position, SnapshotId, Timestamp, ViewNumber,
};
use crate::wire::{DecodeError, Reader, Writer};

use super::identity::{PREAMBLE_LEN, Preamble, check_preamble, write_preamble};
use super::{Disk, DiskFile};

pub use error::SnapshotError;
pub use reader::SnapshotReader;
pub use receiver::SnapshotReceiver;
pub use writer::{SnapshotWriter, UnpublishedSnapshot};

const MAGIC: [u8; 8] = *b"lanekvSN";
/// 2 brought deadlines and the time into the image.
const FORMAT_VERSION: u32 = 2;
/// Bytes before the first block.
const FRONT_LEN: usize = 64;
/// Most bytes of view, lanes and origins, each. The largest of them, a view of 64 voters, has some two thousand.
const PART_LEN_MAX: usize = 16 << 10;
/// How many snapshots are kept.
const KEPT_COUNT: usize = 2;
/// After so many bytes what is written is synced, so that the last sync does not hold up the log's.
const SYNC_EVERY: u64 = 8 << 20;

/// What a snapshot is of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotHeader {
    /// The cluster.
    pub cluster: ClusterId,
    /// The index of the last command in it.
    pub index: Index,
    /// The position of the last entry in it.
    pub position: Position,
    /// The replicated time.
    pub now: Millis,
    /// The digest of everything delivered, as in Status.
    pub delivered: u64,
    /// The digest of the state: that of the store which the body makes.
    pub digest: u64,
    /// How many keys there are.
    pub keys: u64,
    /// How many sessions are open.
    pub sessions: u64,
    /// The view of the position, as the protocol encodes it; at most 16 KiB.
    pub view: Vec<u8>,
    /// For each lane of that view the last entry in it, as the protocol encodes it; at most 16 KiB.
    pub lanes: Vec<u8>,
    /// The table of origins, as the protocol encodes it; at most 16 KiB.
    pub origins: Vec<u8>,
}

impl SnapshotHeader {
    /// Appends the payload of the header block.
    fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        w.u32(FORMAT_VERSION);
        w.u64(self.cluster.0);
        w.u64(self.index.0);
        w.u64(self.position.view.0);
        w.u64(self.position.t.0);
        w.u8(self.position.node.get());
        w.u64(self.now.0);
        w.u64(self.delivered);
        w.u64(self.digest);
        w.u64(self.keys);
        w.u64(self.sessions);
        for part in [&self.view, &self.lanes, &self.origins] {
            assert!(part.len() <= PART_LEN_MAX, "view, lanes and origins are limited by the number of nodes");
            w.blob(part);
        }
    }

    fn decode(payload: &[u8]) -> Result<SnapshotHeader, DecodeError> {
        let mut r = Reader::new(payload);
        let format = r.u32()?;
        if format != FORMAT_VERSION {
            return Err(DecodeError::Invalid { what: "snapshot format", found: u64::from(format) });
        }
        let (cluster, index) = (ClusterId(r.u64()?), Index(r.u64()?));
        let (view, t, node) = (ViewNumber(r.u64()?), Timestamp(r.u64()?), r.u8()?);
        let node = NodeId::new(node).ok_or(DecodeError::Invalid { what: "node", found: u64::from(node) })?;
        let header = SnapshotHeader {
            cluster,
            index,
            position: Position { view, t, node },
            now: Millis(r.u64()?),
            delivered: r.u64()?,
            digest: r.u64()?,
            keys: r.u64()?,
            sessions: r.u64()?,
            view: r.blob("view", PART_LEN_MAX)?.to_vec(),
            lanes: r.blob("lanes", PART_LEN_MAX)?.to_vec(),
            origins: r.blob("origins", PART_LEN_MAX)?.to_vec(),
        };
        r.finish()?;
        Ok(header)
    }
}

/// What a snapshot file says about the node that it lies at; not sent to peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapshotFront {
    /// The disk it was made on or received by; 0 in a backup.
    pub disk_id: DiskId,
    /// With the snapshot, a start needs the node's own log from this record on; 0 in a backup.
    pub log_from: Lsn,
    /// The incarnation that made or received it: the record of that start may be before `log_from`; 0 in a backup.
    pub incarnation: Incarnation,
}

impl SnapshotFront {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FRONT_LEN);
        write_preamble(&mut bytes, MAGIC, FORMAT_VERSION);
        let mut w = Writer::new(&mut bytes);
        w.u64(self.disk_id.0);
        w.u64(self.log_from.0);
        w.u64(self.incarnation.0);
        bytes.resize(FRONT_LEN - 4, 0);
        let crc = crc32c::crc32c(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    fn read<D: Disk>(disk: &D, name: &str, file: &D::File) -> Result<SnapshotFront, SnapshotError> {
        let mut bytes = [0; FRONT_LEN];
        let len = file.read_at(0, &mut bytes).map_err(SnapshotError::io(disk, name))?;
        let damaged = |offset, what| SnapshotError::Damaged { file: disk.path(name), offset, what };
        match check_preamble(&bytes[..len], MAGIC, FORMAT_VERSION) {
            Preamble::Ours => {}
            Preamble::Newer(found) => {
                let file = disk.path(name);
                return Err(SnapshotError::NewerFormat { file, found, supported: FORMAT_VERSION });
            }
            Preamble::Damaged(what) => return Err(damaged(0, what)),
        }
        let offset = PREAMBLE_LEN as u64;
        if len < FRONT_LEN {
            return Err(damaged(len as u64, "shorter than its front"));
        }
        let (body, crc) = bytes.split_at(FRONT_LEN - 4);
        if crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err(damaged(offset, "wrong checksum of the front"));
        }
        let mut r = Reader::new(&body[PREAMBLE_LEN..]);
        let (Ok(disk_id), Ok(log_from), Ok(incarnation)) = (r.u64(), r.u64(), r.u64()) else {
            unreachable!("the length was checked");
        };
        if r.rest().iter().any(|byte| *byte != 0) {
            return Err(damaged(offset + 24, "no zeros where there should be"));
        }
        let incarnation = Incarnation(incarnation);
        Ok(SnapshotFront { disk_id: DiskId(disk_id), log_from: Lsn(log_from), incarnation })
    }
}

/// The name of the snapshot of this index.
pub fn snapshot_name(index: Index) -> String {
    format!("snapshot-{:016x}.snap", index.0)
}

fn temporary_name(index: Index) -> String {
    format!("snapshot-{:016x}.tmp", index.0)
}

fn part_name(index: Index) -> String {
    format!("snapshot-{:016x}.part", index.0)
}

fn is_ours(name: &str, end: &str) -> bool {
    name.starts_with("snapshot-") && name.ends_with(end)
}

/// The index of the snapshot with this name, or `None` if it is no snapshot's name.
pub fn parse_snapshot_name(name: &str) -> Option<Index> {
    let digits = name.strip_prefix("snapshot-")?.strip_suffix(".snap")?;
    let index = Index(u64::from_str_radix(digits, 16).ok()?);
    (snapshot_name(index) == name).then_some(index)
}

/// A published snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotFile {
    /// The file's name.
    pub name: String,
    /// Its index, which the name says.
    pub index: Index,
    /// Its length in bytes.
    pub len: u64,
}

/// The snapshots on a disk, the newest first. Nothing of them is read.
///
/// # Errors
/// What the system says.
pub fn snapshots_on<D: Disk>(disk: &D) -> io::Result<Vec<SnapshotFile>> {
    let mut found = Vec::new();
    // Names have a fixed length, so their order is that of the indexes.
    for name in disk.list()?.into_iter().rev() {
        if let Some(index) = parse_snapshot_name(&name) {
            let len = disk.open(&name)?.size()?;
            found.push(SnapshotFile { name, index, len });
        }
    }
    Ok(found)
}

/// Removes all snapshots but the two newest. For the time after a new one was published, or installed.
///
/// # Errors
/// What the system says.
pub fn remove_old_snapshots<D: Disk>(disk: &D) -> io::Result<()> {
    let old: Vec<SnapshotFile> = snapshots_on(disk)?.into_iter().skip(KEPT_COUNT).collect();
    // The oldest first: whatever a crash leaves, the newer ones are there.
    remove_all(disk, old.into_iter().rev().map(|file| file.name))
}

/// Removes what a crash left of snapshots that this node was writing. Those on their way from a peer stay.
///
/// # Errors
/// What the system says.
pub fn remove_unfinished_snapshots<D: Disk>(disk: &D) -> io::Result<()> {
    remove_all(disk, disk.list()?.into_iter().filter(|name| is_ours(name, ".tmp")))
}

fn remove_all<D: Disk>(disk: &D, names: impl Iterator<Item = String>) -> io::Result<()> {
    let mut removed = false;
    for name in names {
        disk.remove(&name)?;
        removed = true;
    }
    if removed { disk.sync_dir() } else { Ok(()) }
}
