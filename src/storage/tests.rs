//! The log as a whole: what comes back after stops, cuts, flipped bits and lost power.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::segment::SEGMENT_HEADER_LEN;
use super::*;
use crate::types::{DiskId, Lsn, NodeId};

/// A directory that goes with the value.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub(super) fn new(name: &str) -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lanekv-{}-{unique}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A payload that follows from the record's number and its own length.
pub(super) struct Payload {
    seed: u64,
    len: usize,
}

impl Payload {
    pub(super) fn new(lsn: u64, len: usize) -> Payload {
        Payload { seed: lsn, len }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend((0..self.len as u64).map(|i| (self.seed.wrapping_mul(31) ^ (i * 7)).to_le_bytes()[0]));
    }
}

fn splitmix(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || crate::types::splitmix64(&mut state)
}

pub(super) fn options(segment_len: u64, sync: SyncMode) -> LogOptions {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let identity = Identity { node: NodeId::new(2).unwrap(), disk_id: DiskId(9), joining: false };
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    LogOptions { segment_len, window_len: segment_len / 8, sync, ..LogOptions::new(identity, seed) }
}

/// A record as given back: number, kind, length. Its bytes have been compared.
type Seen = (u64, u8, usize);

fn open<D: Disk>(disk: &D, options: LogOptions) -> Result<(Log<D>, Recovered, Vec<Seen>), OpenError> {
    let mut seen: Vec<Seen> = Vec::new();
    let (log, recovered) = Log::open(disk, options, |lsn, kind, payload| {
        assert_eq!(lsn.0, seen.len() as u64 + 1, "records come in order and without gaps");
        let mut expected = Vec::new();
        Payload::new(lsn.0, payload.len()).write(&mut expected);
        assert_eq!(payload, expected, "record {lsn} is not what was written");
        seen.push((lsn.0, kind, payload.len()));
        Ok(())
    })?;
    assert_eq!(recovered.last.0, seen.len() as u64);
    assert_eq!((log.last(), log.durable()), (recovered.last, recovered.last));
    Ok((log, recovered, seen))
}

pub(super) fn read_back(disk: &MemoryDisk, segment_len: u64) -> Result<(Vec<Seen>, Recovered), OpenError> {
    let (_, recovered, seen) = open(disk, options(segment_len, SyncMode::Always))?;
    Ok((seen, recovered))
}

fn append<D: Disk>(log: &mut Log<D>, lens: &[usize]) -> io::Result<()> {
    let mut group = RecordGroup::new();
    let mut lsn = log.last();
    for &len in lens {
        lsn = lsn.next();
        group.push(lsn, kind_of(lsn.0), |out| Payload::new(lsn.0, len).write(out));
    }
    log.append(&mut group)
}

fn kind_of(lsn: u64) -> u8 {
    lsn.to_le_bytes()[0]
}

fn first_segment() -> String {
    segment::name(1)
}

/// Three synced groups of two records, in one segment. Also where each group begins, and the end.
fn three_groups() -> (MemoryDisk, Log<MemoryDisk>, [u64; 4]) {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, options(4096, SyncMode::Always)).unwrap();
    let group_len = 2 * (RECORD_HEADER_LEN as u64 + 24);
    for _ in 0..3 {
        append(&mut log, &[20, 17]).unwrap();
        log.sync().unwrap();
    }
    let start = SEGMENT_HEADER_LEN as u64;
    (disk, log, [0, 1, 2, 3].map(|i| start + i * group_len))
}

