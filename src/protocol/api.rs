//! How the world talks to the core: settings, inputs, outputs.

use std::fmt;
use std::sync::Arc;

use crate::types::{
    Batch, ClusterId, DiskId, Entry, Incarnation, Index, Lsn, Millis, NodeId, NodeSet, Position, ViewNumber,
};

use super::message::{Hello, Message, Record, Refusal, View};

/// What a replica is told once, at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// All nodes of the configuration file, this one too. From view 1 on the view decides.
    pub members: Vec<NodeId>,
    /// Hash of the member list with its addresses; compared in hellos while in view 0.
    pub member_hash: u64,
    /// How long a node may be silent before it is suspected.
    pub suspicion: Millis,
    /// A Status goes out at least so often.
    pub heartbeat: Millis,
    /// Most bytes of own batches that may wait for delivery.
    pub window: usize,
    /// A catching-up message ends with the entry that makes it as long as this, in bytes;
    /// [`limits::FILL_LEN_SOFT`](crate::types::limits::FILL_LEN_SOFT) if nothing else is wanted.
    pub fill_len: usize,
    /// Delivered entries are kept in memory for nodes that have missed them, up to about so many bytes.
    pub history_len: usize,
    /// So many views are remembered with their decisions, at least the last of them.
    pub views_kept: usize,
    /// As `history_len`, while a peer is heard that has not delivered what is over that limit.
    pub pinned_history_len: usize,
    /// For jitter and the cluster id; may be anything, the same seed gives the same run.
    pub seed: u64,
}

/// Who this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The disk of its data directory.
    pub disk: DiskId,
    /// Which start of it this is; durable already.
    pub incarnation: Incarnation,
    /// Random, drawn by this process.
    pub boot: u64,
    /// The disk was made to take the place of another one of this node: until a view registers it, the node only
    /// learns, and it takes no part in founding a cluster (protocol, section 8).
    pub joining: bool,
}

/// The node's own name for a batch that it offers; comes back with its delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OfferTicket(pub u64);

/// The node's own name for the reads of one turn; comes back when they may be answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadTicket(pub u64);

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A batch of this node's clients. Look at [`Intake`] first; a batch once offered is never given up.
    Offer {
        /// Comes back in [`Delivery::ticket`].
        ticket: OfferTicket,
        /// The commands.
        batch: Batch,
    },
    /// Linearizable reads wait, named by this ticket; [`Output::ReadReady`] brings it back.
    Read(ReadTicket),
    /// The reads of this ticket are no longer wanted (answered otherwise or timed out).
    CancelRead(ReadTicket),
    /// A message from a peer, over a connection whose hello was accepted.
    Receive {
        /// The peer.
        from: NodeId,
        /// What it said.
        message: Message,
    },
    /// All records up to this one are durable.
    Persisted(Lsn),
    /// A peer said hello on a connection that it made to us, or answered ours;
    /// [`super::Replica::check_hello`] was content.
    Greeted(Box<Hello>),
    /// Messages to this peer go out from now on; what was sent before may be lost.
    LinkUp(NodeId),
    /// The connection to this peer broke and could not be made again at once.
    LinkDown(NodeId),
    /// Bytes of an unfinished message from this peer are arriving: its heartbeats may wait behind them.
    Stirring(NodeId),
    /// A peer refused our hello.
    RefusedBy {
        /// The peer.
        peer: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// The node is shutting down: it asks to be left out of the senders.
    Leave,
    /// Whether the disk has not answered for a long time.
    DiskSlow(bool),
    /// Time has passed.
    Tick,
}

/// Something is to be done, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Append this to the log. What rests on it is held back by the core until [`Input::Persisted`].
    Persist {
        /// Its place in the log: one more than the last.
        lsn: Lsn,
        /// The record.
        record: Record,
    },
    /// Send to these peers. May get lost with the connection.
    Send {
        /// Who gets it.
        to: NodeSet,
        /// What.
        message: Message,
    },
    /// The next entry of the total order.
    Deliver(Delivery),
    /// This offer was applied in a snapshot that is installed now: its replies are not known here.
    Overtaken(OfferTicket),
    /// Everything that the reads of this ticket must see is delivered.
    ReadReady(ReadTicket),
    /// What this node lacks is only in a snapshot.
    Behind {
        /// This peer, who has delivered it, has one or can make one.
        peer: NodeId,
        /// Once this node has delivered so far, however it came by it, it needs no snapshot.
        until: Position,
    },
    /// Something worth a line in the log.
    Note(Note),
    /// This process must stop at once.
    Halt(HaltReason),
}

