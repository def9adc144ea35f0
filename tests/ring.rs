//! Five nodes of whose network a ring is left, and two of them that do not hear each other seal the view.
//!
//! Each of the two hears a majority, as everybody does, and nobody whom it hears ranks above it. Their majorities share
//! one voter, which promises the one's ballot while the other's value is on its way, if its disk is slower than theirs
//! (`docs/protocol.md`, 12.24). The simulator draws links and disks, but seldom just these, so here they are by hand:
//! the replication core in virtual time, with messages that take a while and disks that take longer.
//!
//! The other way round, two of the five die while they seal, and are not to be taken for such a pair (12.29).

use std::collections::BTreeMap;

use lanekv::protocol::{Ballot, Identity, Input, Message, Note, Output, Record, Recovery, Replica, Settings};
use lanekv::types::{DiskId, Incarnation, Lsn, Millis, NodeId, Now, Timestamp, ViewNumber, splitmix64};

const NODES: usize = 5;
/// The ring is 0-2-4-1-3-0; these links are not in it.
const BROKEN: [(usize, usize); 5] = [(0, 1), (0, 4), (1, 2), (2, 3), (3, 4)];
/// The voter that both sealers hear.
const SHARED: usize = 3;

/// Times are in tenths of a millisecond.
const MILLI: u64 = 10;
const MESSAGE_TAKES: u64 = 5;
const TICK_EVERY: u64 = 10 * MILLI;

/// How long a disk takes for a sync: at least, and up to so much more.
#[derive(Clone, Copy, Debug)]
struct Sync {
    least: u64,
    more: u64,
}

struct Host {
    core: Replica,
    submitted: Lsn,
    durable: Lsn,
    is_syncing: bool,
    sync: Sync,
    view: u64,
}

enum Event {
    Arrival { from: usize, to: usize, message: Message },
    Synced { host: usize, lsn: Lsn },
    Tick { host: usize },
}

/// When somebody left the view, if anybody did, and how many ballots were begun until then.
#[derive(Debug)]
struct Outcome {
    after: Option<Millis>,
    ballots: u64,
}

struct World {
    now: u64,
    hosts: Vec<Host>,
    /// By time, then in the order in which they were made.
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    is_ring: bool,
    /// Nothing goes to these or comes from them.
    dead: Vec<usize>,
    /// Whose messages take how much longer, either way.
    far: Option<(usize, u64)>,
    ballots: u64,
    random: u64,
}

fn id(index: usize) -> NodeId {
    u8::try_from(index).ok().and_then(NodeId::new).expect("one of five")
}

fn core(index: usize, seed: u64) -> Replica {
    let settings = Settings {
        me: id(index),
        members: (0..NODES).map(id).collect(),
        member_hash: 1,
        suspicion: Millis(300),
        heartbeat: Millis(50),
        fill_len: 1 << 20,
        window: 1 << 20,
        history_len: 1 << 20,
        views_kept: 256,
        pinned_history_len: 1 << 24,
        seed: seed + index as u64,
    };
    let incarnation = Incarnation(1);
    let mut recovery = Recovery::new(&settings);
    recovery.push(Lsn(1), Record::Start { incarnation }).expect("the first record");
    let number = index as u64 + 1;
    let identity = Identity { disk: DiskId(number), incarnation, boot: number, joining: false };
    Replica::new(settings, identity, recovery, Now { mono: Millis(0), wall: Millis(1_000_000) })
}

impl World {
    /// Founded, in view 1, all links and disks well.
    fn new(seed: u64) -> World {
        let sync = Sync { least: MILLI, more: 0 };
        let host = |index| Host {
            core: core(index, seed),
            submitted: Lsn(1),
            durable: Lsn(1),
            is_syncing: false,
            sync,
            view: 0,
        };
        let mut world = World {
            now: 0,
            hosts: (0..NODES).map(host).collect(),
            events: BTreeMap::new(),
            made: 0,
            is_ring: false,
            dead: Vec::new(),
            far: None,
            ballots: 0,
            random: seed,
        };
        for from in 0..NODES {
            for to in (0..NODES).filter(|to| *to != from) {
                let hello = world.hosts[from].core.hello(id(to));
                world.hosts[to].core.check_hello(&hello).expect("of the same cluster");
                world.turn(to, Input::Greeted(Box::new(hello)));
                world.turn(to, Input::LinkUp(id(from)));
            }
            world.after((from as u64 + 1) * MILLI, Event::Tick { host: from });
        }
        while world.now < 1_000 * MILLI {
            world.step();
        }
        assert!(world.hosts.iter().all(|host| host.view == 1));
        world
    }

    fn after(&mut self, takes: u64, event: Event) {
        self.made += 1;
        self.events.insert((self.now + takes, self.made), event);
    }

    fn linked(&self, a: usize, b: usize) -> bool {
        !(self.dead.contains(&a) || self.dead.contains(&b))
            && !(self.is_ring && (BROKEN.contains(&(a, b)) || BROKEN.contains(&(b, a))))
    }

