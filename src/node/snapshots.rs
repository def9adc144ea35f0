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
//! **Serving.** Each question names snapshot and block, so nothing is remembered but whom an answer is under way to.
//! What comes after the snapshot stays in the core's memory, since the peer that lacks it is heard.

use crate::protocol::{self, Base, BaseParts, Identity, Message};
use crate::storage::{SnapshotFront, SnapshotHeader};
use crate::types::{Lsn, Millis, NodeId, NodeSet, Now, Position, Reply, SnapshotId, ViewNumber, limits};
use crate::wire::DecodeError;

use super::keeper::{Asker, Done, SnapshotDamage, SnapshotInfo, Task};
use super::{ClientKey, Node, Observed, settle};

/// After a snapshot could not be taken, the next attempt is made so much later.
const RETRY_AFTER: Millis = Millis(1_000);
/// Each time in a row twice as much later, up to so many times.
const RETRY_DOUBLED_MAX: u32 = 6;
/// While a peer asks for blocks, and so much longer, no other snapshot is taken unless somebody wants one or the log
/// has grown more than otherwise.
const SERVING_FOR: Millis = Millis(5_000);
/// Blocks that do not come are asked for ever more seldom, up to so many times.
const ASK_TIMES_MAX: u32 = 2;
/// A client that has not asked for a block for so long makes no backup any more.
const BACKUP_PATIENCE: Millis = Millis(60_000);
/// What came from a peer was of no use: nothing is fetched for so long.
const PAUSE_AFTER_REFUSAL: Millis = Millis(2_000);
/// A source that has not brought this node further for so many suspicion time-outs is given up; one that says again and
/// again that it is about to make what was asked for, after so many.
const SOURCE_PATIENCE: u64 = 20;
const MAKING_PATIENCE: u64 = 1_000;

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
    /// The last entry in it.
    position: Position,
    /// The log must be durable up to the record before this one.
    log_from: Lsn,
    verified: bool,
}

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Later {
    /// A snapshot that is begun from now on.
    Save,
    /// The same, and what it is.
    Backup,
    /// A block of a snapshot.
    Block {
        /// Of which.
        id: SnapshotId,
        /// The block's number.
        block: u32,
    },
}

/// A client that waits for a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    client: ClientKey,
    slot: u64,
    /// It has to be this one, or a later one.
    serial: u64,
    /// It wants to know which.
    describes: bool,
}

/// A snapshot on its way from a peer.
#[derive(Debug)]
struct Fetch {
    from: NodeId,
    /// Once this node has delivered so far it has no use for it.
    until: Position,
    /// Which one, once that is known.
    id: Option<SnapshotId>,
    next: u32,
    len: u64,
    asked_at: Millis,
    /// When it last offered one, which may be still in the making, or was about to bring something long.
    offered_at: Millis,
    /// So often in a row without an answer.
    asked: u32,
    progress_at: Millis,
    /// How long blocks took last, from the first time that they were asked for.
    took: Millis,
    /// Blocks of this one are being stored.
    storing: Option<SnapshotId>,
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
    /// How many of them had come when it was published.
    grown_meanwhile: u64,
    /// Somebody asks for one.
    wanted: bool,
    not_before: Millis,
    /// In a row.
    failures: u32,
    pending: Option<Pending>,
    /// So many have been begun.
    begun: u64,
    pub(super) waiters: Vec<Waiter>,
    /// Blocks that clients want, to be passed on to the keeper.
    wanted_blocks: Vec<(ClientKey, u64, SnapshotId, u32)>,
    fetch: Option<Fetch>,
    /// Nothing is fetched before this: what came last was of no use.
    fetch_from: Millis,
    /// Blocks for these peers are being read.
    reading: NodeSet,
    served_at: Option<Millis>,
    /// When a client asked for a block last; `None` once the keeper keeps nothing open for it.
    backed_up_at: Option<Millis>,
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
            grown_meanwhile: 0,
            wanted: false,
            not_before: Millis(0),
            failures: 0,
            pending: None,
            begun: 0,
            waiters: Vec::new(),
            wanted_blocks: Vec::new(),
            fetch: None,
            fetch_from: Millis(0),
            reading: NodeSet::EMPTY,
            served_at: None,
            backed_up_at: None,
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

