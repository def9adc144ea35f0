//! Messages, hellos and log records as bytes.
//!
//! # Format
//! See `docs/formats.md`. Every decoder checks every length before it allocates, refuses bytes after the end, and
//! accepts exactly what the encoders produce.

use std::sync::Arc;

use crate::types::{
    Batch, ClusterId, DiskId, Entry, Incarnation, Index, Label, Millis, NodeId, NodeSet, OriginPair,
    Position, SnapshotId, Timestamp, ViewNumber, limits,
};
use crate::wire::{DecodeError, Reader, Writer, begin_frame, end_frame};

use super::message::{
    Ballot, Decision, Hello, LaneRow, LaneVector, Message, Nonce, Promise, Record, Refusal, Remembered,
    Sender, Status, Value, View, Voter,
};
use super::origins::Origins;

/// Frame kinds of the peer dialect.
mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const APPEND: u8 = 0x02;
    pub(super) const STATUS: u8 = 0x03;
    pub(super) const RESEND: u8 = 0x04;
    pub(super) const CATCH_UP: u8 = 0x05;
    pub(super) const FILL: u8 = 0x06;
    pub(super) const SEAL_PREPARE: u8 = 0x07;
    pub(super) const SEAL_PROMISE: u8 = 0x08;
    pub(super) const SEAL_REJECT: u8 = 0x09;
    pub(super) const SEAL_ACCEPT: u8 = 0x0a;
    pub(super) const SEAL_ACCEPTED: u8 = 0x0b;
    pub(super) const NEW_VIEW: u8 = 0x0c;
    pub(super) const VIEW_REQUEST: u8 = 0x0d;
    pub(super) const FORWARD: u8 = 0x0e;
    pub(super) const REFUSED: u8 = 0x0f;
    pub(super) const READ_PROBE: u8 = 0x10;
    pub(super) const READ_ANSWER: u8 = 0x11;
    pub(super) const REFUSAL: u8 = 0x12;
    pub(super) const SNAPSHOT_OFFER: u8 = 0x13;
    pub(super) const SNAPSHOT_ASK: u8 = 0x14;
    pub(super) const SNAPSHOT_BLOCKS: u8 = 0x15;
}

/// Kinds of log records.
mod record_kind {
    pub(super) const START: u8 = 1;
    pub(super) const ENTRY: u8 = 2;
    pub(super) const FILL: u8 = 3;
    pub(super) const PROMISE: u8 = 4;
    pub(super) const ACCEPT: u8 = 5;
    pub(super) const DECISION: u8 = 6;
    pub(super) const INSTALLED: u8 = 7;
}

type Result<T> = std::result::Result<T, DecodeError>;

fn put_node(w: &mut Writer<'_>, node: NodeId) {
    w.u8(node.get());
}

fn get_node(r: &mut Reader<'_>) -> Result<NodeId> {
    let found = r.u8()?;
    NodeId::new(found).ok_or(DecodeError::Invalid { what: "node id", found: u64::from(found) })
}

fn put_position(w: &mut Writer<'_>, p: Position) {
    w.u64(p.view.0);
    w.u64(p.t.0);
    put_node(w, p.node);
}

fn get_position(r: &mut Reader<'_>) -> Result<Position> {
    Ok(Position { view: ViewNumber(r.u64()?), t: Timestamp(r.u64()?), node: get_node(r)? })
}

fn put_label(w: &mut Writer<'_>, label: Label) {
    put_node(w, label.origin);
    w.u64(label.pair.registered.0);
    w.u64(label.pair.incarnation.0);
    w.u64(label.seq);
}

fn get_label(r: &mut Reader<'_>) -> Result<Label> {
    Ok(Label {
        origin: get_node(r)?,
        pair: OriginPair { registered: ViewNumber(r.u64()?), incarnation: Incarnation(r.u64()?) },
        seq: r.u64()?,
    })
}

fn put_batch(w: &mut Writer<'_>, batch: &Batch) {
    w.blob(batch.bytes());
}

fn get_batch(r: &mut Reader<'_>) -> Result<Batch> {
    let bytes = r.blob("batch", limits::BATCH_LEN_MAX)?;
    Batch::new(bytes).map_err(|_| DecodeError::Invalid { what: "batch length", found: bytes.len() as u64 })
}

