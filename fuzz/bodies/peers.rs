//! One node of three, and what peers say to it: anything that can be decoded.
//!
//! Peers are trusted not to lie about what they have stored, so the replies of this node may be wrong if they do. But
//! no message may trip one of its assertions, whatever it can read must not have been unreadable when it wrote it, and
//! it never writes a log that it would refuse to read.

use lanekv::node::{
    ClientKey, Done, Effects, LoadedSnapshot, Node, NodeInput, Observed, Replay, SnapshotInfo, Task,
};
use lanekv::protocol::{
    Decision, HELLO_KIND, Message, Record, Sender, Value, View, Voter, decode_hello, decode_message,
    encode_message, encode_record,
};
use lanekv::storage::{MemoryDisk, SnapshotFront, SnapshotHeader, SnapshotReceiver};
use lanekv::store::{Limits, Store};
use lanekv::types::{
    ClusterId, Incarnation, Lsn, Millis, NodeId, Now, Position, SnapshotId, Timestamp, ViewNumber,
};
use lanekv::wire::split_frame;

use super::replay::{START, begin, disk, settings};
use super::script::{Front, steps};

const KEY: ClientKey = ClientKey { index: 0, generation: 1 };

fn node(id: u8) -> NodeId {
    NodeId::new(id % 3).expect("below 64")
}

/// The decision that founds the cluster: all three vote and send.
fn founding(incarnation: u64) -> Decision {
    let voters = (0..3).map(|id| Voter {
        node: node(id),
        disk: disk(id),
        registered: ViewNumber(1),
        drops: 0,
        drops_at: Millis(0),
    });
    let senders = (0..3)
        .map(|id| Sender { node: node(id), incarnation: Incarnation(if id == 0 { incarnation } else { 1 }) });
    let next = View {
        number: ViewNumber(1),
        cluster: ClusterId(77),
        format: View::FORMAT,
        genesis: 0,
        voters: voters.collect(),
        senders: senders.collect(),
    };
    Decision { view: ViewNumber(0), value: Value { ends: Vec::new(), next } }
}

/// A node and the log that it has written.
struct Host {
    node: Node,
    now: Now,
    effects: Effects,
    log: Vec<(Lsn, u8, Vec<u8>)>,
    durable: Lsn,
    halted: bool,
    /// The header of a snapshot from a peer, all of which is here.
    coming: Option<SnapshotHeader>,
    front: SnapshotFront,
    /// What a start would go on from.
    published: Option<(SnapshotHeader, SnapshotFront)>,
}

impl Host {
    /// At its first start without a cluster, as a sender of the first view, or after a restart.
    fn new(how: u8) -> Host {
        let settings = settings(3);
        let mut replay = Replay::new(&settings.protocol);
        let mut log = Vec::new();
        if how % 3 == 2 {
            let records = [Record::Start { incarnation: Incarnation(1) }, Record::Decision(founding(1))];
            for (lsn, record) in (1..).map(Lsn).zip(&records) {
                keep(&mut log, lsn, record);
                let (_, kind, payload) = log.last().expect("just kept");
                replay.push(lsn, *kind, payload).expect("an honest log");
            }
        }
        let (replica, last) = begin(settings, replay).expect("an honest log");
        let incarnation = Incarnation(if how % 3 == 2 { 2 } else { 1 });
        keep(&mut log, last, &Record::Start { incarnation });
        let mut host = Host {
            node: replica,
            now: START,
            effects: Effects::default(),
            log,
            durable: last,
            halted: false,
            coming: None,
            front: SnapshotFront::default(),
            published: None,
        };
        host.node.observe();
        host.node.client_open(host.now, KEY);
        for peer in [1, 2].map(node) {
            host.node.handle(host.now, NodeInput::LinkUp(peer));
        }
        if how % 3 == 1 {
            let message = Message::NewView { decisions: vec![founding(1)] };
            host.node.handle(host.now, NodeInput::Receive { from: node(1), message });
        }
        host.turn();
        host
    }

    fn turn(&mut self) {
        self.node.run_backlog(self.now);
        self.node.end_turn(self.now, &mut self.effects);
        self.halted |= self.effects.halt.is_some();
        let mut records = 0;
        for observed in self.effects.observed.drain(..) {
            if let Observed::Persisted(_, record) = observed {
                let lsn = self.log.last().map_or(Lsn(1), |(lsn, ..)| lsn.next());
                keep(&mut self.log, lsn, &record);
                records += 1;
            }
        }
        assert_eq!(self.effects.records.is_empty(), records == 0);
        let mut bytes = Vec::new();
        for (_, message) in self.effects.sends.drain(..) {
            bytes.clear();
            encode_message(&mut bytes, &message);
            let (kind, payload, _) = split_frame(&bytes, usize::MAX).expect("an encoder writes whole frames");
            assert_eq!(decode_message(kind, payload), Ok(message), "peers can read what is sent");
        }
        let tasks: Vec<Task> = self.effects.tasks.drain(..).collect();
        self.effects.clear();
        for task in tasks {
            if let Some(done) = self.keep_snapshots(task) {
                self.node.keeper_done(self.now, done);
            }
        }
    }