#[test]
fn records_come_back_from_real_files_again_and_again() {
    let temp = TempDir::new("log");
    let disk = FileDisk::open(temp.path()).unwrap();
    let mut count = 0;
    for round in 0..6 {
        let (mut log, recovered, seen) = open(&disk, options(12 << 10, SyncMode::Always)).unwrap();
        assert_eq!(seen.len(), count);
        assert_eq!(recovered.clean, round == 3);
        for &(lsn, kind, len) in &seen {
            assert_eq!((kind, len), (kind_of(lsn), lsn as usize % 50));
        }
        for _ in 0..40 {
            append(&mut log, &[(count + 1) % 50, (count + 2) % 50]).unwrap();
            log.sync().unwrap();
            log.fill_ahead().unwrap();
            count += 2;
        }
        if round == 2 {
            log.write_clean_mark().unwrap();
            assert!(append(&mut log, &[1]).is_err(), "nothing follows the clean mark");
        }
    }
    assert_eq!(disk.list().unwrap(), [segment::name(1), segment::name(2), segment::name(3)]);
}

#[test]
fn restarts_do_not_make_the_log_longer() {
    let (disk, log, _) = three_groups();
    drop(log);
    read_back(&disk, 4096).unwrap();
    let size = stored_bytes(&disk).unwrap();
    for i in 0..20 {
        let (mut log, ..) = open(&disk, options(4096, SyncMode::Always)).unwrap();
        if i % 3 == 0 {
            log.write_clean_mark().unwrap();
        }
        assert_eq!(stored_bytes(&disk).unwrap(), size);
        assert_eq!(disk.list().unwrap().len(), 1);
    }
}

#[test]
fn large_records_get_a_segment_as_long_as_they_need() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, options(4096, SyncMode::Always)).unwrap();
    let lens = [100, 3000, 20_000, 1, 700_000, 3552, 3553, 0, 5000];
    for len in lens {
        append(&mut log, &[len]).unwrap();
    }
    append(&mut log, &[4000, 4000, 4000]).unwrap();
    log.sync().unwrap();
    let spans = log.segments().to_vec();
    drop(log);
    let after = disk.crash(&mut || 0);
    let (log, recovered, seen) = open(&after, options(4096, SyncMode::Always)).unwrap();
    let found: Vec<usize> = seen.iter().map(|&(_, _, len)| len).collect();
    assert_eq!(found[..lens.len()], lens);
    assert_eq!(found[lens.len()..], [4000; 3]);
    let finished = spans.len() - 1;
    assert_eq!(log.segments()[..finished], spans[..finished]);
    assert_eq!(log.segments()[finished].first, spans[finished].first);
    assert_eq!(recovered.segments, spans.len());
    assert_eq!(spans.last().map(|span| span.first), Some(Lsn(10)));
}

#[test]
fn a_log_cut_anywhere_gives_a_prefix() {
    let (disk, log, bounds) = three_groups();
    drop(log);
    let size = disk.open(&first_segment()).unwrap().size().unwrap();
    let mut most = 6;
    for len in (0..=size).rev() {
        let cut = disk.fork();
        cut.open(&first_segment()).unwrap().set_len(len).unwrap();
        match read_back(&cut, 4096) {
            Ok((seen, recovered)) => {
                assert!(len >= bounds[0]);
                assert!(seen.len() <= most);
                most = seen.len();
                let complete = bounds.iter().filter(|&&end| end <= len).count() - 1;
                assert!(seen.len() >= 2 * complete && seen.len() <= 2 * complete + 1, "length {len}");
                let torn = disk_has(&cut, &segment::torn_name(1));
                assert_eq!(torn, recovered.torn_bytes > 0);
            }
            Err(OpenError::Damaged { .. }) => assert!(len < bounds[0]),
            Err(other) => panic!("{other}"),
        }
    }
}

fn disk_has(disk: &MemoryDisk, name: &str) -> bool {
    disk.list().unwrap().iter().any(|other| other == name)
}

