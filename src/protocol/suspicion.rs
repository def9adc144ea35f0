//! When to seal: judged from everyone's Status, not from one's own ears alone (rule F).
//!
//! Each reason is a line of section 4 of `docs/protocol.md`. The voter that hears the most acts at once;
//! the others step in one after the other, so that two seldom duel.

use crate::types::{DiskId, Millis, NodeId, NodeSet, Timestamp, ViewNumber};

use super::api::Output;
use super::marks::Mark;
use super::message::{Ballot, LaneVector, Sender, Voter};
use super::mutation::{Mutation, mutated};
use super::peers::Hearing;
use super::replica::Replica;

/// Why to seal, and what that means for the next senders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reason {
    pub(crate) text: String,
    mark: Mark,
    /// Senders to be left out.
    pub(crate) drop: NodeSet,
    /// Passive nodes to be taken in.
    pub(crate) promote: NodeSet,
    /// A node whose disk is to be registered, and that disk.
    pub(crate) replace: Option<(NodeId, DiskId)>,
}

impl Reason {
    fn new(mark: Mark, text: impl Into<String>) -> Reason {
        Reason { text: text.into(), mark, drop: NodeSet::EMPTY, promote: NodeSet::EMPTY, replace: None }
    }
}

/// What is remembered from one look to the next.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// When a seal that is not decided was first seen, or last begun anew.
    pub(crate) seal_seen_at: Option<Millis>,
    /// Since when there has been a reason.
    reason_since: Option<Millis>,
    /// A random share of the suspicion time-out, drawn with each reason.
    jitter: Millis,
    /// When this node acts if nothing changes.
    pub(crate) act_at: Option<Millis>,
    /// Since when this node itself could be promoted.
    fit_since: Option<Millis>,
    /// What anybody had of each lane at the last mark, and when that was.
    mark: LaneVector,
    next_mark: LaneVector,
    marked_at: Millis,
    /// In view 0: members that are not heard.
    missing: NodeSet,
    /// Since when a majority is heard, while not everybody heard hears everybody.
    unsettled_since: Option<Millis>,
}

impl Watch {
    pub(crate) fn new(now: Millis) -> Watch {
        Watch {
            seal_seen_at: None,
            reason_since: None,
            jitter: Millis(0),
            act_at: None,
            fit_since: None,
            mark: Vec::new(),
            next_mark: Vec::new(),
            marked_at: now,
            unsettled_since: None,
            missing: NodeSet::EMPTY,
        }
    }
}

impl Voter {
    /// The most that drops are counted.
    pub(crate) const DROPS_MAX: u8 = 7;
    const FORGIVEN_AFTER: u64 = 60_000;
    /// Nobody's probation is shorter.
    const PROBATION_MIN: Millis = Millis(1000);

    /// How many drops still count: each quiet minute forgives one, which halves the probation.
    pub(crate) fn drops_left(&self, wall: Millis) -> u8 {
        let minutes = wall.since(self.drops_at).0 / Self::FORGIVEN_AFTER;
        self.drops.saturating_sub(u8::try_from(minutes).unwrap_or(u8::MAX))
    }

    /// How long a passive node has to be fit before it is promoted: 1 s, doubled with each drop, up to a minute.
    fn probation(&self, wall: Millis) -> Millis {
        let doubled = self.drops_left(wall).min(Voter::DROPS_MAX).saturating_sub(1);
        Millis((Self::PROBATION_MIN.0 << doubled).min(60_000))
    }
}

