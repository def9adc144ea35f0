use super::block::HEAD_LEN;
use super::*;
use crate::storage::{MemoryDisk, Operation};

fn splitmix(mut state: u64) -> impl FnMut() -> u64 {
    move || crate::types::splitmix64(&mut state)
}

fn header(index: u64) -> SnapshotHeader {
    SnapshotHeader {
        cluster: ClusterId(77),
        index: Index(index),
        position: Position { view: ViewNumber(3), t: Timestamp(9 * index), node: NodeId::new(2).unwrap() },
        now: Millis(1_000),
        delivered: 5,
        digest: index.wrapping_mul(0x1234_5678_9abc_def1),
        keys: 3,
        sessions: 1,
        view: vec![1, 2, 3],
        lanes: vec![4; 30],
        origins: Vec::new(),
    }
}

fn front(index: u64) -> SnapshotFront {
    SnapshotFront { disk_id: DiskId(9), log_from: Lsn(index * 10), ..SnapshotFront::default() }
}

fn body(seed: u64, len: usize) -> Vec<u8> {
    let mut random = splitmix(seed);
    (0..len).map(|_| random().to_le_bytes()[0]).collect()
}

fn unpublished(
    disk: &MemoryDisk,
    index: u64,
    body: &[u8],
) -> Result<UnpublishedSnapshot<MemoryDisk>, SnapshotError> {
    let mut writer = SnapshotWriter::create(disk, front(index), &header(index))?;
    for piece in body.chunks(40_000) {
        writer.push(piece)?;
    }
    writer.finish()
}

fn read_back(
    mut file: UnpublishedSnapshot<MemoryDisk>,
) -> Result<UnpublishedSnapshot<MemoryDisk>, SnapshotError> {
    while file.next_payload()?.is_some() {}
    Ok(file)
}

fn write(disk: &MemoryDisk, index: u64, body: &[u8]) -> Result<SnapshotFile, SnapshotError> {
    let file = read_back(unpublished(disk, index, body)?)?.publish()?;
    remove_old_snapshots(disk).map_err(SnapshotError::io(disk, "."))?;
    Ok(file)
}

fn read(disk: &MemoryDisk, name: &str) -> Result<(SnapshotHeader, SnapshotFront, Vec<u8>), SnapshotError> {
    let mut reader = SnapshotReader::open(disk, name)?;
    let mut body = Vec::new();
    while let Some(payload) = reader.next_payload()? {
        body.extend_from_slice(payload);
    }
    assert_eq!(reader.done_bytes() + block::FOOTER_BLOCK_LEN as u64, reader.len_bytes());
    Ok((reader.header().clone(), reader.front(), body))
}

fn blocks(disk: &MemoryDisk, name: &str) -> Vec<Vec<u8>> {
    let reader = SnapshotReader::open(disk, name).unwrap();
    let read = |number| {
        let mut block = Vec::new();
        reader.read_block(number, &mut block).unwrap();
        block
    };
    (0..reader.block_count()).map(read).collect()
}

fn receive(disk: &MemoryDisk, blocks: &[Vec<u8>], index: u64) -> Result<SnapshotFile, SnapshotError> {
    let mut receiver = SnapshotReceiver::begin(disk, &blocks[0])?;
    while !receiver.is_complete() {
        let next = receiver.next_block();
        receiver.push(next, &blocks[next as usize])?;
    }
    let file = read_back(receiver.finish(front(index))?)?.publish()?;
    remove_old_snapshots(disk).map_err(SnapshotError::io(disk, "."))?;
    Ok(file)
}

