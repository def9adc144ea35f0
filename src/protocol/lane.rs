//! Lanes, and all that a node holds of one view.
//!
//! A lane is the log of one sender in one view. It has one writer for ever (rule A), its entries are held without a
//! gap from the start, and nothing below its frontier is still to come (rule B). A view's log is its
//! lanes, the votes on them, and what this node has said in the view's seal.
//!
//! What is delivered may be forgotten, from the front. Then the lane begins at its base, and what lies up to there is
//! in a snapshot or nowhere.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::types::{Entry, Lsn, NodeId, Position, Timestamp, limits};

use super::base::Base;
use super::message::{Ballot, LaneVector, Value, View};
use super::mutation::{Mutation, mutated};

/// The entries of one sender in one view, as far as this node has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    /// Entries up to this one were delivered and are forgotten.
    base: Timestamp,
    /// Those after it, each with the log record that it is in.
    entries: VecDeque<(Lsn, Arc<Entry>)>,
    frontier: Timestamp,
    accepted: Timestamp,
    /// So many of `entries` are delivered.
    delivered: usize,
}

/// What became of an entry that was offered to a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It is the lane's last entry now.
    Added,
    /// It was there already.
    Known,
    /// Something before it is missing.
    Gap,
    /// The lane's frontier has passed it: somebody said that there is no such entry, and what came after it may be
    /// delivered.
    Contradicts,
}

impl Lane {
    /// The timestamp of the last entry received; zero if there is none.
    pub(crate) fn received(&self) -> Timestamp {
        self.entries.back().map_or(self.base, |(_, e)| e.t)
    }

    /// Entries up to this one are not held any more.
    pub(crate) fn base(&self) -> Timestamp {
        self.base
    }

    /// Nothing in `(received, frontier]` is still to come.
    pub(crate) fn frontier(&self) -> Timestamp {
        self.frontier
    }

    /// This node's vote: entries up to this one are on its disk, received before it promised anything.
    pub(crate) fn accepted(&self) -> Timestamp {
        self.accepted
    }

    /// The timestamp of the last entry delivered.
    pub(crate) fn delivered(&self) -> Timestamp {
        if self.delivered == 0 { self.base } else { self.entries[self.delivered - 1].1.t }
    }

    /// The next entry to be delivered, if it is here.
    pub(crate) fn head(&self) -> Option<&Arc<Entry>> {
        self.entries.get(self.delivered).map(|(_, entry)| entry)
    }

    /// Adds an entry, which record `lsn` holds, if it is the next one.
    pub(crate) fn take(&mut self, lsn: Lsn, entry: &Arc<Entry>) -> Taken {
        if entry.t <= self.received() {
            return Taken::Known;
        }
        if entry.prev != self.received() && !mutated(Mutation::LaneOverGap) {
            return Taken::Gap;
        }
        if entry.t <= self.frontier && !mutated(Mutation::FrontierOverGap) {
            return Taken::Contradicts;
        }
        self.entries.push_back((lsn, Arc::clone(entry)));
        self.frontier = self.frontier.max(entry.t);
        Taken::Added
    }

    /// Rule B: a frontier counts only on top of a gapless lane. Returns whether it could be used.
    pub(crate) fn hear_frontier(&mut self, received: Timestamp, frontier: Timestamp) -> bool {
        if self.received() < received && !mutated(Mutation::FrontierOverGap) {
            return false;
        }
        self.frontier = self.frontier.max(frontier);
        true
    }

    /// Entries up to `t` are durable now.
    pub(crate) fn accept(&mut self, t: Timestamp) {
        self.accepted = self.accepted.max(t);
    }

    /// The vote is this, whatever the log's entries say (rule H).
    pub(crate) fn override_accepted(&mut self, t: Timestamp) {
        self.accepted = t;
    }

    /// The head was delivered.
    pub(crate) fn advance(&mut self) {
        self.delivered += 1;
        debug_assert!(self.delivered <= self.entries.len(), "only a head can be delivered");
    }

    /// Entries above `end` are void: forgets them. Returns the first record that held one.
    fn cut(&mut self, end: Timestamp) -> Option<Lsn> {
        let keep = self.entries.partition_point(|(_, e)| e.t <= end);
        assert!(
            keep >= self.delivered,
            "No resurrection: delivered up to {}, which is above the lane's end {end}",
            self.delivered()
        );
        let first = self.entries.get(keep).map(|(lsn, _)| *lsn);
        self.entries.truncate(keep);
        first
    }

