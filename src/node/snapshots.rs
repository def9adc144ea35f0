//! Snapshots, seen from the event loop: when to take one, who gets blocks of it, and how this node gets one.
//!
//! **Taking.** When the log has grown by enough since the last snapshot, or somebody asks (a peer that lacks what is
//! forgotten here, `SAVE`, `BGSAVE`), the store is frozen and handed to the keeper. Once the snapshot is published,
//! the log before the older of the two that are kept is removed.
//!
//! **Getting.** A peer said that what this node lacks is only in a snapshot. Then its blocks are asked for, a message
//! full at a time: the next ones when these are stored, so that neither side piles anything up, and a broken
//! connection costs one message. When all are there the keeper makes a store of them beside the one in use, and
//! the core puts its own state in the place of what the snapshot covers.
//!
//! **Serving.** Nothing is remembered about who asks: each question names snapshot and block. What comes after the
//! snapshot is kept in memory as long as somebody asks.

use crate::protocol::{Base, BaseParts, Identity, Message};
use crate::storage::{SnapshotFront, SnapshotHeader};
use crate::types::{Lsn, Millis, NodeId, NodeSet, Now, SnapshotId, ViewNumber};

use super::keeper::{Done, SnapshotInfo, Task};
use super::{Node, Observed};

/// After a snapshot could not be taken, the next attempt is made so much later.
const RETRY_AFTER: Millis = Millis(30_000);
/// A peer that has asked for blocks within this time may still want what comes after the snapshot.
const PIN_FOR: Millis = Millis(10_000);
/// A source that has not brought this node further for so many suspicion time-outs is given up.
const SOURCE_PATIENCE: u64 = 20;

/// What the keeper has been given to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// To take a snapshot.
    Take,
    /// To make a store of what was received.
    Load,
}

/// Long work of the keeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pending {
    work: Work,
    /// The log must be durable up to the record before this one.
    log_from: Lsn,
    verified: bool,
}

/// A snapshot on its way from a peer.
#[derive(Debug)]
struct Fetch {
    from: NodeId,
    /// Which one, once that is known.
    id: Option<SnapshotId>,
    next: u32,
    len: u64,
    asked_at: Millis,
    /// A long message has begun to arrive since.
    stirs: bool,
    progress_at: Millis,
    /// Blocks are being stored.
    storing: bool,
    /// All blocks are there.
    complete: Option<Box<SnapshotHeader>>,
}

/// What a node knows of its snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    newest: Option<SnapshotInfo>,
    /// The log is needed from here for the older one that is kept.
    older_from: Option<Lsn>,
    /// Bytes of records since the newest was begun.
    grown: u64,
    /// Somebody asks for one.
    wanted: bool,
    not_before: Millis,
    pending: Option<Pending>,
    fetch: Option<Fetch>,
    durable: Lsn,
    /// When the newest was published, on the wall clock; zero if not by this process.
    pub(super) taken_at: Millis,
    pub(super) taken_count: u64,
    pub(super) failed_count: u64,
    pub(super) installed_count: u64,
    pub(super) served_blocks: u64,
}

impl Snapshots {
    /// At the start: the snapshots that are there, and how much log there is on top of the newest.
    pub(super) fn new(
        newest: Option<SnapshotInfo>,
        older_from: Option<Lsn>,
        grown: u64,
        durable: Lsn,
    ) -> Snapshots {
        Snapshots {
            newest,
            older_from,
            grown,
            wanted: false,
            not_before: Millis(0),
            pending: None,
            fetch: None,
            durable,
            taken_at: Millis(0),
            taken_count: 0,
            failed_count: 0,
            installed_count: 0,
            served_blocks: 0,
        }
    }

    /// The newest that is published.
    pub(super) fn newest(&self) -> Option<&SnapshotInfo> {
        self.newest.as_ref()
    }

    /// Whether one is being taken.
    pub(super) fn is_taking(&self) -> bool {
        self.wanted || self.pending.is_some_and(|pending| pending.work == Work::Take)
    }

    /// From whom one is coming, and how many bytes of it are here.
    pub(super) fn coming(&self) -> Option<(NodeId, u64)> {
        self.fetch.as_ref().map(|fetch| (fetch.from, fetch.len))
    }

