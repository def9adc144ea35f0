use std::io::ErrorKind;

use super::*;
use crate::config::Config;
use crate::node::{Restored, Settings, restore};
use crate::protocol::{Base, Sender, View, Voter};
use crate::storage::{MemoryDisk, Operation, snapshot_name};
use crate::store::{Applied, lookup};
use crate::types::{ClusterId, DiskId, Incarnation, Millis, Reply, Timestamp, ViewNumber, splitmix64};
use crate::wire::batch::BatchCommand;

const DISK: DiskId = DiskId(7);
/// Who asks for blocks; its own number is of no account.
const PEER: NodeId = NodeId::new(0).unwrap();
const ASKER: Asker = Asker::Peer(PEER);

/// A state with so many commands in it: a few blocks of a snapshot.
pub(in crate::node) fn store(index: u64) -> Store {
    let mut store = Store::new(Limits::default(), 1);
    let set = lookup(b"SET").expect("a command").code;
    for i in 1..=index {
        let value = vec![b'v'; 30_000];
        let key = format!("key-{i}");
        let command = BatchCommand { session: None, code: set, arguments: vec![key.as_bytes(), &value] };
        assert_eq!(store.apply(Applied { index: Index(i), now: Millis(1) }, &command, true), Reply::OK);
    }
    store
}

/// What a snapshot of it says about the order.
pub(in crate::node) fn header(index: u64) -> SnapshotHeader {
    let voter = Voter { node: PEER, disk: DISK, registered: ViewNumber(1), drops: 0, drops_at: Millis(0) };
    let view = View {
        number: ViewNumber(1),
        cluster: ClusterId(3),
        format: View::FORMAT,
        genesis: 0,
        voters: vec![voter],
        senders: vec![Sender { node: PEER, incarnation: Incarnation(1) }],
    };
    let position = Position { view: view.number, t: Timestamp(index), node: PEER };
    let lanes = vec![position.t];
    let base = Base { index: Index(index), position, lanes, ..Base::of_view(view) };
    super::super::snapshots::header_of(&base)
}

/// With a log that is needed from a record on that the index tells.
pub(in crate::node) fn front(index: u64) -> SnapshotFront {
    SnapshotFront { disk_id: DISK, log_from: Lsn(10 * index), incarnation: Incarnation(2) }
}

pub(in crate::node) fn settings() -> Settings {
    let config = Config::parse("test", "0 127.0.0.1:7100\n").unwrap();
    Settings::new(&config, PEER, 7).unwrap()
}

/// The index of the snapshot that a start would go on from, and how many newer ones it found damaged.
fn found(disk: &MemoryDisk) -> (u64, usize) {
    remove_unfinished(disk);
    let settings = settings();
    let restored = restore(disk, DISK, &settings.protocol, &settings.store, 5, |_, _| ()).unwrap();
    let Restored { replay, snapshot, damaged } = restored;
    assert_eq!(snapshot.is_some(), replay.needed() > Lsn(1));
    for snapshot in &damaged {
        snapshot.set_aside(disk).unwrap();
    }
    (replay.needed().0 / 10, damaged.len())
}

fn remove_unfinished(disk: &MemoryDisk) {
    crate::storage::remove_unfinished_snapshots(disk).unwrap();
}

fn keeper(disk: &MemoryDisk) -> Keeper<MemoryDisk> {
    Keeper::new(disk.clone(), Limits::default(), 1)
}

fn take(index: u64) -> Task {
    Task::Take { front: front(index), header: Box::new(header(index)), image: store(index).freeze() }
}

/// Whatever is done until there is nothing left to do.
fn run(keeper: &mut Keeper<MemoryDisk>) -> Vec<Done> {
    let mut all = Vec::new();
    while keeper.has_work() {
        all.extend(keeper.step().unwrap());
    }
    all
}

/// The one thing that comes of a task.
fn only(keeper: &mut Keeper<MemoryDisk>, task: Task) -> Done {
    keeper.submit(task);
    let mut all = run(keeper);
    assert_eq!(all.len(), 1, "one answer");
    all.remove(0)
}

/// Asks for what was received to be loaded.
fn load(keeper: &Keeper<MemoryDisk>, front: SnapshotFront) -> Task {
    Task::Load { id: keeper.receiver.as_ref().map(SnapshotReceiver::id).unwrap_or_default(), front }
}

