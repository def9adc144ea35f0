//! Own batches on their way into the total order: through the own lane, or forwarded to a sender.
//!
//! A batch is named by its label, so it may be offered any number of times. What is offered and not delivered is kept
//! in order; where a copy may have been lost or was skipped as too early, everything undelivered is offered
//! again, in order (rule P).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::types::{
    Batch, Entry, Label, Millis, NodeId, NodeSet, OriginPair, Position, Timestamp, ViewNumber,
};

use super::api::{OfferTicket, Output, Verdict};
use super::lane::Taken;
use super::marks::Mark;
use super::message::{Message, Record};
use super::mutation::{Mutation, mutated};
use super::replica::{Held, Replica};

/// Where the latest copy of a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Nowhere yet, or the copy is lost.
    Nowhere,
    /// Into the own lane.
    Own(Position),
    /// To a sender.
    Forwarded(NodeId),
}

#[derive(Clone, Debug)]
struct Offer {
    seq: u64,
    ticket: OfferTicket,
    batch: Batch,
    place: Place,
}

/// Own batches that are not delivered yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offers {
    waiting: VecDeque<Offer>,
    /// The sequence number of the last batch offered.
    last_seq: u64,
    bytes: usize,
    /// So many from the front have a copy on its way; from there on everything is to be placed (again).
    placed: usize,
    /// The sender that forwarded batches go to; kept while it can take them, so that they stay in order.
    target: Option<NodeId>,
    /// Nothing is forwarded before this.
    pause_until: Millis,
    /// When the oldest batch was last forwarded, and how often in a row.
    forwarded_at: Millis,
    attempts: u32,
    /// Undelivered bytes of forwarded batches in the own lane.
    pub(crate) relayed_bytes: usize,
}

impl Offers {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The number of the last batch offered.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies sent to this node may be lost: its connection broke, was made anew, or it is another process.
    pub(crate) fn on_link(&mut self, node: NodeId) {
        self.lose(|offer| offer.place == Place::Forwarded(node));
    }

    /// Copies are lost: returns whether any was.
    fn lose(&mut self, lost: impl Fn(&Offer) -> bool) -> bool {
        let first = self.waiting.iter().position(&lost);
        for offer in self.waiting.iter_mut().filter(|o| lost(o)) {
            offer.place = Place::Nowhere;
        }
        self.placed = self.placed.min(first.unwrap_or(self.placed));
        first.is_some()
    }

    /// A sender did not take a batch: it and those after it are offered again, a little later.
    fn note_refused(&mut self, from: NodeId, label: &Label, now: Millis, pause: Millis) {
        if self.lose(|offer| offer.seq >= label.seq && offer.place == Place::Forwarded(from)) {
            self.pause_until = now.plus(pause);
        }
    }

    /// Takes out, in order, the tickets of batches in front that a snapshot has brought: their replies are lost.
    pub(crate) fn overtaken(&mut self, is_applied: impl Fn(u64) -> bool) -> Vec<OfferTicket> {
        let mut tickets = Vec::new();
        while self.waiting.front().is_some_and(|offer| is_applied(offer.seq))
            && let Some(offer) = self.waiting.pop_front()
        {
            self.placed = self.placed.saturating_sub(1);
            self.bytes -= offer.batch.bytes().len();
            tickets.push(offer.ticket);
        }
        tickets
    }

    /// A snapshot has taken the place of everything up to `position`: copies in there that were not applied were
    /// skipped as too early, and those forwarded may have been.
    pub(crate) fn on_install(&mut self, position: Position) {
        self.lose(|offer| match offer.place {
            Place::Own(at) => at <= position,
            Place::Forwarded(_) => true,
            Place::Nowhere => false,
        });
    }

    /// A view has ended, the own lane (if there was one) at `end`: copies above it are void, forwarded ones may
    /// be. Returns whether there are any.
    pub(crate) fn on_view_end(&mut self, view: ViewNumber, end: Option<Timestamp>) -> bool {
        let lost = self.lose(|offer| match offer.place {
            Place::Own(at) => at.view == view && Some(at.t) > end && !mutated(Mutation::ForgetVoid),
            Place::Forwarded(_) => true,
            Place::Nowhere => true,
        });
        self.pause_until = Millis(0);
        self.attempts = 0;
        self.relayed_bytes = 0;
        lost
    }
}

impl Replica {
    pub(crate) fn on_offer(&mut self, ticket: OfferTicket, batch: Batch) {
        self.offers.last_seq += 1;
        self.offers.bytes += batch.bytes().len();
        let seq = self.offers.last_seq;
        self.offers.waiting.push_back(Offer { seq, ticket, batch, place: Place::Nowhere });
    }

