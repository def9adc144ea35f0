//! The world around the machines: virtual time, what is to happen next, and when a run is over.
//!
//! A run has three parts. In the *storm* faults happen (`faults`). Then everything heals, but for the
//! damage that the plan leaves, and all that was begun must come to its end within bounded time. At last
//! nothing happens for a while, in which the nodes must not change views any more.

use crate::node::NodeInput;
use crate::protocol::Marks;
use crate::types::{Millis, NodeId, Now, Reply};
use crate::{dialect, node, protocol, store};

use super::checker::{Checker, Violation};
use super::client::Client;
use super::history::History;
use super::host::{Fate, Host};
use super::invariants::Invariants;
use super::network::Link;
use super::plan::Plan;
use super::queue::EventQueue;
use super::random::Random;
use super::sights::{Sight, Sights};
use super::slow;

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
    /// The search for a linearization was given up.
    pub unsearched: bool,
    /// How often rare situations of the protocol came up.
    pub marks: Marks,
    /// How often faults struck, and what they led to.
    pub sights: Sights,
}

/// What a run prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// Nothing.
    Off,
    /// What happens: faults, messages, records, answers; not the Status messages, which come all the time.
    Story,
    /// Those too.
    Everything,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A node goes through its loop.
    Turn { node: usize, boot: u64 },
    /// It may be time for that even if nothing has come.
    Deadline { node: usize, boot: u64 },
    /// Bytes arrive.
    Arrive { from: usize, to: usize, connection: u64 },
    /// A connection breaks.
    Break { from: usize, to: usize, connection: u64 },
    /// A node tries to connect to another.
    Dial { from: usize, to: usize, boot: u64 },
    /// A disk has synced so much.
    Synced { node: usize, boot: u64 },
    /// A keeper of snapshots has done a step.
    Keep { node: usize, boot: u64 },
    /// A process is killed, and starts again.
    Crash { node: usize, boot: u64, down: u64 },
    /// A process starts.
    Start { node: usize },
    /// A client begins something.
    Client { client: usize, turn: u64 },
    /// The next fault is drawn.
    Fault,
    /// A link carries again.
    Heal { from: usize, to: usize },
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: u64,
    events: EventQueue<Event>,
    count: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) links: Vec<Link>,
    pub(super) next_connection: u64,
    pub(super) next_boot: u64,
    pub(super) clients: Vec<Client>,
    pub(super) next_operation: u64,
    pub(super) answered: u64,
    pub(super) checker: Checker,
    pub(super) invariants: Invariants,
    pub(super) history: History,
    ties: Random,
    pub(super) net: Random,
    pub(super) disks: Random,
    pub(super) faults: Random,
    pub(super) asking: Random,
    pub(super) storm_over: bool,
    pub(super) calm_since: u64,
    /// Nothing crashes before: a damaged disk is to be recognized by those who remember it.
    pub(super) truce_until: u64,
    /// How many disks may still be lost.
    pub(super) disks_left: usize,
    pub(super) digest: u64,
    pub(super) marks: Marks,
    pub(super) sights: Sights,
    /// Whether the history is linearizable was too long a search.
    unsearched: bool,
    pub(super) trace: Trace,
    /// A message while it is encoded, and buffers to be used again.
    pub(super) scratch: Vec<u8>,
    pub(super) spare: Vec<Vec<u8>>,
}

pub(super) const MS: u64 = 1_000;
pub(super) const SUSPICION_MS: u64 = 300;
/// Everything pending comes to its end within this after the storm, in microseconds.
const SETTLED_WITHIN_US: u64 = 30_000 * MS;
const EVENTS_MAX: u64 = 20_000_000;
/// Partial histories beyond this are not searched on.
const SEARCH_STATES_MAX: u64 = 200_000;

/// Runs a plan to its end.
pub fn run(plan: Plan, trace: Trace) -> Outcome {
    let mut world = World::new(plan, trace);
    world.go();
    world.judge();
    world.outcome()
}

/// Runs a plan once more, to see whether it goes as before; the clients' histories are not searched again.
pub fn run_unjudged(plan: Plan) -> Outcome {
    let mut world = World::new(plan, Trace::Off);
    world.go();
    world.outcome()
}

/// However little work a turn has time for.
const READ_PER_TURN_MIN: u64 = 32;