fn load_now(keeper: &mut Keeper<MemoryDisk>, front: SnapshotFront) -> Done {
    let task = load(keeper, front);
    only(keeper, task)
}

pub(in crate::node) fn publish(disk: &MemoryDisk, index: u64) -> SnapshotInfo {
    let keeper = &mut keeper(disk);
    assert!(matches!(only(keeper, take(index)), Done::Verified));
    let Done::Taken(info) = only(keeper, Task::Publish) else { panic!("it was verified") };
    info
}

/// The blocks of the newest snapshot of a disk.
fn blocks(disk: &MemoryDisk) -> (SnapshotId, Vec<Vec<u8>>) {
    let (keeper, mut all) = (&mut keeper(disk), Vec::new());
    loop {
        let next = u32::try_from(all.len()).unwrap();
        let Done::Blocks { id, first, blocks, .. } =
            only(keeper, Task::Read { to: ASKER, id: None, next, count: limits::SNAPSHOT_BLOCK_COUNT_MAX })
        else {
            panic!("a snapshot is there")
        };
        assert_eq!(first, next);
        if blocks.is_empty() {
            return (id, all);
        }
        all.extend(blocks);
    }
}

/// A snapshot of another node, as it comes.
fn of_a_peer(index: u64) -> (SnapshotId, Vec<Vec<u8>>) {
    let disk = MemoryDisk::new();
    publish(&disk, index);
    blocks(&disk)
}

#[test]
fn a_snapshot_counts_when_it_is_published() {
    let disk = MemoryDisk::new();
    let keeper = &mut keeper(&disk);
    assert!(!keeper.has_work() && keeper.progress().is_none());
    assert!(keeper.step().unwrap().is_none(), "nothing to do");
    keeper.submit(take(4));
    assert!(keeper.has_work() && !keeper.may_wait(), "a task first");
    assert!(keeper.step().unwrap().is_none());
    assert!(keeper.may_wait() && keeper.progress().is_some());
    assert!(matches!(run(keeper)[..], [Done::Verified]));
    assert!(!keeper.has_work(), "it is kept back");
    assert_eq!(snapshots_on(&disk).unwrap(), []);
    let Done::Taken(info) = only(keeper, Task::Publish) else { panic!("it was verified") };
    assert_eq!((info.id.index, info.position, info.log_from), (Index(4), header(4).position, Lsn(40)));
    assert_eq!(snapshots_on(&disk).unwrap()[0].len, info.len);
    assert!(keeper.step().unwrap().is_none());
    keeper.submit(Task::Publish);
    assert!(run(keeper).is_empty(), "there is nothing more to publish");
}

#[test]
fn the_two_newest_are_kept() {
    let disk = MemoryDisk::new();
    for index in [2, 3, 5, 7] {
        publish(&disk, index);
    }
    let names: Vec<String> = snapshots_on(&disk).unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, [snapshot_name(Index(7)), snapshot_name(Index(5))]);
    assert_eq!(found(&disk), (7, 0));
}

#[test]
fn blocks_for_peers() {
    let disk = MemoryDisk::new();
    let read = |id, next| Task::Read { to: ASKER, id, next, count: limits::SNAPSHOT_BLOCK_COUNT_MAX };
    let nothing = only(&mut keeper(&disk), read(None, 0));
    assert!(matches!(nothing, Done::Gone { to: ASKER, damage: None, .. }));
    let info = publish(&disk, 5);
    let keeper = &mut keeper(&disk);
    let Done::Blocks { to, id, first, blocks } = only(keeper, read(Some(info.id), 1)) else {
        panic!("it is there")
    };
    assert_eq!((to, id, first, blocks.len()), (ASKER, info.id, 1, 4), "three of the body, and the footer");
    let behind = only(keeper, read(None, 9));
    assert!(matches!(behind, Done::Blocks { blocks, .. } if blocks.is_empty()));
    let other = Some(SnapshotId { digest: 1, ..info.id });
    assert!(matches!(only(keeper, read(other, 0)), Done::Gone { damage: None, .. }));
    // Damage is told to whoever asks, and the next one is served if there is a newer file.
    disk.corrupt(&snapshot_name(Index(5)), 70_000, 1);
    let Done::Gone { damage: Some(damage), .. } = only(keeper, read(None, 0)) else {
        panic!("the first block of the body is damaged")
    };
    assert!(damage.index == Index(5) && damage.what.contains(&snapshot_name(Index(5))), "{damage:?}");
    publish(&disk, 6);
    assert!(matches!(only(keeper, read(None, 0)), Done::Blocks { id, .. } if id.index == Index(6)));
}

