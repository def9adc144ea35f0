//! A log that loses its beginning: what is left opens, whatever a crash leaves.

use std::io;

use super::tests::{Payload, options};
use super::*;
use crate::types::Lsn;

const SEGMENT_LEN: u64 = 4096;

/// Opens a log of which the records from `needed` on are needed, and returns their numbers.
fn open(disk: &MemoryDisk, needed: u64) -> Result<(Log<MemoryDisk>, Recovered, Vec<u64>), OpenError> {
    let options = LogOptions { needed: Lsn(needed), ..options(SEGMENT_LEN, SyncMode::Always) };
    let mut seen = Vec::new();
    let (log, recovered) = Log::open(disk, options, |lsn, _, payload| {
        let mut expected = Vec::new();
        Payload::new(lsn.0, payload.len()).write(&mut expected);
        assert_eq!(payload, expected, "record {lsn} is not what was written");
        seen.push(lsn.0);
        Ok(())
    })?;
    assert_eq!((log.last(), log.durable()), (recovered.last, recovered.last));
    Ok((log, recovered, seen))
}

fn append(log: &mut Log<MemoryDisk>, count: u64) -> io::Result<()> {
    for _ in 0..count {
        let lsn = log.last().next();
        let mut group = RecordGroup::new();
        group.push(lsn, 1, |out| Payload::new(lsn.0, 600).write(out));
        log.append(&mut group)?;
        log.sync()?;
    }
    Ok(())
}

/// A log of five segments with five records each, but for the last, which has three.
fn five_segments() -> (MemoryDisk, Log<MemoryDisk>) {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk, 1).unwrap();
    append(&mut log, 23).unwrap();
    let firsts: Vec<u64> = log.segments().iter().map(|span| span.first.0).collect();
    assert_eq!(firsts, [1, 6, 11, 16, 21]);
    (disk, log)
}

fn truncate(log: &mut Log<MemoryDisk>, lsn: u64) -> io::Result<()> {
    while log.truncate_before(Lsn(lsn))? {}
    Ok(())
}

#[test]
fn only_whole_segments_go_and_never_the_last() {
    let (disk, mut log) = five_segments();
    for (lsn, first) in [(0, 1), (5, 1), (6, 6), (15, 11), (20, 16), (3, 16), (1000, 21)] {
        let (before, count) = (log.len_bytes(), log.segments().len());
        truncate(&mut log, lsn).unwrap();
        assert_eq!(log.segments()[0].first, Lsn(first), "before {lsn}");
        assert_eq!(before > log.len_bytes(), count > log.segments().len());
    }
    assert_eq!(log.len_bytes(), stored_bytes(&disk).unwrap());
    append(&mut log, 10).unwrap();
    drop(log);
    let (log, recovered, seen) = open(&disk.crash(&mut || 0), 21).unwrap();
    assert_eq!((recovered.last, recovered.segments), (Lsn(33), 3));
    assert_eq!(seen, (21..=33).collect::<Vec<u64>>());
    assert_eq!(log.segments()[0].first, Lsn(21));
}

#[test]
fn records_that_are_needed_must_be_there() {
    let (disk, mut log) = five_segments();
    truncate(&mut log, 12).unwrap();
    drop(log);
    let error = open(&disk, 10).map(drop).expect_err("record 10 is gone");
    assert!(matches!(error, OpenError::MissingRecords { found: Lsn(11), needed: Lsn(10), .. }));
    assert_eq!(
        error.to_string(),
        "the log in . begins with record 11, the snapshot needs it from record 10 on"
    );
    assert!(matches!(open(&disk, 1), Err(OpenError::MissingRecords { .. })));
    let error = open(&disk, 25).map(drop).expect_err("record 24 is gone");
    assert!(matches!(error, OpenError::LostRecords { last: Lsn(23), expected: Lsn(24), .. }));
    assert!(matches!(open(&MemoryDisk::new(), 2), Err(OpenError::LostRecords { last: Lsn(0), .. })));
    for (needed, seen) in [(11, 13), (14, 10), (16, 8), (21, 3), (23, 1), (24, 0)] {
        let (_, recovered, found) = open(&disk.fork(), needed).unwrap();
        assert_eq!((found.len(), recovered.last), (seen, Lsn(23)), "from {needed} on");
        assert!(found.first().is_none_or(|first| *first == needed));
    }
    // Without records in its only segment it still knows where it goes on.
    let (mut log, ..) = open(&disk, 24).unwrap();
    append(&mut log, 1).unwrap();
    assert_eq!(log.last(), Lsn(24));
}