    /// Does what the keeper of snapshots would, without files.
    fn keep_snapshots(&mut self, task: Task) -> Option<Done> {
        Some(match task {
            Task::Discard(_) | Task::Release => return None,
            Task::Take { .. } => Done::Failed { what: "no room".to_owned() },
            Task::Read { to, id, .. } => Done::Gone { to, id, damage: None },
            Task::Store { .. } => Done::Refused { what: "damaged".to_owned() },
            Task::Load { front, .. } => {
                self.front = front;
                Done::Verified
            }
            Task::Publish => {
                let header = self.coming.take().expect("only what is complete is loaded");
                self.published = Some((header.clone(), self.front));
                let LoadedSnapshot { id, len, store, .. } = loaded(header.clone(), self.front);
                let info = SnapshotInfo {
                    id,
                    position: header.position,
                    len,
                    log_from: self.front.log_from,
                    blocks: 3,
                };
                Done::Loaded { info, header: Box::new(header), store: Box::new(store) }
            }
            Task::Drop => {
                self.coming = None;
                return None;
            }
        })
    }

    /// All blocks of a snapshot have come from a peer, whose first says this.
    fn receive_snapshot(&mut self, peer: NodeId, payload: &[u8]) {
        let Ok(receiver) = SnapshotReceiver::begin(&MemoryDisk::new(), &header_block(payload)) else {
            return;
        };
        let forgotten = Position { view: ViewNumber(u64::MAX), t: Timestamp(0), node: peer };
        let message = Message::SnapshotOffer { forgotten };
        self.node.handle(self.now, NodeInput::Receive { from: peer, message });
        self.turn();
        let header = receiver.header().clone();
        self.coming.get_or_insert_with(|| header.clone());
        let done =
            Done::Stored { id: receiver.id(), next: 9, len: 9, complete: self.coming.clone().map(Box::new) };
        self.node.keeper_done(self.now, done);
    }

    fn persist(&mut self, count: u64) {
        let last = self.log.last().map_or(Lsn(0), |(lsn, ..)| *lsn);
        self.durable = last.min(Lsn(self.durable.0.saturating_add(count)));
        self.node.handle(self.now, NodeInput::Persisted(self.durable));
    }

    fn step(&mut self, code: u8, payload: &[u8]) {
        let peer = node(1 + (code >> 4) % 2);
        match code & 15 {
            0 => self.turn(),
            1 => self.persist(u64::MAX),
            2 => self.persist(1),
            3 => {
                let later = Millis(u64::from(Front(payload).u16()));
                self.now = Now { mono: self.now.mono.plus(later), wall: self.now.wall.plus(later) };
                self.turn();
            }
            4 => self.node.handle(self.now, NodeInput::LinkDown(peer)),
            5 => self.node.handle(self.now, NodeInput::LinkUp(peer)),
            6 => self.node.handle(self.now, NodeInput::Stirring(peer)),
            7 => {
                if let Ok(mut hello) = decode_hello(HELLO_KIND, payload) {
                    // Nothing but the same file has the same hash.
                    hello.members = self.node.hello(peer).members;
                    if self.node.check_hello(&hello).is_ok() {
                        self.node.handle(self.now, NodeInput::Greeted(Box::new(hello)));
                    }
                }
            }
            8 => self.node.client_bytes(self.now, KEY, payload),
            9 => self.node.handle(self.now, NodeInput::Leave),
            11 => self.receive_snapshot(peer, payload),
            _ => {
                let [kind, payload @ ..] = payload else { return };
                if let Ok(message) = decode_message(*kind, payload) {
                    self.node.handle(self.now, NodeInput::Receive { from: peer, message });
                }
            }
        }
    }
}

fn keep(log: &mut Vec<(Lsn, u8, Vec<u8>)>, lsn: Lsn, record: &Record) {
    let mut payload = Vec::new();
    let kind = encode_record(&mut payload, record);
    log.push((lsn, kind, payload));
}

/// The payload of a snapshot's first block, with its head (docs/formats.md).
fn header_block(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&len), &[&[0; 8][..], payload].concat());
    [&len[..], &crc.to_le_bytes(), &[0; 8], payload].concat()
}

fn loaded(header: SnapshotHeader, front: SnapshotFront) -> LoadedSnapshot {
    let id = SnapshotId { index: header.index, digest: 1 };
    LoadedSnapshot { header, front, id, len: 1, blocks: 3, store: Store::new(Limits::default(), 1) }
}

/// The first byte says how far the node is; then a script of messages, links, time and the disk.
pub(super) fn node_peer(input: &[u8]) {
    let [how, script @ ..] = input else { return };
    let mut host = Host::new(*how);
    for (code, payload) in steps(script).take(40) {
        host.step(code, payload);
        if host.halted {
            return;
        }
    }
    for _ in 0..4 {
        host.turn();
        host.persist(u64::MAX);
        host.now.mono = host.now.mono.plus(Millis(170));
    }
    host.turn();
    // It must be able to start again from what it has written.
    let protocol = settings(3).protocol;
    let mut replay = match host.published.take() {
        Some((header, front)) => Replay::on_snapshot(&protocol, loaded(header, front), None)
            .expect("what was installed makes sense"),
        None => Replay::new(&protocol),
    };
    let needed = replay.needed();
    for (lsn, kind, payload) in host.log.iter().filter(|(lsn, ..)| *lsn >= needed) {
        if let Err(error) = replay.push(*lsn, *kind, payload) {
            panic!("a log that the node wrote and cannot read: {error}");
        }
    }
}