#[test]
fn a_snapshot_goes_from_node_to_node() {
    let disk = MemoryDisk::new();
    publish(&disk, 2);
    publish(&disk, 3);
    let (id, blocks) = of_a_peer(9);
    let keeper = &mut keeper(&disk);
    let mut next = 0;
    for few in blocks.chunks(3) {
        let first = next;
        let Done::Stored { id: found, next: wanted, complete, .. } =
            only(keeper, Task::Store { id, first, blocks: few.to_vec() })
        else {
            panic!("they are sound")
        };
        next += u32::try_from(few.len()).unwrap();
        assert_eq!((found, wanted), (id, next));
        let whole = next as usize == blocks.len();
        assert_eq!(complete.map(|header| header.index), whole.then_some(Index(9)));
    }
    let Done::Verified = load_now(keeper, front(9)) else { panic!("it is sound") };
    assert_eq!(found(&disk), (3, 0), "it does not count yet");
    let Done::Loaded { info, header: found_header, store: loaded } = only(keeper, Task::Publish) else {
        panic!("it was verified")
    };
    assert_eq!((info.id, info.log_from, found_header.index), (id, Lsn(90), Index(9)));
    assert_eq!((loaded.digest(), loaded.digest_recomputed()), (store(9).digest(), store(9).digest()));
    assert_eq!(snapshots_on(&disk).unwrap().len(), 1, "older ones would not fit the log any more");
    assert_eq!(found(&disk), (9, 0));
    assert_eq!(self::blocks(&disk), (id, blocks), "it can be served");
}

/// A damaged older snapshot, read for somebody who had begun with it, costs the newest nothing.
#[test]
fn damage_in_the_older_one_leaves_the_newest() {
    let disk = MemoryDisk::new();
    let (older, newest) = (publish(&disk, 3), publish(&disk, 9));
    disk.corrupt(&snapshot_name(Index(3)), older.len / 2, 1);
    let keeper = &mut keeper(&disk);
    let read = |id| Task::Read { to: ASKER, id: Some(id), next: 0, count: limits::SNAPSHOT_BLOCK_COUNT_MAX };
    let Done::Gone { damage: Some(damage), .. } = only(keeper, read(older.id)) else {
        panic!("it is damaged")
    };
    assert!(damage.index == Index(3) && damage.what.contains(&snapshot_name(Index(3))), "{damage:?}");
    assert!(matches!(only(keeper, read(newest.id)), Done::Blocks { id, .. } if id == newest.id));
    assert_eq!(found(&disk), (9, 0));
}

/// The same where the file cannot even be opened: it is set aside, and the other one of the two is kept.
#[test]
fn a_snapshot_without_its_beginning_is_set_aside() {
    for (damaged, left) in [(3, 9), (9, 3)] {
        let disk = MemoryDisk::new();
        let ids = [publish(&disk, 3).id, publish(&disk, 9).id];
        disk.corrupt(&snapshot_name(Index(damaged)), 20, 1);
        let (keeper, mut told) = (&mut keeper(&disk), 0);
        for id in ids {
            let done = only(keeper, Task::Read { to: ASKER, id: Some(id), next: 0, count: 1 });
            match done {
                Done::Gone { damage: Some(SnapshotDamage { index, .. }), .. } => {
                    assert_eq!(index, Index(damaged));
                    told += 1;
                }
                Done::Gone { damage: None, .. } => assert_eq!((told, id.index), (1, Index(damaged))),
                Done::Blocks { id: found, .. } => assert_eq!((found, id.index), (id, Index(left))),
                _ => panic!("no answer to the question"),
            }
        }
        assert_eq!(told, 1);
        let aside = format!("{}{ASIDE}", snapshot_name(Index(damaged)));
        assert!(disk.list().unwrap().contains(&aside), "{damaged}");
        assert_eq!(found(&disk), (left, 0));
        publish(&disk, 12);
        let indexes: Vec<u64> = snapshots_on(&disk).unwrap().iter().map(|file| file.index.0).collect();
        assert_eq!(indexes, [12, left], "two that are sound");
    }
}

