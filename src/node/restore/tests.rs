use super::super::keeper::tests::{front, header, publish, settings, store};
use super::*;
use crate::storage::{
    DiskFile, Identity, Log, LogOptions, MemoryDisk, OpenError, Operation, RecordGroup, SnapshotFront,
    SnapshotHeader, snapshot_name,
};
use crate::types::{Index, splitmix64};
use std::io::ErrorKind;

fn restored(disk: &MemoryDisk, disk_id: DiskId) -> Result<Restored, RestoreError> {
    let settings = settings();
    restore(disk, disk_id, &settings.protocol, &settings.store, 5, |done, len| assert!(done <= len))
}

/// A snapshot with this header and front, of the state at this index.
fn write(disk: &MemoryDisk, index: u64, front: SnapshotFront, header: SnapshotHeader) {
    let job = super::super::SnapshotJob::new(disk, front, header, store(index).freeze()).unwrap();
    let file = job.run(|_| std::ops::ControlFlow::Continue(())).unwrap().expect("not broken off");
    file.publish().unwrap();
}

fn name(index: u64) -> String {
    snapshot_name(Index(index))
}

#[test]
fn without_a_snapshot_the_log_is_needed_from_its_beginning() {
    let found = restored(&MemoryDisk::new(), DiskId(7)).unwrap();
    assert_eq!((found.replay.needed(), found.snapshot, found.damaged.len()), (Lsn(1), None, 0));
}

#[test]
fn the_newest_that_is_sound_is_used() {
    let disk = MemoryDisk::new();
    publish(&disk, 2);
    publish(&disk, 5);
    let found = restored(&disk, DiskId(7)).unwrap();
    assert_eq!((found.replay.needed(), found.damaged.len()), (Lsn(50), 0));
    let (keys, len) = found.snapshot.unwrap();
    assert_eq!(keys, 5);
    // One wrong bit anywhere, and it is the one before; what is damaged is kept for whoever wants to look at it.
    disk.corrupt(&name(5), len / 2, 4);
    for _ in 0..2 {
        let found = restored(&disk, DiskId(7)).unwrap();
        assert_eq!((found.replay.needed(), found.snapshot.unwrap().0), (Lsn(20), 2));
        for damaged in found.damaged {
            damaged.set_aside(&disk).unwrap();
        }
    }
    let names = disk.list().unwrap();
    assert_eq!(names, [name(2), format!("{}.damaged", name(5))]);
}

#[test]
fn damage_is_told_until_it_is_set_aside() {
    let disk = MemoryDisk::new();
    publish(&disk, 2);
    publish(&disk, 5);
    for index in [2, 5] {
        disk.corrupt(&name(index), 100, 1);
    }
    disk.record_calls();
    for _ in 0..2 {
        let found = restored(&disk, DiskId(7)).unwrap();
        assert_eq!(
            (found.replay.needed(), found.snapshot),
            (Lsn(1), None),
            "then the whole log must be there"
        );
        let names: Vec<&str> = found.damaged.iter().map(|damaged| damaged.name.as_str()).collect();
        assert_eq!(names, [name(5), name(2)]);
        for DamagedSnapshot { name, failure } in &found.damaged {
            let what = failure.to_string();
            assert!(what.contains(name) && what.contains("is damaged in block "), "{what}");
        }
    }
    assert_eq!(disk.take_calls(), [], "nothing has changed");
    for damaged in restored(&disk, DiskId(7)).unwrap().damaged {
        assert_eq!(damaged.set_aside(&disk).unwrap(), format!("{}.damaged", damaged.name));
    }
    assert!(restored(&disk, DiskId(7)).unwrap().damaged.is_empty());
}

/// A disk with two snapshots and a log of segments with five records each, beginning with the one of this number. The
/// newer snapshot is damaged, the older one needs the log from record 20 on.
fn damaged_newest(first_segment: usize) -> MemoryDisk {
    let disk = MemoryDisk::new();
    publish(&disk, 2);
    publish(&disk, 5);
    disk.corrupt(&name(5), 100_000, 1);
    let (mut log, _) = Log::open(&disk, options(1), |_, _, _| Ok(())).unwrap();
    for lsn in 1..=60 {
        let mut group = RecordGroup::new();
        group.push(Lsn(lsn), 1, |out| out.resize(600, 7));
        log.append(&mut group).and_then(|()| log.sync()).unwrap();
    }
    let first = log.segments()[first_segment].first;
    while log.truncate_before(first).unwrap() {}
    disk
}

