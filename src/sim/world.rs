//! The world around the machines: time, network, disks, clients, faults.
//!
//! One heap of events in virtual microseconds. A connection is a queue in one direction, in order, that may
//! be late, stand still, or break and lose what is on its way, as with TCP. A machine takes everything that
//! has arrived in one turn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::node::{NodeInput, Observed, Settings};
use crate::protocol::{self, Message, Record, decode_hello, decode_message, encode_hello, encode_message};
use crate::types::{DiskId, Millis, NodeId, NodeSet, Now, Reply};
use crate::wire::split_frame;
use crate::{dialect, store};

use super::checker::{Checker, Violation};
use super::client::Client;
use super::machine::{Disk, Machine};
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
pub(super) enum Event {
    /// A node goes through its loop.
    Turn { node: usize, boot: u64 },
    /// Bytes arrive.
    Arrive { from: usize, to: usize, connection: u64, bytes: Vec<u8> },
    /// A node tries to connect to another.
    Dial { from: usize, to: usize, boot: u64 },
    /// A disk has synced so much.
    Synced { node: usize, boot: u64 },
    /// A node stops, and starts again.
    Crash { node: usize, boot: u64, down: u64 },
    /// A node starts.
    Start { node: usize },
    /// A client begins something.
    Client { client: usize, turn: u64 },
    /// The next fault is drawn.
    Fault,
    /// A link carries again.
    Heal { from: usize, to: usize },
}

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// The connection over which `from` sends to `to`; 0 if there is none.
    pub(super) connection: u64,
    /// Nothing arrives before this.
    pub(super) stalled_until: u64,
    /// Broken for good.
    pub(super) dead: bool,
    /// When the last bytes on the way arrive: what is sent later arrives later.
    pub(super) last_arrival: u64,
}

pub(super) struct Host {
    pub(super) machine: Option<Machine>,
    pub(super) disk: Disk,
    pub(super) boot: u64,
    pub(super) inbox: Vec<NodeInput>,
    pub(super) turn_at: Option<u64>,
    pub(super) paused_until: u64,
    pub(super) slow_until: u64,
    pub(super) syncing: bool,
    /// Entries delivered since the start.
    pub(super) count: usize,
    pub(super) known_decisions: u64,
    pub(super) clock_offset_ms: u64,
    pub(super) wall_offset_ms: u64,
    pub(super) halted: bool,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: u64,
    pub(super) heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    pub(super) events: BTreeMap<usize, Event>,
    pub(super) next_event: usize,
    pub(super) count: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) links: Vec<Link>,
    pub(super) next_connection: u64,
    pub(super) next_boot: u64,
    pub(super) clients: Vec<Client>,
    pub(super) next_operation: u64,
    pub(super) answered: u64,
    pub(super) checker: Checker,
    pub(super) ties: Random,
    pub(super) net: Random,
    pub(super) disks: Random,
    pub(super) faults: Random,
    pub(super) asking: Random,
    pub(super) storm_over: bool,
    /// When everything had settled, and how many views had been decided then.
    pub(super) quiet_since: Option<(u64, usize)>,
    pub(super) digest: u64,
    pub(super) trace: bool,
}