/// What a client reads has lost its name to another one of the same index, which is sound.
#[test]
fn damage_in_what_is_gone_leaves_its_namesake() {
    let disk = MemoryDisk::new();
    let info = publish(&disk, 5);
    let keeper = &mut keeper(&disk);
    let to = Asker::Client(ClientKey { index: 1, generation: 1 }, 1);
    let read = |next| Task::Read { to, id: Some(info.id), next, count: 1 };
    assert!(matches!(only(keeper, read(0)), Done::Blocks { .. }));
    disk.corrupt(&snapshot_name(Index(5)), info.len / 2, 1);
    let header = Box::new(SnapshotHeader { delivered: 1, ..header(5) });
    only(keeper, Task::Take { front: front(5), header, image: store(5).freeze() });
    let Done::Taken(namesake) = only(keeper, Task::Publish) else { panic!("it was verified") };
    assert!(namesake.id != info.id && namesake.id.index == info.id.index);
    let all: Vec<Done> = (1..info.blocks).map(|next| only(keeper, read(next))).collect();
    assert!(all.iter().any(|done| matches!(done, Done::Gone { damage: None, .. })));
    assert!(!all.iter().any(|done| matches!(done, Done::Gone { damage: Some(_), .. })));
    assert_eq!(found(&disk), (5, 0));
}

/// Who makes a backup is not overtaken by newer snapshots.
#[test]
fn what_a_client_reads_stays_until_it_is_released() {
    let disk = MemoryDisk::new();
    let info = publish(&disk, 3);
    publish(&disk, 4);
    let keeper = &mut keeper(&disk);
    let to = Asker::Client(ClientKey { index: 1, generation: 1 }, 1);
    let read = |next| Task::Read { to, id: Some(info.id), next, count: 1 };
    assert!(matches!(only(keeper, read(0)), Done::Blocks { .. }));
    for index in 5..9 {
        publish(&disk, index);
    }
    assert!(snapshots_on(&disk).unwrap().iter().all(|file| file.index > Index(3)));
    for next in 1..info.blocks {
        let Done::Blocks { id, first, blocks, .. } = only(keeper, read(next)) else { panic!("block {next}") };
        assert_eq!((id, first, blocks.len()), (info.id, next, 1));
    }
    keeper.submit(Task::Release);
    assert!(run(keeper).is_empty());
    assert!(matches!(only(keeper, read(0)), Done::Gone { damage: None, .. }));
}

#[test]
fn blocks_that_are_not_right_are_refused() {
    let disk = MemoryDisk::new();
    let (id, blocks) = of_a_peer(5);
    let keeper = &mut keeper(&disk);
    let store = |first, blocks: &[Vec<u8>]| Task::Store { id, first, blocks: blocks.to_vec() };
    let refused = |done| if let Done::Refused { what } = done { what } else { panic!("it was taken") };
    let what = refused(only(keeper, store(1, &blocks[1..])));
    assert!(what.contains("does not begin with its header"), "{what}");
    refused(only(keeper, store(0, &[])));
    let mut damaged = blocks[0].clone();
    damaged[40] ^= 1;
    refused(only(keeper, store(0, &[damaged])));
    let mut damaged = blocks[2].clone();
    damaged[40] ^= 1;
    refused(only(keeper, store(0, &[blocks[0].clone(), blocks[1].clone(), damaged])));
    // What was right before it is still there.
    let Done::Stored { next, complete: None, .. } = only(keeper, store(0, &blocks[..1])) else {
        panic!("the header is right")
    };
    assert_eq!(next, 2);
    let what = refused(load_now(keeper, front(5)));
    assert!(what.contains("not here any more"), "{what}");
}

