//! The invariants of section 10 of `docs/protocol.md` that are about entries, votes and decisions, by their names.
//!
//! Checked from outside: from the records that nodes write, from what of them is durable, and from what
//! they tell each other. A message is judged at the moment it leaves, so a promise that rests on a record
//! not yet durable is found even where no crash makes use of it.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::{Ballot, Decision, LaneVector, Message, Record, Status, Value, View, Voter};
use crate::types::{Entry, Label, Lsn, NodeId, NodeSet, Position, Timestamp, ViewNumber};

use super::checker::Violation;
use super::machine::Found;

/// One lane: a view and its sender.
type Lane = (ViewNumber, NodeId);

/// Of one node, what its disk is sure to hold.
#[derive(Clone, Debug, Default)]
struct Holder {
    /// Written and not durable yet.
    pending: VecDeque<(Lsn, Record)>,
    /// The last entry of each lane that is held, as a vote or filled in.
    held: BTreeMap<Lane, Timestamp>,
    /// The last entry of each lane that is held as a vote.
    voted: BTreeMap<Lane, Timestamp>,
    /// A snapshot has everything of the views before this one.
    installed: ViewNumber,
    /// What its former disks held.
    former: BTreeMap<Lane, Timestamp>,
    /// What it said in views before this one, it said from another disk.
    registered_after: ViewNumber,
    /// The highest ballot promised, and accepted, in each view.
    promised: BTreeMap<ViewNumber, Ballot>,
    accepted: BTreeMap<ViewNumber, Ballot>,
    /// The highest ballot of each view that it has told anybody to have promised or accepted.
    told: BTreeMap<ViewNumber, Ballot>,
}

impl Holder {
    /// The last entry of a lane that is held, or was: one of a majority may have lost its disk since.
    fn ever_held(&self, lane: &Lane) -> Timestamp {
        self.held(lane).max(self.former.get(lane).copied().unwrap_or_default())
    }

    fn keep(&mut self, record: &Record) {
        let raise = |map: &mut BTreeMap<Lane, Timestamp>, entry: &Entry| {
            let t = map.entry((entry.view, entry.node)).or_default();
            *t = (*t).max(entry.t);
        };
        match record {
            Record::Start { .. } | Record::Decision(_) | Record::Installed { .. } => {}
            Record::Entry(entry) => {
                raise(&mut self.held, entry);
                raise(&mut self.voted, entry);
            }
            Record::Fill(entry) => raise(&mut self.held, entry),
            Record::Promise { view, ballot, .. } => {
                let highest = self.promised.entry(*view).or_insert(*ballot);
                *highest = (*highest).max(*ballot);
            }
            Record::Accept { view, ballot, .. } => {
                let highest = self.accepted.entry(*view).or_insert(*ballot);
                *highest = (*highest).max(*ballot);
                let highest = self.promised.entry(*view).or_insert(*ballot);
                *highest = (*highest).max(*ballot);
            }
        }
    }

    fn held(&self, lane: &Lane) -> Timestamp {
        if lane.0 < self.installed {
            return Timestamp::INFINITE;
        }
        self.held.get(lane).copied().unwrap_or_default()
    }
}

fn is_same_voters(one: &View, other: &View) -> bool {
    let voters = |view: &View| view.voters.iter().map(|voter| (voter.node, voter.disk)).collect::<Vec<_>>();
    voters(one) == voters(other)
}

/// Everything that any node ever wrote or said, as far as it can be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Invariants {
    entries: BTreeMap<Position, (Label, Vec<u8>)>,
    /// Timestamps of the entries that exist, by lane.
    lanes: BTreeMap<Lane, Vec<Timestamp>>,
    /// The highest frontier that anybody stated of a lane.
    frontiers: BTreeMap<Lane, Timestamp>,
    decisions: BTreeMap<ViewNumber, Decision>,
    /// The views that decisions have begun.
    views: BTreeMap<ViewNumber, View>,
    holders: Vec<Holder>,
    /// The votes that were told to anybody, by lane and voter.
    votes: BTreeMap<Lane, Vec<Timestamp>>,
    /// The value of each ballot.
    values: BTreeMap<(ViewNumber, Ballot), LaneVector>,
    /// Who has ever asked to leave.
    leavers: NodeSet,
    pub(crate) violations: Vec<Violation>,
}

impl Invariants {
    pub(crate) fn new(nodes: usize) -> Invariants {
        Invariants {
            entries: BTreeMap::new(),
            lanes: BTreeMap::new(),
            frontiers: BTreeMap::new(),
            decisions: BTreeMap::new(),
            views: BTreeMap::new(),
            holders: vec![Holder::default(); nodes],
            votes: BTreeMap::new(),
            values: BTreeMap::new(),
            leavers: NodeSet::EMPTY,
            violations: Vec::new(),
        }
    }