impl Replica {
    /// A reason to seal, if there is one and it is this node's turn to act on it.
    pub(crate) fn due_reason(&mut self, now: Millis, out: &mut Vec<Output>) -> Option<Reason> {
        self.sealing.watch.act_at = None;
        self.set_mark(now);
        let hearing = self.who_hears(now);
        self.watch_fitness(now, &hearing);
        if self.current == ViewNumber(0) {
            let me = self.settings.me;
            let missing = |v: &NodeId| *v != me && !hearing.links(me, *v);
            let missing = self.log().view.voter_set().iter().filter(missing).collect();
            self.sealing.watch.missing = missing;
            self.note_missing(missing, out);
        }
        if !self.is_majority(&hearing) {
            // A node that does not hear a majority never seals.
            self.sealing.watch.reason_since = None;
            self.sealing.watch.unsettled_since = None;
            return None;
        }
        let suspicion = self.settings.suspicion;
        let sealed = self.log().frozen.is_some()
            || self.peers.rows(self.current).any(|(node, row)| row.sealed && hearing.hears(node));
        if sealed && mutated(Mutation::NoStepIn) {
            return None;
        }
        let sealer = self.log().promised.map(|b| b.node);
        if sealed && mutated(Mutation::WaitForHolder) && sealer.is_some_and(|n| hearing.hears(n)) {
            return None;
        }
        if sealed && !self.can_found() {
            return None;
        }
        let (reason, since, delay) = if sealed {
            let seen = *self.sealing.watch.seal_seen_at.get_or_insert(now);
            // The sealer of the highest ballot known, which may have outbid this node's own, has a suspicion time-out
            // to finish, unless that process is known to be gone.
            let last = self.log().promised.max(self.sealing.outbid_by);
            // Who outbids again and again is not gone: it is only not heard here.
            let gone =
                !self.sealing.is_duel && last.is_some_and(|ballot| self.is_sealer_gone(&ballot, &hearing));
            (Reason::new(Mark::SteppedIn, "a seal was begun and not decided"), seen, u64::from(!gone))
        } else {
            let Some(reason) = self.reason(now, &hearing) else {
                self.sealing.watch.reason_since = None;
                return None;
            };
            let since = *self.sealing.watch.reason_since.get_or_insert(now);
            (reason, since, 0)
        };
        let delay = delay + self.rank(&hearing);
        if since == now {
            self.sealing.watch.jitter = Millis(self.random() % (suspicion.0 / 2).max(1));
        }
        let jitter = if delay == 0 { Millis(0) } else { self.sealing.watch.jitter };
        // Where a seal takes longer than a suspicion time-out (slow disks), stepping in only makes a duel: later
        // rounds wait longer.
        let round = self.log().promised.map_or(0, |b| b.round);
        let patience = 1_u64 << round.saturating_sub(1).min(6);
        let act_at = since.plus(suspicion.times(delay).plus(jitter).times(patience));
        if now < act_at {
            self.sealing.watch.act_at = Some(act_at);
            return None;
        }
        self.sealing.watch.reason_since = None;
        if reason.mark != Mark::Founded {
            self.mark(reason.mark);
        }
        let replace = self.replacement(&hearing);
        Some(Reason { promote: reason.promote.union(self.fit_for_promotion(now)), replace, ..reason })
    }

    /// Whether a ballot of this node could end in view 0: a value of its own needs the promises of all, one that was
    /// accepted only a majority's. Others would only be held up by it.
    fn can_found(&self) -> bool {
        self.current > ViewNumber(0)
            || self.sealing.watch.missing.is_empty()
            || self.log().accepted.is_some()
            || mutated(Mutation::MajorityFounds)
    }

    /// Whether whoever opened a ballot will not go on with it. Its node may be there, with another process.
    fn is_sealer_gone(&self, ballot: &Ballot, hearing: &Hearing) -> bool {
        if ballot.node == self.settings.me {
            return ballot.incarnation != self.identity.incarnation;
        }
        let later = self.peers.get(ballot.node).is_some_and(|p| p.incarnation > ballot.incarnation);
        later || !hearing.hears(ballot.node)
    }

