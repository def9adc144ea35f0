//! The world around the machines: time, network, disks, clients, faults.
//!
//! One heap of events in virtual microseconds. A connection is a queue in one direction, in order, that may be late, stand still, or
//! break and lose what is on its way, as with TCP. A machine takes everything that has arrived in one turn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::protocol::{
    Input, Message, Record, Settings, decode_hello, decode_message, encode_hello, encode_message,
};
use crate::types::{DiskId, Lsn, Millis, NodeId, NodeSet, Now};
use crate::wire::split_frame;

use super::checker::{Checker, Violation};
use super::machine::{Disk, Effects, Machine, Operation};
use super::plan::Plan;
use super::random::Random;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan.
    pub plan: Plan,
    /// What went wrong; empty if nothing did.
    pub violations: Vec<Violation>,
    /// Operations that were answered.
    pub answered: u64,
    /// Events that happened.
    pub events: u64,
    /// Views that were decided.
    pub views: usize,
    /// Digest of all that happened: the same for the same seed.
    pub digest: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    /// A node goes through its loop.
    Turn { node: usize, boot: u64 },
    /// Bytes arrive.
    Arrive { from: usize, to: usize, connection: u64, bytes: Vec<u8> },
    /// A node tries to connect to another.
    Dial { from: usize, to: usize, boot: u64 },
    /// A disk has synced so much.
    Synced { node: usize, boot: u64, len: usize },
    /// A node stops, and starts again.
    Crash { node: usize, boot: u64, down: u64 },
    /// A node starts.
    Start { node: usize },
    /// A client begins something.
    Client { client: usize },
    /// The next fault is drawn.
    Fault,
    /// A link carries again.
    Heal { from: usize, to: usize },
}

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
struct Link {
    /// The connection over which `from` sends to `to`; 0 if there is none.
    connection: u64,
    /// Nothing arrives before this.
    stalled_until: u64,
    /// Broken for good.
    dead: bool,
    /// When the last bytes on the way arrive: what is sent later arrives later.
    last_arrival: u64,
}

#[derive(Debug)]
struct Host {
    machine: Option<Machine>,
    disk: Disk,
    boot: u64,
    inbox: Vec<Input>,
    turn_at: Option<u64>,
    paused_until: u64,
    slow_until: u64,
    syncing: bool,
    /// Entries delivered since the start.
    count: usize,
    known_decisions: u64,
    clock_offset_ms: u64,
    wall_offset_ms: u64,
    halted: bool,
}

#[derive(Clone, Debug)]
struct Pending {
    client: usize,
    node: usize,
    boot: u64,
    write: bool,
    floor: u64,
}

struct World {
    plan: Plan,
    now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: BTreeMap<usize, Event>,
    next_event: usize,
    count: u64,
    hosts: Vec<Host>,
    links: Vec<Link>,
    next_connection: u64,
    next_boot: u64,
    operations: BTreeMap<Operation, Pending>,
    next_operation: Operation,
    answered: u64,
    checker: Checker,
    ties: Random,
    net: Random,
    disks: Random,
    faults: Random,
    clients: Random,
    storm_over: bool,
    /// When everything had settled, and how many views had been decided then.
    quiet_since: Option<(u64, usize)>,
    digest: u64,
    trace: bool,
}

const MS: u64 = 1_000;
const SUSPICION_MS: u64 = 300;
/// How long a run goes on after everything has settled.
const QUIET_US: u64 = 3_000 * MS;

/// Runs a plan to its end.
pub fn run(plan: Plan, trace: bool) -> Outcome {
    let mut world = World::new(plan, trace);
    world.go();
    Outcome {
        violations: std::mem::take(&mut world.checker.violations),
        answered: world.answered,
        events: world.count,
        views: world.checker.decisions(),
        digest: world.digest,
        plan: world.plan,
    }
}

impl World {
    fn new(plan: Plan, trace: bool) -> World {
        let seed = plan.seed;
        let mut setup = Random::new(seed, 2);
        let hosts = (0..plan.nodes)
            .map(|_| Host {
                machine: None,
                disk: Disk::new(DiskId(setup.next() | 1)),
                boot: 0,
                inbox: Vec::new(),
                turn_at: None,
                paused_until: 0,
                slow_until: 0,
                syncing: false,
                count: 0,
                known_decisions: 0,
                clock_offset_ms: 1_000 + setup.below(1_000_000),
                wall_offset_ms: setup.below(100_000_000),
                halted: false,
            })
            .collect();
        let links = vec![Link::default(); usize::from(plan.nodes) * usize::from(plan.nodes)];
        World {
            now: 0,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            count: 0,
            hosts,
            links,
            next_connection: 1,
            next_boot: 1,
            operations: BTreeMap::new(),
            next_operation: 1,
            answered: 0,
            checker: Checker::default(),
            ties: Random::new(seed, 3),
            net: Random::new(seed, 4),
            disks: Random::new(seed, 5),
            faults: Random::new(seed, 6),
            clients: Random::new(seed, 7),
            storm_over: false,
            quiet_since: None,
            digest: 0,
            trace,
            plan,
        }
    }

