//! The log and the small files of a data directory, after the disk has done what it liked with them.

use std::cell::OnceCell;

use lanekv::storage::{
    Disk, DiskFile, Identity, Log, LogOptions, MemoryDisk, OpenError, RECORD_HEADER_LEN, RecordGroup,
    SyncMode,
};
use lanekv::types::{DiskId, NodeId};

use super::script::{Front, steps};

/// Where records begin in a segment; docs/formats.md.
const SEGMENT_HEADER_LEN: usize = 512;

/// Kind and payload of a record.
type Kept = (u8, Vec<u8>);

/// Records that were synced together, and where they are.
struct Group {
    file: usize,
    start: usize,
    end: usize,
}

/// A log that was written and not harmed yet.
struct Written {
    files: Vec<(String, Vec<u8>)>,
    records: Vec<Kept>,
    groups: Vec<Group>,
    mode: SyncMode,
}

fn identity_of_all() -> Identity {
    Identity { node: NodeId::new(2).expect("below 64"), disk_id: DiskId(9), joining: false }
}

fn options(mode: SyncMode, seed: u64) -> LogOptions {
    LogOptions {
        segment_len: LogOptions::SEGMENT_LEN_MIN,
        window_len: 256,
        sync: mode,
        ..LogOptions::new(identity_of_all(), seed)
    }
}

fn content(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).expect("the file is there");
    let mut bytes = vec![0; usize::try_from(file.size().expect("in memory")).expect("small")];
    file.read_at(0, &mut bytes).expect("in memory");
    bytes
}

fn put(disk: &MemoryDisk, name: &str, bytes: &[u8]) {
    let file = disk.create(name).expect("in memory");
    file.write_at(0, bytes).expect("in memory");
    file.sync_all().expect("in memory");
    disk.sync_dir().expect("in memory");
}

/// Writes groups of records, each synced, and notes where they are.
fn write(mode: SyncMode, groups: &[&[usize]], clean: bool) -> Written {
    let disk = MemoryDisk::new();
    let (mut log, _) = Log::open(&disk, options(mode, 1), |_, _, _| Ok(())).expect("an empty disk");
    let mut written = Written { files: Vec::new(), records: Vec::new(), groups: Vec::new(), mode };
    for lens in groups {
        let mut group = RecordGroup::new();
        let mut lsn = log.last();
        for len in *lens {
            lsn = lsn.next();
            let kind = lsn.0.to_le_bytes()[0];
            let payload: Vec<u8> = (0..*len).map(|i| i.to_le_bytes()[0] ^ kind.wrapping_mul(37)).collect();
            group.push(lsn, kind, |out| out.extend_from_slice(&payload));
            written.records.push((kind, payload));
        }
        let len = group.len_bytes();
        log.append(&mut group).expect("in memory");
        log.sync().expect("in memory");
        let file = log.segments().len() - 1;
        let before = written.groups.last().filter(|before| before.file == file);
        let start = before.map_or(SEGMENT_HEADER_LEN, |before| before.end);
        written.groups.push(Group { file, start, end: start + len });
    }
    if clean {
        log.write_clean_mark().expect("in memory");
    }
    drop(log);
    for name in disk.list().expect("in memory") {
        written.files.push((name.clone(), content(&disk, &name)));
    }
    // The marker of the weak modes comes before the segments, by name.
    written.files.sort_by_key(|(name, _)| !name.starts_with("wal-"));
    written
}

thread_local! {
    static LOGS: [OnceCell<Written>; 4] = const { [const { OnceCell::new() }; 4] };
}

fn make(which: usize) -> Written {
    match which {
        0 => write(SyncMode::Always, &[&[20, 17], &[3], &[0, 40], &[9]], false),
        1 => write(SyncMode::Always, &[&[900, 30], &[2500], &[700], &[16, 1], &[5]], false),
        2 => write(SyncMode::Always, &[&[20, 17], &[3]], true),
        _ => write(SyncMode::Never, &[&[20, 17], &[3], &[8]], false),
    }
}

/// What is done to a log.
struct Harm {
    files: Vec<(String, Vec<u8>)>,
    /// Only bytes were changed, nothing was cut, moved or given a new checksum.
    rot_only: bool,
}