fn content(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn bodies_of_all_lengths_come_back_and_can_be_sent() {
    let full = SNAPSHOT_BLOCK_LEN_MAX - HEAD_LEN;
    for len in [0, 1, full - 1, full, full + 1, 3 * full, 3 * full + 5] {
        let (disk, body) = (MemoryDisk::new(), body(len as u64, len));
        let file = write(&disk, 5, &body).unwrap();
        let after = disk.crash(&mut || 0);
        assert_eq!(snapshots_on(&after).unwrap(), std::slice::from_ref(&file));
        assert_eq!(read(&after, &file.name).unwrap(), (header(5), front(5), body.clone()));
        let blocks = blocks(&disk, &file.name);
        assert_eq!(blocks.len(), 2 + len.div_ceil(full));
        assert!(blocks.iter().all(|block| block.len() <= SNAPSHOT_BLOCK_LEN_MAX));
        assert_eq!(blocks.concat(), content(&disk, &file.name)[FRONT_LEN..]);
        let peer = MemoryDisk::new();
        assert_eq!(receive(&peer, &blocks, 5).unwrap(), file);
        assert!(content(&peer, &file.name) == content(&disk, &file.name));
        assert_eq!(peer.crash(&mut || 0).list().unwrap(), [file.name]);
    }
}

#[test]
fn the_order_of_calls_is_written_synced_named() {
    let disk = MemoryDisk::new();
    disk.record_calls();
    write(&disk, 5, &[1; 100]).unwrap();
    let calls: Vec<Operation> = disk.take_calls().iter().map(|call| call.operation).collect();
    use Operation::{Create, Rename, Sync, SyncDir, Write};
    assert_eq!(calls, [Create, Write, Write, Write, Sync, Sync, Rename, SyncDir]);
    for (index, kept) in [(7, vec![7, 5]), (6, vec![7, 6]), (9, vec![9, 7])] {
        write(&disk, index, &[1; 100]).unwrap();
        let found: Vec<u64> = snapshots_on(&disk).unwrap().iter().map(|file| file.index.0).collect();
        assert_eq!(found, kept);
    }
}

#[test]
fn a_flipped_bit_is_found_where_it_is() {
    let (disk, body) = (MemoryDisk::new(), body(1, 150_000));
    let name = write(&disk, 5, &body).unwrap().name;
    let size = disk.open(&name).unwrap().size().unwrap();
    let starts: Vec<usize> = blocks(&disk, &name)
        .iter()
        .scan(FRONT_LEN, |at, block| {
            *at += block.len();
            Some(*at - block.len())
        })
        .collect();
    let interesting =
        |at: u64| at < 300 || at + 60 > size || starts.iter().any(|s| (*s as u64).abs_diff(at) < 17);
    let mut located = 0;
    for at in (0..size).filter(|at| interesting(*at) || at % 19999 == 0) {
        for bit in [0, 2, 7] {
            disk.corrupt(&name, at, 1 << bit);
            match read(&disk, &name).expect_err("a flipped bit") {
                SnapshotError::BadBlock { block, offset, file, .. } => {
                    assert_eq!(file, disk.path(&name));
                    let expected = starts.iter().rposition(|start| *start as u64 <= at).unwrap();
                    // A wrong length of the header block is first seen at the end of the file.
                    if expected > 0 {
                        assert_eq!((block as usize, offset), (expected, starts[expected] as u64));
                        located += 1;
                    }
                }
                SnapshotError::Damaged { offset, .. } => assert!(at < 80 && offset <= size),
                other => panic!("{other}"),
            }
            disk.corrupt(&name, at, 1 << bit);
        }
    }
    assert!(located > 200);
    assert!(read(&disk, &name).is_ok());
    for len in (0..size).filter(|at| interesting(*at) || at % 19999 == 0) {
        let cut = disk.fork();
        cut.open(&name).unwrap().set_len(len).unwrap();
        assert!(read(&cut, &name).is_err(), "cut at {len}");
    }
    disk.open(&name).unwrap().write_at(size, &[0]).unwrap();
    assert!(read(&disk, &name).is_err(), "grown");
}

#[test]
fn a_newer_format_says_so() {
    let disk = MemoryDisk::new();
    let mut bytes = Vec::new();
    write_preamble(&mut bytes, MAGIC, 3);
    disk.create("snapshot-0000000000000005.snap").unwrap().write_at(0, &bytes).unwrap();
    let error = read(&disk, &snapshot_name(Index(5))).expect_err("newer");
    assert!(matches!(error, SnapshotError::NewerFormat { found: 3, supported: 2, .. }));
}

#[test]
fn a_block_of_another_snapshot_is_not_taken() {
    let (one, two) = (MemoryDisk::new(), MemoryDisk::new());
    let names =
        [write(&one, 5, &body(1, 150_000)).unwrap().name, write(&two, 6, &body(1, 150_000)).unwrap().name];
    let (right, wrong) = (blocks(&one, &names[0]), blocks(&two, &names[1]));
    let peer = MemoryDisk::new();
    let mut receiver = SnapshotReceiver::begin(&peer, &right[0]).unwrap();
    assert_eq!(receiver.next_block(), 1);
    let refused = |receiver: &mut SnapshotReceiver<MemoryDisk>, number, block: &[u8]| {
        let error = receiver.push(number, block).expect_err("not this one");
        assert!(matches!(error, SnapshotError::BadBlock { .. }), "{error}");
        assert_eq!(receiver.next_block(), number);
    };
    refused(&mut receiver, 1, &wrong[1]);
    refused(&mut receiver, 1, &right[2]);
    refused(&mut receiver, 1, &right[0]);
    refused(&mut receiver, 1, &right[1][..500]);
    refused(&mut receiver, 1, right.last().unwrap());
    receiver.push(3, &right[3]).unwrap();
    receiver.push(0, &right[0]).unwrap();
    assert_eq!(receiver.next_block(), 1, "neither too early nor too late changes anything");
    receiver.push(1, &right[1]).unwrap();
    assert!(SnapshotReceiver::begin(&peer, &right[1]).is_err());
    // Another snapshot takes its place.
    let other = SnapshotReceiver::begin(&peer, &wrong[0]).unwrap();
    assert_eq!((other.next_block(), peer.list().unwrap().len()), (1, 1));
}

#[test]
fn what_was_received_is_resumed() {
    let (disk, body) = (MemoryDisk::new(), body(1, 500_000));
    let name = write(&disk, 5, &body).unwrap().name;
    let sent = blocks(&disk, &name);
    for seed in 0..12 {
        let mut random = splitmix(seed);
        let mut peer = MemoryDisk::new();
        let mut best = 0;
        loop {
            let mut receiver = match SnapshotReceiver::resume(&peer).unwrap() {
                Some(receiver) => receiver,
                None => SnapshotReceiver::begin(&peer, &sent[0]).unwrap(),
            };
            best = best.max(receiver.next_block());
            let count = random() % 5;
            for _ in 0..count {
                if !receiver.is_complete() {
                    let next = receiver.next_block();
                    receiver.push(next, &sent[next as usize]).unwrap();
                }
            }
            let next = receiver.next_block();
            if receiver.is_complete() {
                read_back(receiver.finish(front(5)).unwrap()).unwrap().publish().unwrap();
                break;
            }
            drop(receiver);
            if random() % 3 < 1 {
                // Rot in what is there costs what is behind it, no more.
                if next > 3 && random() % 2 < 1 {
                    peer.corrupt(&part_name(Index(5)), 3 * SNAPSHOT_BLOCK_LEN_MAX as u64, 1);
                    assert!(SnapshotReceiver::resume(&peer).unwrap().is_some_and(|it| it.next_block() == 3));
                }
                peer = peer.crash(&mut random);
            } else {
                // Behind a block that was mended there may be more.
                assert!(SnapshotReceiver::resume(&peer).unwrap().is_some_and(|it| it.next_block() >= next));
            }
        }
        assert!(best > 1, "seed {seed}");
        assert!(content(&peer.crash(&mut || 0), &name) == content(&disk, &name), "seed {seed}");
    }
}

/// Every call that changes the disk fails once, at each of its places, and then power is lost: the two snapshots from
/// before are there, or the new one and the newer of them, all of them whole.
#[test]
fn a_crash_at_any_call_leaves_the_old_ones_or_the_new_one() {
    let sent = {
        let disk = MemoryDisk::new();
        let name = write(&disk, 30, &body(30, 140_000)).unwrap().name;
        blocks(&disk, &name)
    };
    let (mut outcomes, mut failed) = ([0, 0, 0], 0);
    for received in [false, true] {
        use Operation::{Create, Remove, Rename, SetLen, Sync, SyncDir, Write};
        for operation in [Create, Write, SetLen, Sync, Rename, SyncDir, Remove] {
            for calls_before in 0..12 {
                let mut random = splitmix(calls_before);
                let disk = MemoryDisk::new();
                for index in [10, 20] {
                    write(&disk, index, &body(index, 70_000)).unwrap();
                }
                disk.fail(operation, calls_before, io::ErrorKind::Other);
                let result =
                    if received { receive(&disk, &sent, 30) } else { write(&disk, 30, &body(30, 140_000)) };
                failed += usize::from(result.is_err());
                for _ in 0..3 {
                    let after = disk.crash(&mut random);
                    remove_unfinished_snapshots(&after).unwrap();
                    let files = snapshots_on(&after).unwrap();
                    let indexes: Vec<u64> = files.iter().map(|file| file.index.0).collect();
                    let outcome = match indexes[..] {
                        [20, 10] => 0,
                        [30, 20, 10] => 1,
                        [30, 20] => 2,
                        _ => panic!("{operation:?} {calls_before}: {indexes:?}"),
                    };
                    outcomes[outcome] += 1;
                    assert!(result.is_err() || outcome == 2);
                    for index in indexes {
                        let len = if index == 30 { 140_000 } else { 70_000 };
                        let found = read(&after, &snapshot_name(Index(index))).unwrap();
                        assert!(found == (header(index), front(index), body(index, len)));
                    }
                    assert!(after.list().unwrap().iter().all(|name| !name.ends_with(".tmp")));
                    // The next attempt succeeds.
                    assert_eq!(write(&after, 40, &[1; 10]).unwrap().index, Index(40));
                }
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 2) && failed > 20, "{outcomes:?} {failed}");
}
