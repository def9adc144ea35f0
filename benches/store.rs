//! The key-value store: SET, GET, INCR and DEL among a thousand to ten million keys, in random order.
//!
//! SET, INCR and DEL go the way of a delivered command, which includes the digest; GET that of a
//! linearizable read. What DEL takes out is freed and put back outside the measured time. Keys have sixteen bytes,
//! values sixteen digits.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Throughput};
use lanekv::store::{Applied, Limits, Store};
use lanekv::types::{Index, Millis};
use lanekv::wire::batch::BatchCommand;

use common::SplitMix;

const KEY_COUNTS: [usize; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// A store with its keys.
struct Filled {
    store: Store,
    keys: Vec<[u8; 16]>,
    index: u64,
}

impl Filled {
    fn new(key_count: usize) -> Filled {
        let keys: Vec<[u8; 16]> = (0..key_count).map(common::key).collect();
        let mut filled = Filled { store: Store::new(Limits::default(), 1), keys: Vec::new(), index: 0 };
        let (set, value) = (common::code("SET"), common::value(16));
        for key in &keys {
            filled.apply(set, &[key, &value]);
        }
        assert_eq!(filled.store.key_count(), key_count);
        Filled { keys, ..filled }
    }

    /// Takes out so many keys, one command each, again and again a part of them, and says how long that took.
    fn time_dels(&mut self, random: &mut SplitMix, count: u64) -> Duration {
        /// So many at most, and never more than half of the keys, are missing at a time.
        const MISSING_MAX: usize = 1_000;
        let (del, set, value) = (common::code("DEL"), common::code("SET"), common::value(16));
        let (mut left, mut took) = (usize::try_from(count).expect("small enough"), Duration::ZERO);
        while left > 0 {
            let part = left.min(MISSING_MAX).min(self.keys.len() / 2);
            let from = random.below(self.keys.len());
            // Neighbours in this list are none in the store.
            let keys: Vec<_> = self.keys.iter().cycle().skip(from).take(part).copied().collect();
            let begun = Instant::now();
            for key in &keys {
                self.apply(del, &[key]);
            }
            took += begun.elapsed();
            while self.store.free_expired(MISSING_MAX) {}
            for key in &keys {
                self.apply(set, &[key, &value]);
            }
            left -= part;
        }
        took
    }

    fn apply(&mut self, code: u8, arguments: &[&[u8]]) {
        self.index += 1;
        let at = Applied { index: Index(self.index), now: Millis(1_700_000_000_000) };
        let command = BatchCommand { session: None, code, arguments: arguments.to_vec() };
        let reply = self.store.apply(at, &command, true);
        assert!(!black_box(&reply).is_error(), "{reply:?}");
    }
}

fn main() {
    let mut criterion = common::criterion();
    let codes = [("set", common::code("SET")), ("get", common::code("GET")), ("incr", common::code("INCR"))];
    let value = common::value(16);
    for key_count in KEY_COUNTS {
        // Made only if something is measured in it.
        let mut filled = None;
        for (name, code) in codes {
            let mut group = criterion.benchmark_group(format!("store/{name}"));
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::from_parameter(key_count), |bencher| {
                let filled = filled.get_or_insert_with(|| Filled::new(key_count));
                let mut random = SplitMix(3);
                bencher.iter(|| {
                    let key = filled.keys[random.below(key_count)];
                    match name {
                        "get" => drop(black_box(filled.store.read(code, &[&key]))),
                        "set" => filled.apply(code, &[&key, &value]),
                        _ => filled.apply(code, &[&key]),
                    }
                });
            });
            group.finish();
        }
        let mut group = criterion.benchmark_group("store/del");
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(key_count), |bencher| {
            let filled = filled.get_or_insert_with(|| Filled::new(key_count));
            let mut random = SplitMix(4);
            bencher.iter_custom(|count| filled.time_dels(&mut random, count));
        });
        group.finish();
    }
    criterion.final_summary();
}
