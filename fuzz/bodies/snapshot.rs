//! Snapshot files after the disk has done what it liked with them, blocks of snapshots from a peer, and images.

use std::cell::OnceCell;
use std::ops::ControlFlow;

use lanekv::node::{SnapshotJob, check_snapshot, load_snapshot};
use lanekv::storage::{
    Disk, DiskFile, MemoryDisk, SnapshotError, SnapshotFront, SnapshotHeader, SnapshotReceiver, snapshot_name,
};
use lanekv::store::{Applied, ImageChecker, Limits, Store, StoreBuilder, lookup};
use lanekv::types::{ClusterId, DiskId, Incarnation, Index, Lsn, Millis, SessionId};
use lanekv::wire::batch::{BatchCommand, SessionSeq};
use xxhash_rust::xxh3::xxh3_64;

use super::script::{Front, pieces, steps};

/// docs/formats.md.
const FRONT_LEN: usize = 64;
const HEAD_LEN: usize = 16;
const BLOCK_LEN_MAX: usize = 64 << 10;
const FOOTER_LEN: usize = 36;

const INDEX: Index = Index(9);

fn front() -> SnapshotFront {
    SnapshotFront { disk_id: DiskId(5), log_from: Lsn(3), incarnation: Incarnation(2) }
}

/// A store with sessions, and with a value of this length.
fn store(large: usize) -> Store {
    let mut store = Store::new(Limits::default(), 1);
    let mut apply = |index: u64, session, name: &str, arguments: &[&[u8]]| {
        let code = lookup(name.as_bytes()).expect("a command").code;
        let at = Applied { index: Index(index), now: Millis(1000 * index) };
        store.apply(at, &BatchCommand { session, code, arguments: arguments.to_vec() }, false);
    };
    let place = |seq| Some(SessionSeq { session: SessionId(1), seq, acked: 0 });
    apply(1, None, "SESSION", &[b"OPEN"]);
    apply(2, place(1), "SET", &[b"a", b"1"]);
    apply(3, place(2), "GETSET", &[b"a", b"some words"]);
    apply(4, place(3), "INCR", &[b"n"]);
    apply(5, place(4), "INCR", &[b"a"]);
    apply(6, None, "SET", &[b"{a}b", &vec![b'l'; large]]);
    apply(7, None, "SESSION", &[b"OPEN"]);
    store
}

/// The image of a store as bytes.
pub(crate) fn image(large: usize) -> Vec<u8> {
    let (mut encoder, mut bytes) = (store(large).freeze().into_encoder(), Vec::new());
    while encoder.next_chunk(&mut bytes, 1 << 20) {}
    bytes
}

/// The snapshot of a store as bytes.
fn file(large: usize) -> Vec<u8> {
    let disk = MemoryDisk::new();
    let header = SnapshotHeader {
        cluster: ClusterId(4),
        index: INDEX,
        view: vec![1; 20],
        origins: vec![2; 30],
        ..SnapshotHeader::default()
    };
    let job = SnapshotJob::new(&disk, front(), header, store(large).freeze()).expect("in memory");
    let made = job.run(|_| ControlFlow::Continue(())).expect("in memory").expect("not broken off");
    let made = made.publish().expect("in memory");
    content(&disk, &made.name)
}

fn content(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).expect("the file is there");
    let mut bytes = vec![0; usize::try_from(file.size().expect("in memory")).expect("small")];
    file.read_at(0, &mut bytes).expect("in memory");
    bytes
}

thread_local! {
    static FILES: [OnceCell<Vec<u8>>; 2] = const { [const { OnceCell::new() }; 2] };
}

/// An image, or one of two files and a script of what happens to it, as the first byte says.
pub(super) fn snapshot(input: &[u8]) {
    let [which, rest @ ..] = input else { return };
    match which % 3 {
        0 => check_image(rest),
        which => FILES.with(|files| {
            let which = usize::from(which - 1);
            let written = files[which].get_or_init(|| file([10, 70_000][which]));
            check_harm(written, rest);
        }),
    }
}

fn check_image(bytes: &[u8]) {
    let mut whole = StoreBuilder::new(1);
    let result = whole.push(bytes);
    let (mut cut, mut checker) = (StoreBuilder::new(2), ImageChecker::default());
    let (mut rest, mut again) = (bytes, Ok(()));
    for len in pieces(bytes) {
        let (piece, tail) = rest.split_at(len.min(rest.len()));
        again = again.and_then(|()| cut.push(piece));
        // What comes twice shows in the digest only.
        let checked = checker.push(piece);
        assert!(again.is_err() || checked.is_ok(), "{checked:?}");
        rest = tail;
        if rest.is_empty() || again.is_err() {
            break;
        }
    }
    assert_eq!(result, again, "it depends on the pieces");
    if result.is_err() {
        return;
    }
    // The digest of whatever it makes is what it is told to be when it is told another one.
    let digest = match cut.finish(Limits::default(), 0) {
        Ok(store) => store.digest(),
        Err(lanekv::store::ImageError::Digest { found, .. }) => found,
        Err(lanekv::store::ImageError::Unfinished { .. }) => return,
        Err(other) => panic!("{other}"),
    };
    checker.finish(digest).expect("the checker sees what the builder sees");
    let store = whole.finish(Limits::default(), digest).expect("its own digest");
    assert_eq!(store.digest_recomputed(), digest);
    let (mut encoder, mut bytes) = (store.freeze().into_encoder(), Vec::new());
    while encoder.next_chunk(&mut bytes, 100) {}
    let mut twin = StoreBuilder::new(3);
    twin.push(&bytes).expect("what is written is read");
    assert_eq!(twin.finish(Limits::default(), digest).map(|store| store.digest()), Ok(digest));
}