fn put_entry(w: &mut Writer<'_>, e: &Entry) {
    put_position(w, e.position());
    w.u64(e.prev.0);
    put_label(w, e.label);
    w.u64(e.wall.0);
    put_batch(w, &e.batch);
}

fn get_entry(r: &mut Reader<'_>) -> Result<Arc<Entry>> {
    let Position { view, t, node } = get_position(r)?;
    let prev = Timestamp(r.u64()?);
    if prev >= t || t == Timestamp::INFINITE {
        return Err(DecodeError::Invalid { what: "entry timestamp", found: t.0 });
    }
    Ok(Arc::new(Entry {
        view,
        t,
        node,
        prev,
        label: get_label(r)?,
        wall: Millis(r.u64()?),
        batch: get_batch(r)?,
    }))
}

fn put_entries(w: &mut Writer<'_>, entries: &[Arc<Entry>]) {
    w.count(entries.len());
    for e in entries {
        put_entry(w, e);
    }
}

fn get_entries(r: &mut Reader<'_>) -> Result<Vec<Arc<Entry>>> {
    const ENTRY_LEN_MIN: usize = 17 + 8 + 25 + 8 + 8;
    let count = r.count("entries", limits::FILL_COUNT_MAX, ENTRY_LEN_MIN)?;
    (0..count).map(|_| get_entry(r)).collect()
}

fn put_lanes(w: &mut Writer<'_>, lanes: &LaneVector) {
    w.count(lanes.len());
    for t in lanes {
        w.u64(t.0);
    }
}

fn get_lanes(r: &mut Reader<'_>) -> Result<LaneVector> {
    let count = r.count("lanes", limits::MEMBER_COUNT_MAX, 8)?;
    (0..count).map(|_| Ok(Timestamp(r.u64()?))).collect()
}

fn put_ballot(w: &mut Writer<'_>, b: Ballot) {
    w.u64(b.round);
    put_node(w, b.node);
    w.u64(b.incarnation.0);
}

fn get_ballot(r: &mut Reader<'_>) -> Result<Ballot> {
    Ok(Ballot { round: r.u64()?, node: get_node(r)?, incarnation: Incarnation(r.u64()?) })
}

fn put_view(w: &mut Writer<'_>, v: &View) {
    w.u64(v.number.0);
    w.u64(v.cluster.0);
    w.u32(v.format);
    w.u64(v.genesis);
    w.count(v.voters.len());
    for voter in &v.voters {
        put_node(w, voter.node);
        w.u64(voter.disk.0);
        w.u64(voter.registered.0);
        w.u8(voter.drops);
        w.u64(voter.drops_at.0);
    }
    w.count(v.senders.len());
    for s in &v.senders {
        put_node(w, s.node);
        w.u64(s.incarnation.0);
    }
}

fn get_view(r: &mut Reader<'_>) -> Result<View> {
    let number = ViewNumber(r.u64()?);
    let cluster = ClusterId(r.u64()?);
    let format = r.u32()?;
    let genesis = r.u64()?;
    let count = r.count("voters", limits::MEMBER_COUNT_MAX, 26)?;
    let voters: Vec<Voter> = (0..count)
        .map(|_| {
            Ok(Voter {
                node: get_node(r)?,
                disk: DiskId(r.u64()?),
                registered: ViewNumber(r.u64()?),
                drops: r.u8()?,
                drops_at: Millis(r.u64()?),
            })
        })
        .collect::<Result<_>>()?;
    let count = r.count("senders", limits::MEMBER_COUNT_MAX, 9)?;
    let senders: Vec<Sender> = (0..count)
        .map(|_| Ok(Sender { node: get_node(r)?, incarnation: Incarnation(r.u64()?) }))
        .collect::<Result<_>>()?;
    if voters.is_empty() || !voters.is_sorted_by(|a, b| a.node < b.node) {
        return Err(DecodeError::Invalid { what: "list of voters", found: voters.len() as u64 });
    }
    if !senders.is_sorted_by(|a, b| a.node < b.node) {
        return Err(DecodeError::Invalid { what: "list of senders", found: senders.len() as u64 });
    }
    Ok(View { number, cluster, format, genesis, voters, senders })
}

