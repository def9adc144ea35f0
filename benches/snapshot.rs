//! A snapshot of a million keys of sixteen bytes with values of 64: what the event loop sees of it, how long the
//! helper thread is at it, and how long a start takes with it.
//!
//! Ends with figures in plain words. The files are in the system's directory for temporary files.

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lanekv::node::{SnapshotJob, check_snapshot, load_snapshot};
use lanekv::storage::{FileDisk, SnapshotFront, SnapshotHeader};
use lanekv::store::{Applied, Limits, Store};
use lanekv::types::{Index, Millis};
use lanekv::wire::batch::BatchCommand;

use common::SplitMix;

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

    /// Writes to random keys; returns the mean and the longest.
    fn write(&mut self, random: &mut SplitMix) -> (Duration, Duration) {
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        for _ in 0..WRITE_COUNT {
            let number = random.below(KEY_COUNT);
            let start = Instant::now();
            self.set(number);
            longest = longest.max(start.elapsed());
        }
        (begun.elapsed() / u32::try_from(WRITE_COUNT).expect("few"), longest)
    }
}

/// A directory that goes with the value.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn main() {
    // `cargo bench -- name` and `cargo test --benches` pass words on; there is only this one thing to be measured.
    if std::env::args().any(|word| word == "--test" || word == "--list") {
        return;
    }
    let directory = Directory(std::env::temp_dir().join(format!("lanekv-bench-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0).expect("a directory for temporary files");
    let disk = FileDisk::open(&directory.0).expect("just made");
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

    let (mean, longest) = filled.write(&mut random);
    println!("SET without an image: mean {mean:.0?}, longest {longest:.1?}");
    let image = filled.store.freeze();
    let (mean, longest) = filled.write(&mut random);
    println!("SET while an image is held: mean {mean:.0?}, longest {longest:.1?} (each slot is copied once)");
    drop(image);

    let digest = filled.store.digest();
    let header = SnapshotHeader { index: Index(filled.index), ..SnapshotHeader::default() };
    let start = Instant::now();
    let job = SnapshotJob::new(&disk, SnapshotFront::default(), header, filled.store.freeze());
    let job = job.expect("room for a temporary file");
    let helper = std::thread::spawn(move || job.run(|_| ControlFlow::Continue(())));
    let (mean, longest) = filled.write(&mut random);
    let file = helper.join().expect("no panic").expect("room for the file").expect("not broken off");
    println!("SET while one is written: mean {mean:.0?}, longest {longest:.1?}");
    println!("writing, reading back and publishing {} MiB: {:.2?}", file.len >> 20, start.elapsed());

    let start = Instant::now();
    check_snapshot(&disk, &file.name).expect("just written");
    println!("verifying it: {:.2?}", start.elapsed());
    let start = Instant::now();
    let loaded = load_snapshot(&disk, &file.name, Limits::default(), 2, |_, _| {}).expect("just written");
    println!("loading it: {:.2?}", start.elapsed());
    assert_eq!(loaded.store.digest(), digest);
}