    fn reason(&mut self, now: Millis, hearing: &Hearing) -> Option<Reason> {
        let me = self.settings.me;
        let voters = hearing.speaking;
        let view = &self.log().view;
        let quorum = view.quorum();
        let spare = view.voters.len() - quorum;
        if self.current == ViewNumber(0) {
            return (self.can_found() && self.settled(now))
                .then(|| Reason::new(Mark::Founded, "founding the cluster"));
        }
        // No live sender.
        let live: NodeSet =
            view.senders.iter().filter(|s| self.is_live(s, hearing)).map(|s| s.node).collect();
        if live.is_empty() {
            return self.settled(now).then(|| Reason::new(Mark::SealNoSender, "no live sender"));
        }
        let view = &self.log().view;
        // A sender that too few are known to hear, or that has restarted: none of those that are live.
        let is_suspect =
            |s: &&Sender| s.node != me && (!live.contains(s.node) || mutated(Mutation::OwnEarsOnly));
        for sender in view.senders.iter().filter(is_suspect) {
            if self.is_gone(sender) {
                return Some(Reason::new(
                    Mark::SealSenderRestarted,
                    format!("sender {} has restarted", sender.node),
                ));
            }
            let deaf = hearing.known_deaf(sender.node, voters);
            let own = mutated(Mutation::OwnEarsOnly) && !hearing.hears(sender.node);
            if deaf > spare || own {
                let count = spare + quorum;
                let text = format!("sender {} is not heard by {deaf} of {count} voters", sender.node);
                return Some(Reason {
                    drop: NodeSet::only(sender.node),
                    ..Reason::new(Mark::SealSenderLost, text)
                });
            }
        }
        // Two senders of which one does not hear the other.
        let mut deaf = live.intersection(hearing.known()).iter();
        if let Some(a) = deaf.find(|a| hearing.received_by(*a, live) != live)
            && let Some(b) = live.iter().find(|b| !hearing.receives(a, *b))
        {
            let text = format!("sender {a} does not hear sender {b}");
            return Some(Reason::new(Mark::SealDeafSenders, text));
        }
        // A sender that has kept a chosen entry from delivery for long.
        if let Some((position, lanes, since)) = self.blocked
            && now.since(since) > self.settings.suspicion.times(3)
        {
            let text = format!("{position} has waited for {lanes} since {}", now.since(since));
            return Some(Reason { drop: lanes.without(me), ..Reason::new(Mark::SealBlocked, text) });
        }
        // Somebody who asks to leave, while another can stay. What was heard of one that is not heard any more may be
        // an earlier process's wish.
        let asks = |node: &NodeId| self.is_leaving(*node) && (*node == me || hearing.hears(*node));
        if let Some(leaver) = live.iter().find(asks)
            && live.iter().any(|node| !self.is_leaving(node))
        {
            return Some(Reason::new(Mark::SealLeaving, format!("sender {leaver} asks to leave")));
        }
        if let Some((node, disk)) = self.replacement(hearing) {
            return Some(Reason::new(Mark::SealReplacement, format!("registering disk {disk} of {node}")));
        }
        let promote = self.fit_for_promotion(now);
        (!promote.is_empty())
            .then(|| Reason { promote, ..Reason::new(Mark::SealPromotion, format!("promoting {promote}")) })
    }

    /// Whether the listed incarnation is gone.
    fn is_gone(&self, sender: &Sender) -> bool {
        if sender.node == self.settings.me {
            return sender.incarnation != self.identity.incarnation || !self.is_voter();
        }
        let disk = self.log().view.voter(sender.node).map(|voter| voter.disk);
        // On another disk it is somebody else, who counts starts anew.
        let other = |found: DiskId| found.0 != 0 && Some(found) != disk;
        self.peers.get(sender.node).is_some_and(|p| p.incarnation > sender.incarnation || other(p.disk))
    }

    /// A learner on a new disk that has caught up and reaches this node: its disk may take the place of the one that
    /// is registered. One at a time.
    fn replacement(&self, hearing: &Hearing) -> Option<(NodeId, DiskId)> {
        let fits = |node: &NodeId| {
            self.current > ViewNumber(0)
                && self.peers.get(*node).is_some_and(|p| p.joining)
                && !self.speaks_as_voter(*node)
                && hearing.links(self.settings.me, *node)
                && self.has_caught_up(*node)
        };
        let node = self.log().view.voter_set().iter().find(fits)?;
        Some((node, self.peers.get(node)?.disk))
    }

    /// Whether a peer has delivered all older views, and received what anybody had a heartbeat ago.
    fn has_caught_up(&self, node: NodeId) -> bool {
        let mark: &[Timestamp] = &self.sealing.watch.mark;
        self.peers.row(node, self.current).is_some_and(|row| {
            row.delivered.view == self.current
                && row.lanes.iter().zip(mark).all(|(lane, m)| lane.received >= *m)
        })
    }

    fn is_live(&self, sender: &Sender, hearing: &Hearing) -> bool {
        let voters = hearing.speaking;
        let view = &self.log().view;
        let spare = view.voters.len() - view.quorum();
        !self.is_gone(sender)
            && (sender.node == self.settings.me || hearing.known_deaf(sender.node, voters) <= spare)
    }

    /// Whether a node wants to be no sender.
    pub(crate) fn is_leaving(&self, node: NodeId) -> bool {
        if node == self.settings.me {
            return self.leaving || self.disk_slow;
        }
        // Whatever view it spoke of: it will not want to send in the next one either.
        self.peers.get(node).and_then(|p| p.row.as_ref()).is_some_and(|row| row.leaving)
    }

