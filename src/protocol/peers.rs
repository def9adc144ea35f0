//! What this node knows of its peers: whom it reaches, whom it hears, and their last rows of the shared table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{DiskId, Incarnation, Millis, NodeId, NodeSet, ViewNumber};

use super::message::Status;

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
    /// Its last Status.
    pub(crate) row: Option<Arc<Status>>,
    /// The last Status of its incarnation before, until this one speaks: its log must have what that voted (rule E).
    pub(crate) before: Option<Arc<Status>>,
    /// When a Status of this node's view or a later one came last; `None` if it is not heard at all.
    heard_at: Option<Millis>,
    /// When it was last told decisions without having asked.
    pub(crate) told_at: Option<Millis>,
    /// Since when it could have been promoted to sender.
    pub(crate) fit_since: Option<Millis>,
}

/// All peers.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    suspicion: Millis,
    /// Until then, peers that have not spoken in this view yet are taken to hear everybody.
    grace_until: Millis,
}

impl Peers {
    pub(crate) fn new(nodes: impl Iterator<Item = NodeId>, suspicion: Millis) -> Peers {
        let peers = nodes.map(|node| (node, Peer::default())).collect();
        Peers { peers, suspicion, grace_until: Millis(0) }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.peers.get_mut(&node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.peers.iter().map(|(node, peer)| (*node, peer))
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

    /// Hearing ends at once.
    pub(crate) fn note_lost(&mut self, node: NodeId) {
        if let Some(peer) = self.get_mut(node) {
            peer.heard_at = None;
            peer.fit_since = None;
        }
    }

    /// Entering a view starts every time-out anew.
    pub(crate) fn enter_view(&mut self, now: Millis, view: ViewNumber, lanes: usize) {
        self.grace_until = now.plus(self.suspicion);
        for peer in self.peers.values_mut() {
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
        self.get(node).and_then(|p| p.heard_at).is_some_and(|at| now.since(at) < self.suspicion)
    }

    /// All peers that are heard.
    pub(crate) fn heard(&self, now: Millis) -> NodeSet {
        self.peers.keys().copied().filter(|node| self.hears(*node, now)).collect()
    }

    /// The earliest time at which a peer that is heard now falls silent.
    pub(crate) fn next_silence(&self) -> Option<Millis> {
        self.peers.values().filter_map(|p| p.heard_at).map(|at| at.plus(self.suspicion)).min()
    }

    /// Whether `a` is known to receive what `b` says; `me` is this node. A peer that is not heard itself is
    /// not known to hear anybody; one that has not spoken in this view yet is given the benefit of the
    /// doubt for a while.
    pub(crate) fn receives(&self, me: NodeId, a: NodeId, b: NodeId, view: ViewNumber, now: Millis) -> bool {
        if a == b {
            return true;
        }
        if a == me {
            return self.hears(b, now);
        }
        if !self.hears(a, now) {
            return false;
        }
        match self.row(a, view) {
            Some(row) => row.hears.contains(b),
            None => now < self.grace_until,
        }
    }

    /// Whether `a` hears `b` and, as far as this node can tell, `b` hears `a` (protocol, section 4).
    pub(crate) fn links(&self, me: NodeId, a: NodeId, b: NodeId, view: ViewNumber, now: Millis) -> bool {
        let back = b != me && !self.hears(b, now) || self.receives(me, b, a, view, now);
        self.receives(me, a, b, view, now) && back
    }

    /// The peer's row, if it is of this view.
    pub(crate) fn row(&self, node: NodeId, view: ViewNumber) -> Option<&Arc<Status>> {
        self.get(node).and_then(|p| p.row.as_ref()).filter(|row| row.view == view)
    }
}
