//! Values of every type that has bytes, drawn at random. Numbers are often at the edges.

use std::sync::Arc;

use lanekv::protocol::{
    Ballot, Decision, Hello, LaneRow, LaneVector, Message, Nonce, Promise, Record, Refusal, Remembered,
    Sender, Status, Value, View, Voter,
};
use lanekv::types::{
    Batch, ClusterId, DiskId, Entry, Incarnation, Index, Label, Millis, NodeId, NodeSet, OriginPair,
    Position, SnapshotId, Timestamp, ViewNumber,
};

/// A seeded generator (splitmix64) of values.
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) const MESSAGE_KINDS: usize = 19;
    pub(crate) const RECORD_KINDS: usize = 7;
    pub(crate) const REFUSAL_KINDS: usize = 9;

    pub(crate) fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    fn next(&mut self) -> u64 {
        lanekv::types::splitmix64(&mut self.0)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 1).expect("63 bits fit") % bound.max(1)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn flag(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Small, large, or at the edge.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 | 3 => self.next(),
            _ => self.next() % 100,
        }
    }

    fn list<T>(&mut self, most: usize, mut element: impl FnMut(&mut Draw) -> T) -> Vec<T> {
        // Sometimes as long as it may be.
        let len = if self.below(40) == 0 { most } else { self.below(most.min(6) + 1) };
        (0..len).map(|_| element(self)).collect()
    }

    fn node(&mut self) -> NodeId {
        NodeId::new(self.byte() % NodeId::COUNT_MAX).expect("below the limit")
    }

    fn timestamp(&mut self) -> Timestamp {
        Timestamp(self.number())
    }

    fn view_number(&mut self) -> ViewNumber {
        ViewNumber(self.number())
    }

    fn incarnation(&mut self) -> Incarnation {
        Incarnation(self.number())
    }

    fn lanes(&mut self) -> LaneVector {
        self.list(64, Draw::timestamp)
    }

    fn ballot(&mut self) -> Ballot {
        Ballot { round: self.number(), node: self.node(), incarnation: self.incarnation() }
    }

    fn label(&mut self) -> Label {
        let pair = OriginPair { registered: self.view_number(), incarnation: self.incarnation() };
        Label { origin: self.node(), pair, seq: self.number() }
    }

    fn batch(&mut self) -> Batch {
        let count = u32::try_from(self.below(1 << 16)).expect("16 bits");
        let mut bytes = count.to_le_bytes().to_vec();
        bytes.extend((0..self.below(60)).map(|_| self.byte()));
        Batch::new(bytes).expect("short, and few commands")
    }

    fn entry(&mut self) -> Arc<Entry> {
        // A timestamp is above the one before it and below infinity.
        let t = self.number().clamp(1, u64::MAX - 1);
        Arc::new(Entry {
            view: self.view_number(),
            t: Timestamp(t),
            node: self.node(),
            prev: Timestamp(self.next() % t),
            label: self.label(),
            wall: Millis(self.number()),
            batch: self.batch(),
        })
    }

    fn entries(&mut self) -> Vec<Arc<Entry>> {
        self.list(30, Draw::entry)
    }

    /// Different nodes in rising order.
    fn nodes(&mut self, least: usize) -> Vec<NodeId> {
        let mut nodes: NodeSet = self.list(64, Draw::node).into_iter().collect();
        while nodes.len() < least {
            nodes.insert(self.node());
        }
        nodes.iter().collect()
    }

    fn view(&mut self) -> View {
        let voter = |draw: &mut Draw, node| Voter {
            node,
            disk: DiskId(draw.number()),
            registered: draw.view_number(),
            drops: draw.byte(),
            drops_at: Millis(draw.number()),
        };
        View {
            number: self.view_number(),
            cluster: ClusterId(self.number()),
            format: u32::from(self.byte()),
            genesis: self.number(),
            voters: self.nodes(1).into_iter().map(|node| voter(self, node)).collect(),
            senders: self
                .nodes(0)
                .into_iter()
                .map(|node| Sender { node, incarnation: self.incarnation() })
                .collect(),
        }
    }

    fn value(&mut self) -> Value {
        Value { ends: self.lanes(), next: self.view() }
    }

    fn decision(&mut self) -> Decision {
        Decision { view: self.view_number(), value: self.value() }
    }

    fn position(&mut self) -> Position {
        Position { view: self.view_number(), t: self.timestamp(), node: self.node() }
    }

    fn snapshot_id(&mut self) -> SnapshotId {
        SnapshotId { index: Index(self.number()), digest: self.next() }
    }

    fn block(&mut self) -> Vec<u8> {
        (0..self.below(60)).map(|_| self.byte()).collect()
    }

    fn status(&mut self) -> Status {
        let row = |draw: &mut Draw| LaneRow {
            received: draw.timestamp(),
            frontier: draw.timestamp(),
            accepted: draw.timestamp(),
        };
        Status {
            view: self.view_number(),
            incarnation: self.incarnation(),
            clock: self.timestamp(),
            lanes: self.list(64, row),
            sealed: self.flag(),
            hears: NodeSet::from_bits(self.number()),
            delivered: self.position(),
            index: Index(self.number()),
            digest: self.next(),
            wall: Millis(self.number()),
            leaving: self.flag(),
            waiting: u32::from(self.byte()),
        }
    }

    fn promise(&mut self) -> Promise {
        Promise {
            last: self.lanes(),
            accepted: if self.flag() { Some((self.ballot(), self.value())) } else { None },
            disk: DiskId(self.number()),
            incarnation: self.incarnation(),
            hears: NodeSet::from_bits(self.number()),
            entries: self.entries(),
        }
    }

    fn nonce(&mut self) -> Nonce {
        Nonce { incarnation: self.incarnation(), counter: self.number() }
    }

    /// A message of the kind with this number, below [`Draw::MESSAGE_KINDS`].
    pub(crate) fn message(&mut self, kind: usize) -> Message {
        match kind {
            0 => Message::Append(self.entry()),
            1 => Message::Status(Arc::new(self.status())),
            2 => Message::Resend { view: self.view_number(), lane: self.node(), after: self.timestamp() },
            3 => Message::CatchUp { view: self.view_number(), have: self.lanes() },
            4 => Message::Fill { entries: self.entries() },
            5 => Message::SealPrepare { view: self.view_number(), ballot: self.ballot(), have: self.lanes() },
            6 => Message::SealPromise {
                view: self.view_number(),
                ballot: self.ballot(),
                promise: Box::new(self.promise()),
            },
            7 => Message::SealReject {
                view: self.view_number(),
                ballot: self.ballot(),
                promised: self.ballot(),
            },
            8 => Message::SealAccept {
                view: self.view_number(),
                ballot: self.ballot(),
                value: Box::new(self.value()),
                entries: self.entries(),
            },
            9 => Message::SealAccepted { view: self.view_number(), ballot: self.ballot() },
            10 => Message::NewView { decisions: self.list(8, Draw::decision) },
            11 => Message::ViewRequest { view: self.view_number() },
            12 => Message::Forward { label: self.label(), batch: self.batch() },
            13 => Message::Refused { label: self.label() },
            14 => Message::ReadProbe { nonce: self.nonce() },
            15 => Message::ReadAnswer {
                nonce: self.nonce(),
                view: self.view_number(),
                sealed: self.flag(),
                accepted: self.lanes(),
            },
            16 => Message::SnapshotOffer { forgotten: self.position() },
            17 if self.flag() => Message::SnapshotAsk { id: None, next: 0 },
            17 => {
                let next = u32::try_from(self.below(1 << 20)).expect("20 bits");
                Message::SnapshotAsk { id: Some(self.snapshot_id()), next }
            }
            _ => Message::SnapshotBlocks {
                id: self.snapshot_id(),
                first: u32::from(self.byte()),
                blocks: self.list(16, Draw::block),
            },
        }
    }

    /// A record of the kind with this number, below [`Draw::RECORD_KINDS`].
    pub(crate) fn record(&mut self, kind: usize) -> Record {
        match kind {
            0 => Record::Start { incarnation: self.incarnation() },
            1 => Record::Entry(self.entry()),
            2 => Record::Fill(self.entry()),
            3 => Record::Promise { view: self.view_number(), ballot: self.ballot(), frozen: self.lanes() },
            4 => Record::Accept {
                view: self.view_number(),
                ballot: self.ballot(),
                frozen: self.lanes(),
                value: Box::new(self.value()),
            },
            5 => Record::Decision(self.decision()),
            _ => Record::Installed { index: Index(self.number()), position: self.position() },
        }
    }

    pub(crate) fn hello(&mut self) -> Hello {
        let remembered = |draw: &mut Draw| Remembered {
            disk: DiskId(draw.number()),
            incarnation: draw.incarnation(),
            view: draw.view_number(),
            accepted: draw.lanes(),
        };
        Hello {
            protocol: Hello::PROTOCOL,
            from: self.node(),
            to: self.node(),
            disk: DiskId(self.number()),
            incarnation: self.incarnation(),
            boot: self.number(),
            joining: self.flag(),
            cluster: ClusterId(self.number()),
            members: self.number(),
            view: self.view_number(),
            remembered: if self.flag() { Some(remembered(self)) } else { None },
        }
    }

    /// A refusal of the kind with this number, below [`Draw::REFUSAL_KINDS`].
    pub(crate) fn refusal(&mut self, kind: usize) -> Refusal {
        match kind {
            0 => Refusal::Protocol { found: u16::from_le_bytes([self.byte(), self.byte()]) },
            1 => Refusal::WrongNode { meant: self.node() },
            2 => Refusal::NotMember,
            3 => Refusal::OtherCluster { found: ClusterId(self.number()) },
            4 => Refusal::OtherMembers,
            5 => Refusal::OtherDisk { registered: DiskId(self.number()) },
            6 => Refusal::OldIncarnation { seen: self.incarnation() },
            7 => Refusal::Clone,
            _ => Refusal::InUse { registered: DiskId(self.number()) },
        }
    }
}
