//! A snapshot of a million keys of sixteen bytes with values of 64: what the event loop sees of it, how long the
//! helper thread is at it, and how long a start takes with it.
//!
//! Ends with figures in plain words. The files are in the system's directory for temporary files.

mod common;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use lanekv::node::{SnapshotFailure, SnapshotJob, check_snapshot, load_snapshot};
use lanekv::storage::{FileDisk, SnapshotFront, SnapshotHeader};
use lanekv::store::{Applied, Limits, Store};
use lanekv::types::{Index, Millis};
use lanekv::wire::batch::BatchCommand;

use common::{Directory, SplitMix};

const KEY_COUNT: usize = 1_000_000;
const WRITE_COUNT: usize = 300_000;

struct Filled {
    store: Store,
    index: u64,
    set: u8,
}

impl Filled {
    fn set(&mut self, number: usize) {
        self.index += 1;
        let at = Applied { index: Index(self.index), now: Millis(1_700_000_000_000) };
        let (key, value) = (common::key(number), [b'v'; 64]);
        let command = BatchCommand { session: None, code: self.set, arguments: vec![&key, &value] };
        assert!(!self.store.apply(at, &command, false).is_error());
    }

    /// Writes to random keys, and tells how long it took.
    fn write(&mut self, random: &mut SplitMix, when: &str) {
        let mut times: Vec<Duration> = (0..WRITE_COUNT)
            .map(|_| {
                let number = random.below(KEY_COUNT);
                let start = Instant::now();
                self.set(number);
                start.elapsed()
            })
            .collect();
        let mean = times.iter().sum::<Duration>() / u32::try_from(WRITE_COUNT).expect("few");
        times.sort_unstable();
        let slow = times[WRITE_COUNT - WRITE_COUNT / 1000];
        println!(
            "SET {when}: mean {mean:.1?}, one in a thousand {slow:.1?}, longest {:.1?}",
            times[WRITE_COUNT - 1]
        );
    }
}

fn main() {
    // `cargo bench -- name` and `cargo test --benches` pass words on; there is only this one thing to be measured.
    if common::is_mere_try() {
        return;
    }
    let directory = Directory::new("snapshot");
    let disk = FileDisk::open(directory.path()).expect("just made");
    let store = Store::new(Limits::default(), 1);
    let mut filled = Filled { store, index: 0, set: common::code("SET") };
    for number in 0..KEY_COUNT {
        filled.set(number);
    }
    let mut random = SplitMix(7);

    let mut times: Vec<Duration> = (0..1000)
        .map(|_| {
            let start = Instant::now();
            let image = filled.store.freeze();
            let took = start.elapsed();
            drop(image);
            took
        })
        .collect();
    times.sort_unstable();
    println!("freezing {KEY_COUNT} keys: median {:.1?}, longest {:.1?}", times[500], times[999]);

    filled.write(&mut random, "without an image");
    let image = filled.store.freeze();
    filled.write(&mut random, "while an image is held, each slot copied once");
    drop(image);

    let digest = filled.store.digest();
    let header = SnapshotHeader { index: Index(filled.index), ..SnapshotHeader::default() };
    let start = Instant::now();
    let job = SnapshotJob::new(&disk, SnapshotFront::default(), header, filled.store.freeze());
    let job = job.expect("room for a temporary file");
    let helper = std::thread::spawn(move || {
        let file = job.run(|_| ControlFlow::Continue(()))?.expect("not broken off");
        Ok::<_, SnapshotFailure>(file.publish()?)
    });
    filled.write(&mut random, "while one is written");
    let file = helper.join().expect("no panic").expect("room for the file");
    println!("writing, reading back and publishing {} MiB: {:.2?}", file.len >> 20, start.elapsed());

    let start = Instant::now();
    check_snapshot(&disk, &file.name).expect("just written");
    println!("verifying it: {:.2?}", start.elapsed());
    let start = Instant::now();
    let loaded = load_snapshot(&disk, &file.name, Limits::default(), 2, |_, _| {}).expect("just written");
    println!("loading it: {:.2?}", start.elapsed());
    assert_eq!(loaded.store.digest(), digest);
}