fn put_snapshot_id(w: &mut Writer<'_>, id: SnapshotId) {
    w.u64(id.index.0);
    w.u64(id.digest);
}

fn get_snapshot_id(r: &mut Reader<'_>) -> Result<SnapshotId> {
    Ok(SnapshotId { index: Index(r.u64()?), digest: r.u64()? })
}

fn put_origins(w: &mut Writer<'_>, origins: &Origins) {
    let all = origins.iter();
    w.count(all.len());
    for (node, (pair, seq)) in all {
        put_label(w, Label { origin: *node, pair: *pair, seq: *seq });
    }
}

fn get_origins(r: &mut Reader<'_>) -> Result<Origins> {
    const ORIGIN_LEN: usize = 25;
    let count = r.count("origins", limits::MEMBER_COUNT_MAX, ORIGIN_LEN)?;
    let mut origins = Origins::default();
    let mut last = None;
    for _ in 0..count {
        let label = get_label(r)?;
        if last >= Some(label.origin) {
            return Err(DecodeError::Invalid {
                what: "order of origins",
                found: u64::from(label.origin.get()),
            });
        }
        // The next one would have no number.
        if label.seq == u64::MAX {
            return Err(DecodeError::Invalid { what: "number of a batch", found: label.seq });
        }
        last = Some(label.origin);
        origins.insert(label);
    }
    Ok(origins)
}

