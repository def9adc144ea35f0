//! A whole node without sockets, and what clients do to it.

use lanekv::node::{ClientKey, Effects, Node, NodeInput, Replay};
use lanekv::types::{Lsn, Millis, Now};

use super::replay::{START, begin, settings};
use super::script::{Front, steps};

/// Connections that a script may use.
const CLIENTS: u8 = 3;

/// A node that is a cluster of its own, with its disk and its clients' sockets.
struct Host {
    node: Node,
    now: Now,
    last: Lsn,
    durable: Lsn,
    effects: Effects,
    generations: [Option<u32>; CLIENTS as usize],
    opened: u32,
}

impl Host {
    fn new() -> Host {
        let settings = settings(1);
        let replay = Replay::new(&settings.protocol);
        let (node, last) = begin(settings, replay).expect("an empty log");
        let effects = Effects::default();
        let mut host = Host {
            node,
            now: START,
            last,
            durable: last,
            effects,
            generations: [None; CLIENTS as usize],
            opened: 0,
        };
        for _ in 0..40 {
            host.turn(true);
            if host.node.report().serving {
                return host;
            }
            host.now.mono = host.now.mono.plus(Millis(20));
        }
        panic!("a node of its own founds its cluster: {:?}", host.node.report());
    }

    /// A turn of the loop, and the disk if it is quick.
    fn turn(&mut self, persist: bool) {
        self.node.run_backlog(self.now);
        self.node.end_turn(self.now, &mut self.effects);
        assert!(self.effects.halt.is_none(), "clients stopped the node: {:?}", self.effects.halt);
        self.last = self.effects.records.last_lsn().unwrap_or(self.last);
        let closing: Vec<ClientKey> = self.effects.closing.drain(..).collect();
        self.effects.clear();
        for key in closing {
            self.close(key);
        }
        if persist && self.durable < self.last {
            self.durable = self.last;
            self.node.handle(self.now, NodeInput::Persisted(self.last));
        }
    }

    fn key(&mut self, index: u8) -> ClientKey {
        let opened = &mut self.opened;
        let now = self.now;
        let node = &mut self.node;
        let slot = usize::from(index % CLIENTS);
        let generation = *self.generations[slot].get_or_insert_with(|| {
            *opened += 1;
            node.client_open(now, ClientKey { index: u32::from(index % CLIENTS), generation: *opened });
            *opened
        });
        ClientKey { index: u32::from(index % CLIENTS), generation }
    }

    fn close(&mut self, key: ClientKey) {
        self.node.client_gone(key);
        if let Some(generation) = self.generations.get_mut(key.index as usize) {
            *generation = generation.filter(|generation| *generation != key.generation);
        }
    }

    /// The client reads so much of what it was answered.
    fn read(&mut self, key: ClientKey, most: usize) {
        let len = self.node.client_output(key).len().min(most);
        self.node.client_sent(self.now, key, len);
    }

    fn step(&mut self, code: u8, payload: &[u8]) {
        let key = self.key(code >> 4);
        match code & 15 {
            1 => self.node.client_eof(self.now, key),
            2 => self.close(key),
            3 => self.read(key, usize::from(Front(payload).u16())),
            4 => self.turn(true),
            5 => self.turn(false),
            6 => {
                let later = Millis(u64::from(Front(payload).u16()));
                self.now = Now { mono: self.now.mono.plus(later), wall: self.now.wall.plus(later) };
            }
            7 => self
                .node
                .handle(self.now, NodeInput::DiskSlow(payload.first().is_some_and(|slow| slow & 1 == 1))),
            _ => self.node.client_bytes(self.now, key, payload),
        }
    }
}

/// A script: bytes from clients, ends of connections, turns, time.
pub(super) fn client(input: &[u8]) {
    let mut host = Host::new();
    for (code, payload) in steps(input).take(24) {
        host.step(code, payload);
    }
    // The disk goes on and the clients read: then everything that was asked is answered.
    for _ in 0..6 {
        host.turn(true);
        // Long reads take several turns, one of them after the other.
        for _ in 0..1000 {
            if !host.node.has_work() {
                break;
            }
            host.turn(true);
        }
        for index in 0..CLIENTS {
            let key = host.key(index);
            host.read(key, usize::MAX);
        }
        host.now.mono = host.now.mono.plus(Millis(400));
    }
    assert!(!host.node.has_unanswered(), "a command is never answered");
    let store = host.node.store();
    assert_eq!(store.digest(), store.digest_recomputed(), "the digest is true");
    assert_eq!(host.node.report().waiting_bytes, 0);
}
