//! Forgetting what is delivered, and what takes its place: snapshots.
//!
//! Delivered entries stay in memory for nodes that missed them, up to a limit; then the oldest go, and views
//! with them. Whoever asks for something older is offered a snapshot. What is in one, and from which record on the
//! log is needed beside it, is known here; the files are the business of the node around the core
//! (`docs/protocol.md`, section 7).
//!
//! Two limits are independent: what is forgotten in memory is still in the log on the disk until a snapshot
//! covers it, and what the log has lost may still be in memory.

use std::collections::VecDeque;

use crate::types::{Entry, Label, Lsn, Millis, NodeId, Position, Timestamp, ViewNumber};

use super::api::{Note, OfferTicket, Output};
use super::base::Base;
use super::lane::Said;
use super::marks::Mark;
use super::message::{Message, Record};
use super::mutation::{Mutation, mutated};
use super::replica::Replica;

/// What an entry takes in memory beside its batch, about, in bytes.
const ENTRY_LEN: usize = 256;
/// Most entries that are forgotten in one turn.
const FORGOTTEN_AT_ONCE: usize = 4096;

/// The delivered entries that are still held.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// View, lane and length of each, oldest first.
    held: VecDeque<(ViewNumber, u8, usize)>,
    len: usize,
    /// The last entry that is delivered and not held.
    forgotten: Position,
    /// The last entry of the snapshot that took the place of what came before.
    covered: Position,
    /// The last entry and the length of the snapshot that peers are going to get.
    offered: Option<(Position, usize)>,
}

impl History {
    pub(crate) fn new(forgotten: Position) -> History {
        History { held: VecDeque::new(), len: 0, forgotten, covered: forgotten, offered: None }
    }

    /// The last entry of the snapshot that this node goes on from.
    pub(crate) fn covered(&self) -> Position {
        self.covered
    }

    /// An entry was delivered.
    pub(crate) fn push(&mut self, lane: usize, entry: &Entry) {
        let len = entry.batch.bytes().len() + ENTRY_LEN;
        let lane = u8::try_from(lane).expect("a view has at most 64 lanes");
        self.held.push_back((entry.view, lane, len));
        self.len += len;
    }
}

impl Replica {
    // ---- forgetting ----

    /// Forgets what is over the limit. For peers that are heard and have not delivered it yet, more is kept.
    pub(crate) fn forget(&mut self, now: Millis) {
        let normal = self.settings.history_len;
        if self.history.len > normal {
            let wants: Vec<_> = self.wants(now).collect();
            for _ in 0..FORGOTTEN_AT_ONCE {
                let wanted = wants.iter().filter(|(from, _)| self.history.forgotten >= *from);
                if self.history.len <= wanted.map(|(_, limit)| *limit).max().unwrap_or(normal) {
                    break;
                }
                let Some((view, lane, len)) = self.history.held.pop_front() else { break };
                self.history.len -= len;
                let log = self.views.get_mut(&view).expect("a view is held as long as an entry of it is");
                self.history.forgotten = log.lanes[usize::from(lane)].forget_first();
            }
        }
        self.forget_views();
    }

    /// After which entry each peer that is heard wants what is held here, and how much is kept for that. Who needs a
    /// snapshot wants what comes after it; while that is made, sent and loaded, as much may be written as it is long.
    fn wants(&self, now: Millis) -> impl Iterator<Item = (Position, usize)> {
        let (most, forgotten) = (self.settings.pinned_history_len, self.history.forgotten);
        let heard = self.peers.iter().filter(move |(node, _)| self.peers.hears(*node, now));
        heard.filter_map(move |(_, peer)| {
            let delivered = peer.row.as_ref()?.delivered;
            if delivered >= forgotten {
                return Some((delivered, most));
            }
            let snapshots = [peer.snapshot, self.history.offered].into_iter().flatten();
            let (position, len) = snapshots.filter(|(position, _)| *position >= forgotten).min()?;
            Some((position, len.max(most)))
        })
    }

    /// Which snapshot peers are going to get: the last entry in it, and its length in bytes.
    pub fn offer_to_peers(&mut self, offered: Option<(Position, usize)>) {
        self.history.offered = offered;
    }

