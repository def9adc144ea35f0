//! What one seed does: swarm testing (Groce et al., ISSTA 2012) draws for each run which faults are on at all, since
//! faults that are always on hide what others would show.

use super::random::Random;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed, from which everything else is drawn.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u8,
    /// How many clients.
    pub clients: usize,
    /// How many keys they use.
    pub keys: usize,
    /// How many operations they do together.
    pub operations: u64,
    /// How long faults happen, in virtual microseconds.
    pub storm_us: u64,
    /// Chances, per mille and virtual 100 ms, that a fault of a kind happens.
    pub crash: u64,
    /// Of those crashes, so many per mille are power failures, which lose what is not synced.
    pub power: u64,
    /// All nodes at once.
    pub crash_all: u64,
    /// A connection breaks.
    pub cut: u64,
    /// A link carries nothing for a while, in one direction or both.
    pub stall: u64,
    /// The nodes are divided in two for a while.
    pub partition: u64,
    /// A node stands still for a while.
    pub pause: u64,
    /// A disk takes very long for a while.
    pub slow_disk: u64,
    /// A node asks to leave, and is restarted.
    pub leave: u64,
    /// Chances, per mille, that a node crashes just after it wrote a record of a seal, and that a
    /// connection breaks under a message of a seal.
    pub seal_crash: u64,
    /// See `seal_crash`.
    pub seal_cut: u64,
    /// Longest message delay, in microseconds.
    pub delay_us: u64,
    /// Longest fsync, in microseconds.
    pub sync_us: u64,
    /// Some node stays dead after the storm.
    pub leave_one_dead: bool,
    /// Some link stays broken after the storm.
    pub leave_one_link: bool,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(seed: u64) -> Plan {
        let mut random = Random::new(seed, 1);
        let nodes = [1, 2, 3, 3, 3, 4, 5, 5, 5, 7][random.index(10)];
        let calm = random.permille(100);
        let mut chance = |on: u64, most: u64| {
            if !calm && random.permille(on) { random.between(1, most) } else { 0 }
        };
        let crash = chance(600, 60);
        let crash_all = chance(200, 15);
        let cut = chance(500, 300);
        let stall = chance(400, 100);
        let partition = chance(300, 40);
        let pause = chance(300, 50);
        let slow_disk = chance(300, 50);
        let leave = chance(150, 20);
        let seal_crash = chance(500, 250);
        let seal_cut = chance(500, 300);
        Plan {
            seed,
            nodes,
            clients: 1 + random.index(6),
            keys: 1 + random.index(3),
            operations: random.between(50, 400),
            storm_us: random.between(1_000_000, 8_000_000),
            crash,
            power: [0, 300, 1000][random.index(3)],
            crash_all,
            cut,
            stall,
            partition,
            pause,
            slow_disk,
            leave,
            seal_crash,
            seal_cut,
            delay_us: [200, 1_000, 5_000, 30_000][random.index(4)],
            sync_us: [100, 1_000, 10_000, 60_000][random.index(4)],
            leave_one_dead: nodes >= 3 && random.permille(200),
            leave_one_link: nodes >= 3 && random.permille(200),
        }
    }
}
