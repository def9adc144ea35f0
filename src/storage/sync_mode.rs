//! When a group is synced, and the `SYNC` marker of the modes that do not sync each.
//!
//! In a weak mode the kernel holds records that the disk does not. As long as the machine lives, a
//! restarted process finds them; after a restart of the machine nobody can tell what is missing, not even
//! that something is. So the directory carries a marker with the mode and the kernel's boot id.
//! Found at a start without a clean stop and under another boot id, it means: what this node
//! promised may be lost, and it must come back by `--rebuild`.
//!
//! # Format
//! ```text
//!  0  8 bytes  magic "lanekvSY"
//!  8  u32      format version, 1
//! 12  u32      CRC32C of bytes 0..12
//! 16  u8       mode: 1 interval, 2 never
//! 17  u64      interval in milliseconds, 0 for never
//! 25  u32      length of the boot id, at most 64; 0 if it is not known
//! 29           boot id
//!     u32      CRC32C of everything before
//! ```

use std::fmt;
use std::io;

use crate::types::Millis;
use crate::wire::{DecodeError, Reader, Writer};

use super::identity::{PREAMBLE_LEN, Preamble, check_preamble, read_small, write_preamble};
use super::{Disk, DiskFile, OpenError, publish};

const MARKER_FILE: &str = "SYNC";
const MARKER_TEMPORARY: &str = "SYNC.tmp";
const MAGIC: [u8; 8] = *b"lanekvSY";
const FORMAT_VERSION: u32 = 1;
const BOOT_ID_LEN_MAX: usize = 64;
const MARKER_LEN_MAX: usize = 33 + BOOT_ID_LEN_MAX;

/// When the log makes ordinary groups durable. A group that asks for it
/// ([`super::RecordGroup::require_sync`]) is synced at once in every mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncMode {
    /// Before they are reported. Nothing acknowledged is lost when the power fails everywhere.
    #[default]
    Always,
    /// At least this often; they are reported as soon as they are written.
    Interval(Millis),
    /// When the kernel thinks fit.
    Never,
}

impl fmt::Display for SyncMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncMode::Always => f.write_str("always"),
            SyncMode::Interval(every) => write!(f, "interval {every}"),
            SyncMode::Never => f.write_str("never"),
        }
    }
}

/// The marker as found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Marker {
    mode: SyncMode,
    boot_id: String,
}

impl Marker {
    /// Reads the marker, if there is one.
    pub(super) fn load<D: Disk>(disk: &D) -> Result<Option<Marker>, OpenError> {
        let Some(bytes) = read_small(disk, MARKER_FILE, MARKER_LEN_MAX)? else { return Ok(None) };
        match check_preamble(&bytes, MAGIC, FORMAT_VERSION) {
            Preamble::Ours => {}
            Preamble::Newer(found) => {
                let file = disk.path(MARKER_FILE);
                return Err(OpenError::NewerFormat { file, found, supported: FORMAT_VERSION });
            }
            Preamble::Damaged(what) => return Err(OpenError::damaged(disk, MARKER_FILE, 0, what)),
        }
        let offset = PREAMBLE_LEN as u64;
        let damaged = |what| OpenError::damaged(disk, MARKER_FILE, offset, what);
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("too short"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(damaged("wrong checksum"));
        }
        let marker = Marker::decode(body.get(PREAMBLE_LEN..).unwrap_or_default());
        marker.map(Some).map_err(|_| damaged("no valid mode or boot id"))
    }

    /// The mode in which the log was used.
    pub(super) fn mode(&self) -> SyncMode {
        self.mode
    }

    /// Fails if the marker says that records may have been lost.
    pub(super) fn check<D: Disk>(&self, disk: &D) -> Result<(), OpenError> {
        let same_boot = !self.boot_id.is_empty() && disk.boot_id().as_ref() == Some(&self.boot_id);
        if same_boot { Ok(()) } else { Err(OpenError::WeakSyncLost { mode: self.mode }) }
    }

    /// Makes the marker say what `mode` needs, durably. Only after everything read back is durable.
    pub(super) fn store<D: Disk>(disk: &D, mode: SyncMode) -> Result<(), OpenError> {
        if mode == SyncMode::Always {
            return match disk.remove(MARKER_FILE) {
                Ok(()) => disk.sync_dir(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
            .map_err(OpenError::on(disk, MARKER_FILE));
        }
        let boot_id = disk.boot_id().filter(|id| id.len() <= BOOT_ID_LEN_MAX).unwrap_or_default();
        let bytes = Marker { mode, boot_id }.encode();
        publish(disk, MARKER_TEMPORARY, MARKER_FILE, |file| file.write_at(0, &bytes))
            .map(drop)
            .map_err(OpenError::on(disk, MARKER_FILE))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MARKER_LEN_MAX);
        write_preamble(&mut bytes, MAGIC, FORMAT_VERSION);
        let mut w = Writer::new(&mut bytes);
        let (mode, every) = match self.mode {
            SyncMode::Always => (0, Millis(0)),
            SyncMode::Interval(every) => (1, every),
            SyncMode::Never => (2, Millis(0)),
        };
        w.u8(mode);
        w.u64(every.0);
        w.blob(self.boot_id.as_bytes());
        let crc = crc32c::crc32c(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Marker, DecodeError> {
        let mut r = Reader::new(bytes);
        let (mode, every) = (r.u8()?, Millis(r.u64()?));
        let boot_id = String::from_utf8_lossy(r.blob("boot id", BOOT_ID_LEN_MAX)?).into_owned();
        r.finish()?;
        let mode = match mode {
            1 => SyncMode::Interval(every),
            2 => SyncMode::Never,
            found => return Err(DecodeError::Invalid { what: "sync mode", found: u64::from(found) }),
        };
        Ok(Marker { mode, boot_id })
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryDisk;
    use super::*;

    #[test]
    fn it_knows_this_boot_from_another() {
        let disk = MemoryDisk::new();
        for mode in [SyncMode::Interval(Millis(50)), SyncMode::Never] {
            Marker::store(&disk, mode).unwrap();
            let marker = Marker::load(&disk).unwrap().expect("just stored");
            assert_eq!(marker.mode, mode);
            assert!(marker.check(&disk).is_ok());
            let after = disk.crash(&mut || 0);
            let marker = Marker::load(&after).unwrap().expect("it was durable");
            assert!(matches!(marker.check(&after), Err(OpenError::WeakSyncLost { mode: m }) if m == mode));
        }
        Marker::store(&disk, SyncMode::Always).unwrap();
        assert_eq!(Marker::load(&disk).unwrap(), None);
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let disk = MemoryDisk::new();
        Marker::store(&disk, SyncMode::Never).unwrap();
        for bit in 0..disk.open(MARKER_FILE).unwrap().size().unwrap() * 8 {
            disk.corrupt(MARKER_FILE, bit / 8, 1 << (bit % 8));
            assert!(matches!(Marker::load(&disk), Err(OpenError::Damaged { .. })), "bit {bit}");
            disk.corrupt(MARKER_FILE, bit / 8, 1 << (bit % 8));
        }
    }
}