    /// The entries held after a timestamp, in order. Below the base there may have been more.
    pub(crate) fn after(&self, t: Timestamp) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.range(self.count_up_to(t)..).map(|(_, entry)| entry)
    }

    fn count_up_to(&self, t: Timestamp) -> usize {
        self.entries.partition_point(|(_, e)| e.t <= t)
    }

    /// Whether the lane may have an entry at `t`: what is held after that says which one came before it.
    fn knows(&self, t: Timestamp) -> bool {
        self.entries.get(self.count_up_to(t)).is_none_or(|(_, next)| next.prev == t)
    }

    /// The first record that holds an entry after `t`.
    fn record_after(&self, t: Timestamp) -> Option<Lsn> {
        self.entries.get(self.count_up_to(t)).map(|(lsn, _)| *lsn)
    }

    /// Forgets the first entry held, which is delivered. Returns where it was.
    pub(crate) fn forget_first(&mut self) -> Position {
        assert!(self.delivered > 0, "only what is delivered is forgotten; the lane is at {}", self.base);
        let (_, entry) = self.entries.pop_front().expect("as many entries as are delivered, at least");
        self.base = entry.t;
        self.delivered -= 1;
        entry.position()
    }

    /// A snapshot covers entries up to `t`, whether they are here or not. Those above stay (rule R).
    fn install(&mut self, t: Timestamp) {
        self.entries.drain(..self.count_up_to(t));
        self.base = t;
        self.delivered = 0;
        self.frontier = self.frontier.max(t);
    }
}

/// Everything that a node holds of one view.
#[derive(Clone, Debug)]
pub(crate) struct ViewLog {
    /// The view itself.
    pub(crate) view: View,
    /// One for each sender, in their order.
    pub(crate) lanes: Vec<Lane>,
    /// The highest votes heard, one vector for each voter in their order.
    votes: Vec<LaneVector>,
    /// The highest ballot promised.
    pub(crate) promised: Option<Ballot>,
    /// The votes at the first promise; from then on they never rise (rule H).
    pub(crate) frozen: Option<LaneVector>,
    /// The value accepted in the highest ballot.
    pub(crate) accepted: Option<(Ballot, Value)>,
    /// The view's decision.
    pub(crate) decided: Option<Value>,
    /// The last records of a promise, an acceptance, a decision.
    pub(crate) said: [Option<Lsn>; 3],
    /// The first record of an entry that the decision has made void.
    void: Option<Lsn>,
}

/// Which of [`ViewLog::said`] is which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Promise = 0,
    Accept = 1,
    Decision = 2,
}

impl ViewLog {
    pub(crate) fn new(view: View) -> ViewLog {
        let lanes = vec![Lane::default(); view.senders.len()];
        let votes = vec![vec![Timestamp::ZERO; lanes.len()]; view.voters.len()];
        ViewLog {
            view,
            lanes,
            votes,
            promised: None,
            frozen: None,
            accepted: None,
            decided: None,
            said: [None; 3],
            void: None,
        }
    }

    /// The first record that a node needs which has this view up to `covered` from elsewhere: one of an
    /// entry above that, or of something said in the view's seal.
    pub(crate) fn first_needed(&self, covered: &[Timestamp]) -> Option<Lsn> {
        let entries = self.lanes.iter().zip(covered).filter_map(|(lane, t)| lane.record_after(*t));
        // Void entries too: what was said before the decision can only be read back with them.
        entries.chain(self.said.into_iter().flatten()).chain(self.void).min()
    }

    /// The view is decided: entries above the ends are void. Returns whether there were any.
    pub(crate) fn decide(&mut self, value: Value) -> bool {
        let cut = self.lanes.iter_mut().zip(&value.ends).filter_map(|(lane, end)| lane.cut(*end)).min();
        self.void = cut;
        self.decided = Some(value);
        cut.is_some()
    }

    /// The last entry delivered of each lane.
    pub(crate) fn delivered(&self) -> LaneVector {
        self.lanes.iter().map(Lane::delivered).collect()
    }

    /// A snapshot covers the lanes up to these entries, durably. They are delivered, so they are chosen, and held
    /// is held: that is a vote, unless the votes are frozen (rules H and R).
    pub(crate) fn install(&mut self, covered: &[Timestamp]) {
        for (lane, t) in self.lanes.iter_mut().zip(covered) {
            lane.install(*t);
            if mutated(Mutation::SnapshotDropsVotes) {
                lane.entries.clear();
                lane.override_accepted(*t);
            } else if self.frozen.is_none() {
                lane.accept(*t);
            }
        }
    }

    /// Whether a snapshot cannot be of this view as it is known here: of another history, or of none.
    pub(crate) fn contradicts(&self, base: &Base) -> bool {
        let exceeds = |ends: &LaneVector| base.lanes.iter().zip(ends).any(|(t, end)| t > end);
        self.view != base.view
            || self.lanes.iter().zip(&base.lanes).any(|(lane, t)| lane.delivered() > *t || !lane.knows(*t))
            // A value that was only accepted may have lost, and another one may have longer lanes.
            || self.decided.as_ref().is_some_and(|value| exceeds(&value.ends))
    }

