//! Sealing a view: one Paxos decision on where its lanes end and what the next view is.
//!
//! A ballot is opened with SealPrepare, carried by a majority of promises, and decided when a majority of
//! the view's voters and a majority of the next view's voters have accepted its value. Every answer leaves
//! after its record is durable. A value that may have been decided in an earlier ballot is reported by
//! somebody in every majority, and is then taken over unchanged (Lamport 1998, "The Part-Time Parliament").
//! Section 4 of `docs/protocol.md` has the rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{ClusterId, DiskId, Entry, Millis, NodeId, NodeSet, Position, Timestamp, ViewNumber};

use super::api::{Note, Output};
use super::lane::Fill;
use super::marks::Mark;
use super::message::{Ballot, Decision, LaneVector, Message, Promise, Record, Sender, Value, View, Voter};
use super::mutation::{Mutation, mutated};
use super::replica::{Held, Replica};

/// How far this node's own ballot is.
#[derive(Clone, Debug)]
enum Phase {
    /// The own promise is not durable yet, or promises are being collected.
    Preparing,
    /// The value is known, but not every entry up to its ends is here (rule J).
    Collecting { value: Value, since: Millis, asked_at: Option<Millis>, asked: Option<NodeId> },
    /// The value is out.
    Accepting {
        value: Value,
        accepted: NodeSet,
        /// Entries went along already; what is missing all the same is asked for.
        sent: bool,
    },
}

/// A ballot of this node's own.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    ballot: Ballot,
    begun_at: Millis,
    /// The own promise is durable.
    is_open: bool,
    sent_at: Millis,
    grace_until: Option<Millis>,
    promises: BTreeMap<NodeId, Promise>,
    phase: Phase,
    /// Senders that shall not be senders again.
    drop: NodeSet,
    /// Passive nodes that shall become senders.
    promote: NodeSet,
    /// A node whose disk shall be registered, and that disk.
    replace: Option<(NodeId, DiskId)>,
}

/// Everything about sealing that is not part of the view's log.
#[derive(Clone, Debug)]
pub(crate) struct Sealing {
    pub(crate) attempt: Option<Attempt>,
    highest_round: u64,
    /// The highest ballot that outbid one of this node's.
    pub(crate) outbid_by: Option<Ballot>,
    /// Whose ballots outbid this node's in this view.
    outbid_by_nodes: NodeSet,
    /// One of them has done it again.
    pub(crate) is_duel: bool,
    /// A value that waits for entries before it can be accepted.
    pending: Option<(Ballot, Value)>,
    pending_asked_at: Option<Millis>,
    pub(crate) watch: super::suspicion::Watch,
}

impl Sealing {
    pub(crate) fn new(now: Millis) -> Sealing {
        Sealing {
            attempt: None,
            highest_round: 0,
            outbid_by: None,
            outbid_by_nodes: NodeSet::EMPTY,
            is_duel: false,
            pending: None,
            pending_asked_at: None,
            watch: super::suspicion::Watch::new(now),
        }
    }

    pub(crate) fn enter_view(&mut self, now: Millis) {
        *self = Sealing::new(now);
    }

    /// A node speaks from another disk: what the one before has accepted is not on this one.
    pub(crate) fn note_other_disk(&mut self, node: NodeId) {
        if let Some(Attempt { phase: Phase::Accepting { accepted, .. }, .. }) = &mut self.attempt {
            accepted.remove(node);
        }
    }

    /// A long message from this node is arriving: it may be the answer, so it is not asked again yet.
    pub(crate) fn note_stirring(&mut self, now: Millis, from: NodeId) {
        if self.pending.as_ref().is_some_and(|(ballot, _)| ballot.node == from) {
            self.pending_asked_at = Some(now);
        }
        if let Some(Attempt { phase: Phase::Collecting { since, asked_at, asked, .. }, .. }) =
            &mut self.attempt
            && *asked == Some(from)
        {
            (*since, *asked_at) = (now, Some(now));
        }
    }

    /// When something here is due.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        let grace = self.attempt.as_ref().and_then(|a| a.grace_until);
        [grace, self.watch.act_at].into_iter().flatten().min()
    }
}

