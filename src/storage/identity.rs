//! `IDENTITY`: whose data directory this is. Also the first 16 bytes that all our files share.
//!
//! A voter is a node with its disk. The file is written once, when the directory is made, and read
//! at each start; its disk id is what the other nodes remember. It is never written again.
//!
//! # Format
//! ```text
//!  0  8 bytes  magic "lanekvID"
//!  8  u32      format version, 1
//! 12  u32      CRC32C of bytes 0..12
//! 16  u64      node id, 0 to 63
//! 24  u64      disk id, not 0
//! 32  u64      1 if the directory was made to take the place of a lost one (`--rebuild`), else 0
//! 40  u32      CRC32C of bytes 0..40
//! ```
//! Every later version keeps the first 16 bytes as they are, so that an older program can tell
//! "newer than I am" from "damaged".

use std::io;

use crate::types::{DiskId, NodeId};
use crate::wire::{Reader, Writer};

use super::{Disk, DiskFile, OpenError, publish};

/// The identity's file.
pub(super) const IDENTITY_FILE: &str = "IDENTITY";
const IDENTITY_TEMPORARY: &str = "IDENTITY.tmp";
const MAGIC: [u8; 8] = *b"lanekvID";
const FORMAT_VERSION: u32 = 1;
const IDENTITY_LEN: usize = 44;

/// Length of what all files begin with: magic, version, checksum.
pub(super) const PREAMBLE_LEN: usize = 16;

/// What the first 16 bytes of a file say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preamble {
    Ours,
    Newer(u32),
    Damaged(&'static str),
}

pub(super) fn write_preamble(out: &mut Vec<u8>, magic: [u8; 8], version: u32) {
    let start = out.len();
    let mut w = Writer::new(out);
    w.bytes(&magic);
    w.u32(version);
    let crc = crc32c::crc32c(&out[start..]);
    Writer::new(out).u32(crc);
}

pub(super) fn check_preamble(bytes: &[u8], magic: [u8; 8], version: u32) -> Preamble {
    let Some(head) = bytes.first_chunk::<PREAMBLE_LEN>() else {
        return Preamble::Damaged("shorter than its header");
    };
    let mut fields = Reader::new(&head[8..]);
    let (Ok(found), Ok(crc)) = (fields.u32(), fields.u32()) else {
        unreachable!("eight bytes are left");
    };
    if head[..8] != magic {
        Preamble::Damaged("wrong magic number")
    } else if crc32c::crc32c(&head[..12]) != crc {
        Preamble::Damaged("wrong checksum of the version")
    } else if found > version {
        Preamble::Newer(found)
    } else if found != version {
        Preamble::Damaged("a format version that never was")
    } else {
        Preamble::Ours
    }
}

/// Reads a small file whole, or `None` if it is not there. One byte more than `len_max` at most.
pub(super) fn read_small<D: Disk>(
    disk: &D,
    name: &str,
    len_max: usize,
) -> Result<Option<Vec<u8>>, OpenError> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::on(disk, name)(error)),
    };
    let mut bytes = vec![0; len_max + 1];
    let len = file.read_at(0, &mut bytes).map_err(OpenError::on(disk, name))?;
    bytes.truncate(len);
    Ok(Some(bytes))
}

/// Whose data directory it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The disk; never zero.
    pub disk_id: DiskId,
    /// Made to take the place of a lost one.
    pub joining: bool,
}

impl Identity {
    /// Reads the identity of a data directory, or gives it one: `node`, the disk id that
    /// `new_disk_id` draws, and `joining`. Says also whether it was given now. On return it is durable.
    ///
    /// # Errors
    /// Another node's directory, a damaged or newer file, a log without an identity, or an I/O error.
    ///
    /// # Panics
    /// If `new_disk_id` draws zero, which means "not known".
    pub fn load_or_create<D: Disk>(
        disk: &D,
        node: NodeId,
        joining: bool,
        new_disk_id: impl FnOnce() -> DiskId,
    ) -> Result<(Identity, bool), OpenError> {
        if let Some(identity) = Identity::load(disk)? {
            if identity.node != node {
                return Err(OpenError::WrongNode { found: identity.node, expected: node });
            }
            return Ok((identity, false));
        }
        let names = disk.list().map_err(OpenError::on(disk, "."))?;
        if names.iter().any(|name| super::segment::parse_name(name).is_some()) {
            return Err(OpenError::damaged(disk, IDENTITY_FILE, 0, "missing, although there is a log"));
        }
        let identity = Identity { node, disk_id: new_disk_id(), joining };
        assert_ne!(identity.disk_id, DiskId(0), "disk id 0 means that it is not known");
        let bytes = identity.encode();
        publish(disk, IDENTITY_TEMPORARY, IDENTITY_FILE, |file| file.write_at(0, &bytes))
            .map_err(OpenError::on(disk, IDENTITY_FILE))?;
        Ok((identity, true))
    }