    /// Whether entries after `have` are forgotten.
    pub(crate) fn has_forgotten(&self, have: &[Timestamp]) -> bool {
        self.lanes.iter().zip(have).any(|(lane, t)| lane.base() > *t)
    }

    /// The last entry held of each lane.
    pub(crate) fn received(&self) -> LaneVector {
        self.lanes.iter().map(Lane::received).collect()
    }

    /// This node's votes.
    pub(crate) fn accepted_lanes(&self) -> LaneVector {
        self.lanes.iter().map(Lane::accepted).collect()
    }

    /// Notes what a voter says it has accepted. Votes only rise.
    pub(crate) fn hear_vote(&mut self, node: NodeId, lane: usize, t: Timestamp) {
        if let Some(i) = self.view.voters.iter().position(|v| v.node == node) {
            let vote = &mut self.votes[i][lane];
            *vote = (*vote).max(t);
        }
    }

    /// The majority vote: entries of this lane up to the result are chosen. `mine` is this node if it is a
    /// registered voter (rule C).
    pub(crate) fn chosen(&self, lane: usize, mine: Option<NodeId>) -> Timestamp {
        let mut votes = [Timestamp::ZERO; limits::MEMBER_COUNT_MAX];
        for (vote, (voter, heard)) in votes.iter_mut().zip(self.view.voters.iter().zip(&self.votes)) {
            *vote = if Some(voter.node) == mine { self.lanes[lane].accepted } else { heard[lane] };
        }
        let votes = &mut votes[..self.view.voters.len()];
        votes.sort_unstable_by(|a, b| b.cmp(a));
        votes[self.view.quorum() - 1]
    }

    /// Where the lane ends, once that is decided.
    pub(crate) fn end(&self, lane: usize) -> Option<Timestamp> {
        self.decided.as_ref().map(|value| value.ends[lane])
    }

    /// The lane's frontier: infinite once the view's decision is known and everything up to it is here.
    pub(crate) fn frontier(&self, lane: usize) -> Timestamp {
        match self.end(lane) {
            Some(end) if self.lanes[lane].received() >= end => Timestamp::INFINITE,
            _ => self.lanes[lane].frontier(),
        }
    }

    /// Whether every entry up to `ends` is held.
    pub(crate) fn holds(&self, ends: &LaneVector) -> bool {
        self.lanes.iter().zip(ends).all(|(lane, end)| lane.received() >= *end)
    }

    /// Whether every entry of a decided view is delivered.
    pub(crate) fn finished(&self) -> bool {
        self.decided
            .as_ref()
            .is_some_and(|v| self.lanes.iter().zip(&v.ends).all(|(lane, end)| lane.delivered() >= *end))
    }

    /// The votes at the first promise: freezes them now if this is the first.
    pub(crate) fn freeze(&mut self) -> LaneVector {
        let received = self.received();
        self.frozen.get_or_insert(received).clone()
    }

    /// Whether a value ends no lane before what is delivered of it. One that was accepted and lost may.
    pub(crate) fn is_beyond_delivered(&self, value: &Value) -> bool {
        self.lanes.iter().zip(&value.ends).all(|(lane, end)| lane.delivered() <= *end)
    }

    /// Whether a value makes sense for this view.
    pub(crate) fn allows(&self, value: &Value) -> bool {
        let View { number, cluster, genesis, senders, .. } = &self.view;
        let next = &value.next;
        value.ends.len() == senders.len()
            && next.number.0.checked_sub(1) == Some(number.0)
            && next.cluster.0 != 0
            && (cluster.0 == 0 || *cluster == next.cluster)
            && *genesis == next.genesis
            && next.senders.iter().all(|s| next.voter(s.node).is_some())
            && !next.senders.is_empty()
    }

    /// Up to a message full of entries after `have`, lane by lane; only decided ones once the view is decided.
    pub(crate) fn fill(&self, have: &LaneVector, fill: &mut Fill) {
        for (i, lane) in self.lanes.iter().enumerate() {
            let end = self.end(i).unwrap_or(Timestamp::INFINITE);
            // Without those before it an entry would be of no use.
            if lane.base() > have[i] {
                continue;
            }
            for entry in lane.after(have[i]).take_while(|e| e.t <= end) {
                if !fill.push(entry) {
                    return;
                }
            }
        }
    }

    /// The smallest entry that is not delivered yet, among those held: the head of the priority queue.
    ///
    /// The lanes are sorted runs, so the queue is a merge of their heads; with few senders a scan beats a heap.
    pub(crate) fn head(&self) -> Option<(usize, Position)> {
        let heads = self.lanes.iter().enumerate().filter_map(|(i, l)| Some((i, l.head()?.position())));
        heads.min_by_key(|(_, position)| *position)
    }
}

