//! `kvnode --inspect`: what it tells of a data directory, sound or damaged, in use or not, and that it changes nothing.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::{Finished, PortBlock, Resp, RespClient, Running, TempDir, kvnode};
use lanekv::node::SnapshotJob;
use lanekv::storage::{
    DataDir, Log, LogOptions, RecordGroup, SnapshotFront, SnapshotHeader, remove_old_snapshots, snapshot_name,
};
use lanekv::store::{Applied, Limits, Store, lookup};
use lanekv::types::{DiskId, Index, Lsn, Millis, NodeId};
use lanekv::wire::batch::BatchCommand;

/// Every file of a directory with its bytes.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("a directory of ours");
    entries
        .map(|entry| {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("readable"))
        })
        .collect()
}

fn inspect(directory: &Path) -> Finished {
    let finished = Finished::of(kvnode().arg("--inspect").arg(directory), b"");
    assert!(!finished.stderr.contains("panicked"), "{finished:#?}");
    finished
}

/// Asserts that it finds this damage, names it on both outputs, and ends as agreed.
fn assert_damaged(directory: &Path, clue: &str) {
    let before = contents(directory);
    let finished = inspect(directory);
    finished.assert_refused(4, clue);
    let line = finished.stdout.lines().find(|line| line.starts_with("damage ")).unwrap_or_default();
    assert!(line.contains(clue), "no damage with {clue:?}: {finished:#?}");
    assert_eq!(contents(directory), before, "it has changed something");
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("a file of ours");
    bytes[offset] ^= 1;
    fs::write(path, bytes).expect("a file of ours");
}

#[test]
fn a_node_that_runs_and_one_that_was_stopped() {
    let (ports, dir) = (PortBlock::take().expect("free ports"), TempDir::new("inspect"));
    let conf = dir.write("nodes.conf", &format!("0 127.0.0.1:{}\n", ports.port(0)));
    let data = dir.path().join("data");
    let mut command = kvnode();
    command.arg("0").arg(&conf).arg("--data-dir").arg(&data);
    let mut node = Running::start(&mut command, &dir.path().join("log"));
    node.wait_ready();
    let mut client = RespClient::connect(&format!("127.0.0.1:{}", ports.port(0)));
    for i in 0..50 {
        assert_eq!(client.ask(&["SET", &format!("key-{i}"), "value"]), Resp::ok());
        if i % 10 == 0 {
            let finished = inspect(&data);
            assert_eq!(finished.code, Some(0), "{finished:#?}");
            assert!(finished.stdout.contains(&format!("held pid={}", node.pid())), "{finished:#?}");
        }
    }
    node.kill();
    let before = contents(&data);
    let finished = inspect(&data);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    for line in ["lock      free", "identity  node=0 disk=", "segment   wal-0000000000000001.log bytes="] {
        assert!(finished.stdout.contains(line), "{line}: {finished:#?}");
    }
    assert!(finished.stdout.contains("damage    none") && finished.stderr.is_empty(), "{finished:#?}");
    assert_eq!(contents(&data), before, "it has changed something");
    // Behind the header of the segment, in the first record.
    flip(&data.join("wal-0000000000000001.log"), 520);
    assert_damaged(&data, "wal-0000000000000001.log is damaged at offset 512");
}

#[test]
fn a_directory_with_snapshots() {
    let dir = TempDir::new("inspect");
    let data = dir.path().join("data");
    let directory =
        DataDir::open(&data, NodeId::new(3).expect("below 64"), false, || DiskId(7)).expect("new");
    let options = LogOptions { segment_len: 4096, ..LogOptions::new(directory.identity(), 1) };
    let (mut log, _) = Log::open(directory.disk(), options, |_, _, _| Ok(())).expect("new");
    let mut store = Store::new(Limits::default(), 1);
    let code = lookup(b"SET").expect("a command").code;
    for lsn in 1..=60 {
        let mut group = RecordGroup::new();
        group.push(Lsn(lsn), 1, |out| out.extend_from_slice(&[1; 300]));
        log.append(&mut group).and_then(|()| log.sync()).expect("room for it");
        let (key, at) = (format!("key-{lsn}"), Applied { index: Index(lsn), now: Millis(1) });
        let command = BatchCommand { session: None, code, arguments: vec![key.as_bytes(), &[b'v'; 2000]] };
        store.apply(at, &command, false);
        if lsn % 20 == 0 {
            let front =
                SnapshotFront { disk_id: DiskId(7), log_from: Lsn(lsn + 1), ..SnapshotFront::default() };
            let header = SnapshotHeader { index: Index(lsn), ..SnapshotHeader::default() };
            let job = SnapshotJob::new(directory.disk(), front, header, store.freeze()).expect("room for it");
            let made = job.run(|_| ControlFlow::Continue(())).expect("room for it").expect("not broken off");
            assert_eq!(made.publish().expect("room for it").name, snapshot_name(Index(lsn)));
            remove_old_snapshots(directory.disk()).expect("files of ours");
        }
    }
    while log.truncate_before(Lsn(41)).expect("room for it") {}
    let first = log.segments()[0].first;
    drop((log, directory));
    let finished = inspect(&data);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    for line in [
        "index=60 position=(v0,0,n0) view=0 cluster=0000000000000000 keys=60 sessions=0 digest=",
        "log_from=61 verified",
        "index=40 position=",
        &format!("log       first={first} last=60 sync=\"always\" end=open"),
        "damage    none",
    ] {
        assert!(finished.stdout.contains(line), "{line}: {finished:#?}");
    }
    assert!(!finished.stdout.contains("index=20"), "two are kept: {finished:#?}");
    // Damage to a snapshot is located.
    let newest = data.join(snapshot_name(Index(60)));
    flip(&newest, 70_000);
    assert_damaged(&data, "is damaged in block 2 at offset 65705: checksum is 0x");
    flip(&newest, 70_000);
    // What was set aside is told, and is not damage of this directory any more.
    let aside = data.join("snapshot-0000000000000050.snap.damaged");
    fs::write(&aside, [0; 17]).expect("a directory of ours");
    fs::write(data.join("wal-0000000000000004.torn"), [0; 9]).expect("a directory of ours");
    let finished = inspect(&data);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    for line in [
        "aside     snapshot-0000000000000050.snap.damaged bytes=17: set aside by a start",
        "aside     wal-0000000000000004.torn bytes=9: cut off by a start",
    ] {
        assert!(finished.stdout.contains(line), "{line}: {finished:#?}");
    }
    // Without the snapshots the log begins too late.
    for index in [40, 60] {
        fs::remove_file(data.join(snapshot_name(Index(index)))).expect("a file of ours");
    }
    assert_damaged(&data, "the log begins with record 41, record 1 is needed");
    flip(&data.join("IDENTITY"), 20);
    assert_damaged(&data, "IDENTITY is damaged at offset 16: wrong checksum");
    flip(&data.join("IDENTITY"), 20);
    fs::remove_file(data.join("IDENTITY")).expect("a file of ours");
    assert_damaged(&data, "there is no IDENTITY");
}

#[test]
fn what_is_no_directory_is_bad_usage() {
    let dir = TempDir::new("inspect");
    let missing = dir.path().join("missing");
    inspect(&missing).assert_refused(2, "is no directory");
    assert!(!missing.exists());
    let both = Finished::of(kvnode().args(["--inspect", "x", "0", "y"]), b"");
    both.assert_refused(2, "--inspect");
}