/// Cuts the blocks of a file apart, as far as their heads say sensible lengths.
fn blocks(file: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut blocks) = (file.get(FRONT_LEN..).unwrap_or_default(), Vec::new());
    while let Some(len) = rest.first_chunk::<4>() {
        let len = (u32::from_le_bytes(*len) as usize).min(BLOCK_LEN_MAX - HEAD_LEN) + HEAD_LEN;
        let (block, tail) = rest.split_at(len.min(rest.len()));
        blocks.push(block);
        rest = tail;
    }
    blocks
}

/// Makes all checksums, the numbers and the digest right, so that the reader looks inside.
fn seal(file: &mut [u8]) {
    if file.len() < FRONT_LEN + HEAD_LEN {
        return;
    }
    for end in [16, FRONT_LEN] {
        let crc = crc32c::crc32c(&file[..end - 4]);
        file[end - 4..end].copy_from_slice(&crc.to_le_bytes());
    }
    let lens: Vec<usize> = blocks(file).iter().map(|block| block.len()).collect();
    let (mut at, mut salt) = (FRONT_LEN, 0);
    for (number, len) in lens.iter().enumerate() {
        if *len < HEAD_LEN {
            return;
        }
        let before = xxh3_64(&file[FRONT_LEN..at]);
        let block = &mut file[at..at + len];
        if block[12] == 2 && *len == FOOTER_LEN {
            block[28..].copy_from_slice(&before.to_le_bytes());
        }
        block[8..12].copy_from_slice(&u32::try_from(number).expect("few").to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(salt, &block[..4]), &block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        if number == 0 {
            salt = crc;
        }
        at += len;
    }
}

fn check_harm(written: &[u8], script: &[u8]) {
    let (mut file, mut forged) = (written.to_vec(), false);
    for (code, payload) in steps(script).take(16) {
        let mut front = Front(payload);
        // Most of a large file is one value: its ends are more interesting.
        let near = usize::from(front.u16());
        let at = if code & 0x80 == 0 { near } else { file.len().saturating_sub(near) };
        match (code & 0x7f) % 6 {
            0 => {
                let mask = front.u8();
                file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask);
            }
            1 => file.iter_mut().skip(at).zip(front.rest()).for_each(|(byte, new)| *byte = *new),
            2 => file.truncate(at),
            3 => file.extend_from_slice(front.rest()),
            4 => drop(file.splice(at.min(file.len())..at.min(file.len()), front.rest().iter().copied())),
            _ => {
                seal(&mut file);
                forged = true;
            }
        }
    }
    check_file(written, &file, forged);
    check_receiver(written, &file, forged);
}

fn check_file(written: &[u8], file: &[u8], forged: bool) {
    let (disk, name) = (MemoryDisk::new(), snapshot_name(INDEX));
    disk.create(&name).and_then(|it| it.write_at(0, file)).expect("in memory");
    let loaded = load_snapshot(&disk, &name, Limits::default(), 1, |done, len| assert!(done <= len));
    assert_eq!(
        check_snapshot(&disk, &name).is_ok(),
        loaded.is_ok(),
        "the checker sees what the builder sees"
    );
    match loaded {
        Ok(loaded) => {
            assert!(forged || file == written, "what is not what was written is damage");
            assert_eq!(loaded.store.digest_recomputed(), loaded.header.digest);
        }
        Err(error) => {
            assert!(file != written, "{error}");
            assert!(error.exit_code() != 5 && !error.to_string().is_empty(), "{error}");
        }
    }
}

/// Gives the blocks of a file to a receiver, which loses its connection and its power on the way.
fn check_receiver(written: &[u8], file: &[u8], forged: bool) {
    let blocks = blocks(file);
    let Some((first, rest)) = blocks.split_first() else { return };
    let mut disk = MemoryDisk::new();
    let Ok(mut receiver) = SnapshotReceiver::begin(&disk, first) else { return };
    for (number, block) in (1..).zip(rest) {
        assert_eq!(receiver.next_block(), number);
        if let Err(error) = receiver.push(number, block) {
            assert!(!matches!(error, SnapshotError::Io { .. }), "{error}");
            assert_eq!(receiver.next_block(), number, "a bad block changes nothing");
            return;
        }
        receiver.push(number, &[]).expect("not the next one");
        if receiver.is_complete() {
            break;
        }
        drop(receiver);
        // Everything that was not synced is kept: the process died, not the machine.
        disk = disk.fork();
        receiver = SnapshotReceiver::begin(&disk, first).expect("it began before");
    }
    if !receiver.is_complete() {
        return;
    }
    let index = receiver.header().index;
    let mut made = receiver.finish(front()).expect("in memory");
    while made.next_payload().expect("each block was checked").is_some() {}
    let made = made.publish().expect("in memory");
    assert_eq!(made.name, snapshot_name(index));
    let got = content(&disk.crash(&mut || 0), &made.name);
    let count = got.len() - FRONT_LEN;
    assert_eq!(got[FRONT_LEN..], file[FRONT_LEN..][..count]);
    assert!(forged || got[FRONT_LEN..] == written[FRONT_LEN..], "another snapshot than was written");
}
