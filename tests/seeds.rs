//! Seeds of `kvsim` in which something was found that no script shows, each with what it was. They mean what they meant
//! as long as plans are drawn as they were then; whoever changes that gives them up for new ones.

use lanekv::sim::{Plan, Trace, run};

/// The seed and what went wrong in it.
const SEEDS: &[(u64, &str)] = &[
    (75857, "a sealer that was outbid by several heeded the first of them only, and waited for a dead one"),
    (79441, "sealers with a slow disk left out healthy senders with slow disks, view after view"),
    (42685, "the simulator forgot that a voter had held what its emptied disk held"),
    (8580, "the simulator put an old disk in place before all others had heard of the votes on the newest"),
];

#[test]
fn what_was_found_once_stays_mended() {
    for &(seed, what) in SEEDS {
        let outcome = run(Plan::draw(seed), Trace::Off);
        assert!(outcome.violations.is_empty(), "seed {seed}, once: {what}; now: {:?}", outcome.violations);
    }
}