pub(super) const MS: u64 = 1_000;
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
    pub(super) fn new(plan: Plan, trace: bool) -> World {
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
                wall_offset_ms: 1_000_000_000 + setup.below(60_000),
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
            clients: (0..plan.clients).map(|_| Client::new(setup.permille(500), plan.keys)).collect(),
            next_operation: 1,
            answered: 0,
            checker: Checker::with_keys(plan.keys),
            ties: Random::new(seed, 3),
            net: Random::new(seed, 4),
            disks: Random::new(seed, 5),
            faults: Random::new(seed, 6),
            asking: Random::new(seed, 7),
            storm_over: false,
            quiet_since: None,
            digest: 0,
            trace,
            plan,
        }
    }

    pub(super) fn node(index: usize) -> NodeId {
        NodeId::new(u8::try_from(index).expect("few nodes")).expect("few nodes")
    }

    pub(super) fn settings(&self, node: usize) -> Settings {
        Settings {
            protocol: protocol::Settings {
                me: Self::node(node),
                members: (0..self.hosts.len()).map(Self::node).collect(),
                member_hash: 1,
                suspicion: Millis(SUSPICION_MS),
                heartbeat: Millis(50),
                window: 1 << 20,
                seed: self.plan.seed ^ (node as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1),
            },
            client_timeout: Millis(5_000),
            clients_max: 100,
            store: store::Limits::default(),
            dialect: dialect::DecodeLimits::default(),
            port: 0,
            process_id: 0,
        }
    }

    pub(super) fn clock(&self, node: usize) -> Now {
        let host = &self.hosts[node];
        let ms = self.now / MS;
        Now { mono: Millis(host.clock_offset_ms + ms), wall: Millis(host.wall_offset_ms + ms) }
    }

    pub(super) fn at(&mut self, when: u64, event: Event) {
        let id = self.next_event;
        self.next_event += 1;
        self.events.insert(id, event);
        let tie = self.ties.next();
        self.heap.push(Reverse((when.max(self.now), tie, id)));
    }

    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10.3} ms  {}", self.now as f64 / 1e3, text());
        }
    }

    pub(super) fn go(&mut self) {
        for node in 0..self.hosts.len() {
            let delay = self.faults.below(400 * MS);
            self.at(delay, Event::Start { node });
        }
        for client in 0..self.plan.clients {
            let delay = self.asking.below(500 * MS);
            self.client_later(client, delay);
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
                    return self.last_look();
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

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Start { node } => self.start(node),
            Event::Crash { node, boot, down } => {
                if self.hosts[node].boot == boot {
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
            Event::Synced { node, boot } => self.synced(node, boot),
            Event::Client { client, turn } => {
                if self.clients[client].turn == turn {
                    self.client(client);
                }
            }
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

    pub(super) fn start(&mut self, node: usize) {
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
        match Machine::boot(settings, &mut host.disk, boot, now) {
            Ok(machine) => host.machine = Some(machine),
            Err(error) => return self.checker.broken(format!("n{node} refuses to start: {error}")),
        }
        self.note(|| format!("n{node} starts"));
        for to in (0..self.hosts.len()).filter(|to| *to != node) {
            self.at(self.now, Event::Dial { from: node, to, boot });
        }
        self.wake(node, self.now);
    }

    pub(super) fn crash(&mut self, node: usize) {
        let power = self.faults.permille(self.plan.power);
        let host = &mut self.hosts[node];
        if host.machine.take().is_none() {
            return;
        }
        host.boot = 0;
        if power {
            let disks = &mut self.disks;
            host.disk.lose_power(&mut || disks.next());
        }
        self.note(|| format!("n{node} {}", if power { "loses power" } else { "is killed" }));
        // Its connections break, in both directions: the others notice and dial at once.
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            self.link(node, other).connection = 0;
            self.cut(other, node);
        }
        for client in 0..self.clients.len() {
            if self.clients[client].at.is_some_and(|(at, _)| at == node) {
                self.clients[client].at = None;
                if self.clients[client].operation.is_some() {
                    self.retry(client, true);
                }
            }
        }
    }

    pub(super) fn wake(&mut self, node: usize, when: u64) {
        let host = &mut self.hosts[node];
        let when = when.max(host.paused_until).max(self.now);
        if host.turn_at.is_some_and(|at| at <= when && at >= self.now) {
            return;
        }
        host.turn_at = Some(when);
        let boot = host.boot;
        self.at(when, Event::Turn { node, boot });
    }

    pub(super) fn turn(&mut self, node: usize) {
        let now = self.clock(node);
        let host = &mut self.hosts[node];
        host.turn_at = None;
        if host.paused_until > self.now {
            let until = host.paused_until;
            return self.wake(node, until);
        }
        let Some(machine) = &mut host.machine else { return };
        let inputs = std::mem::take(&mut host.inbox);
        machine.turn(now, inputs.into_iter());
        let deadline = machine.node.deadline();
        let busy = machine.node.has_work();
        let offset = host.clock_offset_ms;
        self.carry_out(node);
        if busy {
            self.wake(node, self.now + 50);
        } else if let Some(at) = deadline {
            let at = at.0.saturating_sub(offset) * MS;
            self.wake(node, at.max(self.now + MS));
        }
    }

    pub(super) fn carry_out(&mut self, node: usize) {
        let id = Self::node(node);
        let Some(machine) = &mut self.hosts[node].machine else { return };
        let mut effects = std::mem::take(&mut machine.effects);
        for note in effects.notes.drain(..) {
            self.note(|| format!("n{node} {note}"));
        }
        for observed in effects.observed.drain(..) {
            match observed {
                Observed::Delivered { delivery, index, digest } => {
                    let count = self.hosts[node].count;
                    self.hosts[node].count += 1;
                    self.checker.delivered(id, count, &delivery, digest, index);
                }
                Observed::Persisted(_, record) => self.persisted(node, &record),
            }
        }
        for (to, message) in effects.sends.drain(..) {
            self.send(node, to, &message);
        }
        for key in effects.written.drain(..) {
            self.read_replies(node, key);
        }
        self.sync(node);
        if let Some(reason) = effects.halt.take() {
            self.checker.broken(format!("n{node} halts: {reason}"));
        }
        if let Some(machine) = &mut self.hosts[node].machine {
            machine.effects = effects;
        }
    }

    pub(super) fn persisted(&mut self, node: usize, record: &Record) {
        let id = Self::node(node);
        match record {
            Record::Entry(entry) | Record::Fill(entry) => self.checker.stored(id, entry),
            Record::Decision(decision) => self.checker.decided(id, decision),
            _ => {}
        }
        self.note(|| format!("n{node} persists {record}"));
        let of_seal = matches!(record, Record::Promise { .. } | Record::Accept { .. } | Record::Decision(_));
        if of_seal && !self.storm_over && self.faults.permille(self.plan.seal_crash) {
            let delay_bits = self.faults.between(6, 17);
            let delay = self.faults.below(1 << delay_bits);
            let down_bits = self.faults.between(8, 20);
            let down = self.faults.below(1 << down_bits);
            let boot = self.hosts[node].boot;
            self.at(self.now + delay, Event::Crash { node, boot, down });
        }
    }

    pub(super) fn sync(&mut self, node: usize) {
        let most = self.plan.sync_us;
        let host = &mut self.hosts[node];
        let Some(machine) = &mut host.machine else { return };
        if host.syncing || !machine.write() {
            return;
        }
        host.syncing = true;
        let slow = host.slow_until.saturating_sub(self.now);
        let boot = host.boot;
        let length = self.disks.between(10, most) + slow;
        self.at(self.now + length, Event::Synced { node, boot });
    }

    pub(super) fn synced(&mut self, node: usize, boot: u64) {
        let host = &mut self.hosts[node];
        let Some(machine) = host.machine.as_mut().filter(|_| host.boot == boot) else { return };
        host.syncing = false;
        let lsn = machine.sync();
        host.inbox.push(NodeInput::Persisted(lsn));
        self.wake(node, self.now);
        self.sync(node);
    }

    // ---- network ----

    pub(super) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let n = self.hosts.len();
        &mut self.links[from * n + to]
    }

    pub(super) fn delay(&mut self) -> u64 {
        let most = self.plan.delay_us;
        self.net.between(20, most)
    }

    pub(super) fn send(&mut self, from: usize, to: NodeSet, message: &Message) {
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

    pub(super) fn ship(&mut self, from: usize, to: usize, connection: u64, bytes: Vec<u8>) {
        let delay = self.delay();
        let now = self.now;
        let link = self.link(from, to);
        let when = (now + delay).max(link.stalled_until).max(link.last_arrival + 1);
        link.last_arrival = when;
        self.at(when, Event::Arrive { from, to, connection, bytes });
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, connection: u64, bytes: &[u8]) {
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
        self.hosts[to].inbox.push(NodeInput::Receive { from, message });
        let delay = self.net.below(200);
        self.wake(to, self.now + delay);
    }

    /// The connection over which `from` sends breaks; what is on its way is lost; it is dialled again.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.link(from, to).connection = 0;
        let boot = self.hosts[from].boot;
        let delay = self.delay();
        if self.hosts[from].machine.is_some() {
            self.at(self.now + delay, Event::Dial { from, to, boot });
        }
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) {
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
            self.hosts[from].inbox.push(NodeInput::LinkDown(Self::node(to)));
            let wait = if silent { SUSPICION_MS * MS } else { 50 * MS };
            let boot = self.hosts[from].boot;
            let jitter = self.net.below(50 * MS);
            self.wake(from, now);
            return self.at(now + wait + jitter, Event::Dial { from, to, boot });
        }
        let (Some(dialler), Some(listener)) = (&self.hosts[from].machine, &self.hosts[to].machine) else {
            return;
        };
        let there = dialler.node.hello(Self::node(to));
        let back = listener.node.hello(Self::node(from));
        let mut bytes = Vec::new();
        encode_hello(&mut bytes, &there);
        let (kind, payload, _) = split_frame(&bytes, usize::MAX).expect("a frame");
        assert_eq!(decode_hello(kind, payload).as_ref(), Ok(&there), "a hello comes back as it was");
        if let Err(refusal) = listener.node.check_hello(&there) {
            let peer = Self::node(to);
            self.hosts[from].inbox.push(NodeInput::RefusedBy { peer, refusal });
            return self.wake(from, now);
        }
        if let Err(refusal) = dialler.node.check_hello(&back) {
            return self.checker.stuck(format!("n{from} refuses n{to}: {refusal}"));
        }
        let connection = self.next_connection;
        self.next_connection += 1;
        self.link(from, to).connection = connection;
        self.hosts[to].inbox.push(NodeInput::Greeted(Box::new(there)));
        self.hosts[from].inbox.push(NodeInput::Greeted(Box::new(back)));
        self.hosts[from].inbox.push(NodeInput::LinkUp(Self::node(to)));
        self.wake(from, now);
        self.wake(to, now);
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|n| self.hosts[*n].machine.is_some())
    }

    /// Whether nothing is left to do: every operation answered, every live node at the same place.
    pub(super) fn is_settled(&self) -> bool {
        self.next_operation > self.plan.operations
            && self.clients.iter().all(|c| c.operation.is_none())
            && self.hosts.iter().all(|h| h.machine.is_some() || h.halted)
            && self.alive().all(|n| self.hosts[n].count == self.checker.len())
            && self.alive().all(|n| self.hosts[n].machine.as_ref().is_some_and(|m| m.node.report().serving))
    }

    /// Every live node has everything that was acknowledged.
    pub(super) fn last_look(&mut self) {
        let code = store::lookup(b"GET").expect("there is a GET").code;
        let bulk = |reply: Reply| match reply {
            Reply::Bulk(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        };
        let up: Vec<usize> = self.alive().collect();
        for node in up {
            for key in 0..self.plan.keys {
                let Some(machine) = &self.hosts[node].machine else { continue };
                let list = bulk(machine.node.store().read(code, &[format!("list{key}").as_bytes()]));
                let counter = bulk(machine.node.store().read(code, &[format!("counter{key}").as_bytes()]));
                let counter = String::from_utf8_lossy(&counter).parse().unwrap_or(0);
                self.checker.last_look(Self::node(node), key, &list, counter);
            }
        }
    }

    pub(super) fn what_is_stuck(&self) -> String {
        let mut text = format!(
            "{} operations wait, {} of {} were begun; ",
            self.clients.iter().filter(|c| c.operation.is_some()).count(),
            self.next_operation - 1,
            self.plan.operations
        );
        for (i, host) in self.hosts.iter().enumerate() {
            match &host.machine {
                Some(machine) => {
                    let r = machine.node.report();
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