fn options(needed: u64) -> LogOptions {
    let identity = Identity { node: settings().protocol.me, disk_id: DiskId(7), joining: false };
    let needed = Lsn(needed);
    LogOptions {
        needed,
        segment_len: LogOptions::SEGMENT_LEN_MIN,
        window_len: 512,
        ..LogOptions::new(identity, 3)
    }
}

/// What a start does with a disk, in its order: the record from which it went on, and the last one; or why it did not.
fn start(disk: &MemoryDisk) -> Result<(Lsn, Lsn), OpenError> {
    let io = |source| OpenError::Io { path: disk.path("."), source };
    let found = restored(disk, DiskId(7)).expect("the older one is sound");
    let needed = found.replay.needed();
    let (log, recovered) = Log::open(disk, options(needed.0), |_, _, _| Ok(()))?;
    for damaged in found.damaged {
        damaged.set_aside(disk).map_err(io)?;
    }
    drop(log);
    Ok((needed, recovered.last))
}

/// The log does not go back far enough for what is left: whoever looks at the directory finds it as it was.
#[test]
fn a_refused_start_changes_nothing() {
    let disk = damaged_newest(4);
    disk.record_calls();
    for _ in 0..2 {
        let error = start(&disk).expect_err("record 20 is gone");
        assert!(matches!(error, OpenError::MissingRecords { needed: Lsn(20), .. }), "{error}");
    }
    assert_eq!(disk.take_calls(), []);
}

/// Each call of such a start fails once, and then power is lost: the next one goes on from the same snapshot.
#[test]
fn a_crash_at_any_call_leaves_the_same_start() {
    let aside = format!("{}.damaged", name(5));
    let mut seen = [0; 2];
    for operation in
        [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir]
    {
        let mut calls_before = 0;
        loop {
            let disk = damaged_newest(2);
            disk.fail(operation, calls_before, ErrorKind::Other);
            let is_done = start(&disk).is_ok();
            disk.heal();
            for round in 0..8 {
                let mut state = calls_before * 8 + round;
                let after = disk.crash(&mut || splitmix64(&mut state));
                let has_begun = after.list().unwrap().contains(&aside);
                assert!(has_begun || !is_done, "what a start says is done is durable");
                seen[usize::from(has_begun)] += 1;
                assert_eq!(start(&after).unwrap(), (Lsn(20), Lsn(60)), "{operation:?} {calls_before}");
                let names = after.list().unwrap();
                assert!(names.contains(&aside) && !names.contains(&name(5)), "{names:?}");
            }
            if is_done {
                break;
            }
            calls_before += 1;
            assert!(calls_before < 100, "{operation:?}: the start does not succeed");
        }
    }
    assert!(seen.iter().all(|count| *count > 8), "{seen:?}");
}

#[test]
fn a_copy_from_another_disk_is_refused() {
    let disk = MemoryDisk::new();
    publish(&disk, 5);
    let error = restored(&disk, DiskId(8)).unwrap_err();
    assert_eq!(error.exit_code(), 6);
    let text = error.to_string();
    assert!(text.contains(&name(5)) && text.contains(&DiskId(8).to_string()), "{text}");
    assert_eq!(disk.list().unwrap(), [name(5)], "nothing has changed");
}

#[test]
fn a_newer_format_is_not_taken_for_damage() {
    let disk = MemoryDisk::new();
    publish(&disk, 2);
    publish(&disk, 5);
    let file = disk.open(&name(5)).unwrap();
    let mut preamble = [0; 16];
    file.read_at(0, &mut preamble).unwrap();
    preamble[8] += 1;
    let crc = crc32c::crc32c(&preamble[..12]);
    preamble[12..].copy_from_slice(&crc.to_le_bytes());
    file.write_at(0, &preamble).unwrap();
    let error = restored(&disk, DiskId(7)).unwrap_err();
    assert_eq!(error.exit_code(), 8, "{error}");
    assert_eq!(disk.list().unwrap(), [name(2), name(5)]);
}

#[test]
fn a_header_that_makes_no_sense_stops_the_start() {
    let disk = MemoryDisk::new();
    write(&disk, 5, front(5), SnapshotHeader { lanes: vec![0; 4], ..header(5) });
    let error = restored(&disk, DiskId(7)).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("makes no sense"), "{error}");
}