    /// Something long is arriving from a peer: it may be blocks, so their source is not given up.
    pub(super) fn note_stirring(&mut self, now: Millis, peer: NodeId) {
        if let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.from == peer) {
            fetch.offered_at = now;
        }
    }

    /// A client waits for something.
    pub(super) fn ask(&mut self, client: ClientKey, slot: u64, later: Later) {
        match later {
            Later::Save | Later::Backup => {
                self.want_now();
                let describes = later == Later::Backup;
                self.waiters.push(Waiter { client, slot, serial: self.begun + 1, describes });
            }
            Later::Block { id, block } => self.wanted_blocks.push((client, slot, id, block)),
        }
    }

    /// This client is gone.
    pub(super) fn forget(&mut self, client: ClientKey) {
        self.waiters.retain(|waiter| waiter.client != client);
    }

    /// Somebody asks for a snapshot of now or later.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The same from a client, who may know better than the pause after a failure whether there is room now.
    pub(super) fn want_now(&mut self) {
        self.want();
        self.not_before = Millis(0);
    }

    /// What somebody who waits for a snapshot is told about it.
    fn describe(info: &SnapshotInfo) -> Reply {
        let integer = |n: u64| Reply::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        Reply::Array(vec![
            integer(info.id.index.0),
            Reply::bulk(format!("{:016x}", info.id.digest).as_bytes()),
            integer(u64::from(info.blocks)),
            integer(info.len),
        ])
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
                snapshots.grown_meanwhile = snapshots.grown;
                snapshots.failures = 0;
                // One of the same index has the same name: then the one that is kept beside it is still the one before.
                if let Some(older) =
                    snapshots.newest.replace(info).filter(|older| older.id.index < info.id.index)
                {
                    snapshots.older_from = Some(older.log_from);
                }
                self.effects.truncate = self.effects.truncate.max(snapshots.older_from);
                let index = info.id.index;
                self.say(format!("snapshot index={index} bytes={}", info.len));
                self.answer_waiters(now, &Snapshots::describe(&info));
            }
            Done::Failed { what } => {
                snapshots.pending = None;
                snapshots.failed_count += 1;
                snapshots.wanted = true;
                snapshots.not_before = now.mono.plus(RETRY_AFTER.times(1 << snapshots.failures));
                snapshots.failures = (snapshots.failures + 1).min(RETRY_DOUBLED_MAX);
                self.say(format!("a snapshot could not be taken: {what}"));
                self.answer_waiters(now, &Reply::error(format!("ERR no snapshot could be taken: {what}")));
            }
            Done::Blocks { to: Asker::Client(client, slot), blocks, .. } => {
                let block = blocks.first().map(|block| Reply::bulk(block));
                let reply = block.unwrap_or_else(|| Reply::error("ERR no such block"));
                self.answer_later(now, client, slot, reply);
            }
            Done::Gone { to: Asker::Client(client, slot), damage, .. } => {
                self.note_damage(damage);
                let reply = Reply::error("ERR this snapshot is not here, or not any more; begin again");
                self.answer_later(now, client, slot, reply);
            }
            Done::Blocks { to: Asker::Peer(to), id, first, blocks } => {
                snapshots.reading.remove(to);
                snapshots.served_at = Some(now.mono);
                snapshots.served_blocks += blocks.len() as u64;
                if let Some(newest) = snapshots.newest.filter(|newest| newest.id == id) {
                    let len = usize::try_from(newest.len).unwrap_or(usize::MAX);
                    self.backend.replica.note_served(to, newest.position, len);
                }
                let message = Message::SnapshotBlocks { id, first, blocks };
                self.effects.sends.push((NodeSet::only(to), message));
            }
            Done::Gone { to: Asker::Peer(to), id, damage } => {
                snapshots.reading.remove(to);
                self.note_damage(damage);
                self.answer_gone(to, id);
            }
            Done::Stored { id, next, len, complete } => {
                // Another source may have been chosen since.
                if let Some(fetch) = snapshots.fetch.as_mut().filter(|fetch| fetch.storing == Some(id)) {
                    *fetch = Fetch {
                        from: fetch.from,
                        until: fetch.until,
                        id: Some(id),
                        next,
                        len,
                        complete,
                        storing: None,
                        asked: 0,
                        asked_at: now.mono,
                        offered_at: fetch.offered_at,
                        progress_at: now.mono,
                        took: fetch.took,
                    };
                    self.ask_for_blocks(now.mono);
                }
            }
            Done::Refused { what } => {
                snapshots.fetch = None;
                snapshots.fetch_from = now.mono.plus(PAUSE_AFTER_REFUSAL);
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
                let mut unused = store;
                self.apply_all(now);
                if self.backend.replica.install(now.mono, &base, &mut self.outputs) {
                    self.backend.snapshots.installed_count += 1;
                    std::mem::swap(&mut self.backend.store, &mut unused);
                    self.backend.applied_index = base.index;
                    if self.observing {
                        let digest = self.backend.store.digest();
                        let (index, position) = (base.index, base.position);
                        self.effects.observed.push(Observed::Installed { index, position, digest });
                    }
                }
                // In pieces and in order: freed by another thread, they would be left to this one to put together.
                self.backend.store.bury(&mut unused);
                self.effects.tasks.push(Task::Discard(unused));
                self.carry_out(now);
            }
        }
    }

    /// A snapshot turned out to be damaged when somebody read it. Only that one is forgotten: the other one of the two
    /// goes on to be what it was, and the log is kept for it. Then another one is taken, so that there are two again.
    fn note_damage(&mut self, damage: Option<SnapshotDamage>) {
        let Some(SnapshotDamage { index, what }) = damage else { return };
        let snapshots = &mut self.backend.snapshots;
        if snapshots.newest.take_if(|newest| newest.id.index == index).is_none() {
            snapshots.older_from = None;
        }
        // One that is being taken will do.
        if snapshots.pending.is_none_or(|pending| pending.work != Work::Take) {
            snapshots.want();
        }
        self.say(format!("a snapshot is damaged, another one is taken: {what}"));
    }

    fn answer_waiters(&mut self, now: Now, reply: &Reply) {
        let begun = self.backend.snapshots.begun;
        self.answer_those(now, reply, |waiter| waiter.serial <= begun);
    }

    /// Whether clients wait for a snapshot that cannot be begun: nothing has been delivered that it could be of, or one
    /// is on its way here.
    pub(super) fn holds_saves(&self) -> bool {
        let snapshots = &self.backend.snapshots;
        snapshots.waiters.iter().any(|waiter| waiter.serial > snapshots.begun)
            && (snapshots.fetch.is_some() || self.backend.replica.base().view.number == ViewNumber(0))
    }

    /// Answers those who wait for a snapshot that has not been begun.
    pub(super) fn refuse_saves(&mut self, now: Now, reply: &Reply) {
        let begun = self.backend.snapshots.begun;
        let refused = self.answer_those(now, reply, |waiter| waiter.serial > begun);
        self.backend.stats.refused += refused as u64;
    }

    /// Says how many they were.
    fn answer_those(&mut self, now: Now, reply: &Reply, are_meant: impl Fn(&Waiter) -> bool) -> usize {
        let waiters = &mut self.backend.snapshots.waiters;
        let meant: Vec<Waiter> = waiters.extract_if(.., |waiter| are_meant(waiter)).collect();
        let count = meant.len();
        for Waiter { client, slot, describes, .. } in meant {
            let brief = !describes && !matches!(reply, Reply::Error(_));
            let reply = if brief { Reply::OK } else { reply.clone() };
            self.answer_later(now, client, slot, reply);
        }
        count
    }

    fn answer_later(&mut self, now: Now, client: ClientKey, slot: u64, reply: Reply) {
        let Node { backend, clients, backlog, effects, .. } = self;
        if let Some(client) = clients.get_mut(client) {
            let _ = client.queue.answer(slot, reply, &[], backend);
            settle(client, backend, backlog, effects, now);
        }
    }

    /// A peer wants blocks.
    pub(super) fn on_snapshot_ask(&mut self, from: NodeId, id: Option<SnapshotId>, next: u32) {
        let forgotten = self.backend.replica.forgotten();
        let snapshots = &mut self.backend.snapshots;
        if snapshots.reading.contains(from) {
            return;
        }
        match &snapshots.newest {
            Some(newest) if newest.position >= forgotten => {
                snapshots.reading.insert(from);
                let (to, count) = (Asker::Peer(from), limits::SNAPSHOT_BLOCK_COUNT_MAX);
                self.effects.tasks.push(Task::Read { to, id, next, count });
            }
            _ => {
                if snapshots.pending.is_none() {
                    snapshots.want();
                }
                self.answer_gone(from, id);
            }
        }
    }

    /// What a peer that asks is going to get: the newest, if it is of use, or the one that is being made.
    fn offered(&self) -> Option<(Position, usize)> {
        let forgotten = self.backend.replica.forgotten();
        let snapshots = &self.backend.snapshots;
        let len = snapshots.newest.map_or(0, |newest| usize::try_from(newest.len).unwrap_or(usize::MAX));
        let newest = snapshots.newest.map(|newest| newest.position).filter(|position| *position >= forgotten);
        let making =
            snapshots.pending.filter(|pending| pending.work == Work::Take).map(|pending| pending.position);
        Some((newest.or(making)?, len))
    }

    fn offer_snapshot(&mut self, to: NodeId) {
        let message = Message::SnapshotOffer { forgotten: self.backend.replica.forgotten() };
        self.effects.sends.push((NodeSet::only(to), message));
    }

    /// What a peer asked for is not here, or not any more. An offer alone would not say so: it answers questions of
    /// the core.
    fn answer_gone(&mut self, to: NodeId, id: Option<SnapshotId>) {
        if let Some(id) = id {
            let message = Message::SnapshotBlocks { id, first: 0, blocks: Vec::new() };
            self.effects.sends.push((NodeSet::only(to), message));
        }
        self.offer_snapshot(to);
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
        if fetch.from != from || fetch.storing.is_some() || fetch.complete.is_some() {
            return;
        }
        if blocks.is_empty() {
            // It is not there: whichever is there is asked for, from the beginning.
            if fetch.id == Some(id) {
                (fetch.id, fetch.next) = (None, 0);
                self.ask_for_blocks(now.mono);
            }
            return;
        }
        if fetch.id.is_some_and(|wanted| wanted != id) || first != fetch.next {
            return;
        }
        // The first ones may have had to wait for the snapshot to be made.
        if fetch.id.is_some() {
            fetch.took = now.mono.since(fetch.progress_at);
        }
        fetch.storing = Some(id);
        fetch.progress_at = now.mono;
        self.effects.tasks.push(Task::Store { id, first, blocks });
    }

    /// What this node lacks is only in a snapshot, which this peer has or is about to make.
    pub(super) fn on_behind(&mut self, now: Now, from: NodeId, until: Position) {
        let patience = self.ask_patience();
        let snapshots = &mut self.backend.snapshots;
        if now.mono < snapshots.fetch_from {
            return;
        }
        match &mut snapshots.fetch {
            // The core asks for what it lacks all the while. This says nothing of the blocks that are on their way.
            Some(fetch) if fetch.from == from => (fetch.offered_at, fetch.until) = (now.mono, until),
            // Somebody who has brought nothing yet, in all the time that it had.
            Some(fetch) if fetch.next > 0 || now.mono.since(fetch.progress_at) < patience.times(4) => {}
            _ => {
                snapshots.fetch = Some(Fetch {
                    from,
                    until,
                    id: None,
                    next: 0,
                    len: 0,
                    asked_at: now.mono,
                    offered_at: now.mono,
                    asked: 0,
                    progress_at: now.mono,
                    took: Millis(0),
                    storing: None,
                    complete: None,
                });
                self.say(format!("catching up by a snapshot from {from}"));
                self.ask_for_blocks(now.mono);
            }
        }
    }

    /// How long blocks may take before they are asked for again. Over a slow link an answer that is asked for twice
    /// keeps the next one waiting.
    fn ask_patience(&self) -> Millis {
        let (again, took) =
            self.backend.snapshots.fetch.as_ref().map_or((0, Millis(0)), |fetch| (fetch.asked, fetch.took));
        self.backend.settings.protocol.heartbeat.times(4 << again.min(ASK_TIMES_MAX)).max(took.times(2))
    }

    fn ask_for_blocks(&mut self, now: Millis) {
        let Some(fetch) = &mut self.backend.snapshots.fetch else { return };
        if fetch.storing.is_some() || fetch.complete.is_some() {
            return;
        }
        fetch.asked_at = now;
        fetch.asked += 1;
        let message = Message::SnapshotAsk { id: fetch.id, next: fetch.next };
        self.effects.sends.push((NodeSet::only(fetch.from), message));
    }

    /// Goes on with whatever is due.
    pub(super) fn run_snapshots(&mut self, now: Now) {
        let Snapshots { wanted_blocks, backed_up_at, .. } = &mut self.backend.snapshots;
        for (client, slot, id, next) in wanted_blocks.drain(..) {
            let to = Asker::Client(client, slot);
            *backed_up_at = Some(now.mono);
            self.effects.tasks.push(Task::Read { to, id: Some(id), next, count: 1 });
        }
        let backup = &mut self.backend.snapshots.backed_up_at;
        if backup.take_if(|at| now.mono.since(*at) > BACKUP_PATIENCE).is_some() {
            self.effects.tasks.push(Task::Release);
        }
        let offered = self.offered();
        self.backend.replica.offer_to_peers(offered);
        self.publish_when_durable(now.mono);
        self.go_on_fetching(now.mono);
        self.take_when_due(now);
    }

    fn publish_when_durable(&mut self, now: Millis) {
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
            return self.drop_fetched(now, &objection);
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
        let patience = self.ask_patience();
        let suspicion = self.backend.settings.protocol.suspicion;
        let (given_up, making) = (suspicion.times(SOURCE_PATIENCE), suspicion.times(MAKING_PATIENCE));
        let snapshots = &mut self.backend.snapshots;
        let Some(fetch) = &mut snapshots.fetch else { return };
        let is_loading = snapshots.pending.is_some_and(|pending| pending.work == Work::Load);
        if self.backend.replica.delivered() >= fetch.until && !is_loading {
            // Others have filled what was lacking. The next offer, if there is one, is followed at once.
            let from = fetch.from;
            snapshots.fetch = None;
            self.effects.tasks.push(Task::Drop);
            return self.say(format!("caught up without the snapshot from {from}"));
        }
        let Some(header) = &fetch.complete else {
            let is_making = now.since(fetch.offered_at) <= given_up && now.since(fetch.progress_at) <= making;
            if fetch.storing.is_none() && now.since(fetch.progress_at) > given_up && !is_making {
                snapshots.fetch = None;
            } else if now.since(fetch.asked_at) >= patience {
                self.ask_for_blocks(now);
            }
            return;
        };
        if snapshots.pending.is_some() {
            return;
        }
        // Before anything that is here is given up for it.
        let Some(id) = fetch.id else { return };
        let header = header.clone();
        let base = match self.acceptable(&header) {
            Ok(base) => base,
            Err(objection) => return self.drop_fetched(now, &objection),
        };
        let log_from = self.backend.replica.log_from(&base);
        let snapshots = &mut self.backend.snapshots;
        snapshots.pending =
            Some(Pending { work: Work::Load, position: base.position, log_from, verified: false });
        let front = self.front(log_from);
        self.effects.tasks.push(Task::Load { id, front });
    }

    fn drop_fetched(&mut self, now: Millis, why: &str) {
        self.backend.snapshots.fetch = None;
        self.backend.snapshots.fetch_from = now.plus(PAUSE_AFTER_REFUSAL);
        self.effects.tasks.push(Task::Drop);
        self.say(format!("the snapshot from a peer is not used: {why}"));
    }

    fn take_when_due(&mut self, now: Now) {
        let snapshots = &self.backend.snapshots;
        let serving = snapshots.served_at.is_some_and(|at| now.mono.since(at) < SERVING_FOR);
        let last_len = snapshots.newest.map_or(0, |newest| newest.len);
        let least = self.backend.settings.snapshot_log_len;
        let grown = snapshots.grown > growth(least, last_len, snapshots.grown_meanwhile, serving);
        let due = (snapshots.wanted || grown) && now.mono >= snapshots.not_before;
        // One that comes from a peer makes an own one needless.
        if !due || snapshots.pending.is_some() || snapshots.fetch.is_some() {
            return;
        }
        // The store must be as far as the core.
        if self.deliveries.is_lasting() {
            self.apply_all(now);
        }
        if !self.deliveries.is_empty() {
            return;
        }
        let snapshots = &self.backend.snapshots;
        let base = self.backend.replica.base();
        if base.view.number == ViewNumber(0) {
            return;
        }
        if let Some(newest) = snapshots.newest.filter(|newest| newest.position >= base.position) {
            // Nothing has happened since: what there is will do.
            let snapshots = &mut self.backend.snapshots;
            snapshots.wanted = false;
            snapshots.waiters.iter_mut().for_each(|waiter| waiter.serial = 0);
            return self.answer_waiters(now, &Snapshots::describe(&newest));
        }
        let log_from = self.backend.replica.log_from(&base);
        let (front, header) = (self.front(log_from), Box::new(header_of(&base)));
        let image = self.backend.store.freeze();
        let snapshots = &mut self.backend.snapshots;
        snapshots.pending =
            Some(Pending { work: Work::Take, position: base.position, log_from, verified: false });
        snapshots.wanted = false;
        snapshots.grown = 0;
        snapshots.begun += 1;
        self.effects.tasks.push(Task::Take { front, header, image });
    }

    fn front(&self, log_from: Lsn) -> SnapshotFront {
        let Identity { disk, incarnation, .. } = self.backend.identity;
        SnapshotFront { disk_id: disk, log_from, incarnation }
    }
}