    fn node(index: usize) -> NodeId {
        NodeId::new(u8::try_from(index).expect("few nodes")).expect("few nodes")
    }

    fn settings(&self, node: usize) -> Settings {
        Settings {
            me: Self::node(node),
            members: (0..self.hosts.len()).map(Self::node).collect(),
            member_hash: 1,
            suspicion: Millis(SUSPICION_MS),
            heartbeat: Millis(50),
            window: 1 << 20,
            seed: self.plan.seed ^ (node as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1),
        }
    }

    fn clock(&self, node: usize) -> Now {
        let host = &self.hosts[node];
        let ms = self.now / MS;
        Now { mono: Millis(host.clock_offset_ms + ms), wall: Millis(host.wall_offset_ms + ms) }
    }

    fn at(&mut self, when: u64, event: Event) {
        let id = self.next_event;
        self.next_event += 1;
        self.events.insert(id, event);
        let tie = self.ties.next();
        self.heap.push(Reverse((when.max(self.now), tie, id)));
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10.3} ms  {}", self.now as f64 / 1e3, text());
        }
    }

    fn go(&mut self) {
        for node in 0..self.hosts.len() {
            let delay = self.faults.below(400 * MS);
            self.at(delay, Event::Start { node });
        }
        for client in 0..self.plan.clients {
            let delay = self.clients.below(500 * MS);
            self.at(delay, Event::Client { client });
        }
        self.at(100 * MS, Event::Fault);
        let mut calmed_at = None;
        // Bounded twice: by virtual time and by the number of events.
        while let Some(Reverse((when, _, id))) = self.heap.pop() {
            let Some(event) = self.events.remove(&id) else { continue };
            self.now = when;
            self.count += 1;
            self.happen(event);
            if !self.checker.violations.is_empty() {
                return;
            }
            if !self.storm_over && self.now >= self.plan.storm_us {
                self.calm();
                calmed_at = Some(self.now);
            }
            if let Some((since, views)) = self.quiet_since {
                // Calm operation causes no seal, but for the promotion of each node once.
                let changes = self.checker.decisions() - views;
                if changes > self.hosts.len() {
                    self.checker.stuck(format!("{changes} view changes while nothing happens"));
                }
                if self.now > since + QUIET_US {
                    return;
                }
            } else if let Some(since) = calmed_at {
                if self.is_settled() {
                    self.note(|| "everything has settled".into());
                    self.quiet_since = Some((self.now, self.checker.decisions()));
                }
                if self.now > since + 30_000 * MS || self.count > 20_000_000 {
                    let what = self.what_is_stuck();
                    self.checker.stuck(what);
                    return;
                }
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start { node } => self.start(node),
            Event::Crash { node, boot, down } => {
                if self.hosts[node].boot == boot && !self.storm_over {
                    self.crash(node);
                    self.at(self.now + down, Event::Start { node });
                }
            }
            Event::Turn { node, boot } => {
                if self.hosts[node].boot == boot && self.hosts[node].turn_at == Some(self.now) {
                    self.turn(node);
                }
            }
            Event::Arrive { from, to, connection, bytes } => self.arrive(from, to, connection, &bytes),
            Event::Dial { from, to, boot } => {
                if self.hosts[from].boot == boot && self.hosts[from].machine.is_some() {
                    self.dial(from, to);
                }
            }
            Event::Synced { node, boot, len } => self.synced(node, boot, len),
            Event::Client { client } => self.client(client),
            Event::Fault => self.fault(),
            Event::Heal { from, to } => {
                let link = self.link(from, to);
                if link.stalled_until <= self.now {
                    let boot = self.hosts[from].boot;
                    if self.link(from, to).connection == 0 {
                        self.at(self.now, Event::Dial { from, to, boot });
                    }
                }
            }
        }
    }

    // ---- processes ----

    fn start(&mut self, node: usize) {
        if self.hosts[node].machine.is_some() || self.hosts[node].halted {
            return;
        }
        let boot = self.next_boot;
        self.next_boot += 1;
        let settings = self.settings(node);
        let now = self.clock(node);
        let host = &mut self.hosts[node];
        host.boot = boot;
        host.inbox.clear();
        host.turn_at = None;
        host.paused_until = 0;
        host.syncing = false;
        host.count = 0;
        host.known_decisions = 0;
        host.machine = Some(Machine::boot(settings, &mut host.disk, boot, now));
        self.note(|| format!("n{node} starts"));
        for to in (0..self.hosts.len()).filter(|to| *to != node) {
            self.at(self.now, Event::Dial { from: node, to, boot });
        }
        self.wake(node, self.now);
    }

    fn crash(&mut self, node: usize) {
        let extra = self.disks.below(self.hosts[node].disk.unsynced() as u64 + 1);
        let host = &mut self.hosts[node];
        if host.machine.take().is_none() {
            return;
        }
        host.boot = 0;
        host.disk.crash(usize::try_from(extra).expect("fewer than there are"));
        self.note(|| format!("n{node} crashes"));
        // Its connections break, in both directions: the others notice and dial at once.
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            self.link(node, other).connection = 0;
            self.cut(other, node);
        }
        // Operations of clients at this node: nobody knows.
        self.forget_operations(node);
    }

    fn forget_operations(&mut self, node: usize) {
        let gone: Vec<Operation> =
            self.operations.iter().filter(|(_, p)| p.node == node).map(|(operation, _)| *operation).collect();
        for operation in gone {
            if let Some(pending) = self.operations.remove(&operation) {
                let delay = self.clients.between(MS, 100 * MS);
                self.at(self.now + delay, Event::Client { client: pending.client });
            }
        }
    }

    fn wake(&mut self, node: usize, when: u64) {
        let host = &mut self.hosts[node];
        let when = when.max(host.paused_until).max(self.now);
        if host.turn_at.is_some_and(|at| at <= when && at >= self.now) {
            return;
        }
        host.turn_at = Some(when);
        let boot = host.boot;
        self.at(when, Event::Turn { node, boot });
    }

    fn turn(&mut self, node: usize) {
        let now = self.clock(node);
        let host = &mut self.hosts[node];
        host.turn_at = None;
        if host.paused_until > self.now {
            let until = host.paused_until;
            return self.wake(node, until);
        }
        let Some(machine) = &mut host.machine else { return };
        let inputs = std::mem::take(&mut host.inbox);
        let effects = machine.turn(now, inputs.into_iter(), &mut host.disk);
        let deadline = machine.replica.deadline();
        let offset = host.clock_offset_ms;
        self.carry_out(node, effects);
        if let Some(at) = deadline {
            let at = at.0.saturating_sub(offset) * MS;
            self.wake(node, at.max(self.now + MS));
        }
    }

    fn carry_out(&mut self, node: usize, effects: Effects) {
        let id = Self::node(node);
        for note in &effects.notes {
            self.note(|| format!("n{node} {note}"));
        }
        for (delivery, digest, index) in &effects.deliveries {
            let count = self.hosts[node].count;
            self.hosts[node].count += 1;
            self.checker.delivered(id, count, delivery, *digest, *index);
        }
        for record in &effects.stored {
            match record {
                Record::Entry(entry) | Record::Fill(entry) => self.checker.stored(id, entry),
                Record::Decision(decision) => self.checker.decided(id, decision),
                _ => {}
            }
            let of_seal =
                matches!(record, Record::Promise { .. } | Record::Accept { .. } | Record::Decision(_));
            if of_seal && !self.storm_over && self.faults.permille(self.plan.seal_crash) {
                let delay = self.faults.below(1 << self.faults.clone().between(6, 17));
                let down = self.faults.below(1 << self.faults.clone().between(8, 20));
                let boot = self.hosts[node].boot;
                self.at(self.now + delay, Event::Crash { node, boot, down });
            }
            self.note(|| format!("n{node} persists {record}"));
        }
        for (operation, index) in &effects.answered {
            self.answer(node, *operation, *index);
        }
        for (to, message) in effects.sends {
            self.send(node, to, &message);
        }
        self.sync(node);
        if let Some(reason) = effects.halt {
            self.checker.stuck(format!("n{node} halts: {reason}"));
        }
    }

    fn sync(&mut self, node: usize) {
        let most = self.plan.sync_us;
        let host = &mut self.hosts[node];
        if host.syncing || host.disk.unsynced() == 0 {
            return;
        }
        host.syncing = true;
        let slow = if host.slow_until > self.now { host.slow_until - self.now } else { 0 };
        let (boot, len) = (host.boot, host.disk.len());
        let length = self.disks.between(10, most) + slow;
        self.at(self.now + length, Event::Synced { node, boot, len });
    }

    fn synced(&mut self, node: usize, boot: u64, len: usize) {
        let host = &mut self.hosts[node];
        if host.boot != boot || host.machine.is_none() {
            return;
        }
        host.syncing = false;
        let lsn: Lsn = host.disk.sync(len);
        host.inbox.push(Input::Persisted(lsn));
        self.wake(node, self.now);
        self.sync(node);
    }

    // ---- network ----

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let n = self.hosts.len();
        &mut self.links[from * n + to]
    }

    fn delay(&mut self) -> u64 {
        let most = self.plan.delay_us;
        self.net.between(20, most)
    }

    fn send(&mut self, from: usize, to: NodeSet, message: &Message) {
        let mut bytes = Vec::new();
        encode_message(&mut bytes, message);
        for to in to.iter() {
            let to = to.index();
            let connection = self.link(from, to).connection;
            if connection == 0 {
                continue;
            }
            self.note(|| format!("n{from} -> n{to} {message}"));
            let of_seal = matches!(
                message,
                Message::SealPrepare { .. }
                    | Message::SealPromise { .. }
                    | Message::SealAccept { .. }
                    | Message::SealAccepted { .. }
                    | Message::NewView { .. }
                    | Message::Fill { .. }
                    | Message::Forward { .. }
            );
            if of_seal && !self.storm_over && self.faults.permille(self.plan.seal_cut) {
                self.note(|| format!("the connection n{from} -> n{to} breaks under it"));
                self.cut(from, to);
                continue;
            }
            self.ship(from, to, connection, bytes.clone());
        }
    }

    fn ship(&mut self, from: usize, to: usize, connection: u64, bytes: Vec<u8>) {
        let delay = self.delay();
        let now = self.now;
        let link = self.link(from, to);
        let when = (now + delay).max(link.stalled_until).max(link.last_arrival + 1);
        link.last_arrival = when;
        self.at(when, Event::Arrive { from, to, connection, bytes });
    }

    fn arrive(&mut self, from: usize, to: usize, connection: u64, bytes: &[u8]) {
        let now = self.now;
        let link = self.link(from, to);
        if link.connection != connection {
            return;
        }
        if link.dead || link.stalled_until > now {
            let again = if link.dead { now + 1_000 * MS } else { link.stalled_until };
            link.last_arrival = link.last_arrival.max(again);
            return self.at(again, Event::Arrive { from, to, connection, bytes: bytes.to_vec() });
        }
        if self.hosts[to].machine.is_none() {
            return;
        }
        let (kind, payload, _) = split_frame(bytes, usize::MAX).expect("what was framed can be split");
        let message = decode_message(kind, payload).expect("what was encoded can be decoded");
        let from = Self::node(from);
        self.hosts[to].inbox.push(Input::Receive { from, message });
        let delay = self.net.below(200);
        self.wake(to, self.now + delay);
    }

    /// The connection over which `from` sends breaks; what is on its way is lost; it is dialled again.
    fn cut(&mut self, from: usize, to: usize) {
        self.link(from, to).connection = 0;
        let boot = self.hosts[from].boot;
        let delay = self.delay();
        if self.hosts[from].machine.is_some() {
            self.at(self.now + delay, Event::Dial { from, to, boot });
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        let now = self.now;
        let link = self.link(from, to);
        if link.connection != 0 {
            return;
        }
        let there_and_back = link.dead || link.stalled_until > now;
        let link = self.link(to, from);
        let silent = there_and_back || link.dead || link.stalled_until > now;
        let refused = self.hosts[to].machine.is_none();
        if silent || refused {
            // Refused at once, or no answer within the time-out.
            self.hosts[from].inbox.push(Input::LinkDown(Self::node(to)));
            let wait = if silent { SUSPICION_MS * MS } else { 50 * MS };
            let boot = self.hosts[from].boot;
            let jitter = self.net.below(50 * MS);
            self.wake(from, now);
            return self.at(now + wait + jitter, Event::Dial { from, to, boot });
        }
        let (Some(dialler), Some(listener)) = (&self.hosts[from].machine, &self.hosts[to].machine) else {
            return;
        };
        let there = dialler.hello(Self::node(to));
        let back = listener.hello(Self::node(from));
        let mut bytes = Vec::new();
        encode_hello(&mut bytes, &there);
        let (kind, payload, _) = split_frame(&bytes, usize::MAX).expect("a frame");
        assert_eq!(decode_hello(kind, payload).as_ref(), Ok(&there), "a hello comes back as it was");
        if let Err(refusal) = listener.check_hello(&there) {
            let peer = Self::node(to);
            self.hosts[from].inbox.push(Input::RefusedBy { peer, refusal });
            return self.wake(from, now);
        }
        if let Err(refusal) = dialler.check_hello(&back) {
            return self.checker.stuck(format!("n{from} refuses n{to}: {refusal}"));
        }
        let connection = self.next_connection;
        self.next_connection += 1;
        self.link(from, to).connection = connection;
        self.hosts[to].inbox.push(Input::Greeted(Box::new(there)));
        self.hosts[from].inbox.push(Input::Greeted(Box::new(back)));
        self.hosts[from].inbox.push(Input::LinkUp(Self::node(to)));
        self.wake(from, now);
        self.wake(to, now);
    }

    // ---- clients ----

    fn client(&mut self, client: usize) {
        if self.next_operation > self.plan.operations {
            return;
        }
        let up: Vec<usize> = (0..self.hosts.len()).filter(|n| self.hosts[*n].machine.is_some()).collect();
        if up.is_empty() {
            return self.at(self.now + 50 * MS, Event::Client { client });
        }
        let node = up[self.clients.index(up.len())];
        let operation = self.next_operation;
        self.next_operation += 1;
        let write = self.clients.permille(650);
        let host = &mut self.hosts[node];
        let pending = Pending { client, node, boot: host.boot, write, floor: self.checker.floor() };
        let Some(machine) = &mut host.machine else { return };
        if write {
            machine.write(operation);
        } else {
            machine.read(operation);
        }
        self.operations.insert(operation, pending);
        self.wake(node, self.now);
    }

    fn answer(&mut self, node: usize, operation: Operation, index: crate::types::Index) {
        let Some(pending) = self.operations.remove(&operation) else { return };
        assert_eq!(pending.boot, self.hosts[node].boot, "operations die with their process");
        if pending.write {
            self.checker.wrote(Self::node(node), pending.floor, index);
        } else {
            self.checker.read(Self::node(node), pending.floor, index);
        }
        self.note(|| format!("client {} gets its answer from n{node} at {index}", pending.client));
        self.answered += 1;
        self.digest = self.digest.wrapping_mul(31).wrapping_add(operation ^ (index.0 << 32) ^ self.now);
        let think = self.clients.between(100, 40 * MS);
        self.at(self.now + think, Event::Client { client: pending.client });
    }

    // ---- faults ----

    fn fault(&mut self) {
        if self.storm_over {
            return;
        }
        self.at(self.now + 100 * MS, Event::Fault);
        let n = self.hosts.len();
        let plan = self.plan.clone();
        if self.faults.permille(plan.crash) {
            let node = self.faults.index(n);
            self.crash(node);
            let down = [MS, 50 * MS, 500 * MS, 3_000 * MS][self.faults.index(4)];
            let down = self.faults.between(MS / 2, down);
            self.at(self.now + down, Event::Start { node });
        }
        if self.faults.permille(plan.crash_all) {
            for node in 0..n {
                self.crash(node);
                let down = self.faults.between(MS, 500 * MS);
                self.at(self.now + down, Event::Start { node });
            }
        }
        if n > 1 && self.faults.permille(plan.cut) {
            let (from, to) = self.pair();
            if self.hosts[from].machine.is_some() && self.hosts[to].machine.is_some() {
                self.note(|| format!("the connection n{from} -> n{to} breaks"));
                self.cut(from, to);
            }
        }
        if n > 1 && self.faults.permille(plan.stall) {
            let (from, to) = self.pair();
            let both = self.faults.permille(500);
            let long = self.faults.between(MS, 2_000 * MS);
            self.stall(from, to, long);
            if both {
                self.stall(to, from, long);
            }
        }
        if n > 1 && self.faults.permille(plan.partition) {
            let side = self.faults.below(1 << n);
            let long = self.faults.between(100 * MS, 3_000 * MS);
            let one_way = self.faults.permille(200);
            for a in 0..n {
                for b in 0..n {
                    let (in_a, in_b) = (side >> a & 1, side >> b & 1);
                    if in_a != in_b && (!one_way || in_a == 1) {
                        self.stall(a, b, long);
                    }
                }
            }
        }
        if self.faults.permille(plan.pause) {
            let node = self.faults.index(n);
            let long = self.faults.between(MS, 2_000 * MS);
            self.note(|| format!("n{node} stands still for {} ms", long / MS));
            self.hosts[node].paused_until = self.now + long;
        }
        if self.faults.permille(plan.slow_disk) {
            let node = self.faults.index(n);
            let long = self.faults.between(100 * MS, 3_000 * MS);
            self.note(|| format!("the disk of n{node} takes {} ms", long / MS));
            self.hosts[node].slow_until = self.now + long;
        }
        if self.faults.permille(plan.leave) {
            let node = self.faults.index(n);
            if self.hosts[node].machine.is_some() {
                self.note(|| format!("n{node} asks to leave"));
                self.hosts[node].inbox.push(Input::Leave);
                self.wake(node, self.now);
            }
        }
    }

    fn pair(&mut self) -> (usize, usize) {
        let n = self.hosts.len();
        let from = self.faults.index(n);
        (from, (from + 1 + self.faults.index(n - 1)) % n)
    }

    fn stall(&mut self, from: usize, to: usize, long: u64) {
        self.note(|| format!("nothing goes from n{from} to n{to} for {} ms", long / MS));
        let until = self.now + long;
        let link = self.link(from, to);
        link.stalled_until = link.stalled_until.max(until);
        self.at(until, Event::Heal { from, to });
        // Some break when nothing is acknowledged for long.
        if long > 500 * MS && self.faults.permille(500) {
            self.link(from, to).connection = 0;
            let boot = self.hosts[from].boot;
            self.at(until, Event::Dial { from, to, boot });
            if self.hosts[from].machine.is_some() {
                self.hosts[from].inbox.push(Input::LinkDown(Self::node(to)));
                self.wake(from, self.now);
            }
        }
    }

    /// The storm is over: everything heals, but for what the plan leaves broken.
    fn calm(&mut self) {
        self.storm_over = true;
        self.note(|| "the storm is over".into());
        let n = self.hosts.len();
        // Every member is needed once, to found the cluster.
        let founded = self.checker.decisions() > 0;
        let dead = (self.plan.leave_one_dead && founded).then(|| self.faults.index(n));
        for node in 0..n {
            self.hosts[node].paused_until = 0;
            self.hosts[node].slow_until = 0;
            if Some(node) == dead {
                self.crash(node);
                self.hosts[node].halted = true;
            } else {
                self.at(self.now, Event::Start { node });
                self.wake(node, self.now);
            }
        }
        for link in &mut self.links {
            link.stalled_until = 0;
        }
        if self.plan.leave_one_link && dead.is_none() {
            let (from, to) = self.pair();
            self.note(|| format!("n{from} and n{to} never reach each other again"));
            self.link(from, to).dead = true;
            self.link(to, from).dead = true;
            self.link(from, to).connection = 0;
            self.link(to, from).connection = 0;
            for (a, b) in [(from, to), (to, from)] {
                let boot = self.hosts[a].boot;
                self.at(self.now, Event::Dial { from: a, to: b, boot });
            }
        }
    }

    fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|n| self.hosts[*n].machine.is_some())
    }

    /// Whether nothing is left to do: every operation answered, every live node at the same place.
    fn is_settled(&self) -> bool {
        self.next_operation > self.plan.operations
            && self.operations.is_empty()
            && self.hosts.iter().all(|h| h.machine.is_some() || h.halted)
            && self.alive().all(|n| self.hosts[n].count == self.checker.len())
            && self.alive().all(|n| {
                let now = self.clock(n);
                self.hosts[n].machine.as_ref().is_some_and(|m| m.report(now).serving)
            })
    }

    fn what_is_stuck(&self) -> String {
        let mut text = format!(
            "{} operations wait, {} of {} were begun; ",
            self.operations.len(),
            self.next_operation - 1,
            self.plan.operations
        );
        for (i, host) in self.hosts.iter().enumerate() {
            match &host.machine {
                Some(machine) => {
                    let r = machine.report(self.clock(i));
                    text += &format!(
                        "n{i}: {} sealed={} hears={} senders={} delivered={} ({} of {}) waiting={} serving={}; ",
                        r.view,
                        r.sealed,
                        r.hears,
                        r.senders,
                        r.delivered,
                        host.count,
                        self.checker.len(),
                        r.waiting_bytes,
                        r.serving
                    );
                }
                None => text += &format!("n{i}: dead; "),
            }
        }
        text
    }
}