    /// Reads the identity of a data directory, if it has one.
    ///
    /// # Errors
    /// A damaged or newer file, or an I/O error.
    pub fn load<D: Disk>(disk: &D) -> Result<Option<Identity>, OpenError> {
        let bytes = read_small(disk, IDENTITY_FILE, IDENTITY_LEN)?;
        bytes.map(|bytes| Identity::decode(disk, &bytes)).transpose()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(IDENTITY_LEN);
        write_preamble(&mut bytes, MAGIC, FORMAT_VERSION);
        let mut w = Writer::new(&mut bytes);
        w.u64(u64::from(self.node.get()));
        w.u64(self.disk_id.0);
        w.u64(u64::from(self.joining));
        let crc = crc32c::crc32c(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    fn decode<D: Disk>(disk: &D, bytes: &[u8]) -> Result<Identity, OpenError> {
        let damaged = |offset, what| OpenError::damaged(disk, IDENTITY_FILE, offset, what);
        match check_preamble(bytes, MAGIC, FORMAT_VERSION) {
            Preamble::Ours => {}
            Preamble::Newer(found) => {
                let file = disk.path(IDENTITY_FILE);
                return Err(OpenError::NewerFormat { file, found, supported: FORMAT_VERSION });
            }
            Preamble::Damaged(what) => return Err(damaged(0, what)),
        }
        if bytes.len() != IDENTITY_LEN {
            return Err(damaged(PREAMBLE_LEN as u64, "wrong length"));
        }
        let mut r = Reader::new(&bytes[PREAMBLE_LEN..]);
        let (Ok(node), Ok(disk_id), Ok(joining), Ok(crc)) = (r.u64(), r.u64(), r.u64(), r.u32()) else {
            unreachable!("the length was checked");
        };
        if crc32c::crc32c(&bytes[..IDENTITY_LEN - 4]) != crc {
            return Err(damaged(PREAMBLE_LEN as u64, "wrong checksum"));
        }
        let node = u8::try_from(node).ok().and_then(NodeId::new);
        match node {
            Some(node) if disk_id != 0 && joining <= 1 => {
                Ok(Identity { node, disk_id: DiskId(disk_id), joining: joining == 1 })
            }
            _ => Err(damaged(PREAMBLE_LEN as u64, "no valid node, disk id or flag")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Call, MemoryDisk, Operation};
    use super::*;

    fn node(id: u8) -> NodeId {
        NodeId::new(id).expect("below 64")
    }

    #[test]
    fn it_is_written_once_and_published_whole() {
        let disk = MemoryDisk::new();
        disk.record_calls();
        let (made, fresh) = Identity::load_or_create(&disk, node(3), false, || DiskId(77)).unwrap();
        assert!(fresh);
        assert_eq!(
            disk.take_calls(),
            [
                Call::new(Operation::Create, IDENTITY_TEMPORARY),
                Call::new(Operation::Write, IDENTITY_TEMPORARY),
                Call::new(Operation::Sync, IDENTITY_TEMPORARY),
                Call::new(Operation::Rename, IDENTITY_FILE),
                Call::new(Operation::SyncDir, "."),
            ]
        );
        let survivor = disk.crash(&mut || 0);
        let (read, fresh) = Identity::load_or_create(&survivor, node(3), false, || DiskId(78)).unwrap();
        assert_eq!((read, fresh), (made, false));
        assert!(matches!(
            Identity::load_or_create(&survivor, node(4), false, || DiskId(78)),
            Err(OpenError::WrongNode { .. })
        ));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage() {
        let disk = MemoryDisk::new();
        Identity::load_or_create(&disk, node(3), false, || DiskId(77)).unwrap();
        let load = |disk: &MemoryDisk| Identity::load_or_create(disk, node(3), false, || DiskId(1));
        for bit in 0..IDENTITY_LEN * 8 {
            disk.corrupt(IDENTITY_FILE, bit as u64 / 8, 1 << (bit % 8));
            assert!(matches!(load(&disk), Err(OpenError::Damaged { .. })), "bit {bit}");
            disk.corrupt(IDENTITY_FILE, bit as u64 / 8, 1 << (bit % 8));
        }
        for len in (0..IDENTITY_LEN as u64).rev() {
            disk.open(IDENTITY_FILE).unwrap().set_len(len).unwrap();
            assert!(matches!(load(&disk), Err(OpenError::Damaged { .. })), "length {len}");
        }
    }

    #[test]
    fn a_newer_version_says_so() {
        let disk = MemoryDisk::new();
        let mut bytes = Vec::new();
        write_preamble(&mut bytes, MAGIC, 9);
        disk.create(IDENTITY_FILE).unwrap().write_at(0, &bytes).unwrap();
        assert!(matches!(
            Identity::load_or_create(&disk, node(3), false, || DiskId(1)),
            Err(OpenError::NewerFormat { found: 9, supported: FORMAT_VERSION, .. })
        ));
    }

    #[test]
    fn a_log_without_an_identity_is_not_taken_over() {
        let disk = MemoryDisk::new();
        disk.create("wal-0000000000000001.log").unwrap();
        assert!(matches!(
            Identity::load_or_create(&disk, node(3), false, || DiskId(1)),
            Err(OpenError::Damaged { offset: 0, .. })
        ));
    }
}