    /// At a start: whether everybody heard hears everybody heard, or has had time to. Otherwise a seal would leave out
    /// senders that are only about to be heard.
    fn settled(&mut self, now: Millis) -> bool {
        let heard = self.hearing(now);
        let all = heard.iter().filter(|n| *n != self.settings.me).all(|node| {
            self.peers.row(node, self.current).is_some_and(|row| heard.intersection(row.hears) == heard)
        });
        let since = *self.sealing.watch.unsettled_since.get_or_insert(now);
        let patience = self.settings.suspicion;
        if !all && now.since(since) < patience {
            self.sealing.watch.act_at = Some(since.plus(patience));
            return false;
        }
        true
    }

    /// How many voters would rather act: those that hear more voters, or as many and have a lower number.
    fn rank(&self, hearing: &Hearing) -> u64 {
        let me = self.settings.me;
        let voters = self.log().view.voter_set();
        let mine = hearing.count(me, voters);
        let better = |node: &NodeId| {
            let count = hearing.count(*node, voters);
            hearing.hears(*node) && (count > mine || (count == mine && *node < me))
        };
        hearing.speaking.without(me).iter().filter(better).count() as u64
    }

    /// Remembers, once a heartbeat, how far the lanes were: who has that much later has caught up.
    fn set_mark(&mut self, now: Millis) {
        if now.since(self.sealing.watch.marked_at) < self.settings.heartbeat {
            return;
        }
        let mut most = self.log().received();
        for (_, row) in self.peers.rows(self.current) {
            for (most, lane) in most.iter_mut().zip(&row.lanes) {
                *most = (*most).max(lane.received);
            }
        }
        let watch = &mut self.sealing.watch;
        watch.mark = std::mem::replace(&mut watch.next_mark, most);
        watch.marked_at = now;
    }

    /// Keeps book of since when each passive node could have been a sender.
    fn watch_fitness(&mut self, now: Millis, hearing: &Hearing) {
        let me = self.settings.me;
        for i in 0..self.log().view.voters.len() {
            let voter = self.log().view.voters[i];
            let (node, fit) = (voter.node, self.is_fit(&voter, hearing));
            let since = if node == me {
                Some(&mut self.sealing.watch.fit_since)
            } else {
                self.peers.get_mut(node).map(|p| &mut p.fit_since)
            };
            if let Some(since) = since {
                *since = if fit { since.or(Some(now)) } else { None };
            }
        }
    }

    /// Whether a passive node has caught up, hears all senders, and is heard by them.
    fn is_fit(&self, voter: &Voter, hearing: &Hearing) -> bool {
        let (me, node) = (self.settings.me, voter.node);
        let view = &self.log().view;
        let incarnation = if node == me {
            self.identity.incarnation
        } else {
            self.peers.get(node).map(|p| p.incarnation).unwrap_or_default()
        };
        if self.current == ViewNumber(0)
            || view.senders.contains(&Sender { node, incarnation })
            || self.is_leaving(node)
            || !self.speaks_for(voter)
        {
            return false;
        }
        let mark: &[Timestamp] = &self.sealing.watch.mark;
        let caught_up = if node == me {
            self.delivering == self.current
                && self.log().lanes.iter().zip(mark).all(|(lane, m)| lane.received() >= *m)
        } else {
            hearing.links(me, node) && self.has_caught_up(node)
        };
        caught_up
            && hearing.known_deaf(node, hearing.speaking) <= view.voters.len() - view.quorum()
            && view
                .senders
                .iter()
                .filter(|s| s.node != node)
                .all(|s| hearing.links(node, s.node) && hearing.links(s.node, node))
    }

    /// Passive nodes whose probation is over.
    fn fit_for_promotion(&self, now: Millis) -> NodeSet {
        let me = self.settings.me;
        let fit_for = |node: NodeId| {
            let watch = &self.sealing.watch;
            let since =
                if node == me { watch.fit_since } else { self.peers.get(node).and_then(|p| p.fit_since) };
            since.map(|since| now.since(since))
        };
        let voters = &self.log().view.voters;
        // Most of the time nobody can be ready, and the clocks need not be compared.
        if !voters.iter().any(|voter| fit_for(voter.node) >= Some(Voter::PROBATION_MIN)) {
            return NodeSet::EMPTY;
        }
        let wall = self.median_wall();
        let is_over = |voter: &&Voter| fit_for(voter.node).is_some_and(|fit| fit >= voter.probation(wall));
        voters.iter().filter(is_over).map(|voter| voter.node).collect()
    }
}
