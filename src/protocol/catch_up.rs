//! Getting what is missing: entries of the open view by Resend, entries of ended views by CatchUp.
//!
//! A node that was away asks by itself; nobody keeps track of what others lack. Two kinds are kept apart:
//! what comes by Append in the open view is a vote once it is durable, what comes by Fill only completes a
//! view that is (being) sealed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{Entry, Millis, NodeId, NodeSet, Timestamp, ViewNumber, limits};

use super::api::Output;
use super::lane::{Fill, Taken};
use super::marks::Mark;
use super::message::{Decision, LaneVector, Message, Record, Status};
use super::mutation::{Mutation, mutated};
use super::replica::Replica;

/// A question on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// Of whom.
    pub(crate) node: NodeId,
    /// When.
    pub(crate) at: Millis,
    /// The last entry held of the lane then.
    pub(crate) after: Timestamp,
    /// The one asked has spoken since: whatever it sent before has arrived.
    pub(crate) answered: bool,
}

impl Replica {
    // ---- answering ----

    pub(crate) fn on_resend(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        lane: NodeId,
        after: Timestamp,
        out: &mut Vec<Output>,
    ) {
        if view != self.current {
            return;
        }
        let log = self.log();
        let Some(lane) = log.view.lane_of(lane) else { return };
        if log.lanes[lane].base() > after {
            return self.offer_snapshot(from, out);
        }
        let mut fill = Fill::new(self.settings.fill_len);
        for entry in log.lanes[lane].after(after) {
            if !fill.push(entry) {
                break;
            }
        }
        if !fill.entries.is_empty() {
            let own = self.my_lane() == Some(lane);
            self.mark(if own { Mark::ResendServed } else { Mark::ResendFromOthers });
        }
        for entry in fill.entries {
            self.send(from, Message::Append(entry), out);
        }
        // The Status behind it tells the asker that this was all for now.
        self.row_changed = true;
    }

    pub(crate) fn on_catch_up(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        have: &LaneVector,
        out: &mut Vec<Output>,
    ) {
        if self.views.keys().next() > Some(&view) {
            return self.offer_snapshot(from, out);
        }
        let mut fill = Fill::new(self.settings.fill_len);
        for (number, log) in self.views.range(view..) {
            // Of the open view only what was asked for: somebody seals it.
            if fill.is_full() || (*number == self.current && *number != view) {
                break;
            }
            let none = vec![Timestamp::ZERO; log.lanes.len()];
            let have = if *number == view { have } else { &none };
            if have.len() != log.lanes.len() {
                return;
            }
            if log.has_forgotten(have) {
                if *number == view {
                    return self.offer_snapshot(from, out);
                }
                break;
            }
            log.fill(have, &mut fill);
        }
        if !fill.entries.is_empty() {
            self.mark(if fill.is_full() { Mark::CatchUpPart } else { Mark::CatchUpServed });
        }
        self.send(from, Message::Fill { entries: fill.entries }, out);
    }

    /// Tells a node decisions from its view on.
    pub(crate) fn tell_decisions(&mut self, to: NodeId, view: ViewNumber, out: &mut Vec<Output>) {
        if self.views.keys().next() > Some(&view) {
            return self.offer_snapshot(to, out);
        }
        let decisions: Vec<Decision> = self
            .views
            .range(view..)
            .filter_map(|(number, log)| Some(Decision { view: *number, value: log.decided.clone()? }))
            .take(limits::DECISION_COUNT_MAX)
            .collect();
        if !decisions.is_empty() {
            self.send(to, Message::NewView { decisions }, out);
        }
    }

    // ---- taking ----

    /// Entries that complete a view. They are stored, and never reported as votes. Returns whether any was new.
    pub(crate) fn on_fill(&mut self, entries: &[Arc<Entry>], out: &mut Vec<Output>) -> bool {
        let mut progress = false;
        for entry in entries {
            let (leap, forged) = (self.is_leap(entry.t), self.is_forged(&entry.label));
            let lsn = self.last_lsn.next();
            let owned = self.views.get(&entry.view).and_then(|log| self.owned_lane(&log.view));
            let Some(log) = self.views.get_mut(&entry.view) else { continue };
            let Some(lane) = log.view.lane_of(entry.node) else { continue };
            let wanted = match log.end(lane) {
                Some(end) => entry.t <= end,
                // In the open view votes would be mixed up with fillings before the vector is frozen.
                None => log.frozen.is_some(),
            };
            // Nobody else has an entry of this process's lanes that is not here (rule A).
            let wanted = wanted && !leap && !forged && owned != Some(lane);
            if wanted && log.lanes[lane].take(lsn, entry) == Taken::Added {
                self.witness(entry.t);
                self.persist(Record::Fill(Arc::clone(entry)), None, out);
                progress = true;
                if mutated(Mutation::FillIsVote)
                    && let Some(log) = self.views.get_mut(&entry.view)
                {
                    log.lanes[lane].accept(entry.t);
                }
            }
        }
        progress
    }