    fn fail(&mut self, invariant: &'static str, what: String) {
        self.violations.push(Violation { invariant, what });
    }

    /// How many views have been decided.
    pub(crate) fn decisions(&self) -> usize {
        self.decisions.len()
    }

    /// The senders of the view that a decision ends whose last entry nobody is known to have a majority for.
    pub(crate) fn rescued(&self, decision: &Decision) -> impl Iterator<Item = NodeId> {
        let view = self.views.get(&decision.view);
        let lanes = view.into_iter().flat_map(|view| {
            let ends = view.senders.iter().zip(&decision.value.ends);
            ends.filter(|(sender, end)| self.chosen(view, &(view.number, sender.node)) < **end)
        });
        lanes.map(|(sender, _)| sender.node)
    }

    /// Whether anybody has decided a view.
    pub(crate) fn is_decided(&self, view: ViewNumber) -> bool {
        self.decisions.contains_key(&view)
    }

    /// A process has started. What it read back from its disk is durable now; what is not there any more was
    /// never promised to anybody.
    pub(crate) fn started(&mut self, node: NodeId, found: &Found) {
        let holder = &mut self.holders[node.index()];
        holder.pending.clear();
        for record in &found.records {
            holder.keep(record);
        }
    }

    /// A node holds all entries up to this one durably, in a snapshot of a peer.
    pub(crate) fn installed(&mut self, node: NodeId, position: Position) {
        let holder = &mut self.holders[node.index()];
        holder.installed = holder.installed.max(position.view);
        let lanes = self.lanes.range((position.view, NodeId::default())..);
        for (lane, entries) in lanes.take_while(|(lane, _)| lane.0 == position.view) {
            let at = |t| Position { view: lane.0, t, node: lane.1 };
            let Some(last) = entries.iter().copied().filter(|t| at(*t) <= position).max() else { continue };
            for map in [&mut holder.held, &mut holder.voted] {
                let t = map.entry(*lane).or_default();
                *t = (*t).max(last);
            }
        }
    }

    /// A node has another disk, which is empty.
    pub(crate) fn wiped(&mut self, node: NodeId) {
        let registered_after = self.views.last_key_value().map(|(view, _)| view.next()).unwrap_or_default();
        let holder = std::mem::take(&mut self.holders[node.index()]);
        let mut former = holder.former;
        for (lane, t) in holder.held {
            let before = former.entry(lane).or_default();
            *before = (*before).max(t);
        }
        self.holders[node.index()] = Holder { former, registered_after, ..Holder::default() };
    }

    /// A node asks to leave.
    pub(crate) fn leaves(&mut self, node: NodeId) {
        self.leavers.insert(node);
    }

    /// A node wrote a record to its log.
    pub(crate) fn persisted(&mut self, node: NodeId, lsn: Lsn, record: Record) {
        match &record {
            Record::Entry(entry) | Record::Fill(entry) => self.stored(node, entry),
            Record::Decision(decision) => self.decided(node, decision),
            Record::Accept { view, ballot, value, .. } => {
                let ends = self.values.entry((*view, *ballot)).or_insert_with(|| value.ends.clone());
                if *ends != value.ends {
                    let what = format!("{node} accepts two values in {ballot} of {view}");
                    self.fail("One decision", what);
                }
            }
            Record::Start { .. } | Record::Promise { .. } | Record::Installed { .. } => {}
        }
        self.holders[node.index()].pending.push_back((lsn, record));
    }

    /// All records of a node up to this one are durable.
    pub(crate) fn durable(&mut self, node: NodeId, lsn: Lsn) {
        loop {
            let holder = &mut self.holders[node.index()];
            let due = holder.pending.front().is_some_and(|(at, _)| *at <= lsn);
            let Some((_, record)) = due.then(|| holder.pending.pop_front()).flatten() else { break };
            holder.keep(&record);
            if let Record::Accept { view, value, .. } = &record {
                self.accepted(node, *view, value);
            }
        }
    }

    /// A value that changes the voters is accepted by those only who hold everything of the views before. So the next
    /// view has holders for all of it, whoever of the old voters is lost then.
    fn accepted(&mut self, node: NodeId, view: ViewNumber, value: &Value) {
        let Some(old) = self.views.get(&view) else { return };
        if is_same_voters(old, &value.next) {
            return;
        }
        let holder = &self.holders[node.index()];
        let missing = self.ends_before(view).find(|(lane, end)| holder.held(lane) < *end);
        if let Some(((lacks, sender), end)) = missing {
            let what = format!(
                "{node} accepts other voters for {}, and lacks entries of the lane of {sender} in {lacks}, which \
                 ends at {end}",
                value.next.number
            );
            self.fail("Holders", what);
        }
    }

