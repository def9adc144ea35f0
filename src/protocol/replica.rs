//! The replica: state, dispatch, and the end of a turn.
//!
//! The other files of this module add to [`Replica`] what their names say. The rule that ties them
//! together: nothing that rests on a record leaves before the record is durable. What has to wait is in
//! `held`, in log order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::types::{
    DiskId, Entry, Index, Label, Lsn, Millis, NodeId, NodeSet, Now, Position, Timestamp, ViewNumber, limits,
    splitmix64,
};

use super::api::{HaltReason, Identity, Input, Intake, Note, Output, Report, Settings};
use super::forgetting::History;
use super::lane::{Taken, ViewLog};
use super::marks::{Mark, Marks};
use super::message::{
    Ballot, Decision, Hello, LaneRow, Message, Record, Refusal, Remembered, Status, View, Voter,
};
use super::mutation::{Mutation, mutated};
use super::offers::Offers;
use super::origins::Origins;
use super::peers::Peers;
use super::reads::Reads;
use super::recovery::Recovery;
use super::seal::Sealing;

/// What waits for a record to be durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// The vote for the entries of a lane up to this one.
    Vote { view: ViewNumber, lane: usize, t: Timestamp },
    /// A message.
    Send { to: NodeId, message: Message },
    /// This sealer's own promise: the ballot may be opened. Ballots begin anew with every view, so the view
    /// belongs to it.
    Opened { view: ViewNumber, ballot: Ballot },
    /// This sealer's own acceptance.
    Accepted { view: ViewNumber, ballot: Ballot },
}

impl Held {
    /// Whether this is the promise of this ballot to this node.
    pub(crate) fn is_promise(&self, node: NodeId, of: ViewNumber, promised: Ballot) -> bool {
        matches!(self, Held::Send { to, message: Message::SealPromise { view, ballot, .. } }
            if *to == node && *view == of && *ballot == promised)
    }
}

/// One node's part in the replication protocol.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    marks: Marks,
    /// Everything held, by view; the last one is the current view.
    pub(crate) views: BTreeMap<ViewNumber, ViewLog>,
    pub(crate) current: ViewNumber,
    pub(crate) clock: Timestamp,
    pub(crate) peers: Peers,
    pub(crate) last_lsn: Lsn,
    pub(crate) persisted: Lsn,
    pub(crate) held: VecDeque<(Lsn, Held)>,

    /// The view that is being delivered; every earlier one is delivered to its ends.
    pub(crate) delivering: ViewNumber,
    pub(crate) delivered: Position,
    pub(crate) index: Index,
    pub(crate) digest: u64,
    /// The replicated time.
    pub(crate) time: Millis,
    pub(crate) origins: Origins,
    /// A chosen entry that only these lanes' frontiers keep from delivery, and since when.
    pub(crate) blocked: Option<(Position, NodeSet, Millis)>,

    /// What is delivered and still held, oldest first.
    pub(crate) history: History,
    pub(crate) offers: Offers,
    pub(crate) reads: Reads,
    pub(crate) sealing: Sealing,
    /// Catching up: what was asked last, of whom and when.
    pub(crate) resends: BTreeMap<NodeId, super::catch_up::Asked>,
    pub(crate) catch_up: Option<super::catch_up::Asked>,

    pub(crate) leaving: bool,
    pub(crate) disk_slow: bool,
    /// Whether something in this node's row has changed since it was last sent.
    pub(crate) row_changed: bool,
    last_row_at: Option<Millis>,
    last_hears: NodeSet,
    random: u64,
    /// What the log said about the view that was current at the start: compared with what peers remember (rule E).
    recovered: (ViewNumber, Vec<Timestamp>),
    noted_missing: NodeSet,
    wall: Millis,
    /// The monotonic clock at the last input.
    mono: Millis,
}