impl Replica {
    /// Goes on with the own ballot, or begins one if there is a reason and it is this node's turn.
    pub(crate) fn run_seal(&mut self, now: Millis, out: &mut Vec<Output>) {
        if !self.is_voter() {
            return;
        }
        if self.sealing.attempt.is_some() {
            self.sealing.watch.act_at = None;
            return self.drive(now, out);
        }
        if let Some(reason) = self.due_reason(now, out) {
            out.push(Output::Note(Note::Sealing { view: self.current, reason: reason.text }));
            let round = self.log().promised.map_or(0, |b| b.round).max(self.sealing.highest_round) + 1;
            let ballot = Ballot { round, node: self.settings.me, incarnation: self.identity.incarnation };
            self.sealing.attempt = Some(Attempt {
                ballot,
                begun_at: now,
                is_open: false,
                sent_at: now,
                grace_until: None,
                promises: BTreeMap::new(),
                phase: Phase::Preparing,
                drop: reason.drop,
                promote: reason.promote,
                replace: reason.replace,
            });
            // Its own ballot is promised durably before anybody hears of it.
            self.promise(ballot, Some(Held::Opened { view: self.current, ballot }), out);
        }
    }

    /// Raises the promise; the first one freezes the votes (rules H and I).
    fn promise(&mut self, ballot: Ballot, held: Option<Held>, out: &mut Vec<Output>) {
        let view = self.current;
        let log = self.log_mut();
        assert!(
            log.promised.is_none_or(|p| p < ballot) || mutated(Mutation::PromiseLowerBallot),
            "promises only rise: {ballot} in {view}"
        );
        log.promised = Some(ballot);
        let frozen = log.freeze();
        self.row_changed = true;
        self.persist(Record::Promise { view, ballot, frozen }, held, out);
    }

    fn own_promise(&self, now: Millis, have: &LaneVector) -> Promise {
        let log = self.log();
        let mut fill = Fill::new(self.settings.fill_len);
        log.fill(have, &mut fill);
        Promise {
            last: log.frozen.clone().expect("frozen by the promise that this reports"),
            accepted: log.accepted.clone(),
            disk: self.identity.disk,
            incarnation: self.identity.incarnation,
            hears: self.hearing(now),
            entries: fill.entries,
        }
    }

    pub(crate) fn on_opened(&mut self, now: Millis, view: ViewNumber, ballot: Ballot, out: &mut Vec<Output>) {
        if view != self.current && !mutated(Mutation::OldPromiseOpens) {
            return;
        }
        let promise = self.log().frozen.is_some().then(|| self.own_promise(now, &self.log().received()));
        let me = self.settings.me;
        let Some(attempt) = self.sealing.attempt.as_mut().filter(|a| a.ballot == ballot) else { return };
        attempt.is_open = true;
        attempt.promises.extend(promise.map(|p| (me, p)));
        self.send_prepare(now, out);
        self.check_promises(now, out);
    }

    fn send_prepare(&mut self, now: Millis, out: &mut Vec<Output>) {
        let view = self.current;
        let have = self.log().received();
        let voters = self.log().view.voter_set();
        let Some(attempt) = &mut self.sealing.attempt else { return };
        attempt.sent_at = now;
        let answered: NodeSet = attempt.promises.keys().copied().collect();
        let ballot = attempt.ballot;
        for node in voters.iter().filter(|node| !answered.contains(*node)) {
            self.send(node, Message::SealPrepare { view, ballot, have: have.clone() }, out);
        }
    }

    fn drive(&mut self, now: Millis, out: &mut Vec<Output>) {
        let Some(attempt) = &self.sealing.attempt else { return };
        let due = now.since(attempt.sent_at) >= self.settings.heartbeat;
        match &attempt.phase {
            Phase::Preparing if attempt.is_open => {
                if due {
                    self.send_prepare(now, out);
                }
                self.check_promises(now, out);
            }
            Phase::Preparing => {}
            Phase::Collecting { .. } => self.collect(now, out),
            Phase::Accepting { .. } if due => self.send_accept(now, out),
            Phase::Accepting { .. } => {}
        }
    }

    // ---- the voter's part ----

