//! Linearizable reads without the log (`docs/protocol.md`, section 6).
//!
//! All reads of a turn share one probe: a majority of unsealed voters says what it has accepted, and once the
//! largest of that is delivered here, this store has everything that was acknowledged before the probe left.

use std::collections::BTreeMap;

use crate::types::{Millis, NodeId, NodeSet, Timestamp, ViewNumber};

use super::api::{Output, ReadTicket};
use super::marks::Mark;
use super::message::{LaneVector, Message, Nonce};
use super::mutation::{Mutation, mutated};
use super::replica::Replica;

/// One probe and the reads that share it.
#[derive(Clone, Debug)]
struct Attempt {
    tickets: Vec<ReadTicket>,
    answered: NodeSet,
    target: LaneVector,
    /// A majority has answered: `target` is complete.
    complete: bool,
    sent_at: Millis,
}

/// Reads on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    /// Not probed for yet.
    pub(crate) waiting: Vec<ReadTicket>,
    /// By the counter of their nonce. All are of the current view.
    attempts: BTreeMap<u64, Attempt>,
    counter: u64,
    /// When a probe was last put off for want of a majority.
    retry_at: Millis,
}

impl Reads {
    /// A new view: what was probed in the old one is probed again.
    pub(crate) fn restart(&mut self) {
        let attempts = std::mem::take(&mut self.attempts);
        self.waiting.extend(attempts.into_values().flat_map(|a| a.tickets));
        self.waiting.sort_unstable();
        self.retry_at = Millis(0);
    }

    /// Whether a probe is out.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// Somebody lost patience.
    pub(crate) fn cancel(&mut self, ticket: ReadTicket) {
        self.waiting.retain(|t| *t != ticket);
        for attempt in self.attempts.values_mut() {
            attempt.tickets.retain(|t| *t != ticket);
        }
        self.attempts.retain(|_, a| !a.tickets.is_empty());
    }
}

impl Replica {
    /// Sends a probe for what waits, again where an answer is missing, and hands out what is ready.
    pub(crate) fn run_reads(&mut self, now: Millis, out: &mut Vec<Output>) {
        let heartbeat = self.settings.heartbeat;
        // Probe or answer may be lost with a connection. Asking again with the same nonce is sound for the
        // same reads: every answer is younger than they are.
        let voters = self.log().view.voter_set().without(self.settings.me);
        let mut again = Vec::new();
        for (counter, attempt) in &mut self.reads.attempts {
            if !attempt.complete && now.since(attempt.sent_at) >= heartbeat.times(2) {
                attempt.sent_at = now;
                let silent = voters.iter().filter(|node| !attempt.answered.contains(*node));
                again.push((*counter, silent.collect::<NodeSet>()));
            }
        }
        for (counter, silent) in again {
            self.mark(Mark::ReadRepeated);
            let nonce = Nonce { incarnation: self.identity.incarnation, counter };
            self.send_all(silent, Message::ReadProbe { nonce }, out);
        }
        let blocked = || self.log().frozen.is_some() || !self.hears_majority(now);
        let put_off = now < self.reads.retry_at && blocked();
        if !self.reads.waiting.is_empty() && !put_off {
            self.reads.retry_at = now.plus(heartbeat);
            self.probe(now, out);
        }
        let ready: Vec<u64> = self
            .reads
            .attempts
            .iter()
            .filter(|(_, a)| a.complete && self.has_delivered(&a.target))
            .map(|(counter, _)| *counter)
            .collect();
        for counter in ready {
            if let Some(attempt) = self.reads.attempts.remove(&counter) {
                out.extend(attempt.tickets.into_iter().map(Output::ReadReady));
            }
        }
    }

    fn probe(&mut self, now: Millis, out: &mut Vec<Output>) {
        let me = self.settings.me;
        self.reads.counter += 1;
        let counter = self.reads.counter;
        let log = self.log();
        let voters = log.view.voter_set();
        let lanes = log.lanes.len();
        let attempt = Attempt {
            tickets: std::mem::take(&mut self.reads.waiting),
            answered: NodeSet::EMPTY,
            target: vec![Timestamp::ZERO; lanes],
            complete: false,
            sent_at: now,
        };
        self.reads.attempts.insert(counter, attempt);
        let nonce = Nonce { incarnation: self.identity.incarnation, counter };
        self.send_all(voters.without(me), Message::ReadProbe { nonce }, out);
        if self.is_voter() {
            let (view, sealed) = (self.current, self.log().frozen.is_some());
            let accepted = self.log().accepted_lanes();
            self.on_read_answer(me, nonce, view, sealed, accepted);
        }
    }

    pub(crate) fn on_read_probe(&mut self, from: NodeId, nonce: Nonce, out: &mut Vec<Output>) {
        if !self.is_voter() {
            return;
        }
        let log = self.log();
        let sealed = log.frozen.is_some();
        let answer =
            Message::ReadAnswer { nonce, view: self.current, sealed, accepted: log.accepted_lanes() };
        if sealed {
            self.mark(Mark::ReadSealedAnswer);
        }
        self.send(from, answer, out);
    }

    pub(crate) fn on_read_answer(
        &mut self,
        from: NodeId,
        nonce: Nonce,
        view: ViewNumber,
        sealed: bool,
        accepted: LaneVector,
    ) {
        let log = self.log();
        let quorum = log.view.quorum();
        // Answers of sealed voters and of other views are not counted.
        let sealed = sealed && !mutated(Mutation::SealedAnswersCount);
        let counts = view == self.current && !sealed && self.speaks_as_voter(from);
        if !counts || nonce.incarnation != self.identity.incarnation || accepted.len() != log.lanes.len() {
            return;
        }
        let Some(attempt) = self.reads.attempts.get_mut(&nonce.counter) else { return };
        if attempt.complete {
            return;
        }
        attempt.answered.insert(from);
        for (target, accepted) in attempt.target.iter_mut().zip(accepted) {
            *target = (*target).max(accepted);
        }
        attempt.complete = attempt.answered.len() >= quorum || mutated(Mutation::ReadAlone);
        if attempt.complete && !self.has_delivered(&self.reads.attempts[&nonce.counter].target) {
            self.mark(Mark::ReadWaits);
        }
    }
}