/// All blocks are right, but they do not make the state that the header names.
#[test]
fn another_state_than_announced_is_refused() {
    let (peer, disk) = (MemoryDisk::new(), MemoryDisk::new());
    let header = SnapshotHeader { digest: 1, ..header(5) };
    let mut writer = crate::storage::SnapshotWriter::create(&peer, front(5), &header).unwrap();
    let (mut encoder, mut bytes) = (store(5).freeze().into_encoder(), Vec::new());
    while encoder.next_chunk(&mut bytes, 60_000) {}
    writer.push(&bytes).unwrap();
    let mut file = writer.finish().unwrap();
    while file.next_payload().unwrap().is_some() {}
    file.publish().unwrap();
    let (id, blocks) = blocks(&peer);
    let keeper = &mut keeper(&disk);
    assert!(matches!(only(keeper, Task::Store { id, first: 0, blocks }), Done::Stored { .. }));
    let Done::Refused { what } = load_now(keeper, front(5)) else { panic!("it was taken") };
    assert!(what.contains("expected 0000000000000001"), "{what}");
    assert_eq!(crate::storage::Disk::list(&disk).unwrap(), [""; 0], "it is not asked for again");
}

/// Another process goes on where one stopped, and one that was dropped is not lost.
#[test]
fn what_is_half_received_is_not_asked_for_again() {
    let (id, blocks) = of_a_peer(9);
    let disk = MemoryDisk::new();
    let first_half = Task::Store { id, first: 0, blocks: blocks[..3].to_vec() };
    only(&mut keeper(&disk), first_half);
    let disk = disk.fork();
    let keeper = &mut keeper(&disk);
    let again = || Task::Store { id, first: 0, blocks: blocks[..1].to_vec() };
    let Done::Stored { next: 3, .. } = only(keeper, again()) else { panic!("three blocks are there") };
    let rest = Task::Store { id, first: 3, blocks: blocks[3..].to_vec() };
    let Done::Stored { complete: Some(_), .. } = only(keeper, rest) else { panic!("all are there") };
    for steps in 0..4 {
        let task = load(keeper, front(9));
        keeper.submit(task);
        for _ in 0..steps {
            assert!(keeper.step().unwrap().is_none());
        }
        keeper.submit(Task::Drop);
        if steps == 0 {
            // Dropped before it began.
            assert!(matches!(run(keeper)[..], [Done::Verified]) || !keeper.has_work());
            keeper.submit(Task::Drop);
        }
        assert!(run(keeper).is_empty() && keeper.progress().is_none());
        keeper.submit(Task::Publish);
        assert!(run(keeper).is_empty(), "what is dropped is not published");
        let all = Task::Store { id, first: 0, blocks: blocks.clone() };
        let Done::Stored { complete: Some(_), .. } = only(keeper, all) else { panic!("all are there") };
    }
    // Another snapshot takes its place.
    let (other, blocks) = of_a_peer(4);
    let Done::Stored { id: stored, .. } = only(keeper, Task::Store { id: other, first: 0, blocks }) else {
        panic!("it is sound")
    };
    assert_eq!(stored, other);
    assert_eq!(crate::storage::Disk::list(&disk).unwrap().len(), 1);
}

/// A snapshot that does not fit on the disk leaves everything as it was; any other failure of the disk stops the node.
#[test]
fn a_full_disk_and_a_broken_one() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync] {
        for calls_before in 0..if operation == Operation::Write { 4 } else { 1 } {
            let disk = MemoryDisk::new();
            publish(&disk, 3);
            let keeper = &mut keeper(&disk);
            disk.fail(operation, calls_before, ErrorKind::StorageFull);
            let Done::Failed { what } = only(keeper, take(9)) else { panic!("there is no room") };
            disk.heal();
            assert!(what.contains("snapshot-"), "{what}");
            assert_eq!(
                crate::storage::Disk::list(&disk).unwrap(),
                [snapshot_name(Index(3))],
                "{operation:?}"
            );
            assert_eq!(found(&disk), (3, 0));
            assert!(matches!(only(keeper, take(9)), Done::Verified), "the next attempt");
            disk.fail(operation, calls_before, ErrorKind::Other);
            keeper.submit(take(10));
            while disk_is_sound(keeper) {}
            disk.heal();
        }
    }
    let (id, blocks) = of_a_peer(5);
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        for operation in [Operation::Create, Operation::Write, Operation::SyncDir] {
            let disk = MemoryDisk::new();
            disk.fail(operation, 0, kind);
            let keeper = &mut keeper(&disk);
            keeper.submit(Task::Store { id, first: 0, blocks: blocks.clone() });
            let what = match keeper.step() {
                Ok(Some(Done::Refused { what })) if kind == ErrorKind::StorageFull => what,
                Err(error) if kind == ErrorKind::Other => error.to_string(),
                _ => panic!("{operation:?} fails: {kind}"),
            };
            assert!(what.contains("snapshot-"), "{what}");
            disk.heal();
            let left = crate::storage::Disk::list(&disk).unwrap();
            assert!(kind == ErrorKind::Other || left.is_empty(), "{left:?}");
        }
    }
}