/// Flips every bit of the first segment, one at a time. `expect_damage` says of an offset whether the
/// flip must be damage; where it says `false` the log must open with at least `kept` records.
fn flip_every_bit(disk: &MemoryDisk, kept: usize, expect_damage: impl Fn(u64) -> bool) {
    let size = disk.open(&first_segment()).unwrap().size().unwrap();
    for offset in 0..size {
        // Of the long stretches of zeros one bit a byte will do.
        let zeros = (64..500).contains(&offset) || offset > SEGMENT_HEADER_LEN as u64 + 500;
        for bit in 0..if zeros { 1 } else { 8 } {
            let rotten = disk.fork();
            rotten.corrupt(&first_segment(), offset, 1 << bit);
            match read_back(&rotten, 4096) {
                Err(OpenError::Damaged { file, .. }) => {
                    assert!(expect_damage(offset), "damage by bit {bit} of byte {offset}");
                    assert_eq!(file, disk.path(&first_segment()));
                }
                Err(other) => panic!("{other}"),
                Ok((seen, recovered)) => {
                    assert!(!expect_damage(offset), "bit {bit} of byte {offset} went unnoticed");
                    assert!(seen.len() >= kept);
                    assert!(!recovered.clean);
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_damage_wherever_something_says_that_it_was_durable() {
    let (disk, mut log, bounds) = three_groups();
    // The third group has been synced, but nothing after it says so.
    flip_every_bit(&disk, 4, |offset| offset < bounds[2]);
    log.write_durable_mark().unwrap();
    flip_every_bit(&disk, 6, |offset| offset < bounds[3]);
}

#[test]
fn after_a_clean_stop_a_flipped_bit_is_damage() {
    let (disk, mut log, bounds) = three_groups();
    log.write_clean_mark().unwrap();
    let mark = bounds[3]..bounds[3] + RECORD_HEADER_LEN as u64;
    // A broken mark is one that was never written.
    flip_every_bit(&disk, 6, |offset| !mark.contains(&offset));
}

#[test]
fn a_flipped_bit_in_what_recovery_wrote_anew_is_damage() {
    let (disk, log, bounds) = three_groups();
    drop(log);
    read_back(&disk, 4096).unwrap();
    flip_every_bit(&disk, 6, |offset| offset < bounds[3]);
}

#[test]
fn damage_in_an_older_segment_is_never_cut() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, options(4096, SyncMode::Always)).unwrap();
    for _ in 0..12 {
        append(&mut log, &[600]).unwrap();
    }
    let last_of_first = log.segments()[1].first.0 - 1;
    drop(log);
    let record_len = (RECORD_HEADER_LEN as u64 + 600).next_multiple_of(8);
    let end = SEGMENT_HEADER_LEN as u64 + last_of_first * record_len;
    for offset in (0..end).step_by(13) {
        let rotten = disk.fork();
        rotten.corrupt(&first_segment(), offset, 0x10);
        assert!(matches!(read_back(&rotten, 4096), Err(OpenError::Damaged { .. })), "byte {offset}");
    }
    let gap = disk.fork();
    gap.remove(&first_segment()).unwrap();
    assert!(matches!(read_back(&gap, 4096), Err(OpenError::MissingRecords { needed: Lsn(1), .. })));
    let gap = disk.fork();
    gap.remove(&segment::name(2)).unwrap();
    assert!(
        matches!(read_back(&gap, 4096), Err(OpenError::Damaged { file, .. }) if file == disk.path(&segment::name(2)))
    );
}

#[test]
fn what_was_read_back_is_durable_before_it_is_used() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, options(4096, SyncMode::Always)).unwrap();
    append(&mut log, &[50, 60]).unwrap();
    // The process is killed between write and sync; another one finds the records.
    drop(log);
    assert_eq!(read_back(&disk, 4096).unwrap().0.len(), 2);
    assert_eq!(read_back(&disk.crash(&mut || 0), 4096).unwrap().0.len(), 2);
}

#[test]
fn a_failed_sync_is_the_last_one_and_its_pages_are_not_believed() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, options(4096, SyncMode::Always)).unwrap();
    append(&mut log, &[50]).unwrap();
    log.sync().unwrap();
    append(&mut log, &[60]).unwrap();
    disk.fail(Operation::Sync, 0, io::ErrorKind::Other);
    assert!(log.sync().is_err());
    disk.record_calls();
    assert!(log.sync().is_err());
    assert!(append(&mut log, &[1]).is_err());
    assert!(log.write_clean_mark().is_err());
    assert!(!log.fill_ahead().unwrap());
    assert_eq!(disk.take_calls(), []);
    assert_eq!(log.durable(), Lsn(1));
    drop(log);
    // The bytes can be read although the disk never got them; opening puts that right.
    let (found, _) = read_back(&disk, 4096).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(read_back(&disk.crash(&mut || 0), 4096).unwrap().0.len(), 2);
}