    pub(crate) fn on_prepare(
        &mut self,
        now: Millis,
        from: NodeId,
        view: ViewNumber,
        ballot: Ballot,
        have: &LaneVector,
        out: &mut Vec<Output>,
    ) {
        if !self.same_view(now, from, view, out) || !self.is_voter() || ballot.node != from {
            return;
        }
        let log = self.log();
        if have.len() != log.lanes.len() || log.view.voter(from).is_none() || ballot.round > Ballot::ROUND_MAX
        {
            return;
        }
        self.note_ballot(now, ballot);
        let log = self.log();
        // Asked again: the answer may be lost. What was said then still holds unless a value was accepted since.
        let again = log.promised == Some(ballot) && log.accepted.as_ref().is_none_or(|(b, _)| *b < ballot);
        if let Some(promised) = log.promised
            && promised >= ballot
            && !again
            && !mutated(Mutation::PromiseLowerBallot)
        {
            self.mark(Mark::BallotRejected);
            return self.send(from, Message::SealReject { view, ballot, promised }, out);
        }
        if again {
            self.mark(Mark::PromiseRepeated);
        }
        if !again {
            self.promise(ballot, None, out);
        } else if self.held.iter().any(|(_, held)| held.is_promise(from, view, ballot)) {
            // The first answer still waits for the disk.
            self.mark(Mark::PromiseHeld);
            return;
        }
        let mut promise = Box::new(self.own_promise(now, have));
        if again {
            // The entries went with the first answer; what is missing all the same, the sealer asks for.
            promise.entries.clear();
        }
        let message = Message::SealPromise { view, ballot, promise };
        self.send_when_durable(from, message, out);
    }