/// One step; `false` once the disk has failed.
fn disk_is_sound(keeper: &mut Keeper<MemoryDisk>) -> bool {
    assert!(keeper.has_work(), "the disk was to fail");
    match keeper.step() {
        Ok(done) => {
            assert!(done.is_none());
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Other);
            false
        }
    }
}

/// Power failures, a few for each step: what a start finds then.
fn crashed(disk: &MemoryDisk, seed: u64, mut check: impl FnMut((u64, usize))) {
    for round in 0..6 {
        let mut state = seed * 6 + round;
        check(found(&disk.crash(&mut || splitmix64(&mut state))));
    }
}

/// A call to the disk fails while snapshot 9 is published, and then the power does: 9 counts, or still 3.
fn publishing_fails(
    keeper: &mut Keeper<MemoryDisk>,
    disk: &MemoryDisk,
    operation: Operation,
    calls_before: u64,
) {
    disk.fail(operation, calls_before, ErrorKind::Other);
    keeper.submit(Task::Publish);
    let failed = keeper.step().is_err();
    disk.heal();
    crashed(disk, 1, |(index, damaged)| {
        assert!(damaged == 0 && (index == 9 || (index == 3 && failed)), "{operation:?} {index}");
    });
}

#[test]
fn a_crash_while_one_is_taken() {
    let disk = MemoryDisk::new();
    publish(&disk, 2);
    publish(&disk, 3);
    let keeper = &mut keeper(&disk);
    keeper.submit(take(9));
    let mut steps = 0;
    while keeper.has_work() {
        keeper.step().unwrap();
        steps += 1;
        crashed(&disk, steps, |found| assert_eq!(found, (3, 0), "after step {steps}"));
    }
    assert!(steps > 8, "{steps} steps");
    // In the midst of publishing the old one counts or the new one, and never none.
    let calls = |disk: &MemoryDisk| disk.take_calls().len() as u64;
    disk.record_calls();
    keeper.submit(Task::Publish);
    keeper.step().unwrap();
    assert!(calls(&disk) >= 3);
    crashed(&disk, 0, |found| assert_eq!(found, (9, 0)));
    for operation in [Operation::Rename, Operation::SyncDir] {
        for calls_before in 0..2 {
            let disk = MemoryDisk::new();
            publish(&disk, 2);
            publish(&disk, 3);
            let keeper = &mut self::keeper(&disk);
            only(keeper, take(9));
            publishing_fails(keeper, &disk, operation, calls_before);
        }
    }
}

#[test]
fn a_crash_while_one_is_installed() {
    let (id, blocks) = of_a_peer(9);
    let disk = MemoryDisk::new();
    publish(&disk, 2);
    publish(&disk, 3);
    let keeper = &mut keeper(&disk);
    let mut steps = 0;
    let mut old = |disk: &MemoryDisk| {
        steps += 1;
        crashed(disk, steps, |found| assert_eq!(found, (3, 0), "after step {steps}"));
    };
    for (block, first) in blocks.iter().zip(0..) {
        only(keeper, Task::Store { id, first, blocks: vec![block.clone()] });
        old(&disk);
    }
    let task = load(keeper, front(9));
    keeper.submit(task);
    while keeper.has_work() {
        keeper.step().unwrap();
        old(&disk);
    }
    let before = disk.fork();
    assert!(matches!(only(keeper, Task::Publish), Done::Loaded { .. }));
    crashed(&disk, 0, |found| assert_eq!(found, (9, 0)));
    assert_eq!(found(&before), (3, 0));
    // A failure in the midst of it, and then the power.
    for operation in [Operation::Rename, Operation::SyncDir, Operation::Remove] {
        for calls_before in 0..2 {
            let disk = MemoryDisk::new();
            publish(&disk, 2);
            publish(&disk, 3);
            let keeper = &mut self::keeper(&disk);
            only(keeper, Task::Store { id, first: 0, blocks: blocks.clone() });
            load_now(keeper, front(9));
            publishing_fails(keeper, &disk, operation, calls_before);
        }
    }
}