/// Reads all of some bytes.
fn decode_part<T>(bytes: &[u8], get: impl FnOnce(&mut Reader<'_>) -> Result<T>) -> Result<T> {
    let mut r = Reader::new(bytes);
    let part = get(&mut r)?;
    r.finish()?;
    Ok(part)
}

pub(crate) fn encode_view(out: &mut Vec<u8>, view: &View) {
    put_view(&mut Writer::new(out), view);
}

pub(crate) fn decode_view(bytes: &[u8]) -> Result<View> {
    decode_part(bytes, get_view)
}

pub(crate) fn encode_lanes(out: &mut Vec<u8>, lanes: &LaneVector) {
    put_lanes(&mut Writer::new(out), lanes);
}

pub(crate) fn decode_lanes(bytes: &[u8]) -> Result<LaneVector> {
    decode_part(bytes, get_lanes)
}

pub(crate) fn encode_origins(out: &mut Vec<u8>, origins: &Origins) {
    put_origins(&mut Writer::new(out), origins);
}

pub(crate) fn decode_origins(bytes: &[u8]) -> Result<Origins> {
    decode_part(bytes, get_origins)
}

fn put_value(w: &mut Writer<'_>, v: &Value) {
    put_lanes(w, &v.ends);
    put_view(w, &v.next);
}

fn get_value(r: &mut Reader<'_>) -> Result<Value> {
    Ok(Value { ends: get_lanes(r)?, next: get_view(r)? })
}

fn put_decision(w: &mut Writer<'_>, d: &Decision) {
    w.u64(d.view.0);
    put_value(w, &d.value);
}

fn get_decision(r: &mut Reader<'_>) -> Result<Decision> {
    Ok(Decision { view: ViewNumber(r.u64()?), value: get_value(r)? })
}

fn put_status(w: &mut Writer<'_>, s: &Status) {
    w.u64(s.view.0);
    w.u64(s.incarnation.0);
    w.u64(s.clock.0);
    w.count(s.lanes.len());
    for lane in &s.lanes {
        w.u64(lane.received.0);
        w.u64(lane.frontier.0);
        w.u64(lane.accepted.0);
    }
    w.bool(s.sealed);
    w.u64(s.hears.bits());
    put_position(w, s.delivered);
    w.u64(s.index.0);
    w.u64(s.digest);
    w.u64(s.wall.0);
    w.bool(s.leaving);
    w.u32(s.waiting);
}

fn get_status(r: &mut Reader<'_>) -> Result<Status> {
    let view = ViewNumber(r.u64()?);
    let incarnation = Incarnation(r.u64()?);
    let clock = Timestamp(r.u64()?);
    let count = r.count("lanes", limits::MEMBER_COUNT_MAX, 24)?;
    let lanes = (0..count)
        .map(|_| {
            Ok(LaneRow {
                received: Timestamp(r.u64()?),
                frontier: Timestamp(r.u64()?),
                accepted: Timestamp(r.u64()?),
            })
        })
        .collect::<Result<_>>()?;
    Ok(Status {
        view,
        incarnation,
        clock,
        lanes,
        sealed: r.bool("sealed")?,
        hears: NodeSet::from_bits(r.u64()?),
        delivered: get_position(r)?,
        index: Index(r.u64()?),
        digest: r.u64()?,
        wall: Millis(r.u64()?),
        leaving: r.bool("leaving")?,
        waiting: r.u32()?,
    })
}

fn put_promise(w: &mut Writer<'_>, p: &Promise) {
    put_lanes(w, &p.last);
    w.bool(p.accepted.is_some());
    if let Some((ballot, value)) = &p.accepted {
        put_ballot(w, *ballot);
        put_value(w, value);
    }
    w.u64(p.disk.0);
    w.u64(p.incarnation.0);
    w.u64(p.hears.bits());
    put_entries(w, &p.entries);
}

fn get_promise(r: &mut Reader<'_>) -> Result<Promise> {
    let last = get_lanes(r)?;
    let accepted = if r.bool("accepted")? { Some((get_ballot(r)?, get_value(r)?)) } else { None };
    Ok(Promise {
        last,
        accepted,
        disk: DiskId(r.u64()?),
        incarnation: Incarnation(r.u64()?),
        hears: NodeSet::from_bits(r.u64()?),
        entries: get_entries(r)?,
    })
}

fn put_nonce(w: &mut Writer<'_>, n: Nonce) {
    w.u64(n.incarnation.0);
    w.u64(n.counter);
}

fn get_nonce(r: &mut Reader<'_>) -> Result<Nonce> {
    Ok(Nonce { incarnation: Incarnation(r.u64()?), counter: r.u64()? })
}

/// Appends a message as a frame.
pub fn encode_message(out: &mut Vec<u8>, message: &Message) {
    let kind = match message {
        Message::Append(_) => kind::APPEND,
        Message::Status(_) => kind::STATUS,
        Message::Resend { .. } => kind::RESEND,
        Message::CatchUp { .. } => kind::CATCH_UP,
        Message::Fill { .. } => kind::FILL,
        Message::SealPrepare { .. } => kind::SEAL_PREPARE,
        Message::SealPromise { .. } => kind::SEAL_PROMISE,
        Message::SealReject { .. } => kind::SEAL_REJECT,
        Message::SealAccept { .. } => kind::SEAL_ACCEPT,
        Message::SealAccepted { .. } => kind::SEAL_ACCEPTED,
        Message::NewView { .. } => kind::NEW_VIEW,
        Message::ViewRequest { .. } => kind::VIEW_REQUEST,
        Message::Forward { .. } => kind::FORWARD,
        Message::Refused { .. } => kind::REFUSED,
        Message::ReadProbe { .. } => kind::READ_PROBE,
        Message::ReadAnswer { .. } => kind::READ_ANSWER,
        Message::SnapshotOffer { .. } => kind::SNAPSHOT_OFFER,
        Message::SnapshotAsk { .. } => kind::SNAPSHOT_ASK,
        Message::SnapshotBlocks { .. } => kind::SNAPSHOT_BLOCKS,
    };
    let start = begin_frame(out, kind);
    let w = &mut Writer::new(out);
    match message {
        Message::Append(entry) => put_entry(w, entry),
        Message::Status(status) => put_status(w, status),
        Message::Resend { view, lane, after } => {
            w.u64(view.0);
            put_node(w, *lane);
            w.u64(after.0);
        }
        Message::CatchUp { view, have } => {
            w.u64(view.0);
            put_lanes(w, have);
        }
        Message::Fill { entries } => put_entries(w, entries),
        Message::SealPrepare { view, ballot, have } => {
            w.u64(view.0);
            put_ballot(w, *ballot);
            put_lanes(w, have);
        }
        Message::SealPromise { view, ballot, promise } => {
            w.u64(view.0);
            put_ballot(w, *ballot);
            put_promise(w, promise);
        }
        Message::SealReject { view, ballot, promised } => {
            w.u64(view.0);
            put_ballot(w, *ballot);
            put_ballot(w, *promised);
        }
        Message::SealAccept { view, ballot, value, entries } => {
            w.u64(view.0);
            put_ballot(w, *ballot);
            put_value(w, value);
            put_entries(w, entries);
        }
        Message::SealAccepted { view, ballot } => {
            w.u64(view.0);
            put_ballot(w, *ballot);
        }
        Message::NewView { decisions } => {
            w.count(decisions.len());
            for d in decisions {
                put_decision(w, d);
            }
        }
        Message::ViewRequest { view } => w.u64(view.0),
        Message::Forward { label, batch } => {
            put_label(w, *label);
            put_batch(w, batch);
        }
        Message::Refused { label } => put_label(w, *label),
        Message::ReadProbe { nonce } => put_nonce(w, *nonce),
        Message::ReadAnswer { nonce, view, sealed, accepted } => {
            put_nonce(w, *nonce);
            w.u64(view.0);
            w.bool(*sealed);
            put_lanes(w, accepted);
        }
        Message::SnapshotOffer { forgotten } => put_position(w, *forgotten),
        Message::SnapshotAsk { id, next } => {
            w.bool(id.is_some());
            if let Some(id) = id {
                put_snapshot_id(w, *id);
                w.u32(*next);
            }
        }
        Message::SnapshotBlocks { id, first, blocks } => {
            put_snapshot_id(w, *id);
            w.u32(*first);
            w.count(blocks.len());
            for block in blocks {
                w.blob(block);
            }
        }
    }
    end_frame(out, start);
}

/// Reads the payload of a frame from a peer.
///
/// # Errors
/// See [`DecodeError`]; an unknown kind is `Invalid`.
pub fn decode_message(kind: u8, payload: &[u8]) -> Result<Message> {
    let r = &mut Reader::new(payload);
    let message = match kind {
        kind::APPEND => Message::Append(get_entry(r)?),
        kind::STATUS => Message::Status(Arc::new(get_status(r)?)),
        kind::RESEND => {
            Message::Resend { view: ViewNumber(r.u64()?), lane: get_node(r)?, after: Timestamp(r.u64()?) }
        }
        kind::CATCH_UP => Message::CatchUp { view: ViewNumber(r.u64()?), have: get_lanes(r)? },
        kind::FILL => Message::Fill { entries: get_entries(r)? },
        kind::SEAL_PREPARE => {
            Message::SealPrepare { view: ViewNumber(r.u64()?), ballot: get_ballot(r)?, have: get_lanes(r)? }
        }
        kind::SEAL_PROMISE => Message::SealPromise {
            view: ViewNumber(r.u64()?),
            ballot: get_ballot(r)?,
            promise: Box::new(get_promise(r)?),
        },
        kind::SEAL_REJECT => Message::SealReject {
            view: ViewNumber(r.u64()?),
            ballot: get_ballot(r)?,
            promised: get_ballot(r)?,
        },
        kind::SEAL_ACCEPT => Message::SealAccept {
            view: ViewNumber(r.u64()?),
            ballot: get_ballot(r)?,
            value: Box::new(get_value(r)?),
            entries: get_entries(r)?,
        },
        kind::SEAL_ACCEPTED => Message::SealAccepted { view: ViewNumber(r.u64()?), ballot: get_ballot(r)? },
        kind::NEW_VIEW => {
            let count = r.count("decisions", limits::DECISION_COUNT_MAX, 40)?;
            Message::NewView { decisions: (0..count).map(|_| get_decision(r)).collect::<Result<_>>()? }
        }
        kind::VIEW_REQUEST => Message::ViewRequest { view: ViewNumber(r.u64()?) },
        kind::FORWARD => Message::Forward { label: get_label(r)?, batch: get_batch(r)? },
        kind::REFUSED => Message::Refused { label: get_label(r)? },
        kind::READ_PROBE => Message::ReadProbe { nonce: get_nonce(r)? },
        kind::READ_ANSWER => Message::ReadAnswer {
            nonce: get_nonce(r)?,
            view: ViewNumber(r.u64()?),
            sealed: r.bool("sealed")?,
            accepted: get_lanes(r)?,
        },
        kind::SNAPSHOT_OFFER => Message::SnapshotOffer { forgotten: get_position(r)? },
        kind::SNAPSHOT_ASK => match r.bool("snapshot id")? {
            true => Message::SnapshotAsk { id: Some(get_snapshot_id(r)?), next: r.u32()? },
            false => Message::SnapshotAsk { id: None, next: 0 },
        },
        kind::SNAPSHOT_BLOCKS => {
            let (id, first) = (get_snapshot_id(r)?, r.u32()?);
            let count = r.count("blocks", limits::SNAPSHOT_BLOCK_COUNT_MAX, 4)?;
            let block = |_| Ok(r.blob("block", limits::SNAPSHOT_BLOCK_LEN_MAX)?.to_vec());
            Message::SnapshotBlocks { id, first, blocks: (0..count).map(block).collect::<Result<_>>()? }
        }
        found => return Err(DecodeError::Invalid { what: "message kind", found: u64::from(found) }),
    };
    r.finish()?;
    Ok(message)
}

/// Appends a hello as a frame.
pub fn encode_hello(out: &mut Vec<u8>, hello: &Hello) {
    let start = begin_frame(out, kind::HELLO);
    let w = &mut Writer::new(out);
    w.u16(hello.protocol);
    put_node(w, hello.from);
    put_node(w, hello.to);
    w.u64(hello.disk.0);
    w.u64(hello.incarnation.0);
    w.u64(hello.boot);
    w.bool(hello.joining);
    w.u64(hello.cluster.0);
    w.u64(hello.members);
    w.u64(hello.view.0);
    w.bool(hello.remembered.is_some());
    if let Some(seen) = &hello.remembered {
        w.u64(seen.disk.0);
        w.u64(seen.incarnation.0);
        w.u64(seen.view.0);
        put_lanes(w, &seen.accepted);
    }
    end_frame(out, start);
}

/// Reads the payload of the first frame on a connection between nodes.
///
/// # Errors
/// See [`DecodeError`]. A hello of another protocol version may have more fields than this program knows: only the
/// version is sure to be right then.
pub fn decode_hello(kind: u8, payload: &[u8]) -> Result<Hello> {
    if kind != kind::HELLO {
        return Err(DecodeError::Invalid {
            what: "first message, a hello is expected",
            found: u64::from(kind),
        });
    }
    let r = &mut Reader::new(payload);
    let protocol = r.u16()?;
    let hello = Hello {
        protocol,
        from: get_node(r)?,
        to: get_node(r)?,
        disk: DiskId(r.u64()?),
        incarnation: Incarnation(r.u64()?),
        boot: r.u64()?,
        joining: r.bool("joining")?,
        cluster: ClusterId(r.u64()?),
        members: r.u64()?,
        view: ViewNumber(r.u64()?),
        remembered: if r.bool("remembered")? {
            Some(Remembered {
                disk: DiskId(r.u64()?),
                incarnation: Incarnation(r.u64()?),
                view: ViewNumber(r.u64()?),
                accepted: get_lanes(r)?,
            })
        } else {
            None
        },
    };
    if protocol == Hello::PROTOCOL {
        r.finish()?;
    }
    Ok(hello)
}

/// The kind of a frame that is a [`Hello`].
pub const HELLO_KIND: u8 = kind::HELLO;

/// The kind of a frame that is a [`Refusal`].
pub const REFUSAL_KIND: u8 = kind::REFUSAL;

/// Appends a refusal as a frame: the last on its connection.
pub fn encode_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    let (code, detail) = match *refusal {
        Refusal::Protocol { found } => (1, u64::from(found)),
        Refusal::WrongNode { meant } => (2, u64::from(meant.get())),
        Refusal::NotMember => (3, 0),
        Refusal::OtherCluster { found } => (4, found.0),
        Refusal::OtherMembers => (5, 0),
        Refusal::OtherDisk { registered } => (6, registered.0),
        Refusal::OldIncarnation { seen } => (7, seen.0),
        Refusal::Clone => (8, 0),
        Refusal::InUse { registered } => (9, registered.0),
    };
    let start = begin_frame(out, kind::REFUSAL);
    let w = &mut Writer::new(out);
    w.u8(code);
    w.u64(detail);
    end_frame(out, start);
}

