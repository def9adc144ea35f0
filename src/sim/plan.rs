//! What one seed does: swarm testing (Groce et al., ISSTA 2012) draws for each run which faults are on at all, since
//! faults that are always on hide what others would show.

use std::fmt;

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
    /// How many lists and counters they use.
    pub keys: usize,
    /// How many registers.
    pub registers: usize,
    /// How many operations they do together.
    pub operations: u64,
    /// What they ask.
    pub workload: Workload,
    /// So many of what they ask, per mille, are reads and nothing else.
    pub reads: u64,
    /// So often, per mille, a client stays with the node that it asked last.
    pub loyal: u64,
    /// Longest pause of a client between two operations, in virtual microseconds.
    pub think_us: u64,
    /// How long faults happen, in virtual microseconds.
    pub storm_us: u64,
    /// How long the run goes on after everything has settled, in virtual microseconds.
    pub quiet_us: u64,
    /// Longest message delay, in microseconds.
    pub delay_us: u64,
    /// Longest fsync, in microseconds.
    pub sync_us: u64,
    /// Longest time from the arrival of something to the turn that looks at it, in microseconds.
    pub turn_us: u64,
    /// Messages arrive in pieces of any size.
    pub pieces: bool,
    /// Clocks run up to a tenth too fast or too slow.
    pub drift: bool,
    /// Bytes of a catching-up message.
    pub fill_len: usize,
    /// Bytes of a log segment.
    pub segment_len: u64,
    /// Bytes of delivered entries that a node keeps in memory.
    pub history_len: usize,
    /// Ended views whose decisions a node keeps in memory.
    pub views_kept: usize,
    /// Bytes of log after which a node takes a snapshot.
    pub snapshot_log_len: u64,
    /// Longest step of a node's keeper of snapshots, in microseconds.
    pub keeper_us: u64,
    /// Keys that a node may write to in a turn, and look at: with few, commands are applied piece by piece.
    pub work_per_turn: u64,
    /// What a turn does takes long, so that it ends before it has done so much.
    pub slow: bool,
    /// Which faults, how often.
    pub faults: Faults,
    /// What stays broken after the storm.
    pub damage: Damage,
}

/// Chances per mille: of most faults that one happens within virtual 100 ms.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A process is killed.
    pub crash: u64,
    /// Of those crashes, so many are power failures, which lose what is not synced.
    pub power: u64,
    /// All processes are killed at once.
    pub crash_all: u64,
    /// After a crash the process is killed again within milliseconds, several times.
    pub restart_storm: u64,
    /// Of the starts, so many end at a call to the disk that fails.
    pub boot_crash: u64,
    /// Of the turns that send something, so many end with a crash between two outputs.
    pub torn_turn: u64,
    /// A connection breaks.
    pub cut: u64,
    /// A link carries nothing for a while, in one direction or both.
    pub stall: u64,
    /// The net is cut into a shape for a while.
    pub partition: u64,
    /// A link carries only so many kilobytes a second for a while.
    pub slow_link: u64,
    /// A bit of a message is inverted on its way; of 1,000 segments sent.
    pub flip: u64,
    /// A node stands still for a while.
    pub pause: u64,
    /// Each turn of a node takes long for a while.
    pub slow_node: u64,
    /// A disk takes very long for a while.
    pub slow_disk: u64,
    /// A sync fails.
    pub sync_error: u64,
    /// A disk is full for a while.
    pub full_disk: u64,
    /// A wall clock jumps.
    pub wall_jump: u64,
    /// A node asks to leave, and is restarted.
    pub leave: u64,
    /// Chances that a node crashes just after it wrote a record of a seal, and that a connection breaks
    /// in the middle of a message of a seal.
    pub seal_crash: u64,
    /// See `seal_crash`.
    pub seal_cut: u64,
    /// Chance that a disk becomes slow just when a promise is written to it.
    pub seal_slow: u64,
    /// Chance that a message of a seal is delayed, and all that comes behind it on its link.
    pub seal_stall: u64,
    /// Chance that a voter is killed for long when its promise has just left.
    pub holder_crash: u64,
    /// A sender asks to leave while everything flows.
    pub farewell: u64,
    /// Chance that who decides a view first cannot tell most of the others for a while.
    pub slow_news: u64,
    /// Passive nodes reach no sender for a while, but each other.
    pub passive_apart: u64,
    /// A node loses its disk and is rebuilt, while another misses how the view ends.
    pub replacement: u64,
    /// Chance that a node crashes after a step of its keeper of snapshots.
    pub keeper_crash: u64,
    /// Chance that a node which cannot go on with its disk is started with an empty one, to be rebuilt.
    pub rebuild: u64,
    /// A disk is emptied; a bit of synced data is inverted; an old copy of a disk is put in its place.
    pub disk_loss: u64,
}