/// Damage in a segment that is not needed harms nobody; in one that is, it stops the start.
#[test]
fn segments_before_the_needed_ones_are_not_read() {
    let (disk, log) = five_segments();
    drop(log);
    disk.corrupt("wal-0000000000000002.log", 1000, 1);
    for needed in [1, 6, 10] {
        assert!(matches!(open(&disk.fork(), needed), Err(OpenError::Damaged { .. })), "from {needed} on");
    }
    assert_eq!(open(&disk.fork(), 11).unwrap().2.len(), 13);
    disk.remove("wal-0000000000000003.log").unwrap();
    assert!(matches!(open(&disk, 21), Err(OpenError::Damaged { .. })), "a gap is damage wherever it is");
}

/// Each call of a truncation fails once, and then power is lost: the log begins with one of its segments and has no
/// gap.
#[test]
fn a_crash_at_any_call_leaves_an_end_of_the_log() {
    let mut firsts = [0; 5];
    for operation in [Operation::Remove, Operation::SyncDir] {
        for calls_before in 0..5 {
            for seed in 0..40 {
                let (disk, mut log) = five_segments();
                disk.fail(operation, calls_before, io::ErrorKind::Other);
                let result = truncate(&mut log, 20);
                assert_eq!(result.is_err(), calls_before < 3);
                if result.is_err() {
                    assert!(append(&mut log, 1).is_err(), "the first error is the last thing that happens");
                }
                let mut state: u64 = seed;
                let after = disk.crash(&mut || {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    state >> 33
                });
                let (log, recovered, seen) = open(&after, 16).unwrap();
                assert_eq!((recovered.last, seen.len()), (Lsn(23), 8));
                let first = log.segments()[0].first.0;
                assert!(first <= 16 && (result.is_err() || first == 16));
                firsts[usize::try_from(first / 5).unwrap()] += 1;
            }
        }
    }
    assert!(firsts[..4].iter().all(|count| *count > 0), "{firsts:?}");
}

/// The numbers of the segments whose torn end is kept.
fn torn(disk: &MemoryDisk) -> Vec<u64> {
    disk.list().unwrap().iter().filter_map(|name| segment::parse_torn_name(name)).collect()
}

/// A log that was cut at the end of its second and of its third segment, and has five.
fn twice_torn() -> (MemoryDisk, Log<MemoryDisk>) {
    let disk = MemoryDisk::new();
    for (count, end) in [(8, 3), (5, 3)] {
        let (mut log, ..) = open(&disk, 1).unwrap();
        append(&mut log, count).unwrap();
        let (seq, position) = (log.segments().last().unwrap().seq, log.position());
        drop(log);
        disk.open(&segment::name(seq)).unwrap().write_at(position, &vec![7; end]).unwrap();
    }
    let (mut log, recovered, _) = open(&disk, 1).unwrap();
    assert!(recovered.torn_bytes > 0);
    append(&mut log, 10).unwrap();
    let firsts: Vec<u64> = log.segments().iter().map(|span| span.first.0).collect();
    assert_eq!(firsts, [1, 6, 11, 16, 21]);
    assert_eq!(torn(&disk), [2, 3]);
    (disk, log)
}

/// What was cut off a segment is kept as long as the segment is, across starts, and not longer.
#[test]
fn torn_ends_go_with_their_segments() {
    let (disk, mut log) = twice_torn();
    for (lsn, left) in [(6, &[2, 3][..]), (11, &[3]), (16, &[])] {
        truncate(&mut log, lsn).unwrap();
        assert_eq!((log.segments()[0].first, torn(&disk)), (Lsn(lsn), left.to_vec()));
        drop(log);
        log = open(&disk, lsn).unwrap().0;
        assert_eq!(torn(&disk), left);
    }
    // Somebody has looked at one and taken it away.
    let (disk, mut log) = twice_torn();
    disk.remove(&segment::torn_name(2)).unwrap();
    truncate(&mut log, 16).unwrap();
    append(&mut log, 1).unwrap();
    assert_eq!(torn(&disk), []);
}

/// After a crash in between there may be one without its segment, until the next segment goes.
#[test]
fn a_crash_leaves_no_torn_end_for_good() {
    let mut orphans = 0;
    for operation in [Operation::Remove, Operation::SyncDir] {
        for calls_before in 0..6 {
            for seed in 0..20 {
                let (disk, mut log) = twice_torn();
                disk.fail(operation, calls_before, io::ErrorKind::Other);
                let is_done = truncate(&mut log, 16).is_ok();
                disk.heal();
                let mut state: u64 = seed;
                let after = disk.crash(&mut || crate::types::splitmix64(&mut state));
                let (mut log, ..) = open(&after, 16).unwrap();
                let first = log.segments()[0].seq;
                orphans += torn(&after).iter().filter(|seq| **seq < first).count();
                assert!(!is_done || torn(&after).is_empty());
                append(&mut log, 5).unwrap();
                truncate(&mut log, 21).unwrap();
                assert_eq!(torn(&after), [], "{operation:?} {calls_before} {seed}");
            }
        }
    }
    assert!(orphans > 0, "the case is met");
}