impl World {
    fn outcome(mut self) -> Outcome {
        let world = &mut self;
        let mut violations = std::mem::take(&mut world.checker.violations);
        violations.append(&mut world.invariants.violations);
        for host in &world.hosts {
            if let Some(machine) = &host.machine {
                world.marks.add(machine.node.marks());
            }
        }
        Outcome {
            violations,
            answered: world.answered,
            events: world.count,
            views: world.invariants.decisions(),
            digest: world.digest,
            unsearched: world.unsearched,
            marks: self.marks,
            sights: self.sights,
            plan: self.plan,
        }
    }

    fn new(plan: Plan, trace: Trace) -> World {
        let seed = plan.seed;
        slow::reset(seed);
        let mut setup = Random::new(seed, 2);
        let hosts = (0..plan.nodes).map(|_| Host::new(&mut setup, plan.drift)).collect();
        let links = vec![Link::default(); usize::from(plan.nodes) * usize::from(plan.nodes)];
        World {
            now: 0,
            events: EventQueue::new(),
            count: 0,
            hosts,
            links,
            next_connection: 1,
            next_boot: 1,
            clients: (0..plan.clients).map(|_| Client::new(setup.permille(500), plan.keys)).collect(),
            next_operation: 1,
            answered: 0,
            checker: Checker::with_keys(plan.keys),
            invariants: Invariants::new(usize::from(plan.nodes)),
            history: History::default(),
            ties: Random::new(seed, 3),
            net: Random::new(seed, 4),
            disks: Random::new(seed, 5),
            faults: Random::new(seed, 6),
            asking: Random::new(seed, 7),
            storm_over: false,
            calm_since: 0,
            truce_until: 0,
            disks_left: plan.damage.disks,
            digest: 0,
            marks: Marks::default(),
            sights: Sights::default(),
            unsearched: false,
            trace,
            scratch: Vec::new(),
            spare: Vec::new(),
            plan,
        }
    }

    pub(super) fn node(index: usize) -> NodeId {
        NodeId::new(u8::try_from(index).expect("few nodes")).expect("few nodes")
    }

    pub(super) fn settings(&self, node: usize) -> node::Settings {
        node::Settings {
            protocol: protocol::Settings {
                me: Self::node(node),
                members: (0..self.hosts.len()).map(Self::node).collect(),
                member_hash: 1,
                suspicion: Millis(SUSPICION_MS),
                heartbeat: Millis(50),
                window: 1 << 20,
                fill_len: self.plan.fill_len,
                history_len: self.plan.history_len,
                pinned_history_len: self.plan.history_len * 16 + (64 << 10),
                views_kept: self.plan.views_kept,
                seed: self.plan.seed ^ (node as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1),
            },
            client_timeout: Millis(5_000),
            clients_max: 100,
            snapshot_log_len: self.plan.snapshot_log_len,
            applied_per_turn: self.plan.work_per_turn,
            // KEYS looks at every slot, and there are a few of those.
            read_per_turn: self.plan.work_per_turn.max(READ_PER_TURN_MIN),
            store: store::Limits::default(),
            dialect: dialect::DecodeLimits::default(),
            cluster_view: node::ClusterView::default(),
            port: 0,
            cluster_port: None,
            process_id: 0,
        }
    }

    pub(super) fn clock(&self, node: usize) -> Now {
        self.hosts[node].clock.at(self.now)
    }

    pub(super) fn at(&mut self, when: u64, event: Event) {
        let tie = self.ties.next();
        self.events.push(when.max(self.now), tie, event);
    }