#[test]
fn a_segment_is_published_after_the_one_before_is_durable() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, options(4096, SyncMode::Always)).unwrap();
    append(&mut log, &[3000]).unwrap();
    disk.record_calls();
    append(&mut log, &[3000]).unwrap();
    let (temporary, second) = (segment::temporary_name(2), segment::name(2));
    assert_eq!(
        disk.take_calls(),
        [
            Call::new(Operation::Sync, &segment::temporary_name(1)),
            Call::new(Operation::Create, &temporary),
            Call::new(Operation::Write, &temporary),
            Call::new(Operation::Fill, &temporary),
            Call::new(Operation::Sync, &temporary),
            Call::new(Operation::Rename, &second),
            Call::new(Operation::SyncDir, "."),
            Call::new(Operation::Write, &temporary),
        ]
    );
}

#[test]
fn a_full_disk_while_filling_ahead_is_no_failure() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, options(16 << 10, SyncMode::Always)).unwrap();
    append(&mut log, &[1500]).unwrap();
    disk.fail(Operation::Fill, 0, io::ErrorKind::StorageFull);
    assert!(!log.fill_ahead().unwrap());
    append(&mut log, &[1500]).unwrap();
    log.sync().unwrap();
    assert_eq!(log.durable(), Lsn(2));
}

#[test]
fn weak_modes_survive_the_process_but_own_up_to_a_lost_machine() {
    for mode in [SyncMode::Never, SyncMode::Interval(crate::types::Millis(9))] {
        let disk = MemoryDisk::new();
        let (mut log, ..) = open(&disk, options(4096, mode)).unwrap();
        append(&mut log, &[10, 20]).unwrap();
        drop(log);
        // Only the process died.
        let (mut log, _, seen) = open(&disk, options(4096, mode)).unwrap();
        assert_eq!(seen.len(), 2);
        append(&mut log, &[30]).unwrap();
        let lost = disk.crash(&mut || 1);
        assert!(matches!(read_back(&lost, 4096), Err(OpenError::WeakSyncLost { mode: m }) if m == mode));
        assert!(read_back(&lost, 4096).is_err(), "asking again does not help");
        // Between two records that no sync separates, a bad byte is damage: the machine lived.
        append(&mut log, &[40]).unwrap();
        let rotten = disk.fork();
        rotten.corrupt(&first_segment(), SEGMENT_HEADER_LEN as u64 + 140, 1);
        assert!(matches!(read_back(&rotten, 4096), Err(OpenError::Damaged { .. })));
        log.write_clean_mark().unwrap();
        let (seen, recovered) = read_back(&disk.crash(&mut || 0), 4096).unwrap();
        assert!(recovered.clean);
        assert_eq!(seen.len(), 4);
        disk.remove(&first_segment()).unwrap();
        assert!(matches!(read_back(&disk, 4096), Err(OpenError::Damaged { .. })), "the log is gone");
    }
}

#[test]
fn a_segment_of_another_disk_is_refused() {
    let (disk, log, _) = three_groups();
    drop(log);
    let mut foreign = options(4096, SyncMode::Always);
    foreign.disk_id = DiskId(10);
    assert!(matches!(open(&disk, foreign), Err(OpenError::WrongDisk { found: DiskId(9), .. })));
}