    /// Records of so many bytes went to the log.
    pub(super) fn note_grown(&mut self, len: usize) {
        self.grown += len as u64;
    }

    /// The log is durable up to here.
    pub(super) fn note_durable(&mut self, lsn: Lsn) {
        self.durable = lsn;
    }

    /// A peer's connection broke.
    pub(super) fn note_lost(&mut self, peer: NodeId) {
        // What all is here needs nobody any more.
        self.fetch.take_if(|fetch| fetch.from == peer && fetch.complete.is_none());
    }

    /// A long message from this peer is arriving, perhaps blocks: they are not asked for again at once.
    pub(super) fn note_stirring(&mut self, peer: NodeId) {
        if let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.from == peer) {
            fetch.stirs = true;
        }
    }

    /// Somebody asks for a snapshot of now or later.
    pub(super) fn want(&mut self) {
        self.wanted = true;
        self.not_before = Millis(0);
    }
}

impl Node {
    /// Asks for a snapshot, as `BGSAVE` does. It is begun when the keeper is free.
    pub fn take_snapshot(&mut self) {
        self.backend.snapshots.want();
    }

    /// The newest snapshot of this node that is published.
    pub fn newest_snapshot(&self) -> Option<&SnapshotInfo> {
        self.backend.snapshots.newest()
    }

    /// What the keeper has done.
    pub fn keeper_done(&mut self, now: Now, done: Done) {
        self.backend.now = now;
        let snapshots = &mut self.backend.snapshots;
        match done {
            Done::Verified => {
                if let Some(pending) = &mut snapshots.pending {
                    pending.verified = true;
                }
            }
            Done::Taken(info) => {
                snapshots.pending = None;
                snapshots.taken_at = now.wall;
                snapshots.taken_count += 1;
                snapshots.older_from = snapshots.newest.map(|older| older.log_from);
                snapshots.newest = Some(info);
                self.effects.truncate = self.effects.truncate.max(snapshots.older_from);
                let index = info.id.index;
                self.say(format!("snapshot index={index} bytes={}", info.len));
            }
            Done::Failed { what } => {
                snapshots.pending = None;
                snapshots.failed_count += 1;
                snapshots.not_before = now.mono.plus(RETRY_AFTER);
                self.say(format!("a snapshot could not be taken: {what}"));
            }
            Done::Blocks { to, id, first, blocks } => {
                snapshots.served_blocks += blocks.len() as u64;
                let message = Message::SnapshotBlocks { id, first, blocks };
                self.effects.sends.push((NodeSet::only(to), message));
            }
            Done::Gone { to, damage } => {
                if let Some(damage) = damage {
                    snapshots.want();
                    self.say(format!("a snapshot is damaged, another one is taken: {damage}"));
                }
                self.offer_snapshot(to);
            }
            Done::Stored { id, next, len, complete } => {
                if let Some(fetch) = &mut snapshots.fetch {
                    *fetch = Fetch {
                        id: Some(id),
                        next,
                        len,
                        complete,
                        storing: false,
                        asked_at: now.mono,
                        progress_at: now.mono,
                        ..*fetch
                    };
                    self.ask_for_blocks(now.mono);
                }
            }
            Done::Refused { what } => {
                snapshots.fetch = None;
                snapshots.pending.take_if(|pending| pending.work == Work::Load);
                self.say(format!("a snapshot from a peer is of no use: {what}"));
            }
            Done::Loaded { info, header, store } => {
                snapshots.pending = None;
                snapshots.fetch = None;
                snapshots.newest = Some(info);
                snapshots.older_from = None;
                snapshots.grown = 0;
                self.effects.truncate = self.effects.truncate.max(Some(info.log_from));
                let base = base_of(&header).expect("it was looked at before it was loaded");
                if self.backend.replica.install(now.mono, &base, &mut self.outputs) {
                    self.backend.snapshots.installed_count += 1;
                    self.backend.store = *store;
                    self.observed_index = base.index;
                    if self.observing {
                        let digest = self.backend.store.digest();
                        let (index, position) = (base.index, base.position);
                        self.effects.observed.push(Observed::Installed { index, position, digest });
                    }
                }
                self.carry_out(now);
            }
        }
    }