    /// The ends of all lanes of the views before this one.
    fn ends_before(&self, view: ViewNumber) -> impl Iterator<Item = (Lane, Timestamp)> {
        let ended = self.decisions.range(..view).filter_map(|(view, d)| Some((self.views.get(view)?, d)));
        ended.flat_map(|(view, decision)| {
            let ends = view.senders.iter().zip(&decision.value.ends);
            ends.map(|(sender, end)| ((view.number, sender.node), *end))
        })
    }

    fn stored(&mut self, node: NodeId, entry: &Entry) {
        let bytes = entry.batch.bytes();
        let position = entry.position();
        match self.entries.get(&position) {
            Some((label, first)) if *label != entry.label || first != bytes => {
                let what = format!("{node} holds {} at {position}, another node {label}", entry.label);
                self.fail("Single writer", what);
            }
            Some(_) => {}
            None => {
                self.entries.insert(position, (entry.label, bytes.to_vec()));
                let lane = (entry.view, entry.node);
                self.lanes.entry(lane).or_default().push(entry.t);
                if let Some(stated) = self.frontiers.get(&lane).filter(|stated| **stated >= entry.t) {
                    let what =
                        format!("{node} makes {position} although the lane was said to be past {stated}");
                    self.fail("True frontier", what);
                }
            }
        }
    }

    fn decided(&mut self, node: NodeId, decision: &Decision) {
        match self.decisions.get(&decision.view) {
            Some(first) if first != decision => {
                let what = format!("{node} learns {decision:?}, another node {first:?}");
                return self.fail("One decision", what);
            }
            Some(_) => return,
            None => {}
        }
        let next = &decision.value.next;
        if let Some(view) = self.views.get(&decision.view).cloned() {
            self.probation(&view, next);
            for (sender, end) in view.senders.iter().zip(&decision.value.ends) {
                let lane = (view.number, sender.node);
                let chosen = self.chosen(&view, &lane);
                if chosen > *end {
                    let what = format!(
                        "{} ends the lane of {} at {end}, but {chosen} was chosen",
                        view.number, sender.node
                    );
                    self.fail("Seal covers chosen", what);
                }
                let had = |v: &&Voter| self.holders[v.node.index()].ever_held(&lane) >= *end;
                let holders = next.voters.iter().filter(had).count();
                if holders < next.quorum() {
                    let what = format!(
                        "{holders} voters hold the lane of {} in {} up to its end {end}",
                        sender.node, view.number
                    );
                    self.fail("Holders", what);
                }
            }
        }
        self.views.insert(next.number, next.clone());
        self.decisions.insert(decision.view, decision.clone());
    }

    /// Each drop for a fault is counted in the view that comes of it; nothing but time takes it back.
    fn probation(&mut self, old: &View, next: &View) {
        let lists = |view: &View, node| view.senders.iter().any(|sender| sender.node == node);
        let mut wrong = Vec::new();
        for (before, after) in old.voters.iter().zip(&next.voters) {
            let node = before.node;
            if old.number == ViewNumber(0) || before.disk != after.disk {
                continue;
            }
            let dropped = lists(old, node) && !lists(next, node) && !self.leavers.contains(node);
            let least =
                before.drops_left(after.drops_at).saturating_add(dropped.into()).min(Voter::DROPS_MAX);
            if after.drops < least {
                wrong.push(format!(
                    "{node} has {} drops in {}, and should have {least} after {} in {}",
                    after.drops, next.number, before.drops, old.number
                ));
            }
        }
        for what in wrong {
            self.fail("Probation", what);
        }
    }

    /// The last entry of a lane for which a majority was told to have voted.
    fn chosen(&self, view: &View, lane: &Lane) -> Timestamp {
        let Some(votes) = self.votes.get(lane) else { return Timestamp::ZERO };
        let mut votes: LaneVector = view.voters.iter().map(|v| votes[v.node.index()]).collect();
        votes.sort_unstable_by(|a, b| b.cmp(a));
        votes.get(view.quorum() - 1).copied().unwrap_or_default()
    }

    /// How much a node has told of its votes in a view.
    pub(crate) fn votes_told(&self, node: NodeId, view: ViewNumber) -> u64 {
        let lanes = self.votes.range((view, NodeId::default())..).take_while(|(lane, _)| lane.0 == view);
        lanes.map(|(_, votes)| votes[node.index()].0).sum()
    }

    /// A node delivered an entry; `first`: before everybody else.
    pub(crate) fn delivered(&mut self, node: NodeId, entry: &Entry, first: bool) {
        let lane = (entry.view, entry.node);
        let Some(view) = self.views.get(&entry.view) else {
            return self.fail("Agreement", format!("{node} delivers {entry} of a view that nobody decided"));
        };
        if let Some(decision) = self.decisions.get(&entry.view)
            && let Some(lane) = view.lane_of(entry.node)
            && entry.t > decision.value.ends[lane]
        {
            let what = format!("{node} delivers {entry}, above the end {}", decision.value.ends[lane]);
            return self.fail("No resurrection", what);
        }
        if first {
            let had = |v: &&Voter| self.holders[v.node.index()].ever_held(&lane) >= entry.t;
            let held = view.voters.iter().filter(had).count();
            if held < view.quorum() {
                let what = format!("{node} delivers {entry}, which {held} voters hold durably");
                self.fail("Durability", what);
            }
        }
    }