#[test]
fn a_record_that_makes_no_sense_stops_the_start() {
    let (disk, log, bounds) = three_groups();
    drop(log);
    let result = Log::open(&disk, options(4096, SyncMode::Always), |lsn, _, _| {
        if lsn == Lsn(3) { Err(crate::wire::DecodeError::Trailing { left: 1 }) } else { Ok(()) }
    });
    assert!(matches!(result, Err(OpenError::BadRecord { offset, .. }) if offset == bounds[1]));
}

#[test]
fn a_value_full_of_false_records_does_not_pass_for_records() {
    // The torn value holds copies of a record of this very segment, which no client can know.
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, options(1 << 20, SyncMode::Always)).unwrap();
    append(&mut log, &[64]).unwrap();
    log.sync().unwrap();
    let mut record = vec![0; RECORD_HEADER_LEN + 64];
    let file = disk.open(&first_segment()).unwrap();
    file.read_at(SEGMENT_HEADER_LEN as u64, &mut record).unwrap();
    let at = SEGMENT_HEADER_LEN as u64 + record.len() as u64;
    for i in 0..2000 {
        file.write_at(at + 8 + i * record.len() as u64, &record).unwrap();
    }
    let (seen, recovered) = read_back(&disk, 1 << 20).unwrap();
    assert_eq!(seen.len(), 1);
    assert!(recovered.torn_bytes >= 2000 * record.len() as u64);
}

/// `STORAGE_SEEDS=20000` makes the crash test longer.
fn seeds() -> u64 {
    std::env::var("STORAGE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// Appends, syncs, rotates, fills, stops and starts at random; loses power at random moments, in
/// recovery too. What was durable must come back, and every record as it was.
#[test]
fn crash_images_hold_at_least_what_was_durable() {
    for seed in 0..seeds() {
        let mut random = splitmix(seed);
        let mut disk = MemoryDisk::new();
        let mut durable = 0;
        for _ in 0..6 {
            let (mut log, recovered, seen) = match open(&disk, options(4096, SyncMode::Always)) {
                Ok(opened) => opened,
                Err(error) => panic!("seed {seed}: {error}"),
            };
            assert!(seen.len() as u64 >= durable, "seed {seed}: {recovered:?} of {durable}");
            assert!(disk.list().unwrap().iter().all(|name| !segment::is_temporary(name)), "seed {seed}");
            // All that open has returned is durable from now on.
            durable = seen.len() as u64;
            for _ in 0..random() % 40 {
                match random() % 10 {
                    0..5 => {
                        let lens: Vec<usize> = (0..=random() % 5)
                            .map(|_| {
                                usize::try_from(random() % [40, 700, 3000][(random() % 3) as usize]).unwrap()
                            })
                            .collect();
                        append(&mut log, &lens).unwrap();
                    }
                    5..8 => log.sync().unwrap(),
                    8 => log.write_durable_mark().unwrap(),
                    _ => drop(log.fill_ahead().unwrap()),
                }
                durable = log.durable().0;
            }
            if random() % 8 < 1 {
                log.write_clean_mark().unwrap();
                durable = log.last().0;
            }
            drop(log);
            if random() % 4 < 3 {
                disk = disk.crash(&mut random);
            }
            while random() % 3 < 1 {
                // Power is lost in the middle of recovery.
                let operation = [
                    Operation::Create,
                    Operation::Write,
                    Operation::Fill,
                    Operation::Sync,
                    Operation::Rename,
                    Operation::SyncDir,
                ][(random() % 6) as usize];
                disk.fail(operation, random() % 3, io::ErrorKind::Other);
                match open(&disk, options(4096, SyncMode::Always)) {
                    Ok((log, ..)) => durable = log.durable().0,
                    Err(OpenError::Io { .. }) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
                disk = disk.crash(&mut random);
            }
        }
    }
}
