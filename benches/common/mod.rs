//! What the benches share: how they are measured, and what they are fed with.
//!
//! Every sample is short, so that `cargo bench` is something one does before lunch and not instead
//! of it. For figures to be quoted: `cargo bench --bench multicast -- --measurement-time 10`, on a
//! machine that does nothing else.

#![allow(dead_code, reason = "each bench uses its own part of this")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::Criterion;
use lanekv::store::lookup;
use lanekv::types::{Batch, NodeId};
use lanekv::wire::batch::BatchBuilder;

pub(crate) mod cluster;

/// Measures for two seconds, in twenty samples; the command line wins.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .nresamples(10_000)
        .configure_from_args()
}

/// Lengths of values, with their names.
pub(crate) const VALUE_LENS: [(usize, &str); 3] = [(16, "16B"), (1 << 10, "1KiB"), (64 << 10, "64KiB")];

/// The node with this number.
pub(crate) fn node(index: usize) -> NodeId {
    u8::try_from(index).ok().and_then(NodeId::new).expect("benches have few nodes")
}

/// The code of a command.
pub(crate) fn code(name: &str) -> u8 {
    lookup(name.as_bytes()).expect("the command exists").code
}

/// A value of this length that is a number as long as a number may be that long.
pub(crate) fn value(len: usize) -> Vec<u8> {
    vec![b'1'; len]
}

/// Pads a number to a key of sixteen bytes.
pub(crate) fn key(number: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key.iter_mut().rev().take(12) {
        *digit = b'0' + u8::try_from(rest % 10).expect("below ten");
        rest /= 10;
    }
    key
}

/// So many SETs, of different keys, with values of this length.
pub(crate) fn set_batch(count: usize, value_len: usize) -> Batch {
    let (set, value) = (code("SET"), value(value_len));
    let mut builder = BatchBuilder::new();
    for number in 0..count {
        builder.push(None, set, &[&key(number)[..], &value]);
    }
    builder.take()
}

/// Numbers that look random and are the same in every run (splitmix64).
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    /// The next one.
    pub(crate) fn next(&mut self) -> u64 {
        lanekv::types::splitmix64(&mut self.0)
    }

    /// One below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }
}

/// A new directory for temporary files that goes with the value.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// With the bench's name in its own.
    pub(crate) fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("lanekv-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Directory(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether nothing is to be measured: `cargo test --benches`, or a list is wanted. For benches without criterion.
pub(crate) fn is_mere_try() -> bool {
    std::env::args().any(|word| word == "--test" || word == "--list")
}