    /// Sends as soon as every record so far is durable.
    fn send_when_durable(&mut self, to: NodeId, message: Message, out: &mut Vec<Output>) {
        let early = match message {
            Message::SealPromise { .. } => mutated(Mutation::PromiseBeforeSync),
            _ => false,
        };
        if self.persisted >= self.last_lsn || early {
            self.send(to, message, out);
        } else {
            self.held.push_back((self.last_lsn, Held::Send { to, message }));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the message's fields")]
    pub(crate) fn on_accept(
        &mut self,
        now: Millis,
        from: NodeId,
        view: ViewNumber,
        ballot: Ballot,
        value: Value,
        entries: &[Arc<Entry>],
        out: &mut Vec<Output>,
    ) {
        let sound = ballot.node == from && ballot.round <= Ballot::ROUND_MAX;
        if !self.same_view(now, from, view, out) || !sound {
            return;
        }
        if !self.log().allows(&value) || !self.log().is_beyond_delivered(&value) {
            return;
        }
        let me = self.settings.me;
        let next = value.next.voter(me).is_some_and(|v| v.disk == self.identity.disk);
        if !self.is_voter() && !next {
            return;
        }
        self.note_ballot(now, ballot);
        let log = self.log();
        if let Some(promised) = log.promised.filter(|p| *p > ballot)
            && !mutated(Mutation::AcceptWithoutPromise)
        {
            self.mark(Mark::BallotRejected);
            return self.send(from, Message::SealReject { view, ballot, promised }, out);
        }
        if log.accepted.as_ref().is_some_and(|(b, _)| *b == ballot) {
            return self.send_when_durable(from, Message::SealAccepted { view, ballot }, out);
        }
        // Accepting is promising (rule K): also for one who was not asked to promise, and before anything is filled in.
        if log.promised != Some(ballot) && !mutated(Mutation::AcceptWithoutPromise) {
            self.mark(Mark::AcceptWithoutPrepare);
            self.promise(ballot, None, out);
        }
        if self.on_fill(entries, out) {
            self.mark(Mark::AcceptFilled);
        }
        self.sealing.pending = Some((ballot, value));
        self.try_accept(now, out);
    }

    /// Accepts the pending value once every entry up to its ends is here; asks for entries otherwise.
    fn try_accept(&mut self, now: Millis, out: &mut Vec<Output>) {
        let Some((ballot, value)) = self.sealing.pending.take() else { return };
        let log = self.log();
        if log.promised != Some(ballot) && !mutated(Mutation::AcceptWithoutPromise) {
            return;
        }
        if self.is_complete(&value) {
            return self.accept(ballot, value, out);
        }
        let have = log.received();
        self.mark(Mark::AcceptWaits);
        if self.sealing.pending_asked_at.is_none_or(|at| now.since(at) >= self.settings.heartbeat) {
            self.sealing.pending_asked_at = Some(now);
            let message = Message::CatchUp { view: self.current, have };
            self.send(ballot.node, message, out);
        }
        self.sealing.pending = Some((ballot, value));
    }

    /// Whether this node has all that it must have before it accepts a value.
    fn is_complete(&self, value: &Value) -> bool {
        let log = self.log();
        let voters = |view: &View| view.voters.iter().map(|v| (v.node, v.disk)).collect::<Vec<_>>();
        // Where the voters change, that is every entry of all earlier views too (rule L).
        log.holds(&value.ends)
            && (self.delivering == self.current
                || voters(&value.next) == voters(&log.view)
                || mutated(Mutation::VotersChangeEarly))
    }

    fn accept(&mut self, ballot: Ballot, value: Value, out: &mut Vec<Output>) {
        let view = self.current;
        let log = self.log_mut();
        assert!(
            (log.promised == Some(ballot) || mutated(Mutation::AcceptWithoutPromise))
                && log.holds(&value.ends),
            "a value is accepted in the promised ballot only, and with every entry at hand: {ballot} in {view}"
        );
        let frozen = log.freeze();
        let replaced = log.accepted.is_some();
        log.accepted = Some((ballot, value.clone()));
        if replaced {
            self.mark(Mark::ValueReplaced);
        }
        let held = if ballot.node == self.settings.me {
            Held::Accepted { view, ballot }
        } else {
            let message = Message::SealAccepted { view, ballot };
            if mutated(Mutation::AcceptBeforeSync) {
                self.send(ballot.node, message.clone(), out);
            }
            Held::Send { to: ballot.node, message }
        };
        let record = Record::Accept { view, ballot, frozen, value: Box::new(value) };
        self.persist(record, Some(held), out);
    }

    /// New entries may complete what the seal waits for.
    pub(crate) fn after_fill(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.sealing.pending.is_some() {
            self.sealing.pending_asked_at = None;
            self.try_accept(now, out);
        }
        if let Some(Attempt { phase: Phase::Collecting { asked_at, .. }, .. }) = &mut self.sealing.attempt {
            *asked_at = None;
            self.collect(now, out);
        }
    }

    /// Somebody seals: the step-in delay of the others begins.
    fn note_ballot(&mut self, now: Millis, ballot: Ballot) {
        if self.log().promised.is_none_or(|p| p < ballot) {
            self.sealing.watch.seal_seen_at = Some(now);
        }
        if ballot.node != self.settings.me && self.sealing.attempt.as_ref().is_some_and(|a| a.ballot < ballot)
        {
            self.sealing.attempt = None;
            self.mark(Mark::BallotOutbid);
        }
        self.sealing.highest_round = self.sealing.highest_round.max(ballot.round);
    }

    // ---- the sealer's part ----

    pub(crate) fn on_promise(
        &mut self,
        now: Millis,
        from: NodeId,
        view: ViewNumber,
        ballot: Ballot,
        mut promise: Promise,
        out: &mut Vec<Output>,
    ) {
        let log = self.log();
        let fits = view == self.current
            && promise.last.len() == log.lanes.len()
            && log.view.voter(from).is_some_and(|v| view == ViewNumber(0) || v.disk == promise.disk)
            && promise.accepted.as_ref().is_none_or(|(_, value)| log.allows(value));
        let mine = self.sealing.attempt.as_ref().is_some_and(|a| a.ballot == ballot);
        if !fits || !mine {
            return;
        }
        let entries = std::mem::take(&mut promise.entries);
        self.on_fill(&entries, out);
        if let Some(attempt) = &mut self.sealing.attempt {
            attempt.promises.insert(from, promise);
        }
        self.check_promises(now, out);
    }

    pub(crate) fn on_reject(&mut self, now: Millis, view: ViewNumber, ballot: Ballot, promised: Ballot) {
        let is_mine = ballot.node == self.settings.me && ballot.incarnation == self.identity.incarnation;
        if view != self.current || !is_mine {
            return;
        }
        // The first answer ends the attempt; what the others have promised counts all the same, or the next one would
        // be outbid as well.
        self.sealing.highest_round = self.sealing.highest_round.max(promised.round.min(Ballot::ROUND_MAX));
        // Two voters may tell of one ballot. A higher one of the same node was begun since, as far as can be told from
        // here.
        if self.sealing.outbid_by < Some(promised) {
            self.sealing.outbid_by = Some(promised);
            self.sealing.is_duel |= self.sealing.outbid_by_nodes.contains(promised.node);
            self.sealing.outbid_by_nodes.insert(promised.node);
        }
        if self.sealing.attempt.as_ref().is_some_and(|a| a.ballot == ballot) {
            self.mark(Mark::BallotOutbid);
            self.sealing.attempt = None;
            self.sealing.watch.seal_seen_at = Some(now);
        }
    }

    fn check_promises(&mut self, now: Millis, out: &mut Vec<Output>) {
        let me = self.settings.me;
        let view = &self.log().view;
        let quorum = view.quorum();
        let voters = view.voter_set();
        let hearing = self.who_hears(now);
        let heard: NodeSet = hearing.speaking.iter().filter(|v| hearing.links(me, *v)).collect();
        let suspicion = self.settings.suspicion;
        let current = self.current;
        let Some(attempt) = &mut self.sealing.attempt else { return };
        let (Phase::Preparing, true) = (&attempt.phase, attempt.is_open) else { return };
        let promised: NodeSet = attempt.promises.keys().copied().collect();
        // A value of its own for view 0 needs every member (rule N). One that was accepted is the only one
        // that can have been, so a majority is enough to go on with it.
        let reported = attempt.promises.values().any(|p| p.accepted.is_some());
        let everybody = current == ViewNumber(0) && !reported && !mutated(Mutation::MajorityFounds);
        if promised.len() < if everybody { voters.len() } else { quorum } {
            return;
        }
        // Too short a grace would drop healthy senders that were only slower with their disk; this node's own is the
        // measure.
        let grace = Millis((now.since(attempt.begun_at).0 * 2).clamp(5, suspicion.0));
        let grace_until = *attempt.grace_until.get_or_insert(now.plus(grace));
        if now < grace_until && !heard.iter().all(|node| promised.contains(node)) {
            return;
        }
        attempt.grace_until = None;
        if !heard.iter().all(|node| promised.contains(node)) {
            self.mark(Mark::GraceEnded);
        }
        if current == ViewNumber(0) {
            self.mark(if promised == voters { Mark::Founded } else { Mark::FoundedByMajority });
        }
        let value = self.choose_value();
        if let Some(attempt) = &mut self.sealing.attempt {
            attempt.phase = Phase::Collecting { value, since: now, asked_at: None, asked: None };
        }
        self.collect(now, out);
    }

    /// The value of the highest ballot reported, unchanged; or one of our own.
    fn choose_value(&mut self) -> Value {
        let random = self.random().max(1);
        let attempt = self.sealing.attempt.as_ref().expect("only a sealer chooses");
        let reported = attempt.promises.values().filter_map(|p| p.accepted.as_ref());
        if let Some((_, value)) = reported.max_by_key(|(ballot, _)| *ballot)
            && !mutated(Mutation::IgnoreAcceptedValue)
        {
            let value = value.clone();
            self.mark(Mark::ValueAdopted);
            return value;
        }
        let view = &self.log().view;
        let ends = (0..view.senders.len())
            .map(|lane| {
                let last = attempt.promises.values().map(|p| p.last[lane]);
                let end = if mutated(Mutation::ShortestEnds) { last.min() } else { last.max() };
                end.unwrap_or(Timestamp::ZERO)
            })
            .collect();
        let senders = self.choose_senders(attempt);
        let number = view.number.next();
        let next = View {
            number,
            cluster: if view.cluster.0 == 0 { ClusterId(random) } else { view.cluster },
            format: View::FORMAT,
            genesis: view.genesis,
            voters: view.voters.iter().map(|v| self.next_voter(v, attempt, &senders)).collect(),
            senders,
        };
        Value { ends, next }
    }

    /// The senders of the next view (protocol, section 5). Never empty.
    fn choose_senders(&self, attempt: &Attempt) -> Vec<Sender> {
        let view = &self.log().view;
        let promises = &attempt.promises;
        let listed = |node: NodeId, promise: &Promise| {
            view.senders.contains(&Sender { node, incarnation: promise.incarnation })
        };
        let stays = |node: NodeId| !attempt.drop.contains(node) && !self.is_leaving(node);
        let linked = |a: NodeId, b: NodeId| promises[&a].hears.contains(b) && promises[&b].hears.contains(a);
        // A sender that too many do not hear would be a reason to seal the next view at once.
        let spare = view.voters.len() - view.quorum();
        let is_heard = |node: NodeId| promises.keys().filter(|x| !linked(**x, node)).count() <= spare;
        let owners = promises.iter().filter(|(node, p)| {
            stays(**node) && is_heard(**node) && (listed(**node, p) || attempt.promote.contains(**node))
        });
        let mut chosen: NodeSet = owners.map(|(node, _)| *node).collect();
        if chosen.is_empty() {
            chosen = promises.keys().copied().filter(|node| stays(*node)).collect();
        }
        if chosen.is_empty() {
            chosen = promises.keys().copied().collect();
        }
        // Never two of which one does not hear the other: the one with fewer links stays out.
        let links = |a: NodeId, among: NodeSet| among.iter().filter(|b| *b != a && linked(a, *b)).count();
        loop {
            let broken =
                chosen.iter().find_map(|a| chosen.iter().find(|b| a < *b && !linked(a, *b)).map(|b| (a, b)));
            let Some((a, b)) = broken else { break };
            let all: NodeSet = promises.keys().copied().collect();
            chosen.remove(if links(a, all) < links(b, all) { a } else { b });
        }
        chosen.iter().map(|node| Sender { node, incarnation: promises[&node].incarnation }).collect()
    }

    /// A voter of the next view: the same, with its probation brought up to date (rule O).
    fn next_voter(&self, voter: &Voter, attempt: &Attempt, senders: &[Sender]) -> Voter {
        let view = &self.log().view;
        let mut next = *voter;
        if view.number == ViewNumber(0) {
            next.disk = attempt.promises.get(&voter.node).map(|p| p.disk).unwrap_or_default();
            next.registered = view.number.next();
        }
        let now = self.median_wall();
        if let Some((_, disk)) = attempt.replace.filter(|(node, _)| *node == voter.node) {
            // A new member, whatever its predecessor did.
            return Voter { disk, registered: view.number.next(), drops: 0, drops_at: now, ..*voter };
        }
        let drops = voter.drops_left(now);
        let was_sender = view.lane_of(voter.node).is_some();
        let is_sender = senders.iter().any(|s| s.node == voter.node);
        let dropped = was_sender && !is_sender && !self.is_leaving(voter.node);
        if mutated(Mutation::DropsForgotten) {
            next.drops = 0;
        } else if dropped || drops != voter.drops {
            next.drops = if dropped { drops.saturating_add(1).min(Voter::DROPS_MAX) } else { drops };
            next.drops_at = now;
        }
        next
    }

    /// Gets what is missing up to the value's ends; then proposes it.
    fn collect(&mut self, now: Millis, out: &mut Vec<Output>) {
        let heartbeat = self.settings.heartbeat;
        let suspicion = self.settings.suspicion;
        let view = self.current;
        let have = self.log().received();
        let Some(Attempt { phase: Phase::Collecting { value, .. }, .. }) = &self.sealing.attempt else {
            return;
        };
        let complete = self.is_complete(value);
        let Some(attempt) = &mut self.sealing.attempt else { return };
        let ballot = attempt.ballot;
        let Phase::Collecting { value, since, asked_at, asked } = &mut attempt.phase else { return };
        if complete {
            let value = value.clone();
            attempt.phase = Phase::Accepting { value: value.clone(), accepted: NodeSet::EMPTY, sent: false };
            if self.log().promised == Some(ballot) {
                self.accept(ballot, value, out);
                self.send_accept(now, out);
            } else {
                self.sealing.attempt = None;
            }
            return;
        }
        if now.since(*since) > suspicion.times(2) && !mutated(Mutation::WaitForHolder) {
            // Who held it is gone, perhaps for ever; a higher ballot finds what a majority has (rule J).
            self.mark(Mark::SealerGivesUp);
            self.sealing.attempt = None;
            self.sealing.watch.seal_seen_at = Some(now);
            return;
        }
        if asked_at.is_some_and(|at| now.since(at) < heartbeat.times(2)) {
            return;
        }
        // Everybody who promised, in turn: one who reported an accepted value holds all of it.
        let promised: NodeSet = attempt.promises.keys().copied().filter(|n| *n != ballot.node).collect();
        // Who has just given something is likely to have more.
        let same = asked.filter(|_| asked_at.is_none());
        let next =
            same.or_else(|| promised.iter().find(|n| Some(*n) > *asked)).or_else(|| promised.iter().next());
        (*asked, *asked_at) = (next, Some(now));
        if let Some(node) = next {
            self.mark(Mark::SealerCollects);
            self.send(node, Message::CatchUp { view, have }, out);
        }
    }

    fn send_accept(&mut self, now: Millis, out: &mut Vec<Output>) {
        let me = self.settings.me;
        let view = self.current;
        let Some(attempt) = &mut self.sealing.attempt else { return };
        let Phase::Accepting { value, accepted, sent } = &mut attempt.phase else { return };
        let first = !std::mem::replace(sent, true);
        attempt.sent_at = now;
        let (ballot, value, accepted) = (attempt.ballot, value.clone(), *accepted);
        let last: BTreeMap<NodeId, LaneVector> =
            attempt.promises.iter().map(|(node, p)| (*node, p.last.clone())).collect();
        let log = self.log();
        let everybody = log.view.voter_set().union(value.next.voter_set()).without(me);
        for node in everybody.iter().filter(|node| !accepted.contains(*node)) {
            // What it said it has; one that lacks more asks for it.
            let row = || Some(self.peers.row(node, view)?.lanes.iter().map(|l| l.received).collect());
            let mut fill = Fill::new(self.settings.fill_len);
            if first
                && let Some(have) = last.get(&node).cloned().or_else(row)
                && have.iter().zip(&value.ends).any(|(have, end)| have < end)
            {
                log.fill(&have, &mut fill);
                fill.entries.retain(|e| log.view.lane_of(e.node).is_some_and(|lane| e.t <= value.ends[lane]));
            }
            let message =
                Message::SealAccept { view, ballot, value: Box::new(value.clone()), entries: fill.entries };
            self.send(node, message, out);
        }
    }

    pub(crate) fn on_accepted(
        &mut self,
        now: Millis,
        from: NodeId,
        view: ViewNumber,
        ballot: Ballot,
        out: &mut Vec<Output>,
    ) {
        let current = self.current;
        let log_view = &self.log().view;
        let quorum = log_view.quorum();
        let voters = self.speaking_voters();
        let (me, my_disk, peers) = (self.settings.me, self.identity.disk, &self.peers);
        let Some(attempt) = self.sealing.attempt.as_mut().filter(|a| a.ballot == ballot) else { return };
        let Phase::Accepting { value, accepted, .. } = &mut attempt.phase else { return };
        if view != current {
            return;
        }
        accepted.insert(from);
        let is_next = |v: &&Voter| {
            let disk = if v.node == me { Some(my_disk) } else { peers.get(v.node).map(|p| p.disk) };
            accepted.contains(v.node) && disk == Some(v.disk)
        };
        // Of the next view's voters, only those on the disk that it registers (rule C).
        let next = value.next.voters.iter().filter(is_next).count();
        let decided = accepted.intersection(voters).len() >= quorum && next >= value.next.quorum();
        if decided || mutated(Mutation::DecideAlone) {
            let decision = Decision { view, value: value.clone() };
            let all = self.peers.iter().map(|(node, _)| node).collect();
            self.send_all(all, Message::NewView { decisions: vec![decision.clone()] }, out);
            self.enter_view(now, decision, out);
        }
    }

    pub(crate) fn on_new_view(
        &mut self,
        now: Millis,
        from: NodeId,
        decisions: Vec<Decision>,
        out: &mut Vec<Output>,
    ) {
        if decisions.len() > 1 {
            self.mark(Mark::ViewsBehind);
        }
        for decision in decisions {
            if decision.view > self.current {
                // Something before it is missing.
                return self.send(from, Message::ViewRequest { view: self.current }, out);
            }
            let log = self.log();
            if decision.view == self.current && decision.value.next.genesis != log.view.genesis {
                // The cluster began with a state that is not here.
                let until = Position { view: self.current.next(), ..Position::default() };
                return out.push(Output::Behind { peer: from, until });
            }
            if decision.view == self.current
                && log.allows(&decision.value)
                && log.is_beyond_delivered(&decision.value)
            {
                self.enter_view(now, decision, out);
            }
        }
    }
}