    /// A message leaves a node.
    pub(crate) fn sent(&mut self, node: NodeId, message: &Message) {
        match message {
            Message::Status(status) => self.stated(node, status),
            Message::ReadAnswer { view, accepted, .. } => self.voted(node, *view, accepted.iter().copied()),
            Message::SealPromise { view, ballot, .. } => {
                let durable = self.holders[node.index()].promised.get(view).copied();
                if durable < Some(*ballot) {
                    let what =
                        format!("{node} answers {ballot} of {view} while its durable promise is {durable:?}");
                    self.fail("Promises are durable", what);
                }
                self.tell(node, *view, *ballot);
            }
            Message::SealPrepare { view, ballot, .. } => {
                let durable = self.holders[node.index()].promised.get(view).copied();
                if durable < Some(*ballot) {
                    let what =
                        format!("{node} opens {ballot} of {view} while its durable promise is {durable:?}");
                    self.fail("Promises are durable", what);
                }
            }
            Message::SealAccepted { view, ballot } => {
                let durable = self.holders[node.index()].accepted.get(view).copied();
                if durable < Some(*ballot) {
                    let what = format!("{node} has accepted {ballot} of {view}, durable is {durable:?}");
                    self.fail("Acceptances are durable", what);
                }
                self.tell(node, *view, *ballot);
            }
            _ => {}
        }
    }

    /// What a voter promises or accepts only rises, in the order in which it says so.
    fn tell(&mut self, node: NodeId, view: ViewNumber, ballot: Ballot) {
        let told = self.holders[node.index()].told.entry(view).or_insert(ballot);
        let before = *told;
        *told = before.max(ballot);
        if before > ballot {
            let what = format!("{node} promises or accepts {ballot} of {view} after {before}");
            self.fail("Accepting is promising", what);
        }
    }

    fn stated(&mut self, node: NodeId, status: &Status) {
        let Some(view) = self.views.get(&status.view) else { return };
        let mut wrong = Vec::new();
        for (sender, row) in view.senders.iter().zip(&status.lanes) {
            let lane = (status.view, sender.node);
            if let Some(entries) = self.lanes.get(&lane) {
                let below = entries.iter().rev().find(|t| **t <= row.frontier);
                if let Some(t) = below.filter(|t| **t > row.received) {
                    wrong.push(format!(
                        "{node} says that the lane of {} in {} is past {} with nothing above {}, but has {t}",
                        sender.node, status.view, row.frontier, row.received
                    ));
                }
            }
            let frontier = self.frontiers.entry(lane).or_default();
            *frontier = (*frontier).max(row.frontier);
        }
        for what in wrong {
            self.fail("True frontier", what);
        }
        self.voted(node, status.view, status.lanes.iter().map(|row| row.accepted));
    }

    fn voted(&mut self, node: NodeId, view: ViewNumber, accepted: impl Iterator<Item = Timestamp>) {
        let Some(view) = self.views.get(&view) else { return };
        let mut wrong = Vec::new();
        for (i, (sender, accepted)) in view.senders.iter().zip(accepted).enumerate() {
            let lane = (view.number, sender.node);
            let nodes = self.holders.len();
            let vote =
                &mut self.votes.entry(lane).or_insert_with(|| vec![Timestamp::ZERO; nodes])[node.index()];
            if accepted < *vote && view.number >= self.holders[node.index()].registered_after {
                let what = format!(
                    "{node} votes for {accepted} of {} in {}, after {vote}",
                    sender.node, view.number
                );
                wrong.push(("Votes are durable", what));
            }
            if accepted <= *vote {
                continue;
            }
            *vote = accepted;
            let durable = self.holders[node.index()].voted.get(&lane).copied().unwrap_or_default();
            if durable < accepted {
                let what = format!("{node} votes for {accepted} of {}, durable is {durable}", sender.node);
                wrong.push(("Votes are durable", what));
            }
            if let Some(decision) = self.decisions.get(&view.number) {
                let chosen = self.chosen(view, &lane);
                let end = decision.value.ends[i];
                if chosen > end {
                    let what = format!(
                        "{} ended the lane of {} at {end}, and {chosen} is chosen now",
                        view.number, sender.node
                    );
                    wrong.push(("Seal covers chosen", what));
                }
            }
        }
        for (invariant, what) in wrong {
            self.fail(invariant, what);
        }
    }
}