/// Reads the payload of a refusal.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_refusal(payload: &[u8]) -> Result<Refusal> {
    let r = &mut Reader::new(payload);
    let (code, detail) = (r.u8()?, r.u64()?);
    r.finish()?;
    let invalid = |what| DecodeError::Invalid { what, found: detail };
    // The kinds without a detail have zero there, so that no two byte strings mean the same.
    let bare = |refusal| if detail == 0 { Ok(refusal) } else { Err(invalid("detail of a refusal")) };
    Ok(match code {
        1 => Refusal::Protocol { found: u16::try_from(detail).map_err(|_| invalid("protocol version"))? },
        2 => {
            let meant = u8::try_from(detail).ok().and_then(NodeId::new);
            Refusal::WrongNode { meant: meant.ok_or_else(|| invalid("node id"))? }
        }
        3 => bare(Refusal::NotMember)?,
        4 => Refusal::OtherCluster { found: ClusterId(detail) },
        5 => bare(Refusal::OtherMembers)?,
        6 => Refusal::OtherDisk { registered: DiskId(detail) },
        7 => Refusal::OldIncarnation { seen: Incarnation(detail) },
        8 => bare(Refusal::Clone)?,
        9 => Refusal::InUse { registered: DiskId(detail) },
        found => return Err(DecodeError::Invalid { what: "refusal", found: u64::from(found) }),
    })
}