    /// A peer wants blocks.
    pub(super) fn on_snapshot_ask(&mut self, now: Now, from: NodeId, id: Option<SnapshotId>, next: u32) {
        let forgotten = self.backend.replica.forgotten();
        let snapshots = &mut self.backend.snapshots;
        match &snapshots.newest {
            Some(newest) if newest.position >= forgotten => {
                let position = newest.position;
                self.effects.tasks.push(Task::Read { to: from, id, next });
                self.backend.replica.pin(position, now.mono.plus(PIN_FOR));
            }
            _ => {
                if snapshots.pending.is_none() {
                    snapshots.wanted = true;
                }
                // While it is being taken, nothing that comes after it is forgotten.
                self.backend.replica.pin(forgotten, now.mono.plus(PIN_FOR));
                self.offer_snapshot(from);
            }
        }
    }

    fn offer_snapshot(&mut self, to: NodeId) {
        let message = Message::SnapshotOffer { forgotten: self.backend.replica.forgotten() };
        self.effects.sends.push((NodeSet::only(to), message));
    }

    /// Blocks came from a peer.
    pub(super) fn on_snapshot_blocks(
        &mut self,
        now: Now,
        from: NodeId,
        id: SnapshotId,
        first: u32,
        blocks: Vec<Vec<u8>>,
    ) {
        let Some(fetch) = &mut self.backend.snapshots.fetch else { return };
        let expected = fetch.id.is_none_or(|wanted| wanted == id) && first == fetch.next;
        if fetch.from != from || !expected || fetch.storing || fetch.complete.is_some() || blocks.is_empty() {
            return;
        }
        fetch.storing = true;
        fetch.progress_at = now.mono;
        self.effects.tasks.push(Task::Store { id, first, blocks });
    }

    /// What this node lacks is only in a snapshot, which this peer has or is about to make.
    pub(super) fn on_behind(&mut self, now: Now, from: NodeId) {
        match &mut self.backend.snapshots.fetch {
            None => {
                self.backend.snapshots.fetch = Some(Fetch {
                    from,
                    id: None,
                    next: 0,
                    len: 0,
                    asked_at: now.mono,
                    stirs: false,
                    progress_at: now.mono,
                    storing: false,
                    complete: None,
                });
                self.say(format!("catching up by a snapshot from {from}"));
                self.ask_for_blocks(now.mono);
            }
            // What was asked for is not there, or not yet: it is asked again a little later, from the beginning.
            Some(fetch) if fetch.from == from && !fetch.storing && fetch.complete.is_none() => {
                (fetch.id, fetch.next) = (None, 0);
                fetch.progress_at = now.mono;
            }
            Some(_) => {}
        }
    }

    fn ask_for_blocks(&mut self, now: Millis) {
        let Some(fetch) = &mut self.backend.snapshots.fetch else { return };
        if fetch.storing || fetch.complete.is_some() {
            return;
        }
        (fetch.asked_at, fetch.stirs) = (now, false);
        let message = Message::SnapshotAsk { id: fetch.id, next: fetch.next };
        self.effects.sends.push((NodeSet::only(fetch.from), message));
    }

    /// Goes on with whatever is due.
    pub(super) fn run_snapshots(&mut self, now: Now) {
        self.publish_when_durable();
        self.go_on_fetching(now.mono);
        self.take_when_due(now.mono);
    }

    fn publish_when_durable(&mut self) {
        let snapshots = &mut self.backend.snapshots;
        let durable = snapshots.durable.next();
        let Some(pending) = snapshots.pending.filter(|it| it.verified && durable >= it.log_from) else {
            return;
        };
        // Once it is published the older ones are gone; what this node has learnt meanwhile may speak against it.
        if pending.work == Work::Load
            && let Some(header) = snapshots.fetch.as_ref().and_then(|fetch| fetch.complete.clone())
            && let Err(objection) = self.acceptable(&header)
        {
            self.backend.snapshots.pending = None;
            return self.drop_fetched(&objection);
        }
        self.backend.snapshots.pending = Some(Pending { verified: false, ..pending });
        self.effects.tasks.push(Task::Publish);
    }