    /// The answer to a question for entries.
    pub(crate) fn on_filled(&mut self, now: Millis, entries: &[Arc<Entry>], out: &mut Vec<Output>) {
        // Who had something new is likely to have more; who had not is left alone for a while.
        if self.on_fill(entries, out) {
            if let Some(asked) = &mut self.catch_up {
                asked.answered = true;
            }
            self.after_fill(now, out);
        }
    }

    // ---- asking ----

    /// A Status came from this node: what it sent before is here.
    pub(crate) fn note_answered(&mut self, from: NodeId) {
        for asked in self.resends.values_mut() {
            asked.answered |= asked.node == from;
        }
    }

    /// A long message from this node is arriving: it may be the answer, so it is not asked again yet.
    pub(crate) fn note_stirring(&mut self, now: Millis, from: NodeId) {
        for asked in self.resends.values_mut().chain(&mut self.catch_up) {
            if asked.node == from {
                asked.at = now;
            }
        }
        self.sealing.note_stirring(now, from);
    }

    /// Asks for whatever is missing.
    pub(crate) fn ask_for_missing(&mut self, now: Millis, out: &mut Vec<Output>) {
        if !mutated(Mutation::NoCatchUp) {
            self.ask_for_ended_views(now, out);
        }
        if self.log().frozen.is_none() && !mutated(Mutation::NoResend) {
            self.ask_for_open_lanes(now, out);
        }
    }

    fn ask_for_ended_views(&mut self, now: Millis, out: &mut Vec<Output>) {
        let log = &self.views[&self.delivering];
        let Some(value) = &log.decided else { return };
        if log.holds(&value.ends) {
            return;
        }
        let patience = self.settings.heartbeat.times(2);
        if self.catch_up.is_some_and(|asked| !asked.answered && now.since(asked.at) < patience) {
            return;
        }
        let message = Message::CatchUp { view: self.delivering, have: log.received() };
        let ahead = |node: &NodeId| {
            self.peers
                .get(*node)
                .and_then(|p| p.row.as_ref())
                .is_some_and(|r| r.delivered.view > self.delivering)
        };
        // Somebody who has delivered the view has all of it; otherwise everybody in turn.
        let heard = self.peers.heard(now).intersection(self.peers.linked());
        let best: NodeSet = heard.iter().filter(ahead).collect();
        let Some(node) = self.after_last_asked(if best.is_empty() { heard } else { best }) else { return };
        self.catch_up = Some(Asked { node, at: now, after: Timestamp::ZERO, answered: false });
        self.send(node, message, out);
    }

    /// The member after the one asked last, so that one that does not answer is not asked for ever.
    fn after_last_asked(&self, nodes: NodeSet) -> Option<NodeId> {
        let last = self.catch_up.map(|asked| asked.node);
        nodes.iter().find(|node| Some(*node) > last).or_else(|| nodes.iter().next())
    }

    fn ask_for_open_lanes(&mut self, now: Millis, out: &mut Vec<Output>) {
        let me = self.settings.me;
        let mine = self.my_lane();
        let log = self.log();
        let mut questions: BTreeMap<NodeId, (NodeId, Timestamp)> = BTreeMap::new();
        for (i, lane) in log.lanes.iter().enumerate() {
            if mine == Some(i) {
                continue;
            }
            let owner = log.view.senders[i].node;
            let received = lane.received();
            let is_more = |row: &Status| row.lanes[i].received > received;
            let has_more = |node: NodeId| self.peers.row(node, self.current).is_some_and(|row| is_more(row));
            // What the owner says comes behind what it appended, so there something is missing. What others
            // say may only be quicker than the owner's own message, unless the owner is not to be heard.
            if !self.peers.rows(self.current).any(|(_, row)| is_more(row)) {
                continue;
            }
            let owner_reachable = owner != me && self.is_linked_to(owner, now);
            let node = if owner_reachable {
                has_more(owner).then_some(owner)
            } else {
                let heard = self.peers.heard(now).intersection(self.peers.linked());
                heard.iter().find(|node| has_more(*node))
            };
            if let Some(node) = node {
                questions.insert(owner, (node, received));
            }
        }
        let patience = self.settings.heartbeat.times(2);
        for (owner, (node, after)) in questions {
            let wait = self.resends.get(&owner).is_some_and(|asked| {
                let progress = asked.answered && after > asked.after;
                let other = asked.node != node;
                !progress && !other && now.since(asked.at) < patience
            });
            if !wait {
                self.resends.insert(owner, Asked { node, at: now, after, answered: false });
                self.send(node, Message::Resend { view: self.current, lane: owner, after }, out);
            }
        }
    }
}