    /// This peer is being sent a snapshot: the last entry in it, and its length in bytes.
    pub fn note_served(&mut self, peer: NodeId, position: Position, len: usize) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.snapshot = Some((position, len));
        }
    }

    /// Forgets ended views of which nothing is held, but for some with their decisions.
    fn forget_views(&mut self) {
        let held = self.history.held.front().map_or(self.delivering, |(view, ..)| *view);
        while self.views.len() > self.settings.views_kept
            && let Some(first) = self.views.first_entry()
            && *first.key() < held
        {
            // Whoever stands in it can only go on with a snapshot.
            let next = Position { view: first.key().next(), ..Position::default() };
            self.history.forgotten = self.history.forgotten.max(next);
            first.remove();
        }
    }

    /// The last entry that this node has delivered and does not hold any more. A snapshot is of use to others only
    /// if it covers this.
    pub fn forgotten(&self) -> Position {
        self.history.forgotten
    }

    /// The last entry that this node has delivered.
    pub fn delivered(&self) -> Position {
        self.delivered
    }

    pub(crate) fn offer_snapshot(&mut self, to: NodeId, out: &mut Vec<Output>) {
        self.mark(Mark::SnapshotOffered);
        self.send(to, Message::SnapshotOffer { forgotten: self.history.forgotten }, out);
    }

    pub(crate) fn on_snapshot_offer(&mut self, from: NodeId, forgotten: Position, out: &mut Vec<Output>) {
        if self.delivered < forgotten {
            self.mark(Mark::Behind);
            out.push(Output::Behind { peer: from, until: forgotten });
        }
    }

    // ---- making one ----

    /// What a snapshot of the present state says about the order.
    pub fn base(&self) -> Base {
        let log = &self.views[&self.delivering];
        Base {
            cluster: log.view.cluster,
            index: self.index,
            position: self.delivered,
            time: self.time,
            digest: self.digest,
            view: log.view.clone(),
            lanes: log.delivered(),
            origins: if mutated(Mutation::SnapshotForgetsOrigins) {
                Default::default()
            } else {
                self.origins.clone()
            },
        }
    }

    /// With a snapshot of this base, a start needs the log from this record on: the first that holds an entry
    /// which the base does not cover, or something that this node has said in a seal since. Records that are still to
    /// come are needed anyway.
    pub fn log_from(&self, base: &Base) -> Lsn {
        let views = self.views.range(base.view.number..);
        let needed = views.filter_map(|(number, log)| {
            let none = vec![Default::default(); log.lanes.len()];
            log.first_needed(if *number == base.view.number { &base.lanes } else { &none })
        });
        needed.fold(self.last_lsn.next(), Lsn::min)
    }

    /// Remembers where in the log something was said in a view's seal.
    pub(crate) fn note_said(&mut self, record: &Record) {
        let (view, what) = match record {
            Record::Promise { view, .. } => (*view, Said::Promise),
            Record::Accept { view, .. } => (*view, Said::Accept),
            Record::Decision(decision) => (decision.view, Said::Decision),
            Record::Start { .. } | Record::Entry(_) | Record::Fill(_) | Record::Installed { .. } => return,
        };
        let lsn = self.last_lsn;
        if let Some(log) = self.views.get_mut(&view) {
            log.said[what as usize] = Some(lsn);
        }
    }

    // ---- installing one ----

    /// Why a snapshot of this base is not to be installed here, in words; `None` if it may be. What a peer has made is
    /// not always true.
    pub fn objection(&self, base: &Base) -> Option<&'static str> {
        let number = base.view.number;
        let cluster = self.log().view.cluster;
        let known = self.views.get(&number);
        if base.position <= self.delivered {
            return Some("this node has come further by itself");
        }
        if number == ViewNumber(0) || (cluster.0 != 0 && cluster != base.cluster) {
            return Some("it is of another cluster");
        }
        if self.is_leap(base.position.t) {
            return Some("its timestamps are far above the clock");
        }
        // A view that this node has not heard of is one after its own.
        if (known.is_none() && number <= self.current) || known.is_some_and(|log| log.contradicts(base)) {
            return Some("it contradicts what is known of its view");
        }
        // Nobody else has an entry of this process's lanes that is not here.
        if let Some(mine) = self.owned_lane(&base.view)
            && base.lanes[mine] > known.map_or(Timestamp::ZERO, |log| log.lanes[mine].received())
        {
            return Some("it has entries of this node that this node never made");
        }
        None
    }

    /// Puts a snapshot that is durable here in the place of what it covers. Says whether it did: `false` if there is an
    /// [objection](Replica::objection).
    pub fn install(&mut self, now: Millis, base: &Base, out: &mut Vec<Output>) -> bool {
        if self.objection(base).is_some() {
            return false;
        }
        let number = base.view.number;
        if number > self.current {
            // The decisions between are in the snapshot, as it were: all of them are delivered to their ends.
            self.mark(Mark::InstalledAhead);
            if self.offers.on_view_end(self.current, None) {
                self.mark(Mark::OfferedAgain);
            }
            self.begin_view(now, base.view.clone(), out);
        } else {
            self.mark(Mark::Installed);
        }
        self.views = self.views.split_off(&number);
        let log = self.views.get_mut(&number).expect("it was there, or was begun just now");
        let below = log.lanes.iter().zip(&base.lanes).any(|(lane, t)| lane.received() > *t);
        log.install(&base.lanes);
        if below {
            self.mark(Mark::InstalledBelow);
        }
        self.delivering = number;
        self.delivered = base.position;
        self.index = base.index;
        self.digest = base.digest;
        self.time = base.time;
        self.origins = base.origins.clone();
        self.witness(base.position.t);
        self.history = History::new(base.position);
        self.blocked = None;
        self.catch_up = None;
        self.resends.clear();
        self.row_changed = true;
        self.offers.relayed_bytes = self.relayed_bytes();
        self.persist(Record::Installed { index: base.index, position: base.position }, None, out);
        let overtaken = self.take_overtaken();
        out.extend(overtaken.into_iter().map(Output::Overtaken));
        self.offers.on_install(base.position);
        self.count_relayed();
        out.push(Output::Note(Note::Installed { index: base.index, position: base.position }));
        self.after_fill(now, out);
        true
    }

    /// Undelivered bytes of others' batches in the own lane.
    fn relayed_bytes(&self) -> usize {
        let Some(lane) = self.my_lane() else { return 0 };
        let lane = &self.log().lanes[lane];
        let relayed = lane.after(lane.delivered()).filter(|entry| entry.label.origin != self.settings.me);
        relayed.map(|entry| entry.batch.bytes().len()).sum()
    }

    /// Own batches that were applied in what a snapshot covers.
    fn take_overtaken(&mut self) -> Vec<OfferTicket> {
        let Some(label) = self.label(0) else { return Vec::new() };
        let origins = &self.origins;
        self.offers.overtaken(|seq| origins.knows(&Label { seq, ..label }))
    }
}