    pub(super) fn see(&mut self, sight: Sight) {
        self.sights.hit(sight);
    }

    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.trace != Trace::Off {
            println!("{:>10.3} ms  {}", self.now as f64 / 1e3, text());
        }
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|n| self.hosts[*n].machine.is_some())
    }

    /// Those of whom everything is expected.
    pub(super) fn sound(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|n| self.hosts[*n].fate == Fate::Sound)
    }

    fn is_broken(&self) -> bool {
        !self.checker.violations.is_empty() || !self.invariants.violations.is_empty()
    }

    fn go(&mut self) {
        self.note(|| self.plan.to_string());
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
        // When everything had settled, and how many views had been decided then.
        let mut quiet_since: Option<(u64, usize)> = None;
        // Bounded twice: by virtual time and by the number of events.
        while let Some((when, event)) = self.events.pop() {
            self.now = when;
            self.count += 1;
            self.digest = (self.digest ^ when).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.happen(event);
            if self.is_broken() {
                return;
            }
            if !self.storm_over && self.now >= self.plan.storm_us {
                self.calm();
                calmed_at = Some(self.now);
            }
            if let Some((since, views)) = quiet_since {
                // Calm operation causes no seal, but for the promotion of each node once.
                let changes = self.invariants.decisions() - views;
                if changes > self.hosts.len() {
                    self.checker.stuck(format!("{changes} view changes while nothing happens"));
                }
                if self.now > since + self.plan.quiet_us {
                    return self.last_look();
                }
            } else if let Some(since) = calmed_at {
                if self.is_settled() {
                    self.note(|| "everything has settled".into());
                    quiet_since = Some((self.now, self.invariants.decisions()));
                }
                if self.now > since + SETTLED_WITHIN_US || self.count > EVENTS_MAX {
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
                // Who asked to leave is stopped even if the storm is over.
                let due = !self.storm_over || self.hosts[node].leaving;
                if due && self.now < self.truce_until {
                    self.at(self.truce_until, Event::Crash { node, boot, down });
                } else if due && self.hosts[node].boot == boot {
                    self.crash_for(node, down);
                }
            }
            Event::Turn { node, boot } => {
                if self.hosts[node].boot == boot && self.hosts[node].turn_at == Some(self.now) {
                    self.turn(node);
                }
            }
            Event::Deadline { node, boot } => {
                if self.hosts[node].boot == boot {
                    self.deadline(node);
                }
            }
            Event::Arrive { from, to, connection } => self.arrive(from, to, connection),
            Event::Break { from, to, connection } => {
                if self.link(from, to).connection == connection {
                    self.cut(from, to);
                }
            }
            Event::Dial { from, to, boot } => {
                if self.hosts[from].boot == boot && self.hosts[from].machine.is_some() {
                    self.dial(from, to);
                }
            }
            Event::Synced { node, boot } => self.synced(node, boot),
            Event::Keep { node, boot } => self.kept(node, boot),
            Event::Client { client, turn } => {
                if self.clients[client].turn == turn {
                    self.client(client);
                }
            }
            Event::Fault => self.fault(),
            Event::Heal { from, to } => {
                let link = self.link(from, to);
                if link.stalled_until <= self.now && self.link(from, to).connection == 0 {
                    let boot = self.hosts[from].boot;
                    self.at(self.now, Event::Dial { from, to, boot });
                }
            }
        }
    }

    /// Whether nothing is left to do: every operation answered, every sound node at the same place.
    fn is_settled(&self) -> bool {
        self.next_operation > self.plan.operations
            && self.clients.iter().all(|c| c.operation.is_none())
            && self.sound().all(|n| {
                let host = &self.hosts[n];
                host.count == self.checker.len()
                    && !host.leaving
                    && host.machine.as_ref().is_some_and(|m| {
                        let report = m.node.report();
                        report.serving && report.waiting_bytes == 0
                    })
            })
    }

    /// Every sound node has everything that was acknowledged.
    fn last_look(&mut self) {
        let code = store::lookup(b"GET").expect("there is a GET").code;
        let bulk = |reply: Reply| match reply {
            Reply::Bulk(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        };
        let sound: Vec<usize> = self.sound().collect();
        for node in sound {
            for key in 0..self.plan.keys {
                let Some(machine) = &self.hosts[node].machine else { continue };
                let list = bulk(machine.node.store().read(code, &[format!("list{key}").as_bytes()]));
                let counter = bulk(machine.node.store().read(code, &[format!("counter{key}").as_bytes()]));
                let counter = String::from_utf8_lossy(&counter).parse().unwrap_or(0);
                self.checker.last_look(Self::node(node), key, &list, counter);
            }
        }
    }

    /// What can be judged only when all is over.
    fn judge(&mut self) {
        if self.is_broken() {
            return;
        }
        self.note(|| format!("searching a linearization of {} operations", self.history.len()));
        match self.history.check(SEARCH_STATES_MAX) {
            Ok(true) => {}
            Ok(false) => self.unsearched = true,
            Err(what) => self.checker.fail("Linearizability", what),
        }
    }

    fn what_is_stuck(&self) -> String {
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
                        "n{i}: {} sealed={} hears={} senders={} delivered={} ({} of {}) waiting={} serving={}",
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
                None => text += &format!("n{i}: does not run"),
            }
            text += &format!(" {:?}; ", host.fate);
        }
        text
    }

    /// Hands something to a node's next turn.
    pub(super) fn give(&mut self, node: usize, input: NodeInput) {
        self.hosts[node].inbox.push(input);
        self.wake(node, self.now);
    }
}