impl Harm {
    fn step(&mut self, code: u8, payload: &[u8]) {
        let mut front = Front(payload);
        let which = usize::from(front.u8()) % self.files.len();
        let at = usize::from(front.u16());
        let (_, bytes) = &mut self.files[which];
        match code % 8 {
            0 => {
                let mask = front.u8();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            1 => bytes.iter_mut().skip(at).zip(front.rest()).for_each(|(byte, new)| *byte = *new),
            code => {
                self.rot_only = false;
                match code {
                    2 => bytes.truncate(at),
                    3 => seal_record(bytes, at),
                    4 => seal_header(bytes),
                    5 => drop(self.files.remove(which)),
                    6 => self.files[which].0 = format!("wal-{at:016x}.log"),
                    _ => bytes.extend_from_slice(front.rest()),
                }
            }
        }
    }
}

/// Gives the record at this place, or the first after it, checksums that are right: then the reader looks inside.
fn seal_record(segment: &mut [u8], at: usize) {
    let at = at.next_multiple_of(8).max(SEGMENT_HEADER_LEN);
    let Some(salt) = segment.get(48..52).map(|salt| u32::from_le_bytes([salt[0], salt[1], salt[2], salt[3]]))
    else {
        return;
    };
    let Some(record) = segment.get_mut(at..) else { return };
    let Some(len) = record.get(..4).map(|len| u32::from_le_bytes([len[0], len[1], len[2], len[3]])) else {
        return;
    };
    let size = (RECORD_HEADER_LEN + len as usize).next_multiple_of(8);
    let Some(record) = record.get_mut(..size) else { return };
    let check = crc32c::crc32c_append(crc32c::crc32c_append(salt, &record[..4]), &record[8..30]);
    record[30..32].copy_from_slice(&check.to_le_bytes()[..2]);
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(salt, &record[..4]), &record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Makes the checksums of a segment's header right.
fn seal_header(segment: &mut [u8]) {
    if segment.len() >= SEGMENT_HEADER_LEN {
        let crc = crc32c::crc32c(&segment[..12]);
        segment[12..16].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&segment[..508]);
        segment[508..512].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Opens a log and returns what it gives.
fn open(disk: &MemoryDisk, mode: SyncMode, seed: u64) -> Result<Vec<Kept>, OpenError> {
    let mut seen = Vec::new();
    let (log, recovered) = Log::open(disk, options(mode, seed), |lsn, kind, payload| {
        seen.push((kind, payload.to_vec()));
        assert_eq!(lsn.0, seen.len() as u64, "records come in order and without gaps");
        Ok(())
    })?;
    assert_eq!(recovered.last.0, seen.len() as u64);
    assert_eq!((log.last(), log.durable()), (recovered.last, recovered.last));
    Ok(seen)
}

/// One of four logs, chosen by the first byte, and a script of what happens to it.
pub(super) fn log(input: &[u8]) {
    let [which, script @ ..] = input else { return };
    LOGS.with(|logs| {
        let which = usize::from(which % 4);
        check_harm(logs[which].get_or_init(|| make(which)), script);
    });
}

fn check_harm(written: &Written, script: &[u8]) {
    let mut harm = Harm { files: written.files.clone(), rot_only: true };
    for (code, payload) in steps(script).take(16) {
        if harm.files.is_empty() {
            break;
        }
        harm.step(code, payload);
    }
    let disk = MemoryDisk::new();
    for (name, bytes) in &harm.files {
        put(&disk, name, bytes);
    }
    let must_be_damage = harm.rot_only && was_durable(written, &harm.files);
    let seen = match open(&disk, written.mode, 2) {
        Ok(seen) => seen,
        Err(error) => {
            assert!(!matches!(error, OpenError::Io { .. } | OpenError::InUse { .. }), "{error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(
        !must_be_damage,
        "records that had been durable are gone, and nobody is told: {} are left",
        seen.len()
    );
    if harm.rot_only {
        assert!(written.records.starts_with(&seen), "a record that was not written");
    }
    // What was read back is durable, and the next start finds the same.
    let after = disk.crash(&mut || 0);
    let again = open(&after, written.mode, 3);
    // Another machine start: the weak modes have to stop, the others go on.
    if written.mode == SyncMode::Always {
        assert_eq!(again.expect("what was repaired can be opened"), seen, "after another crash");
    }
}

/// Whether something before a whole later group was changed, so that its record says that the damaged one was durable.
fn was_durable(written: &Written, files: &[(String, Vec<u8>)]) -> bool {
    let is_whole = |group: &Group| {
        files[group.file].1[group.start..group.end] == written.files[group.file].1[group.start..group.end]
    };
    let Some(bad) = written.groups.iter().position(|group| !is_whole(group)) else { return false };
    let same_file = |group: &Group| group.file == written.groups[bad].file;
    written.groups[bad + 1..].iter().any(|group| !same_file(group) || is_whole(group))
}

/// The identity file or the marker of the weak modes, as the first byte says, with any content.
pub(super) fn identity(input: &[u8]) {
    let [choice, bytes @ ..] = input else { return };
    let mut bytes = bytes.to_vec();
    if choice & 2 != 0 && bytes.len() >= 20 {
        let crc = crc32c::crc32c(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        let body = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
    }
    let disk = MemoryDisk::new();
    if choice & 1 == 0 {
        put(&disk, "IDENTITY", &bytes);
        for node in [2, 63] {
            let node = NodeId::new(node).expect("below 64");
            match Identity::load_or_create(&disk, node, false, || DiskId(1)) {
                Ok((found, is_new)) => {
                    assert!(!is_new && found.node == node && found.disk_id != DiskId(0));
                    let twin = MemoryDisk::new();
                    Identity::load_or_create(&twin, node, found.joining, || found.disk_id)
                        .expect("an empty disk");
                    assert_eq!(content(&twin, "IDENTITY"), bytes, "only what was written is read");
                }
                Err(error) => assert!(!matches!(error, OpenError::Io { .. }), "{error}"),
            }
        }
        return;
    }
    put(&disk, "SYNC", &bytes);
    if let Err(error) = open(&disk, SyncMode::Always, 4) {
        assert!(!matches!(error, OpenError::Io { .. }), "{error}");
    }
}
