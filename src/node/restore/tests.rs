use super::super::keeper::tests::{front, header, publish, settings, store};
use super::*;
use crate::storage::{DiskFile, MemoryDisk, SnapshotFront, SnapshotHeader, snapshot_name};
use crate::types::Index;

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
    }
    let names = disk.list().unwrap();
    assert_eq!(names, [name(2), format!("{}.damaged", name(5))]);
}

#[test]
fn what_is_set_aside_is_told_once() {
    let disk = MemoryDisk::new();
    publish(&disk, 2);
    publish(&disk, 5);
    for index in [2, 5] {
        disk.corrupt(&name(index), 100, 1);
    }
    let found = restored(&disk, DiskId(7)).unwrap();
    assert_eq!((found.replay.needed(), found.snapshot), (Lsn(1), None), "then the whole log must be there");
    let [newer, older] = &found.damaged[..] else { panic!("{:?}", found.damaged) };
    for (what, index) in [(newer, 5), (older, 2)] {
        assert!(what.contains("set aside as ") && what.contains(&name(index)), "{what}");
    }
    assert!(restored(&disk, DiskId(7)).unwrap().damaged.is_empty());
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