/// How much log makes the next snapshot due: `least`, which is `snapshot-log`; as much again as the last one is long,
/// but at most half of `least`; and half the length of the last one.
///
/// With *L* for that length, a node has two snapshots and one in the making on its disk, 3 *L*, and the log since the
/// older one: twice this growth, and what comes while the third is made. What came while the last was made is
/// therefore taken off the half, so that all of it stays below 4 *L* and a constant, unless the log grows faster than
/// snapshots are made.
pub(super) fn growth(least: u64, last_len: u64, grown_meanwhile: u64, serving: bool) -> u64 {
    let more = if serving { least / 2 } else { last_len.min(least / 2) };
    let part = (last_len / 2).saturating_sub(grown_meanwhile);
    least.saturating_add(more).saturating_add(part)
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

/// The header of a snapshot with the same state, for a node of a new cluster: nothing has been delivered there, but the
/// index goes on.
///
/// # Errors
/// The header makes no sense.
pub fn header_for_new_cluster(
    header: &SnapshotHeader,
    settings: &protocol::Settings,
) -> Result<SnapshotHeader, DecodeError> {
    let base = base_of(header)?.for_new_cluster(settings, header.digest);
    let SnapshotHeader { digest, keys, sessions, .. } = *header;
    Ok(SnapshotHeader { digest, keys, sessions, ..header_of(&base) })
}

/// What a snapshot's header says about the order.
///
/// # Errors
/// It cannot be understood, or contradicts itself.
pub(super) fn base_of(header: &SnapshotHeader) -> Result<Base, DecodeError> {
    let parts =
        BaseParts { view: header.view.clone(), lanes: header.lanes.clone(), origins: header.origins.clone() };
    let SnapshotHeader { cluster, index, position, now, delivered, .. } = *header;
    Base::from_parts(cluster, index, position, now, delivered, &parts)
}