/// Entries for one catching-up message, up to a soft limit of bytes.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) entries: Vec<Arc<Entry>>,
    len: usize,
    len_max: usize,
}

impl Fill {
    /// An empty one, to be filled up to about so many bytes.
    pub(crate) fn new(len_max: usize) -> Fill {
        Fill { entries: Vec::new(), len: 0, len_max }
    }

    /// Adds an entry; `false` if the message is full and it was not added.
    pub(crate) fn push(&mut self, entry: &Arc<Entry>) -> bool {
        if self.is_full() {
            return false;
        }
        self.len += entry.batch.bytes().len();
        self.entries.push(Arc::clone(entry));
        true
    }

    /// Whether nothing more goes in.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.len_max || self.entries.len() >= limits::FILL_COUNT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{Sender, Voter};
    use crate::types::{Batch, ClusterId, DiskId, Incarnation, Label, Millis, OriginPair, ViewNumber};

    fn node(id: u8) -> NodeId {
        NodeId::new(id).expect("below 64")
    }

    fn entry(t: u64, sender: u8, prev: u64) -> Arc<Entry> {
        Arc::new(Entry {
            view: ViewNumber(1),
            t: Timestamp(t),
            node: node(sender),
            prev: Timestamp(prev),
            label: Label { origin: node(sender), pair: OriginPair::default(), seq: t },
            wall: Millis(0),
            batch: Batch::new(vec![0, 0, 0, 0]).expect("empty"),
        })
    }

    fn view(voters: u8, senders: u8) -> View {
        View {
            number: ViewNumber(1),
            cluster: ClusterId(1),
            format: View::FORMAT,
            genesis: 0,
            voters: (0..voters)
                .map(|id| Voter {
                    node: node(id),
                    disk: DiskId(1),
                    registered: ViewNumber(1),
                    drops: 0,
                    drops_at: Millis(0),
                })
                .collect(),
            senders: (0..senders).map(|id| Sender { node: node(id), incarnation: Incarnation(1) }).collect(),
        }
    }

    #[test]
    fn a_lane_takes_entries_without_gaps_only() {
        let mut lane = Lane::default();
        assert_eq!(lane.take(Lsn(1), &entry(5, 0, 3)), Taken::Gap);
        assert_eq!(lane.take(Lsn(1), &entry(3, 0, 0)), Taken::Added);
        assert_eq!(lane.take(Lsn(1), &entry(3, 0, 0)), Taken::Known);
        assert!(!lane.hear_frontier(Timestamp(5), Timestamp(9)), "rule B");
        assert_eq!(lane.frontier(), Timestamp(3));
        assert_eq!(lane.take(Lsn(1), &entry(5, 0, 3)), Taken::Added);
        assert!(lane.hear_frontier(Timestamp(5), Timestamp(9)));
        assert_eq!(lane.frontier(), Timestamp(9));
        assert_eq!(
            lane.take(Lsn(1), &entry(9, 0, 5)),
            Taken::Contradicts,
            "the frontier was said to be true"
        );
        assert_eq!(lane.cut(Timestamp(4)), Some(Lsn(1)));
        assert_eq!(lane.received(), Timestamp(3));
        lane.advance();
        assert_eq!(lane.forget_first().t, Timestamp(3));
        let state = (lane.received(), lane.delivered(), lane.base(), lane.head().is_none());
        assert_eq!(state, (Timestamp(3), Timestamp(3), Timestamp(3), true));
        assert_eq!(lane.take(Lsn(2), &entry(11, 0, 3)), Taken::Added);
        lane.install(Timestamp(3));
        assert_eq!(lane.received(), Timestamp(11), "what is above a snapshot stays");
        lane.install(Timestamp(20));
        assert_eq!((lane.received(), lane.frontier()), (Timestamp(20), Timestamp(20)));
    }

    #[test]
    fn chosen_is_the_majority_vote() {
        for voters in 1..=9_u8 {
            let mut log = ViewLog::new(view(voters, 1));
            let quorum = log.view.quorum();
            for (count, id) in (0..voters).enumerate() {
                let before = log.chosen(0, None);
                assert_eq!(before == Timestamp(7), count >= quorum, "{voters} voters, {count} votes");
                log.hear_vote(node(id), 0, Timestamp(7));
            }
            assert_eq!(log.chosen(0, None), Timestamp(7));
        }
    }

    #[test]
    fn the_head_is_the_smallest_position() {
        let mut log = ViewLog::new(view(3, 2));
        assert_eq!(log.head(), None);
        log.lanes[1].take(Lsn(1), &entry(4, 1, 0));
        log.lanes[0].take(Lsn(1), &entry(4, 0, 0));
        assert_eq!(log.head().map(|(lane, _)| lane), Some(0), "the lower node goes first");
        log.lanes[0].advance();
        assert_eq!(log.head().map(|(lane, _)| lane), Some(1));
    }
}