    /// How this process names its batch of a number, once its disk is registered.
    pub(crate) fn label(&self, seq: u64) -> Option<Label> {
        let registered = self.log().view.voter(self.settings.me)?.registered;
        let pair = OriginPair { registered, incarnation: self.identity.incarnation };
        (registered > ViewNumber(0) && self.is_voter()).then_some(Label {
            origin: self.settings.me,
            pair,
            seq,
        })
    }

    /// Whether this node may append to its lane now (rules A and I).
    pub(crate) fn may_append(&self) -> bool {
        self.my_lane().is_some() && (self.log().frozen.is_none() || mutated(Mutation::SealedSenderAppends))
    }

    fn append(&mut self, label: Label, batch: Batch, out: &mut Vec<Output>) -> Position {
        let lane = self.my_lane().expect("only the lane's owner appends");
        self.clock = self.clock.next();
        let entry = Arc::new(Entry {
            view: self.current,
            t: self.clock,
            node: self.settings.me,
            prev: self.log().lanes[lane].received(),
            label,
            wall: self.median_wall(),
            batch,
        });
        let lsn = self.last_lsn.next();
        let taken = self.log_mut().lanes[lane].take(lsn, &entry);
        assert_eq!(taken, Taken::Added, "Single writer: {entry} does not continue the own lane");
        let held = Held::Vote { view: entry.view, lane, t: entry.t };
        self.persist(Record::Entry(Arc::clone(&entry)), Some(held), out);
        let all = self.peers.iter().map(|(node, _)| node).collect();
        self.send_all(all, Message::Append(Arc::clone(&entry)), out);
        entry.position()
    }

    /// Puts everything that is nowhere, and whatever comes after it, into the own lane or to a sender.
    pub(crate) fn place_offers(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.offers.waiting.is_empty() {
            return;
        }
        let owns = self.my_lane().is_some();
        if !owns {
            self.review_forwards(now);
        }
        let first = self.offers.placed;
        if first == self.offers.waiting.len() {
            return;
        }
        if owns {
            if !self.may_append() {
                return;
            }
            for i in first..self.offers.waiting.len() {
                let offer = &self.offers.waiting[i];
                let Some(label) = self.label(offer.seq) else { return };
                let at = self.append(label, offer.batch.clone(), out);
                self.offers.waiting[i].place = Place::Own(at);
                self.offers.placed = i + 1;
            }
        } else if now >= self.offers.pause_until
            && let Some(target) = self.offers.target
        {
            for i in first..self.offers.waiting.len() {
                let offer = &self.offers.waiting[i];
                let Some(label) = self.label(offer.seq) else { return };
                let message = Message::Forward { label, batch: offer.batch.clone() };
                self.mark(Mark::Forwarded);
                self.send(target, message, out);
                self.offers.waiting[i].place = Place::Forwarded(target);
                self.offers.placed = i + 1;
            }
            if first == 0 {
                self.offers.forwarded_at = now;
            }
        }
    }

    /// Chooses whom to forward to, and notices forwards that seem to be lost.
    fn review_forwards(&mut self, now: Millis) {
        let target = self.forward_target(now);
        if target != self.offers.target {
            if let Some(old) = self.offers.target {
                self.mark(Mark::TargetChanged);
                self.offers.on_link(old);
            }
            self.offers.target = target;
        }
        // A safety net: whatever was lost on the way without a trace is offered again, ever more slowly.
        let patience = self.settings.suspicion.times(2 << self.offers.attempts.min(5));
        let oldest = self.offers.waiting.front().map(|o| o.place);
        if let Some(Place::Forwarded(node)) = oldest
            && now.since(self.offers.forwarded_at) > patience
        {
            self.offers.attempts += 1;
            self.offers.on_link(node);
        }
    }

    /// Whom to forward to: a sender; or, behind broken links, a peer that hears one and passes it on.
    pub(crate) fn forward_target(&self, now: Millis) -> Option<NodeId> {
        self.direct_sender(now).or_else(|| self.relay(now))
    }

    /// A sender that can be reached: the present target while it will do, else the one with the least waiting.
    fn direct_sender(&self, now: Millis) -> Option<NodeId> {
        let usable = self.usable(now);
        let alive = self.log().view.senders.iter().filter(|s| {
            usable.contains(s.node) && self.peers.get(s.node).is_some_and(|p| p.incarnation == s.incarnation)
        });
        let alive: NodeSet = alive.map(|s| s.node).collect();
        let load = |node: NodeId| self.peers.row(node, self.current).map_or(u32::MAX, |row| row.waiting);
        let target = self.offers.target.filter(|target| alive.contains(*target));
        target.or_else(|| alive.iter().min_by_key(|node| (load(*node), *node)))
    }

