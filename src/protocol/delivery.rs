//! Delivery: the priority queue's head goes out once it is chosen and nothing can come before it.
//!
//! Lamport 1978 delivers the head of the queue when every process is known to be past it; here "every process" is every
//! sender of the view, "past it" is the frontier of its lane, and the head must be durable on a majority
//! too (`docs/protocol.md`, section 2). Older views are delivered to their ends first (rule M).

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::types::{Entry, Index, Millis, NodeSet, Position, Timestamp};

use super::api::{Delivery, Output, Verdict};
use super::marks::Mark;
use super::mutation::{Mutation, mutated};
use super::replica::Replica;

impl Replica {
    /// Delivers everything that may be delivered.
    pub(crate) fn deliver(&mut self, now: Millis, out: &mut Vec<Output>) {
        loop {
            let log =
                self.views.get(&self.delivering).expect("every view from the delivered one on has a log");
            // Rule M.
            if log.finished() || (log.decided.is_some() && mutated(Mutation::ViewsPassedOver)) {
                self.delivering = self.delivering.next();
                self.delivered = Position { view: self.delivering, ..Position::default() };
                continue;
            }
            let Some((lane, position)) = log.head() else { break };
            // Void, or a lie: what came before the end of a snapshot is in it, or never will be delivered.
            if position <= self.history.covered() {
                break;
            }
            let open = log.decided.is_none();
            // Up to the ends of a decided view everything is chosen.
            let mine = || self.is_voter().then_some(self.settings.me);
            let chosen =
                !open || position.t <= log.chosen(lane, mine()) || mutated(Mutation::DeliverUnchosen);
            if !chosen {
                self.mark(Mark::ThirdVote);
                break;
            }
            let own = if open { self.my_lane() } else { None };
            let behind: NodeSet = log
                .view
                .senders
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != lane && Some(*other) != own)
                .filter(|(other, _)| log.frontier(*other) < position.t)
                .map(|(_, sender)| sender.node)
                .collect();
            let unwaited = open && mutated(Mutation::NoFrontierWait);
            if !behind.is_empty() && !unwaited {
                if open && self.blocked.is_none_or(|(at, ..)| at != position) {
                    self.blocked = Some((position, behind, now));
                } else if let Some((_, lanes, _)) = &mut self.blocked {
                    *lanes = behind;
                }
                return;
            }
            let log = self.views.get_mut(&self.delivering).expect("it was there a moment ago");
            let entry = Arc::clone(log.lanes[lane].head().expect("the head of the queue is a lane's head"));
            log.lanes[lane].advance();
            self.history.push(lane, &entry);
            self.deliver_one(entry, now, out);
        }
        self.blocked = None;
    }

    fn deliver_one(&mut self, entry: Arc<Entry>, now: Millis, out: &mut Vec<Output>) {
        let position = entry.position();
        assert!(
            position > self.delivered || mutated(Mutation::NoFrontierWait),
            "Agreement: {position} is delivered after {}",
            self.delivered
        );
        self.delivered = position;
        let verdict = self.origins.judge(&entry.label);
        match verdict {
            Verdict::Applied => {}
            Verdict::Repeated => self.mark(Mark::SkippedRepeated),
            Verdict::TooEarly => self.mark(Mark::SkippedEarly),
        }
        self.time = self.time.max(entry.wall);
        self.digest = digest(self.digest, &entry, verdict);
        let mut first = Index(0);
        if verdict == Verdict::Applied {
            first = Index(self.index.0 + 1);
            self.index.0 += u64::from(entry.batch.count());
        }
        let ticket = self.note_own_delivery(&entry, verdict, now);
        out.push(Output::Deliver(Delivery { entry, verdict, first, now: self.time, ticket }));
    }

    /// Whether everything up to `target` is delivered in the current view, and every older view to its ends (rule Q).
    pub(crate) fn has_delivered(&self, target: &[Timestamp]) -> bool {
        (self.delivering == self.current || mutated(Mutation::ReadSkipsOlderViews))
            && self.log().lanes.iter().zip(target).all(|(lane, target)| lane.delivered() >= *target)
    }
}

/// Chains the digest of everything delivered.
fn digest(before: u64, entry: &Entry, verdict: Verdict) -> u64 {
    let mut bytes = [0; 34];
    bytes[..8].copy_from_slice(&before.to_le_bytes());
    bytes[8..16].copy_from_slice(&entry.view.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&entry.t.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&xxh3_64(entry.batch.bytes()).to_le_bytes());
    bytes[32] = entry.node.get();
    bytes[33] = u8::from(verdict == Verdict::Applied);
    xxh3_64(&bytes)
}