/// The kind that [`encode_record`] returns for this record.
pub fn record_kind(record: &Record) -> u8 {
    match record {
        Record::Start { .. } => record_kind::START,
        Record::Entry(_) => record_kind::ENTRY,
        Record::Fill(_) => record_kind::FILL,
        Record::Promise { .. } => record_kind::PROMISE,
        Record::Accept { .. } => record_kind::ACCEPT,
        Record::Decision(_) => record_kind::DECISION,
        Record::Installed { .. } => record_kind::INSTALLED,
    }
}

/// Appends a record's payload and returns its kind.
pub fn encode_record(out: &mut Vec<u8>, record: &Record) -> u8 {
    let w = &mut Writer::new(out);
    match record {
        Record::Start { incarnation } => {
            w.u64(incarnation.0);
            record_kind::START
        }
        Record::Entry(entry) => {
            put_entry(w, entry);
            record_kind::ENTRY
        }
        Record::Fill(entry) => {
            put_entry(w, entry);
            record_kind::FILL
        }
        Record::Promise { view, ballot, frozen } => {
            w.u64(view.0);
            put_ballot(w, *ballot);
            put_lanes(w, frozen);
            record_kind::PROMISE
        }
        Record::Accept { view, ballot, frozen, value } => {
            w.u64(view.0);
            put_ballot(w, *ballot);
            put_lanes(w, frozen);
            put_value(w, value);
            record_kind::ACCEPT
        }
        Record::Decision(d) => {
            put_decision(w, d);
            record_kind::DECISION
        }
        Record::Installed { index, position } => {
            w.u64(index.0);
            put_position(w, *position);
            record_kind::INSTALLED
        }
    }
}

/// Reads a record's payload.
///
/// # Errors
/// See [`DecodeError`]; an unknown kind is `Invalid`.
pub fn decode_record(kind: u8, payload: &[u8]) -> Result<Record> {
    let r = &mut Reader::new(payload);
    let record = match kind {
        record_kind::START => Record::Start { incarnation: Incarnation(r.u64()?) },
        record_kind::ENTRY => Record::Entry(get_entry(r)?),
        record_kind::FILL => Record::Fill(get_entry(r)?),
        record_kind::PROMISE => {
            Record::Promise { view: ViewNumber(r.u64()?), ballot: get_ballot(r)?, frozen: get_lanes(r)? }
        }
        record_kind::ACCEPT => Record::Accept {
            view: ViewNumber(r.u64()?),
            ballot: get_ballot(r)?,
            frozen: get_lanes(r)?,
            value: Box::new(get_value(r)?),
        },
        record_kind::DECISION => Record::Decision(get_decision(r)?),
        record_kind::INSTALLED => Record::Installed { index: Index(r.u64()?), position: get_position(r)? },
        found => return Err(DecodeError::Invalid { what: "record kind", found: u64::from(found) }),
    };
    r.finish()?;
    Ok(record)
}