    /// A peer that can be reached and hears a sender.
    fn relay(&self, now: Millis) -> Option<NodeId> {
        let senders = self.log().view.sender_set();
        let hears_one = |node: &NodeId| {
            self.peers
                .row(*node, self.current)
                .is_some_and(|row| !row.hears.intersection(senders).without(self.settings.me).is_empty())
        };
        let usable = self.usable(now);
        let able = |node: &NodeId| !senders.contains(*node) && hears_one(node);
        let target = self.offers.target.filter(|node| usable.contains(*node)).filter(able);
        target.or_else(|| usable.iter().find(able))
    }

    /// Peers that can be reached both ways.
    fn usable(&self, now: Millis) -> NodeSet {
        self.peers.linked().iter().filter(|node| self.is_linked_to(*node, now)).collect()
    }

    pub(crate) fn on_forward(
        &mut self,
        now: Millis,
        from: NodeId,
        label: Label,
        batch: Batch,
        out: &mut Vec<Output>,
    ) {
        if self.origins.knows(&label) {
            return;
        }
        if self.is_forged(&label) {
            return Self::ignore(from, format!("batch {label} with a label that was never given"), out);
        }
        let full = self.offers.relayed_bytes >= self.settings.window.saturating_mul(4);
        if self.may_append() && !full {
            self.offers.relayed_bytes += batch.bytes().len();
            self.append(label, batch, out);
            return;
        }
        // One hop more for an origin that reaches no sender itself.
        match self.direct_sender(now) {
            Some(sender) if self.my_lane().is_none() && sender != from => {
                self.mark(Mark::RelayHop);
                self.send(sender, Message::Forward { label, batch }, out);
            }
            _ => {
                self.mark(Mark::ForwardRefused);
                self.send(from, Message::Refused { label }, out);
            }
        }
    }

    /// Counts the forwarded batches that wait in the own lane.
    pub(crate) fn count_relayed(&mut self) {
        let me = self.settings.me;
        let lane = self.my_lane().map(|mine| &self.log().lanes[mine]);
        let waiting = lane.into_iter().flat_map(|lane| lane.after(lane.delivered()));
        let relayed = waiting.filter(|entry| entry.label.origin != me);
        self.offers.relayed_bytes = relayed.map(|entry| entry.batch.bytes().len()).sum();
    }

    pub(crate) fn on_refused(&mut self, now: Millis, from: NodeId, label: Label, out: &mut Vec<Output>) {
        if label.origin == self.settings.me {
            self.offers.note_refused(from, &label, now, self.settings.heartbeat);
        } else {
            self.send(label.origin, Message::Refused { label }, out);
        }
    }

    /// An entry was delivered: if it is one of ours, it is done, or has to be offered again.
    pub(crate) fn note_own_delivery(
        &mut self,
        entry: &Entry,
        verdict: Verdict,
        now: Millis,
    ) -> Option<OfferTicket> {
        let me = self.settings.me;
        if entry.label.origin != me && entry.node == me {
            let len = entry.batch.bytes().len();
            self.offers.relayed_bytes = self.offers.relayed_bytes.saturating_sub(len);
        }
        if self.label(entry.label.seq) != Some(entry.label) {
            return None;
        }
        match verdict {
            Verdict::Repeated => None,
            Verdict::Applied => {
                // What is applied for the first time still waits, in front: own batches are applied in order. Only a
                // peer that lets a view register this disk anew can make old numbers count once more.
                if self.offers.waiting.front()?.seq != entry.label.seq {
                    return None;
                }
                let offer = self.offers.waiting.pop_front()?;
                self.offers.placed = self.offers.placed.saturating_sub(1);
                self.offers.bytes -= offer.batch.bytes().len();
                self.offers.attempts = 0;
                self.offers.forwarded_at = now;
                Some(offer.ticket)
            }
            Verdict::TooEarly => {
                // Only the latest copy matters; older ones were replaced already.
                let position = entry.position();
                let latest = self.offers.waiting.iter().find(|o| o.seq == entry.label.seq).map(|o| o.place);
                let again = match latest {
                    Some(Place::Own(at)) => at == position,
                    Some(Place::Forwarded(_)) => entry.view == self.current,
                    Some(Place::Nowhere) | None => false,
                };
                if again && mutated(Mutation::NoReoffer) {
                    let skipped = self.offers.waiting.iter_mut().find(|o| o.seq == entry.label.seq)?;
                    skipped.place = Place::Own(position);
                } else if again {
                    self.mark(Mark::EarlyAgain);
                    self.offers.lose(|_| true);
                    self.offers.pause_until = now.plus(self.settings.heartbeat);
                }
                None
            }
        }
    }
}