/// What clients ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Lists and counters, whose replies show the order, and registers, whose histories are checked for
    /// linearizability.
    Checked,
    /// Every command of the store, on keys of their own: the nodes must agree about all of it.
    Everything,
}

/// What does not heal; together never more than a minority of the nodes.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    /// How many nodes may lose their disks during the storm.
    pub disks: usize,
    /// How many nodes stay dead after it.
    pub dead: usize,
    /// How many nodes stay cut off from all others after it.
    pub isolated: usize,
    /// Some link stays broken.
    pub link: bool,
    /// One passive node never reaches a sender, and two more miss one sender each, so that none of them is promoted.
    pub apart: bool,
}

/// More bytes than any run has.
const PLENTY: usize = 1 << 30;
/// With more clients than that the nodes have no time to spare.
const FEW_CLIENTS_MAX: usize = 7;
/// Much traffic and tiny messages would make catching up a race that cannot be won.
const BUSY_FILL_LEN: usize = 20_000;
/// Long enough to see promotions, and none after them.
const LONG_QUIET_US: u64 = 4_000_000;

/// From random numbers of its own, so that the rest of each plan is what it was before there was this choice.
fn draw_work(seed: u64) -> u64 {
    [1, 3, 10, PLENTY as u64][Random::new(seed, 8).index(4)]
}

impl Plan {
    /// Draws a plan.
    pub fn draw(seed: u64) -> Plan {
        let mut random = Random::new(seed, 1);
        let nodes = [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 5, 7][random.index(20)];
        let busy = random.permille(50);
        let clients = if busy { 16 + random.index(48) } else { 1 + random.index(FEW_CLIENTS_MAX) };
        let faults = Faults::draw(&mut random);
        let damage = Damage::draw(&mut random, nodes);
        // Nodes that are half deaf for ever must come to rest too, which takes a while to see.
        let quiet_us =
            if damage.link { LONG_QUIET_US } else { [200_000, 300_000, 500_000, 1_500_000][random.index(4)] };
        let mut plan = Plan {
            seed,
            nodes,
            clients,
            keys: 1 + random.index(3),
            registers: if busy { 16 } else { 1 + random.index(4) },
            operations: clients as u64 * random.between(20, 60),
            workload: if random.permille(100) { Workload::Everything } else { Workload::Checked },
            reads: [0, 0, 0, 0, 800][random.index(5)],
            loyal: [900, 900, 900, 900, 100][random.index(5)],
            think_us: if busy { 4_000 } else { [4_000, 20_000, 40_000][random.index(3)] },
            storm_us: random.between(300_000, 1_800_000),
            quiet_us,
            delay_us: [200, 1_000, 5_000, 30_000][random.index(4)],
            sync_us: [100, 1_000, 10_000, 60_000][random.index(4)],
            turn_us: [300, 1_000, 3_000, 3_000][random.index(4)],
            pieces: random.permille(200),
            drift: random.permille(300),
            fill_len: if busy { BUSY_FILL_LEN } else { [1, 500, 5_000, 1 << 20][random.index(4)] },
            segment_len: [8 << 10, 16 << 10, 256 << 10][random.index(3)],
            history_len: [0, 2_000, 20_000, PLENTY][random.index(4)],
            views_kept: [1, 3, 256][random.index(3)],
            snapshot_log_len: [2_000, 20_000, PLENTY as u64, PLENTY as u64][random.index(4)],
            keeper_us: [100, 1_000, 10_000][random.index(3)],
            work_per_turn: draw_work(seed),
            slow: Random::new(seed, 9).permille(300),
            faults,
            damage,
        };
        match random.below(30) {
            0 => plan.aim_at_slow_news(&mut random),
            1 => plan.aim_at_passive_apart(&mut random),
            2 => plan.aim_at_replacement(&mut random),
            _ => {}
        }
        plan
    }

    /// Leads up to this: a view is ended while everything flows, only a minority learns of it, and the others are
    /// asked for reads.
    fn aim_at_slow_news(&mut self, random: &mut Random) {
        self.aim(random);
        self.reads = 600;
        self.loyal = 100;
        self.think_us = 40_000;
        self.storm_us = random.between(1_500_000, 3_000_000);
        self.faults.farewell = random.between(200, 500);
        self.faults.slow_news = random.between(500, 1000);
    }

    /// Leads up to this: most nodes are passive, and one of them reaches the senders by way of others only.
    fn aim_at_passive_apart(&mut self, random: &mut Random) {
        self.aim(random);
        self.reads = 0;
        self.loyal = 500;
        self.think_us = 300_000;
        // Nodes become passive one by one, are parted, and notice it: that takes its time.
        self.storm_us = random.between(2_500_000, 4_500_000);
        self.quiet_us = LONG_QUIET_US;
        self.faults.passive_apart = random.between(500, 1000);
        self.damage = Damage { apart: true, ..Damage::default() };
    }