impl Replica {
    /// Begins with what the log had. The record `Start` of this incarnation is the last one pushed to `recovery`, and
    /// it is durable.
    pub fn new(settings: Settings, identity: Identity, recovery: Recovery, now: Now) -> Replica {
        let peers = settings.members.iter().copied().filter(|node| *node != settings.me);
        let peers = Peers::new(peers, settings.suspicion);
        let random = settings.seed ^ identity.incarnation.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (current, log) = recovery.current();
        let recovered = (current, log.received());
        let clock = recovery.clock();
        let last_lsn = recovery.last_lsn();
        let mut marks = Marks::default();
        let (_, log) = recovery.current();
        if let Some(frozen) = &log.frozen {
            marks.hit(Mark::FrozenRecovered);
            if log.received() != *frozen {
                marks.hit(Mark::FrozenDiffers);
            }
        }
        if log.accepted.is_some() {
            marks.hit(Mark::AcceptedRecovered);
        }
        let (views, base) = recovery.into_parts();
        Replica {
            views,
            current,
            clock,
            peers,
            last_lsn,
            persisted: last_lsn,
            held: VecDeque::new(),
            delivering: base.position.view,
            delivered: base.position,
            index: base.index,
            digest: base.digest,
            time: base.time,
            origins: base.origins,
            blocked: None,
            history: History::new(base.position),
            offers: Offers::default(),
            reads: Reads::default(),
            sealing: Sealing::new(now.mono),
            resends: BTreeMap::new(),
            catch_up: None,
            leaving: false,
            disk_slow: false,
            row_changed: true,
            last_row_at: None,
            last_hears: NodeSet::EMPTY,
            random,
            recovered,
            noted_missing: NodeSet::EMPTY,
            marks,
            wall: now.wall,
            mono: now.mono,
            settings,
            identity,
        }
    }

