//! What this node knows of its peers: whom it reaches, whom it hears, and their last rows of the shared table.

use std::sync::Arc;

use crate::types::{DiskId, Incarnation, Millis, NodeId, NodeSet, Position, ViewNumber};

use super::message::Status;
use super::replica::Replica;

/// One peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Messages to it go out.
    pub(crate) linked: bool,
    /// The highest incarnation that said hello or spoke.
    pub(crate) incarnation: Incarnation,
    /// The process behind that incarnation.
    pub(crate) boot: u64,
    /// Its disk, once it said hello.
    pub(crate) disk: DiskId,
    /// Its disk wants to be registered in the place of another one.
    pub(crate) joining: bool,
    /// Its last Status.
    pub(crate) row: Option<Arc<Status>>,
    /// The last Status of its incarnation before, until this one speaks: its log must have what that voted (rule E).
    pub(crate) before: Option<Arc<Status>>,
    /// When a Status of this node's view or a later one came last; `None` if it is not heard at all.
    heard_at: Option<Millis>,
    /// When its process last said anything of itself: hello, or a Status of whatever view. `None` once the link to it
    /// is down.
    spoke_at: Option<Millis>,
    /// When it was last told decisions without having asked.
    pub(crate) told_at: Option<Millis>,
    /// The last entry and the length of the snapshot that it is being sent.
    pub(crate) snapshot: Option<(Position, usize)>,
    /// Since when it could have been promoted to sender.
    pub(crate) fit_since: Option<Millis>,
}

/// All peers.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    /// By node number; `None` for this node and for numbers that no member has.
    peers: Vec<Option<Peer>>,
    suspicion: Millis,
    /// Until then, peers that have not spoken in this view yet are taken to hear everybody.
    grace_until: Millis,
}

impl Peers {
    pub(crate) fn new(nodes: impl Iterator<Item = NodeId>, suspicion: Millis) -> Peers {
        let mut peers = Vec::new();
        for node in nodes {
            peers.resize_with(peers.len().max(node.index() + 1), || None);
            peers[node.index()] = Some(Peer::default());
        }
        Peers { peers, suspicion, grace_until: Millis(0) }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(node.index())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.peers.get_mut(node.index())?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        (0..).zip(&self.peers).filter_map(|(i, peer)| Some((NodeId::new(i)?, peer.as_ref()?)))
    }

    /// Nodes that messages can be sent to.
    pub(crate) fn linked(&self) -> NodeSet {
        self.iter().filter(|(_, p)| p.linked).map(|(node, _)| node).collect()
    }

    /// A Status of the current view or a later one came from the peer's current incarnation.
    pub(crate) fn note_heard(&mut self, node: NodeId, now: Millis) {
        if let Some(peer) = self.get_mut(node) {
            peer.heard_at = Some(now);
        }
    }

    /// Its process said something of itself.
    pub(crate) fn note_spoke(&mut self, node: NodeId, now: Millis) {
        if let Some(peer) = self.get_mut(node) {
            peer.spoke_at = Some(now);
        }
    }

    /// Hearing ends at once.
    pub(crate) fn note_lost(&mut self, node: NodeId) {
        if let Some(peer) = self.get_mut(node) {
            peer.heard_at = None;
            peer.spoke_at = None;
            peer.fit_since = None;
        }
    }

    /// Entering a view starts every time-out anew.
    pub(crate) fn enter_view(&mut self, now: Millis, view: ViewNumber, lanes: usize) {
        self.grace_until = now.plus(self.suspicion);
        for peer in self.peers.iter_mut().flatten() {
            // Not for those that are silent or lost already.
            if peer.heard_at.is_some_and(|at| now.since(at) < self.suspicion) {
                peer.heard_at = Some(now);
            }
            // A row of this view that came before the view did has not been looked at.
            if peer.row.as_ref().is_some_and(|row| row.view == view && row.lanes.len() != lanes) {
                peer.row = None;
            }
            peer.fit_since = None;
        }
    }

    /// Whether a peer was heard within the suspicion time-out.
    pub(crate) fn hears(&self, node: NodeId, now: Millis) -> bool {
        self.get(node).is_some_and(|peer| self.is_heard(peer, now))
    }

    fn is_heard(&self, peer: &Peer, now: Millis) -> bool {
        peer.heard_at.is_some_and(|at| now.since(at) < self.suspicion)
    }

    /// Whether a peer's process is there, in whatever view it may be: it spoke within the suspicion time-out.
    pub(crate) fn is_alive(&self, peer: &Peer, now: Millis) -> bool {
        peer.spoke_at.is_some_and(|at| now.since(at) < self.suspicion)
    }

    /// All peers that are heard.
    pub(crate) fn heard(&self, now: Millis) -> NodeSet {
        self.iter().filter(|(_, peer)| self.is_heard(peer, now)).map(|(node, _)| node).collect()
    }

    /// The earliest time at which a peer that is heard now falls silent.
    pub(crate) fn next_silence(&self) -> Option<Millis> {
        self.peers.iter().flatten().filter_map(|p| p.heard_at).map(|at| at.plus(self.suspicion)).min()
    }

    /// Whom a peer that is heard hears in this view. One that has not spoken in it yet is given the benefit of the
    /// doubt for a while.
    fn heard_by(&self, peer: &Peer, view: ViewNumber, now: Millis) -> NodeSet {
        match peer.row.as_ref().filter(|row| row.view == view) {
            Some(row) => row.hears,
            None if now < self.grace_until => NodeSet::from_bits(u64::MAX),
            None => NodeSet::EMPTY,
        }
    }