    /// What a snapshot from a peer says about the order, if it may be installed here.
    ///
    /// # Errors
    /// Why it may not.
    fn acceptable(&self, header: &SnapshotHeader) -> Result<Base, String> {
        let base = base_of(header).map_err(|error| error.to_string())?;
        match self.backend.replica.objection(&base) {
            Some(objection) => Err(objection.to_owned()),
            None => Ok(base),
        }
    }

    fn go_on_fetching(&mut self, now: Millis) {
        let settings = &self.backend.settings.protocol;
        let (patience, given_up) = (settings.heartbeat.times(4), settings.suspicion.times(SOURCE_PATIENCE));
        let snapshots = &mut self.backend.snapshots;
        let Some(fetch) = &mut snapshots.fetch else { return };
        let Some(header) = &fetch.complete else {
            if !fetch.storing && now.since(fetch.progress_at) > given_up {
                snapshots.fetch = None;
            } else if now.since(fetch.asked_at) >= patience.times(if fetch.stirs { 4 } else { 1 }) {
                self.ask_for_blocks(now);
            }
            return;
        };
        if snapshots.pending.is_some() {
            return;
        }
        let header = header.clone();
        let base = match self.acceptable(&header) {
            Ok(base) => base,
            Err(objection) => return self.drop_fetched(&objection),
        };
        let log_from = self.backend.replica.log_from(&base);
        let snapshots = &mut self.backend.snapshots;
        snapshots.pending = Some(Pending { work: Work::Load, log_from, verified: false });
        let front = self.front(log_from);
        self.effects.tasks.push(Task::Load { front });
    }

    fn drop_fetched(&mut self, why: &str) {
        self.backend.snapshots.fetch = None;
        self.effects.tasks.push(Task::Drop);
        self.say(format!("the snapshot from a peer is not used: {why}"));
    }

    fn take_when_due(&mut self, now: Millis) {
        let snapshots = &self.backend.snapshots;
        let last_len = snapshots.newest.map_or(0, |newest| newest.len);
        let grown = snapshots.grown > self.backend.settings.snapshot_log_len.max(last_len / 2);
        let due = (snapshots.wanted || grown) && now >= snapshots.not_before;
        // One that comes from a peer makes an own one needless.
        if !due || snapshots.pending.is_some() || snapshots.fetch.is_some() {
            return;
        }
        let base = self.backend.replica.base();
        if base.view.number == ViewNumber(0) {
            return;
        }
        let log_from = self.backend.replica.log_from(&base);
        let (front, header) = (self.front(log_from), Box::new(header_of(&base)));
        let image = self.backend.store.freeze();
        self.backend.replica.move_pin();
        let snapshots = &mut self.backend.snapshots;
        snapshots.pending = Some(Pending { work: Work::Take, log_from, verified: false });
        snapshots.wanted = false;
        snapshots.grown = 0;
        self.effects.tasks.push(Task::Take { front, header, image });
    }

    fn front(&self, log_from: Lsn) -> SnapshotFront {
        let Identity { disk, incarnation, .. } = self.backend.identity;
        SnapshotFront { disk_id: disk, log_from, incarnation }
    }
}

/// The header of a snapshot of this base; the counts and the digest of the state are filled in later.
pub(super) fn header_of(base: &Base) -> SnapshotHeader {
    let BaseParts { view, lanes, origins } = base.parts();
    SnapshotHeader {
        cluster: base.cluster,
        index: base.index,
        position: base.position,
        now: base.time,
        delivered: base.digest,
        view,
        lanes,
        origins,
        ..SnapshotHeader::default()
    }
}

/// What a snapshot's header says about the order.
///
/// # Errors
/// It cannot be understood, or contradicts itself.
pub(super) fn base_of(header: &SnapshotHeader) -> Result<Base, crate::wire::DecodeError> {
    let parts =
        BaseParts { view: header.view.clone(), lanes: header.lanes.clone(), origins: header.origins.clone() };
    let SnapshotHeader { cluster, index, position, now, delivered, .. } = *header;
    Base::from_parts(cluster, index, position, now, delivered, &parts)
}