    fn turn(&mut self, index: usize, input: Input) {
        let millis = self.now / MILLI;
        let now = Now { mono: Millis(millis), wall: Millis(1_000_000 + millis) };
        let mut outputs = Vec::new();
        let host = &mut self.hosts[index];
        host.core.handle(now, input, &mut outputs);
        host.core.end_turn(now, &mut outputs);
        for output in outputs {
            match output {
                Output::Persist { lsn, .. } => self.hosts[index].submitted = lsn,
                Output::Send { to, message } => {
                    for to in to.iter().map(NodeId::index) {
                        let message = message.clone();
                        let more = self.far.filter(|(far, _)| [index, to].contains(far));
                        let takes = MESSAGE_TAKES + more.map_or(0, |(_, more)| more);
                        self.after(takes, Event::Arrival { from: index, to, message });
                    }
                }
                Output::Note(Note::Sealing { .. }) => self.ballots += 1,
                Output::Note(Note::Entered(view)) => self.hosts[index].view = view.number.0,
                Output::Halt(reason) => panic!("n{index} halts: {reason}"),
                _ => {}
            }
        }
        self.begin_sync(index);
    }

    /// One sync at a time, of all that was written before it began.
    fn begin_sync(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let lsn = host.submitted;
        if !host.is_syncing && host.durable < lsn {
            host.is_syncing = true;
            let takes = host.sync.least + splitmix64(&mut self.random) % (host.sync.more + 1);
            self.after(takes, Event::Synced { host: index, lsn });
        }
    }

    fn step(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("everybody ticks");
        self.now = at;
        match event {
            Event::Arrival { from, to, message } => {
                if self.linked(from, to) {
                    self.turn(to, Input::Receive { from: id(from), message });
                }
            }
            Event::Synced { host, lsn } => {
                (self.hosts[host].durable, self.hosts[host].is_syncing) = (lsn, false);
                self.turn(host, Input::Persisted(lsn));
            }
            Event::Tick { host } => {
                self.turn(host, Input::Tick);
                self.after(TICK_EVERY, Event::Tick { host });
            }
        }
    }

    /// Breaks the links.
    fn leave_a_ring(mut self, all: Sync, shared: Sync, patience: Millis) -> Outcome {
        for (index, host) in self.hosts.iter_mut().enumerate() {
            host.sync = if index == SHARED { shared } else { all };
        }
        self.is_ring = true;
        self.ballots = 0;
        for (a, b) in BROKEN {
            self.turn(a, Input::LinkDown(id(b)));
            self.turn(b, Input::LinkDown(id(a)));
        }
        self.until_left(patience)
    }

    /// Two sealers have died one after the other, each after one voter had promised its ballot; one of these voters is
    /// far away.
    fn lose_two_sealers(mut self, rounds: [u64; 2], patience: Millis) -> Outcome {
        self.far = Some((4, 5 * MILLI));
        for ((sealer, voter), round) in [(1, 3), (2, 4)].into_iter().zip(rounds) {
            let ballot = Ballot { round, node: id(sealer), incarnation: Incarnation(1) };
            let message =
                Message::SealPrepare { view: ViewNumber(1), ballot, have: vec![Timestamp(0); NODES] };
            self.turn(voter, Input::Receive { from: id(sealer), message });
        }
        self.dead = vec![1, 2];
        for (dead, alive) in [1, 2].into_iter().flat_map(|dead| [0, 3, 4].map(|alive| (dead, alive))) {
            self.turn(alive, Input::LinkDown(id(dead)));
        }
        self.until_left(patience)
    }

    /// Goes on until somebody is in another view.
    fn until_left(mut self, patience: Millis) -> Outcome {
        let begun = self.now;
        while self.now - begun < patience.0 * MILLI {
            self.step();
            if self.hosts.iter().any(|host| host.view > 1) {
                let after = Some(Millis((self.now - begun) / MILLI));
                return Outcome { after, ballots: self.ballots };
            }
        }
        Outcome { after: None, ballots: self.ballots }
    }
}

/// Who was outbid twice waits its turn, although it does not hear who outbids it.
#[test]
fn two_sealers_that_do_not_hear_each_other_do_not_duel_for_long() {
    for more in [0, 1, 2, 20] {
        let all = Sync { least: 2 * MILLI, more };
        for shared in [2, 6, 12, 30, 100].map(|millis| Sync { least: millis * MILLI, more: 10 * more }) {
            for seed in 0..3 {
                let outcome = World::new(7919 * seed).leave_a_ring(all, shared, Millis(2_000));
                let is_calm = outcome.after.is_some() && outcome.ballots <= 8;
                assert!(is_calm, "{outcome:?} with {all:?}, {shared:?}, seed {seed}");
            }
        }
    }
}

/// Who is outbid by two that are dead waits for neither.
#[test]
fn a_row_of_dead_sealers_is_not_waited_for() {
    for rounds in [[1, 2], [3, 4], [5, 6], [7, 9]] {
        for seed in 0..3 {
            let outcome = World::new(7919 * seed).lose_two_sealers(rounds, Millis(60_000));
            println!("{outcome:?} with rounds {rounds:?}, seed {seed}");
            let is_soon = outcome.after.is_some_and(|after| after < Millis(1_000));
            assert!(is_soon, "{outcome:?} with rounds {rounds:?}, seed {seed}");
        }
    }
}