    /// Leads up to this: a new disk is registered when one of the old voters knows how an earlier view ended and has
    /// not got all of it yet.
    fn aim_at_replacement(&mut self, random: &mut Random) {
        self.aim(random);
        self.nodes = [3, 5][random.index(2)];
        self.storm_us = random.between(1_500_000, 3_000_000);
        self.think_us = 40_000;
        self.faults.replacement = random.between(500, 1000);
        self.damage = Damage::default();
    }

    /// What situations of several steps need: enough nodes and clients, long ways, and few faults besides.
    fn aim(&mut self, random: &mut Random) {
        self.nodes = 5;
        self.clients = 2 * FEW_CLIENTS_MAX;
        self.keys = 1;
        self.operations = self.clients as u64 * 25;
        self.delay_us = [5_000, 30_000][random.index(2)];
        self.fill_len = BUSY_FILL_LEN;
        (self.history_len, self.snapshot_log_len) = (PLENTY, PLENTY as u64);
        if random.permille(600) {
            self.faults = Faults::default();
        }
    }

    /// The same plan for so many nodes.
    pub fn set_nodes(&mut self, nodes: u8) {
        self.nodes = nodes;
        // What a larger cluster could have spared may be too much for a smaller one.
        self.damage = Damage::default();
    }

    /// The same plan for so many clients.
    pub fn set_clients(&mut self, clients: usize) {
        self.clients = clients;
        self.registers = self.registers.max(clients / 4);
        if clients > FEW_CLIENTS_MAX {
            self.fill_len = self.fill_len.max(BUSY_FILL_LEN);
        }
    }
}

impl Faults {
    fn draw(random: &mut Random) -> Faults {
        let calm = random.permille(100);
        let mut chance = |on: u64, most: u64| {
            if !calm && random.permille(on) { random.between(1, most) } else { 0 }
        };
        Faults {
            crash: chance(600, 120),
            power: [0, 300, 1000][usize::try_from(chance(670, 2)).expect("0, 1 or 2")],
            crash_all: chance(200, 25),
            restart_storm: chance(100, 30),
            boot_crash: chance(200, 500),
            torn_turn: chance(200, 3),
            cut: chance(500, 400),
            stall: chance(400, 150),
            partition: chance(350, 80),
            slow_link: chance(150, 100),
            flip: chance(150, 5),
            pause: chance(300, 80),
            slow_node: chance(150, 60),
            slow_disk: chance(300, 80),
            sync_error: chance(150, 40),
            full_disk: chance(100, 40),
            wall_jump: chance(200, 100),
            leave: chance(150, 30),
            seal_crash: chance(500, 250),
            seal_cut: chance(500, 300),
            seal_slow: chance(250, 700),
            seal_stall: chance(300, 200),
            holder_crash: chance(150, 300),
            keeper_crash: chance(300, 100),
            rebuild: chance(700, 1_000),
            disk_loss: chance(400, 300),
            // Of no use but where a plan aims at something.
            farewell: 0,
            slow_news: 0,
            passive_apart: 0,
            replacement: 0,
        }
    }
}

impl Damage {
    fn draw(random: &mut Random, nodes: u8) -> Damage {
        let mut left = usize::from(nodes - 1) / 2;
        let mut take = |random: &mut Random, chance| {
            let taken = if random.permille(chance) { random.index(left + 1) } else { 0 };
            left -= taken;
            taken
        };
        let disks = take(random, 400);
        let dead = take(random, 300);
        let isolated = take(random, 300);
        // A link may be missing only where everybody else is there.
        let link = nodes >= 3 && disks + dead + isolated == 0 && random.permille(120);
        Damage { disks, dead, isolated, link, apart: false }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1e3;
        write!(
            f,
            "seed {}: {} nodes; {} clients, {} operations, {:?}; {:.0} ms of storm; messages take up to {} ms{}, \
             fsync {} ms, a turn begins within {} ms{} and has work for {} keys{}; {} bytes of history and {} views \
             kept, a snapshot each {} bytes of log; faults per mille: ",
            self.seed,
            self.nodes,
            self.clients,
            self.operations,
            self.workload,
            ms(self.storm_us),
            ms(self.delay_us),
            if self.pieces { " and come in pieces" } else { "" },
            ms(self.sync_us),
            ms(self.turn_us),
            if self.drift { ", clocks drift" } else { "" },
            self.work_per_turn,
            if self.slow { " at most, and takes long" } else { "" },
            self.history_len,
            self.views_kept,
            self.snapshot_log_len,
        )?;
        // Of the many faults only those that are on.
        let faults = format!("{:?}", self.faults);
        let list = faults.trim_start_matches("Faults { ").trim_end_matches(" }");
        let on: Vec<&str> = list.split(", ").filter(|fault| !fault.ends_with(": 0")).collect();
        write!(f, "{}; for ever: {:?}", on.join(", "), self.damage)
    }
}