    /// Whether `me`, this node, and a peer hear each other in this view: [`Hearing::links`] for one pair alone.
    pub(crate) fn links(&self, me: NodeId, node: NodeId, view: ViewNumber, now: Millis) -> bool {
        self.get(node)
            .is_some_and(|peer| self.is_heard(peer, now) && self.heard_by(peer, view, now).contains(me))
    }

    /// Who hears whom in this view, as far as `me`, this node, knows.
    pub(crate) fn hearing(&self, me: NodeId, view: ViewNumber, now: Millis) -> Hearing {
        let mut hearing = Hearing {
            me,
            heard: NodeSet::EMPTY,
            known: NodeSet::only(me),
            speaking: NodeSet::EMPTY,
            receives: [NodeSet::EMPTY; NodeId::COUNT_MAX as usize],
        };
        for (node, peer) in self.iter() {
            if !self.is_heard(peer, now) {
                continue;
            }
            hearing.heard.insert(node);
            hearing.receives[node.index()] = self.heard_by(peer, view, now);
            if peer.row.as_ref().is_some_and(|row| row.view == view) {
                hearing.known.insert(node);
            }
        }
        hearing.receives[me.index()] = hearing.heard;
        hearing
    }

    /// The rows of this view.
    pub(crate) fn rows(&self, view: ViewNumber) -> impl Iterator<Item = (NodeId, &Arc<Status>)> {
        self.iter()
            .filter_map(move |(node, peer)| Some((node, peer.row.as_ref().filter(|row| row.view == view)?)))
    }

    /// The peer's row, if it is of this view.
    pub(crate) fn row(&self, node: NodeId, view: ViewNumber) -> Option<&Arc<Status>> {
        self.get(node).and_then(|p| p.row.as_ref()).filter(|row| row.view == view)
    }
}

/// Who hears whom at one moment. Made once for each look, since the reasons to seal ask for every pair.
#[derive(Clone, Debug)]
pub(crate) struct Hearing {
    me: NodeId,
    /// Peers that this node hears.
    heard: NodeSet,
    /// This node, and those of the heard that have said in this view whom they hear.
    known: NodeSet,
    /// The voters that speak for themselves: no learners on other disks.
    pub(crate) speaking: NodeSet,
    /// By listener.
    receives: [NodeSet; NodeId::COUNT_MAX as usize],
}

impl Hearing {
    /// Those of whom it is known whom they hear.
    pub(crate) fn known(&self) -> NodeSet {
        self.known
    }

    /// Whether this node hears `node`.
    pub(crate) fn hears(&self, node: NodeId) -> bool {
        self.heard.contains(node)
    }

    /// Whether `a` is known to receive what `b` says. A peer that is not heard itself is not known to hear
    /// anybody; one that has not spoken in this view yet is given the benefit of the doubt for a while.
    pub(crate) fn receives(&self, a: NodeId, b: NodeId) -> bool {
        a == b || self.receives[a.index()].contains(b)
    }

    /// Whether `a` hears `b` and, as far as this node can tell, `b` hears `a` (protocol, section 4).
    pub(crate) fn links(&self, a: NodeId, b: NodeId) -> bool {
        let silent = b != self.me && !self.heard.contains(b);
        self.receives(a, b) && (silent || self.receives(b, a))
    }

    /// Those of these nodes that `a` receives, itself among them.
    pub(crate) fn received_by(&self, a: NodeId, of: NodeSet) -> NodeSet {
        self.receives[a.index()].with(a).intersection(of)
    }

    /// How many of these nodes `a` receives.
    pub(crate) fn count(&self, a: NodeId, of: NodeSet) -> usize {
        self.received_by(a, of).len()
    }

    /// How many voters are known not to hear `node`. Of one that is not heard itself nothing is known:
    /// taking it for deaf would let two sides of a broken net drop and promote each other's senders for ever.
    pub(crate) fn known_deaf(&self, node: NodeId, voters: NodeSet) -> usize {
        let others = voters.without(node).intersection(self.known);
        others.iter().filter(|x| !self.links(*x, node)).count()
    }
}

impl Replica {
    /// Whom this node hears, itself included.
    pub(crate) fn hearing(&self, now: Millis) -> NodeSet {
        self.peers.heard(now).with(self.settings.me)
    }

    /// Whether this node and a peer hear each other in the current view.
    pub(crate) fn is_linked_to(&self, peer: NodeId, now: Millis) -> bool {
        self.peers.links(self.settings.me, peer, self.current, now)
    }

    /// Who hears whom in the current view.
    pub(crate) fn who_hears(&self, now: Millis) -> Hearing {
        let mut hearing = self.peers.hearing(self.settings.me, self.current, now);
        hearing.speaking = self.speaking_voters();
        hearing
    }

    /// Whether a quorum of the current view's voters is heard and hears this node.
    pub(crate) fn hears_majority(&self, now: Millis) -> bool {
        let view = &self.log().view;
        let is_linked = |node: NodeId| node == self.settings.me || self.is_linked_to(node, now);
        let linked = view.voters.iter().filter(|voter| is_linked(voter.node) && self.speaks_for(voter));
        let hears = linked.count() >= view.quorum();
        debug_assert_eq!(hears, self.is_majority(&self.who_hears(now)), "both say the same");
        hears
    }

    /// [`Replica::hears_majority`], where it is known who hears whom.
    pub(crate) fn is_majority(&self, hearing: &Hearing) -> bool {
        let me = self.settings.me;
        let view = &self.log().view;
        hearing.speaking.iter().filter(|node| hearing.links(me, *node)).count() >= view.quorum()
    }
}