/// An entry in its place of the total order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Whether its commands count.
    pub verdict: Verdict,
    /// The index of its first command; the following ones count on from it. Zero if it does not count.
    pub first: Index,
    /// The replicated time, the same on every node.
    pub now: Millis,
    /// The offer that it is, if it counts and came from this process.
    pub ticket: Option<OfferTicket>,
}

/// Whether the commands of a delivered entry are applied; the same on every node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Apply them.
    Applied,
    /// A repetition of a batch applied before: skip.
    Repeated,
    /// An earlier batch of its origin has not been applied yet: skip; the origin offers both again.
    TooEarly,
}

/// Whether the node may take commands from clients now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intake {
    /// Yes.
    Open,
    /// Too many own bytes wait for delivery.
    Full,
    /// No majority of voters is heard.
    NoQuorum,
    /// The cluster is not founded yet, or this node is not registered in it, or it has not caught up yet.
    Loading,
}

/// Why a process must stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HaltReason {
    /// Not who it claims to be (exit code 6).
    Identity {
        /// Who says so.
        peer: NodeId,
        /// What is wrong.
        refusal: Refusal,
    },
    /// The log lacks votes that a peer remembers: durable data was lost (exit code 4).
    LostVotes {
        /// Who remembers.
        peer: NodeId,
        /// What it remembers.
        remembered: String,
        /// What the log has.
        found: String,
    },
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HaltReason::Identity { peer, refusal } => write!(f, "refused by {peer}: {refusal}"),
            HaltReason::LostVotes { peer, remembered, found } => write!(
                f,
                "the log has lost durable records: {peer} remembers {remembered}, the log has {found}"
            ),
        }
    }
}

/// Something worth a line in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// Entered a view.
    Entered(Box<View>),
    /// Begins to seal a view.
    Sealing {
        /// The view.
        view: ViewNumber,
        /// Why.
        reason: String,
    },
    /// A peer is no longer heard.
    Lost(NodeId),
    /// A peer is heard again.
    Heard(NodeId),
    /// Waits for these nodes to found the cluster.
    Waiting(NodeSet),
    /// A snapshot from a peer has taken the place of what came before.
    Installed {
        /// Its index.
        index: Index,
        /// Its position.
        position: Position,
    },
    /// A peer said something that it never should; it was ignored.
    Ignored {
        /// The peer.
        from: NodeId,
        /// What.
        what: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Entered(view) => write!(f, "entered view {view}"),
            Note::Sealing { view, reason } => write!(f, "sealing view={view} reason=\"{reason}\""),
            Note::Lost(node) => write!(f, "lost peer={node}"),
            Note::Heard(node) => write!(f, "heard peer={node}"),
            Note::Waiting(nodes) => write!(f, "waiting to found the cluster, missing={nodes}"),
            Note::Installed { index, position } => {
                write!(f, "installed a snapshot index={index} position={position}")
            }
            Note::Ignored { from, what } => write!(f, "ignored from={from}: {what}"),
        }
    }
}

/// Where a replica stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its view.
    pub view: ViewNumber,
    /// The view's voters.
    pub voters: NodeSet,
    /// The view's senders.
    pub senders: NodeSet,
    /// Whether it is itself a sender.
    pub sender: bool,
    /// Whether it has promised to seal the view.
    pub sealed: bool,
    /// Whether its disk waits to be registered in the place of another one.
    pub joining: bool,
    /// Whom it hears, itself included.
    pub hears: NodeSet,
    /// The last delivered position.
    pub delivered: Position,
    /// Commands delivered.
    pub index: Index,
    /// Digest of everything delivered.
    pub digest: u64,
    /// Bytes of own batches that wait for delivery.
    pub waiting_bytes: usize,
    /// Founded, registered, a majority heard, and every earlier view delivered to its ends: serves reads and writes.
    pub serving: bool,
}