    /// Takes one input.
    ///
    /// # Panics
    /// If this program is wrong about its own invariants; nothing that a peer says can bring that about.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        (self.wall, self.mono) = (now.wall, now.mono);
        let mono = now.mono;
        match input {
            Input::Offer { ticket, batch } => self.on_offer(ticket, batch),
            Input::Read(ticket) => self.reads.waiting.push(ticket),
            Input::CancelRead(ticket) => self.reads.cancel(ticket),
            Input::Receive { from, message } => self.on_message(mono, from, message, out),
            Input::Persisted(lsn) => self.on_persisted(mono, lsn, out),
            Input::Greeted(hello) => self.on_greeted(mono, &hello, out),
            Input::LinkUp(peer) => {
                if let Some(p) = self.peers.get_mut(peer) {
                    p.linked = true;
                    p.told_at = None;
                }
                self.offers.on_link(peer);
                self.row_changed = true;
            }
            Input::LinkDown(peer) => {
                if let Some(p) = self.peers.get_mut(peer) {
                    p.linked = false;
                }
                self.peers.note_lost(peer);
                self.offers.on_link(peer);
            }
            // It is not silent, if it was heard at all.
            Input::Stirring(peer) => {
                if self.peers.hears(peer, mono) {
                    self.peers.note_heard(peer, mono);
                }
                if self.peers.get(peer).is_some_and(|p| self.peers.is_alive(p, mono)) {
                    self.peers.note_spoke(peer, mono);
                }
                self.note_stirring(mono, peer);
            }
            Input::RefusedBy { peer, refusal } => self.on_refused_by(peer, refusal, out),
            Input::Leave => {
                self.leaving = true;
                self.row_changed = true;
            }
            Input::DiskSlow(slow) => {
                self.row_changed |= slow != self.disk_slow;
                self.disk_slow = slow;
            }
            Input::Tick => {}
        }
    }

    /// Ends a turn of the loop: delivers what can be delivered, acts on timers, and sends at most one
    /// Status to each peer.
    pub fn end_turn(&mut self, now: Now, out: &mut Vec<Output>) {
        (self.wall, self.mono) = (now.wall, now.mono);
        let now = now.mono;
        self.note_hearing(now, out);
        self.deliver(now, out);
        self.forget(now);
        self.run_seal(now, out);
        self.place_offers(now, out);
        self.ask_for_missing(now, out);
        self.run_reads(now, out);
        self.send_row(now, out);
        self.check_invariants();
    }

    /// When [`Input::Tick`] and the end of a turn are wanted at the latest, on the monotonic clock.
    pub fn deadline(&self) -> Option<Millis> {
        let heartbeat = self.last_row_at.map_or(Millis(0), |at| at.plus(self.settings.heartbeat));
        let silence = self.peers.next_silence().filter(|at| *at > self.last_row_at.unwrap_or_default());
        let seal = self.sealing.deadline();
        Some([silence, seal].into_iter().flatten().fold(heartbeat, Millis::min))
    }

    /// The hello for this peer.
    pub fn hello(&self, to: NodeId) -> Hello {
        let peer = self.peers.get(to);
        let row = peer.and_then(|p| Some((p.disk, p.row.as_ref().or(p.before.as_ref())?)));
        let remembered = row.map(|(disk, row)| Remembered {
            disk,
            incarnation: row.incarnation,
            view: row.view,
            accepted: row.lanes.iter().map(|lane| lane.accepted).collect(),
        });
        Hello {
            protocol: Hello::PROTOCOL,
            from: self.settings.me,
            to,
            disk: self.identity.disk,
            incarnation: self.identity.incarnation,
            boot: self.identity.boot,
            joining: self.is_joining(),
            cluster: self.log().view.cluster,
            members: self.settings.member_hash,
            view: self.current,
            remembered,
        }
    }

    /// Whether a peer's hello is acceptable.
    ///
    /// # Errors
    /// The refusal to be told to the peer.
    pub fn check_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.protocol != Hello::PROTOCOL {
            return Err(Refusal::Protocol { found: hello.protocol });
        }
        if hello.to != self.settings.me {
            return Err(Refusal::WrongNode { meant: hello.to });
        }
        let view = &self.log().view;
        let Some(voter) = view.voter(hello.from) else { return Err(Refusal::NotMember) };
        let Some(peer) = self.peers.get(hello.from) else { return Err(Refusal::NotMember) };
        if hello.cluster.0 != 0 && view.cluster.0 != 0 && hello.cluster != view.cluster {
            return Err(Refusal::OtherCluster { found: view.cluster });
        }
        // Once one of the two is founded, it knows the other by its disk.
        let unfounded = hello.cluster.0 == 0 && view.cluster.0 == 0;
        if unfounded && hello.members != self.settings.member_hash {
            return Err(Refusal::OtherMembers);
        }
        if voter.disk.0 != 0 && voter.disk != hello.disk {
            // Both speak for the same node, and each new connection of the one takes the place of the other's.
            if hello.joining && peer.disk == voter.disk && self.peers.is_alive(peer, self.mono) {
                return Err(Refusal::InUse { registered: voter.disk });
            }
            // A learner is heard, told everything, and counts for nothing; so does whoever is ahead, and may
            // have been registered there.
            let ahead = hello.view > self.current;
            return if hello.joining || ahead {
                Ok(())
            } else {
                Err(Refusal::OtherDisk { registered: voter.disk })
            };
        }
        let listed = view.senders.iter().find(|s| s.node == hello.from).map(|s| s.incarnation);
        if let Some(seen) = listed.filter(|listed| hello.incarnation < *listed) {
            return Err(Refusal::OldIncarnation { seen });
        }
        if peer.disk == hello.disk {
            if hello.incarnation < peer.incarnation {
                return Err(Refusal::OldIncarnation { seen: peer.incarnation });
            }
            if hello.incarnation == peer.incarnation && peer.boot != 0 && hello.boot != peer.boot {
                return Err(Refusal::Clone);
            }
        }
        Ok(())
    }

    /// Whether commands of clients may be offered.
    pub fn intake(&self, now: Now) -> Intake {
        if self.current == ViewNumber(0) || !self.is_voter() {
            Intake::Loading
        } else if !self.hears_majority(now.mono) {
            Intake::NoQuorum
        } else if self.offers.bytes() >= self.settings.window {
            Intake::Full
        } else {
            Intake::Open
        }
    }

    /// Where it stands.
    pub fn report(&self, now: Now) -> Report {
        let log = self.log();
        let sender = self.my_lane().is_some();
        let can_write = sender || self.forward_target(now.mono).is_some();
        Report {
            cluster: log.view.cluster,
            view: self.current,
            voters: log.view.voter_set(),
            senders: log.view.sender_set(),
            sender,
            sealed: log.frozen.is_some(),
            joining: self.is_joining(),
            hears: self.hearing(now.mono),
            delivered: self.delivered,
            index: self.index,
            digest: self.digest,
            waiting_bytes: self.offers.bytes(),
            serving: self.intake(now) == Intake::Open && self.delivering == self.current && can_write,
        }
    }

    /// How often rare situations have come up in this process.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    // ---- what the other files build on ----

    /// Counts a rare situation.
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.marks.hit(mark);
    }

    /// The current view's log.
    pub(crate) fn log(&self) -> &ViewLog {
        self.views.last_key_value().expect("the current view always has a log").1
    }

    /// The current view's log.
    pub(crate) fn log_mut(&mut self) -> &mut ViewLog {
        self.views.last_entry().expect("the current view always has a log").into_mut()
    }

    /// Whether this node's vote counts in the current view (rule C).
    pub(crate) fn is_voter(&self) -> bool {
        self.log()
            .view
            .voter(self.settings.me)
            .is_some_and(|voter| self.has_disk(voter, self.identity.disk, self.identity.joining))
    }

    /// Whether whoever speaks from this disk is the voter (rule C).
    fn has_disk(&self, voter: &Voter, disk: DiskId, joining: bool) -> bool {
        self.is_registered(voter, disk, joining) || mutated(Mutation::AnyDiskVotes)
    }

    /// Whether this disk is the one that a voter votes with.
    fn is_registered(&self, voter: &Voter, disk: DiskId, joining: bool) -> bool {
        if self.current == ViewNumber(0) { !joining } else { voter.disk == disk }
    }

    /// Whether this node's disk waits to be registered.
    fn is_joining(&self) -> bool {
        let registered = |voter: &Voter| self.is_registered(voter, self.identity.disk, true);
        self.identity.joining && !self.log().view.voter(self.settings.me).is_some_and(registered)
    }

    /// Whether whoever speaks for this node is the voter: not a learner on another disk (rule C).
    pub(crate) fn speaks_as_voter(&self, node: NodeId) -> bool {
        self.log().view.voter(node).is_some_and(|voter| self.speaks_for(voter))
    }

    /// The voters of the current view that speak for themselves.
    pub(crate) fn speaking_voters(&self) -> NodeSet {
        let voters = self.log().view.voters.iter();
        voters.filter(|voter| self.speaks_for(voter)).map(|voter| voter.node).collect()
    }

    pub(crate) fn speaks_for(&self, voter: &Voter) -> bool {
        if voter.node == self.settings.me {
            return self.has_disk(voter, self.identity.disk, self.identity.joining);
        }
        let peer = self.peers.get(voter.node);
        peer.is_some_and(|peer| self.has_disk(voter, peer.disk, peer.joining))
    }

    /// The lane that this process owns in the current view.
    pub(crate) fn my_lane(&self) -> Option<usize> {
        self.owned_lane(&self.log().view)
    }

    /// The lane that this process owns in a view: it is the incarnation that is listed (rule A), on the disk that is
    /// registered (rule C). On another disk starts are counted anew, so the incarnation alone says nothing.
    pub(crate) fn owned_lane(&self, view: &View) -> Option<usize> {
        let me = self.settings.me;
        view.voter(me).filter(|voter| voter.disk == self.identity.disk)?;
        view.senders.iter().position(|s| {
            s.node == me
                && (s.incarnation == self.identity.incarnation || mutated(Mutation::RestartedSenderContinues))
        })
    }

    /// Appends a record to the log; `held` waits for it.
    pub(crate) fn persist(&mut self, record: Record, held: Option<Held>, out: &mut Vec<Output>) {
        self.last_lsn = self.last_lsn.next();
        self.note_said(&record);
        if let Some(held) = held {
            self.held.push_back((self.last_lsn, held));
        }
        out.push(Output::Persist { lsn: self.last_lsn, record });
    }

    /// Sends to one peer, if it can be reached.
    pub(crate) fn send(&self, to: NodeId, message: Message, out: &mut Vec<Output>) {
        self.send_all(NodeSet::only(to), message, out);
    }

    /// Sends to those of these peers that can be reached.
    pub(crate) fn send_all(&self, to: NodeSet, message: Message, out: &mut Vec<Output>) {
        let to = to.intersection(self.peers.linked());
        if !to.is_empty() {
            out.push(Output::Send { to, message });
        }
    }

    /// A pseudo-random number (splitmix64).
    pub(crate) fn random(&mut self) -> u64 {
        splitmix64(&mut self.random)
    }

    /// The median of the voters' wall clocks, as last heard (protocol, section 9). Of fewer than a majority there is no
    /// median that one wrong clock could not move: then time stands still.
    pub(crate) fn median_wall(&self) -> Millis {
        let mut walls = Vec::with_capacity(self.settings.members.len());
        walls.push(self.wall);
        walls.extend(self.peers.iter().filter_map(|(_, p)| Some(p.row.as_ref()?.wall)));
        if walls.len() < self.log().view.quorum() {
            return self.time;
        }
        walls.sort_unstable();
        walls[(walls.len() - 1) / 2]
    }

    /// Raises the clock to an entry's timestamp.
    pub(crate) fn witness(&mut self, t: Timestamp) {
        self.clock = self.clock.max(t);
    }

    /// Whether something claims to be a batch of this process that this process has not made. (A wiped node's
    /// predecessor may have had the same incarnation; its batches are not this process's.)
    pub(crate) fn is_forged(&self, label: &Label) -> bool {
        // Of this incarnation on this disk: one before it may have had the same number.
        self.label(label.seq) == Some(*label) && label.seq > self.offers.last_seq()
    }

    /// Whether a timestamp is too far ahead to be true.
    pub(crate) fn is_leap(&self, t: Timestamp) -> bool {
        t.0 > self.clock.0.saturating_add(limits::CLOCK_LEAP_MAX) || t.0 > limits::CLOCK_MAX
    }

    pub(crate) fn ignore(from: NodeId, what: impl Into<String>, out: &mut Vec<Output>) {
        out.push(Output::Note(Note::Ignored { from, what: what.into() }));
    }

    // ---- inputs ----

    fn on_message(&mut self, now: Millis, from: NodeId, message: Message, out: &mut Vec<Output>) {
        if from == self.settings.me || self.peers.get(from).is_none() {
            return Self::ignore(from, "message from a node that is no peer", out);
        }
        match message {
            Message::Append(entry) => self.on_append(now, from, &entry, out),
            Message::Status(status) => self.on_status(now, from, &status, out),
            Message::Resend { view, lane, after } => self.on_resend(from, view, lane, after, out),
            Message::CatchUp { view, have } => self.on_catch_up(from, view, &have, out),
            Message::Fill { entries } => self.on_filled(now, &entries, out),
            Message::SealPrepare { view, ballot, have } => {
                self.on_prepare(now, from, view, ballot, &have, out);
            }
            Message::SealPromise { view, ballot, promise } => {
                self.on_promise(now, from, view, ballot, *promise, out);
            }
            Message::SealReject { view, ballot, promised } => {
                self.on_reject(now, view, ballot, promised);
            }
            Message::SealAccept { view, ballot, value, entries } => {
                self.on_accept(now, from, view, ballot, *value, &entries, out);
            }
            Message::SealAccepted { view, ballot } => self.on_accepted(now, from, view, ballot, out),
            Message::NewView { decisions } => self.on_new_view(now, from, decisions, out),
            Message::ViewRequest { view } => self.tell_decisions(from, view, out),
            Message::Forward { label, batch } => self.on_forward(now, from, label, batch, out),
            Message::Refused { label } => self.on_refused(now, from, label, out),
            Message::ReadProbe { nonce } => self.on_read_probe(from, nonce, out),
            Message::ReadAnswer { nonce, view, sealed, accepted } => {
                self.on_read_answer(from, nonce, view, sealed, accepted);
            }
            Message::SnapshotOffer { forgotten } => self.on_snapshot_offer(from, forgotten, out),
            // Whoever has the files has seen them before they came here.
            Message::SnapshotAsk { .. } | Message::SnapshotBlocks { .. } => {}
        }
    }

    /// Brings speaker and listener into the same view; `true` if they are in it.
    pub(crate) fn same_view(
        &mut self,
        now: Millis,
        from: NodeId,
        view: ViewNumber,
        out: &mut Vec<Output>,
    ) -> bool {
        if view == self.current {
            return true;
        }
        // At most once a heartbeat per peer, in either direction.
        let heartbeat = self.settings.heartbeat;
        let Some(peer) = self.peers.get_mut(from) else { return false };
        if peer.told_at.is_none_or(|at| now.since(at) >= heartbeat) {
            peer.told_at = Some(now);
            if view < self.current {
                self.mark(Mark::StaleMessage);
                self.tell_decisions(from, view, out);
            } else {
                self.mark(Mark::AheadMessage);
                self.send(from, Message::ViewRequest { view: self.current }, out);
            }
        }
        false
    }

    fn on_append(&mut self, now: Millis, from: NodeId, entry: &Arc<Entry>, out: &mut Vec<Output>) {
        if !self.same_view(now, from, entry.view, out) {
            return;
        }
        if self.is_forged(&entry.label) {
            return Self::ignore(from, format!("entry {entry} with a label that was never given"), out);
        }
        if self.is_leap(entry.t) {
            return Self::ignore(
                from,
                format!("timestamp {} is far above the clock {}", entry.t, self.clock),
                out,
            );
        }
        let mine = self.my_lane();
        let lsn = self.last_lsn.next();
        let log = self.log_mut();
        let Some(lane) = log.view.lane_of(entry.node) else {
            return Self::ignore(from, format!("entry {entry} of a lane that the view does not have"), out);
        };
        // A voter that has promised takes no Append (rule I); nobody else writes this incarnation's lane (rule A).
        let sealed = log.frozen.is_some() && !mutated(Mutation::SealedVoterVotes);
        if sealed || mine == Some(lane) {
            if sealed {
                self.mark(Mark::AppendSealed);
            }
            return;
        }
        let taken = log.lanes[lane].take(lsn, entry);
        if taken == Taken::Gap {
            self.mark(Mark::AppendGap);
        }
        if taken == Taken::Contradicts {
            return Self::ignore(from, format!("entry {entry}, which its lane's frontier has passed"), out);
        }
        if taken == Taken::Added {
            self.witness(entry.t);
            self.row_changed = true;
            let held = Held::Vote { view: entry.view, lane, t: entry.t };
            self.persist(Record::Entry(Arc::clone(entry)), Some(held), out);
            if mutated(Mutation::VoteBeforeSync) {
                self.log_mut().lanes[lane].accept(entry.t);
            }
        }
    }

    fn on_status(&mut self, now: Millis, from: NodeId, status: &Arc<Status>, out: &mut Vec<Output>) {
        let mine = self.my_lane();
        let votes = self.speaks_as_voter(from);
        let Some(peer) = self.peers.get_mut(from) else { return };
        // Of a process before the one that said hello last, perhaps on another disk: starts are counted anew there.
        let is_earlier = status.incarnation < peer.incarnation;
        if is_earlier || (peer.disk.0 != 0 && status.incarnation != peer.incarnation) {
            return;
        }
        peer.incarnation = status.incarnation;
        self.peers.note_spoke(from, now);
        if status.view > self.current {
            // It is alive and ahead: heard, but its lanes are of another view.
            self.peers.note_heard(from, now);
        }
        if mutated(Mutation::StaleViewVotes) && status.view < self.current {
            let log = self.log_mut();
            for (i, stated) in status.lanes.iter().enumerate().take(log.lanes.len()) {
                log.hear_vote(from, i, stated.accepted);
            }
        }
        if !self.same_view(now, from, status.view, out) {
            if let Some(peer) = self.peers.get_mut(from) {
                peer.row = Some(Arc::clone(status));
            }
            return;
        }
        let leap = status.lanes.iter().any(|lane| self.is_leap(lane.frontier));
        let mut raised = NodeSet::EMPTY;
        let (mut from_others, mut over_gap) = (false, false);
        let log = self.log_mut();
        if status.lanes.len() != log.lanes.len() || leap {
            return Self::ignore(from, format!("{status}, which does not fit the view or the clock"), out);
        }
        for (i, stated) in status.lanes.iter().enumerate() {
            if votes {
                log.hear_vote(from, i, stated.accepted);
            }
            if mine != Some(i) {
                let before = log.lanes[i].frontier();
                log.lanes[i].hear_frontier(stated.received, stated.frontier);
                let owner = log.view.senders[i].node;
                if log.lanes[i].frontier() > before {
                    raised.insert(owner);
                    from_others |= owner != from;
                }
                over_gap |= log.lanes[i].received() < stated.received;
            }
        }
        if from_others {
            self.mark(Mark::FrontierFromOthers);
        }
        if over_gap {
            self.mark(Mark::FrontierOverGap);
        }
        // Whoever does not hear the owner of a lane learns its frontier from others.
        self.row_changed = self.row_changed
            || !raised.is_empty()
                && self.peers.rows(self.current).any(|(node, row)| {
                    let others = raised.without(node);
                    node != from && others.intersection(row.hears) != others && self.peers.hears(node, now)
                });
        self.peers.note_heard(from, now);
        if let Some(peer) = self.peers.get_mut(from) {
            peer.row = Some(Arc::clone(status));
        }
        self.note_answered(from);
    }

    fn on_persisted(&mut self, now: Millis, lsn: Lsn, out: &mut Vec<Output>) {
        assert!(lsn <= self.last_lsn, "the log reports {lsn} durable, but only {} exist", self.last_lsn);
        self.persisted = self.persisted.max(lsn);
        while let Some((at, _)) = self.held.front()
            && *at <= self.persisted
        {
            let Some((_, held)) = self.held.pop_front() else { return };
            match held {
                Held::Vote { view, lane, t } => {
                    if let Some(log) = self.views.get_mut(&view) {
                        log.lanes[lane].accept(t);
                        self.row_changed |= view == self.current;
                    }
                }
                Held::Send { to, message } => self.send(to, message, out),
                Held::Opened { view, ballot } => self.on_opened(now, view, ballot, out),
                Held::Accepted { view, ballot } => {
                    self.on_accepted(now, self.settings.me, view, ballot, out);
                }
            }
        }
    }

    fn on_greeted(&mut self, now: Millis, hello: &Hello, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(hello.from) else { return };
        if hello.incarnation > peer.incarnation || hello.disk != peer.disk {
            // Somebody new: what its predecessor said is history, and its predecessor is not heard any more.
            peer.incarnation = hello.incarnation;
            let before = peer.row.take().or(peer.before.take());
            peer.before = before.filter(|_| hello.disk == peer.disk);
            self.peers.note_lost(hello.from);
            self.offers.on_link(hello.from);
        }
        if let Some(peer) = self.peers.get_mut(hello.from) {
            if hello.disk != peer.disk {
                self.sealing.note_other_disk(hello.from);
            }
            peer.boot = hello.boot;
            peer.disk = hello.disk;
            peer.joining = hello.joining;
        }
        self.peers.note_spoke(hello.from, now);
        if let Some(seen) = &hello.remembered {
            self.check_remembered(hello.from, seen, out);
        }
        self.same_view(now, hello.from, hello.view, out);
        self.row_changed = true;
    }

    /// Rule E: a log that ends before what peers remember of it has lost votes.
    fn check_remembered(&mut self, peer: NodeId, seen: &Remembered, out: &mut Vec<Output>) {
        if seen.incarnation >= self.identity.incarnation || seen.disk != self.identity.disk {
            return;
        }
        let (view, received) = &self.recovered;
        let voted = seen.accepted.iter().any(|t| *t > Timestamp::ZERO);
        let lost = match seen.view.cmp(view) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                seen.accepted.len() == received.len()
                    && seen.accepted.iter().zip(received).any(|(seen, found)| seen > found)
            }
            std::cmp::Ordering::Greater => voted,
        };
        if lost && !mutated(Mutation::LostVotesIgnored) {
            self.marks.hit(Mark::LostVotesFound);
            out.push(Output::Halt(HaltReason::LostVotes {
                peer,
                remembered: format!("{} {}", seen.view, super::message::Lanes(&seen.accepted)),
                found: format!("{} {}", view, super::message::Lanes(received)),
            }));
        }
    }

    fn on_refused_by(&mut self, peer: NodeId, refusal: Refusal, out: &mut Vec<Output>) {
        self.mark(Mark::HelloRefused);
        match refusal {
            Refusal::OtherDisk { .. } | Refusal::OldIncarnation { .. } | Refusal::Clone => {
                out.push(Output::Halt(HaltReason::Identity { peer, refusal }));
            }
            // One stray peer must not stop a node of a healthy cluster: it stops if it is the stray, which the
            // event loop sees from how many refuse it.
            _ => out.push(Output::Note(Note::Ignored { from: peer, what: format!("refused: {refusal}") })),
        }
    }

    // ---- the end of a turn ----

    fn note_hearing(&mut self, now: Millis, out: &mut Vec<Output>) {
        let hears = self.hearing(now);
        if hears == self.last_hears {
            return;
        }
        self.row_changed = true;
        for (node, _) in self.peers.iter() {
            match (self.last_hears.contains(node), hears.contains(node)) {
                (true, false) => out.push(Output::Note(Note::Lost(node))),
                (false, true) => out.push(Output::Note(Note::Heard(node))),
                _ => {}
            }
        }
        self.last_hears = hears;
    }

    /// Names who is missing to found the cluster, each time that changes.
    pub(crate) fn note_missing(&mut self, missing: NodeSet, out: &mut Vec<Output>) {
        if missing != self.noted_missing && !missing.is_empty() {
            out.push(Output::Note(Note::Waiting(missing)));
        }
        self.noted_missing = missing;
    }

    fn send_row(&mut self, now: Millis, out: &mut Vec<Output>) {
        let due = self.last_row_at.is_none_or(|at| now.since(at) >= self.settings.heartbeat);
        if !(self.row_changed || due) {
            return;
        }
        self.row_changed = false;
        self.last_row_at = Some(now);
        let status = Arc::new(self.row(now));
        let all = self.peers.iter().map(|(node, _)| node).collect();
        self.send_all(all, Message::Status(status), out);
    }

    /// This node's row of the shared table.
    fn row(&self, now: Millis) -> Status {
        let log = self.log();
        let mine = self.my_lane();
        let is_voter = self.is_voter();
        let lane_row = |(i, lane): (usize, &super::lane::Lane)| LaneRow {
            received: lane.received(),
            // "All my entries up to my clock are those up to my tail": only the owner may say so (rule A).
            frontier: if mine == Some(i) && mutated(Mutation::FrontierAhead) {
                Timestamp(self.clock.0 + 5)
            } else if mine == Some(i) {
                self.clock.max(lane.frontier())
            } else {
                lane.frontier()
            },
            accepted: if is_voter { lane.accepted() } else { Timestamp::ZERO },
        };
        Status {
            view: self.current,
            incarnation: self.identity.incarnation,
            clock: self.clock,
            lanes: log.lanes.iter().enumerate().map(lane_row).collect(),
            sealed: log.frozen.is_some(),
            hears: self.hearing(now),
            delivered: self.delivered,
            index: self.index,
            digest: self.digest,
            wall: self.wall,
            leaving: self.leaving || self.disk_slow,
            waiting: u32::try_from(self.offers.len()).unwrap_or(u32::MAX),
        }
    }

    /// Every entry of a decided view up to its ends may be delivered, nothing above; the delivered place
    /// never goes back. Cheap enough for every turn.
    fn check_invariants(&self) {
        assert!(self.delivering <= self.current, "delivering {} ahead of {}", self.delivering, self.current);
        let log = self.log();
        assert_eq!(log.view.number, self.current, "the current view is the last one that has a log");
        assert!(log.decided.is_none(), "One decision: the current view {} is decided", self.current);
        if let Some(frozen) = &log.frozen
            && !mutated(Mutation::FillIsVote)
            && !mutated(Mutation::SealedVoterVotes)
            && !mutated(Mutation::SealedSenderAppends)
        {
            for (lane, frozen) in log.lanes.iter().zip(frozen) {
                assert!(
                    lane.accepted() <= *frozen,
                    "a vote {} above the frozen {frozen} in {}",
                    lane.accepted(),
                    self.current
                );
            }
        }
    }

    /// Goes to the next view, which a decision names.
    pub(crate) fn enter_view(&mut self, now: Millis, decision: Decision, out: &mut Vec<Output>) {
        assert_eq!(decision.view, self.current, "decisions are learnt in order");
        let next: View = decision.value.next.clone();
        self.persist(Record::Decision(decision.clone()), None, out);
        let ends = decision.value.ends.clone();
        let cut = self.log_mut().decide(decision.value);
        let mine = self.my_lane().map(|lane| ends[lane]);
        if self.offers.on_view_end(self.current, mine) {
            self.mark(Mark::OfferedAgain);
        }
        if cut {
            self.mark(Mark::EntriesCut);
        }
        self.begin_view(now, next, out);
    }

    /// Stands in a view from now on. Everything that was about the one before starts anew.
    pub(crate) fn begin_view(&mut self, now: Millis, next: View, out: &mut Vec<Output>) {
        self.current = next.number;
        self.views.insert(next.number, ViewLog::new(next.clone()));
        self.peers.enter_view(now, next.number, next.senders.len());
        self.sealing.enter_view(now);
        if self.reads.is_under_way() {
            self.mark(Mark::ReadRestarted);
        }
        self.reads.restart();
        self.resends.clear();
        self.blocked = None;
        self.row_changed = true;
        out.push(Output::Note(Note::Entered(Box::new(next))));
    }
}
