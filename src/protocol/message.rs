//! What nodes say to each other, and what they hold about views and seals.
//!
//! Plain data with a compact `Display`; the bytes are in `codec`. Vectors "per lane" follow the
//! order of the view's senders, which is the order of their node ids.

use std::fmt;
use std::sync::Arc;

use crate::types::{
    Batch, ClusterId, DiskId, Entry, Incarnation, Index, Label, Millis, NodeId, NodeSet, Position,
    SnapshotId, Timestamp, ViewNumber,
};

/// One timestamp per lane of a view, in the order of the view's senders.
pub type LaneVector = Vec<Timestamp>;

/// A member whose vote counts: a node with its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voter {
    /// The node.
    pub node: NodeId,
    /// The disk that is registered; zero in view 0, when none is yet.
    pub disk: DiskId,
    /// The view that registered the disk.
    pub registered: ViewNumber,
    /// How often it was dropped for a fault, less what quiet time has forgiven: its probation is
    /// 1 s doubled so many times.
    pub drops: u8,
    /// The sealer's wall clock when `drops` was last changed.
    pub drops_at: Millis,
}

/// A voter that may append, as the one incarnation that may (rule A).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// The node.
    pub node: NodeId,
    /// The incarnation that owns the lane.
    pub incarnation: Incarnation,
}

/// Who votes and who sends, between one seal and the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// 0 before the cluster is founded, then 1, 2, 3 …
    pub number: ViewNumber,
    /// Drawn when the cluster was founded; zero in view 0.
    pub cluster: ClusterId,
    /// Version of everything replicated; this program knows [`View::FORMAT`].
    pub format: u32,
    /// A digest of the state that the cluster began with; zero if that was nothing. Whoever goes from view 0 to view 1
    /// by its decision must have that state; everybody else needs a snapshot.
    pub genesis: u64,
    /// In the order of their nodes.
    pub voters: Vec<Voter>,
    /// In the order of their nodes; one lane each.
    pub senders: Vec<Sender>,
}

impl View {
    /// The version of entries, commands and views that this program writes.
    pub const FORMAT: u32 = 1;

    /// A majority of the voters: `n / 2 + 1`.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The nodes that vote.
    pub fn voter_set(&self) -> NodeSet {
        self.voters.iter().map(|v| v.node).collect()
    }

    /// The nodes that send.
    pub fn sender_set(&self) -> NodeSet {
        self.senders.iter().map(|s| s.node).collect()
    }

    /// The voter on this node.
    pub fn voter(&self, node: NodeId) -> Option<&Voter> {
        self.voters.iter().find(|v| v.node == node)
    }

    /// Which lane this node owns, whatever its incarnation.
    pub fn lane_of(&self, node: NodeId) -> Option<usize> {
        self.senders.iter().position(|s| s.node == node)
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} voters={} senders=[", self.number, self.voter_set())?;
        for (i, s) in self.senders.iter().enumerate() {
            let gap = if i > 0 { " " } else { "" };
            write!(f, "{gap}{}.{}", s.node, s.incarnation)?;
        }
        f.write_str("]")
    }
}

/// Names one attempt to seal a view. Ordered; a sealer never uses one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Ballot {
    /// Rises with every attempt.
    pub round: u64,
    /// The sealer.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

impl Ballot {
    /// The highest round that is believed; no cluster gets there by sealing.
    pub(crate) const ROUND_MAX: u64 = 1 << 48;
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.node, self.incarnation)
    }
}

/// What is decided about a view: where its lanes end and what comes next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// The timestamp of the last entry of each lane; entries above are void.
    pub ends: LaneVector,
    /// The next view.
    pub next: View,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ends={} next={}", Lanes(&self.ends), self.next)
    }
}

/// The one value decided for a view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The view that ended.
    pub view: ViewNumber,
    /// How.
    pub value: Value,
}

/// What a node knows of one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneRow {
    /// The last entry up to which the lane is held without a gap; for the node's own lane, its tail.
    pub received: Timestamp,
    /// The lane has no entry in `(received, frontier]`, now or ever.
    pub frontier: Timestamp,
    /// The vote: all entries up to this one are held durably.
    pub accepted: Timestamp,
}

/// One row of the shared table: acknowledgment, vote, clock, heartbeat and progress in one.
/// Cumulative, so that a lost one is repaired by the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The view that the lanes belong to.
    pub view: ViewNumber,
    /// The incarnation that speaks.
    pub incarnation: Incarnation,
    /// The Lamport clock.
    pub clock: Timestamp,
    /// What it knows of each lane of the view.
    pub lanes: Vec<LaneRow>,
    /// Whether it has promised to seal the view; then its `accepted` never rises again.
    pub sealed: bool,
    /// From whom a Status of this view or a later one came within the suspicion time-out.
    pub hears: NodeSet,
    /// The last delivered position.
    pub delivered: Position,
    /// The number of commands delivered.
    pub index: Index,
    /// The digest of everything delivered up to `index`.
    pub digest: u64,
    /// The wall clock.
    pub wall: Millis,
    /// The node asks to be left out of the senders: it is shutting down or its disk does not answer.
    pub leaving: bool,
    /// Own batches not delivered yet, capped; a sender with a small number is a good one to forward to.
    pub waiting: u32,
}

/// The answer to a SealPrepare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// The vector frozen at the first promise in this view.
    pub last: LaneVector,
    /// The value accepted in the highest ballot so far.
    pub accepted: Option<(Ballot, Value)>,
    /// The promiser's disk.
    pub disk: DiskId,
    /// The promiser's incarnation.
    pub incarnation: Incarnation,
    /// Whom the promiser hears.
    pub hears: NodeSet,
    /// Some of the entries that the sealer lacks.
    pub entries: Vec<Arc<Entry>>,
}

/// A fresh name for one attempt to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Nonce {
    /// The reader's incarnation.
    pub incarnation: Incarnation,
    /// Counts its attempts.
    pub counter: u64,
}

/// A message from one replica to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// A new entry of the speaker's lane, or one sent again for somebody who missed it.
    Append(Arc<Entry>),
    /// The speaker's row of the shared table.
    Status(Arc<Status>),
    /// Asks for the entries of a lane after a timestamp.
    Resend {
        /// Whose lane.
        view: ViewNumber,
        /// The lane's sender.
        lane: NodeId,
        /// The last entry that the speaker has.
        after: Timestamp,
    },
    /// Asks for entries that the speaker lacks, to finish a view that is sealed or being sealed, and those after it.
    CatchUp {
        /// The first view of which something is missing.
        view: ViewNumber,
        /// The last entry held of each of its lanes.
        have: LaneVector,
    },
    /// Entries to complete a view; never a vote.
    Fill {
        /// In the order of their positions within each lane.
        entries: Vec<Arc<Entry>>,
    },
    /// Opens a ballot: asks for a promise.
    SealPrepare {
        /// The view to seal.
        view: ViewNumber,
        /// The ballot.
        ballot: Ballot,
        /// The last entry that the sealer holds of each lane.
        have: LaneVector,
    },
    /// Promises.
    SealPromise {
        /// The view.
        view: ViewNumber,
        /// The ballot promised.
        ballot: Ballot,
        /// What the promiser holds.
        promise: Box<Promise>,
    },
    /// Says that a higher ballot is promised.
    SealReject {
        /// The view.
        view: ViewNumber,
        /// The ballot refused.
        ballot: Ballot,
        /// The ballot promised.
        promised: Ballot,
    },
    /// Asks to accept a value.
    SealAccept {
        /// The view.
        view: ViewNumber,
        /// The ballot.
        ballot: Ballot,
        /// The value.
        value: Box<Value>,
        /// Some of the entries that the receiver lacks.
        entries: Vec<Arc<Entry>>,
    },
    /// Has accepted.
    SealAccepted {
        /// The view.
        view: ViewNumber,
        /// The ballot.
        ballot: Ballot,
    },
    /// Tells decisions that follow one another, the first for a view that the receiver is in or has passed.
    NewView {
        /// In the order of their views.
        decisions: Vec<Decision>,
    },
    /// Asks for decisions from this view on.
    ViewRequest {
        /// The speaker's view.
        view: ViewNumber,
    },
    /// Asks a sender to put a batch into its lane.
    Forward {
        /// The batch's name.
        label: Label,
        /// The commands.
        batch: Batch,
    },
    /// Did not take a forwarded batch: too much is waiting, or this node is no sender now.
    Refused {
        /// The batch's name.
        label: Label,
    },
    /// Asks what is accepted, to read.
    ReadProbe {
        /// The attempt.
        nonce: Nonce,
    },
    /// Answers a probe from the present state.
    ReadAnswer {
        /// The attempt.
        nonce: Nonce,
        /// The view that `accepted` belongs to.
        view: ViewNumber,
        /// Whether the speaker has promised to seal it.
        sealed: bool,
        /// The speaker's votes.
        accepted: LaneVector,
    },
    /// What was asked for is forgotten here: it is only in a snapshot.
    SnapshotOffer {
        /// The last entry forgotten. A listener that has delivered it has asked too late.
        forgotten: Position,
    },
    /// Asks for blocks of a snapshot. Blocks are for the node around the core, which has the files.
    SnapshotAsk {
        /// Which one; `None` for the newest, from its beginning.
        id: Option<SnapshotId>,
        /// The first block wanted.
        next: u32,
    },
    /// Blocks of a snapshot.
    SnapshotBlocks {
        /// Which one.
        id: SnapshotId,
        /// The number of the first.
        first: u32,
        /// Each with a checksum of its own.
        blocks: Vec<Vec<u8>>,
    },
}

/// What a peer remembers of an identity: the highest vote it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// The disk of the one that spoke.
    pub disk: DiskId,
    /// The incarnation that spoke.
    pub incarnation: Incarnation,
    /// The view it spoke of.
    pub view: ViewNumber,
    /// Its votes there.
    pub accepted: LaneVector,
}

/// The first words on a connection, in both directions. Nothing else is taken before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Version of the peer dialect; this program speaks [`Hello::PROTOCOL`].
    pub protocol: u16,
    /// Who speaks.
    pub from: NodeId,
    /// Whom it expects to reach.
    pub to: NodeId,
    /// The speaker's disk.
    pub disk: DiskId,
    /// The speaker's incarnation.
    pub incarnation: Incarnation,
    /// Random, drawn at the start of the process: tells a clone of a directory from its original.
    pub boot: u64,
    /// The speaker's disk is new, and wants to be registered in the place of the one that the view lists.
    pub joining: bool,
    /// The cluster, zero before it is founded.
    pub cluster: ClusterId,
    /// Hash of the member list in the configuration file; compared while either is in view 0.
    pub members: u64,
    /// The speaker's view.
    pub view: ViewNumber,
    /// What the speaker remembers of the receiver, if it does.
    pub remembered: Option<Remembered>,
}

impl Hello {
    /// The version of the peer dialect that this program speaks.
    pub const PROTOCOL: u16 = 1;
}

/// Why a peer does not talk to us, or we not to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Another version of the peer dialect.
    Protocol {
        /// Spoken there.
        found: u16,
    },
    /// The connection reached a node that it was not meant for.
    WrongNode {
        /// Who it was meant for.
        meant: NodeId,
    },
    /// Not a member of this cluster.
    NotMember,
    /// A node of another cluster.
    OtherCluster {
        /// Its cluster.
        found: ClusterId,
    },
    /// The configuration files list different members.
    OtherMembers,
    /// Another disk than the one registered for this node: wiped, replaced, or a second process with this id.
    OtherDisk {
        /// The disk registered.
        registered: DiskId,
    },
    /// An incarnation below one that was already seen: an old copy of the directory.
    OldIncarnation {
        /// The highest seen.
        seen: Incarnation,
    },
    /// The same incarnation was seen from another process: a clone of the directory.
    Clone,
    /// A disk that waits to be registered, while the one that is registered is in use.
    InUse {
        /// The disk registered.
        registered: DiskId,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Protocol { found } => {
                write!(f, "peer protocol version {found}, expected {}", Hello::PROTOCOL)
            }
            Refusal::WrongNode { meant } => write!(f, "meant for {meant}, which is not here"),
            Refusal::NotMember => f.write_str("not a member of this cluster"),
            Refusal::OtherCluster { found } => write!(f, "belongs to another cluster, {found}"),
            Refusal::OtherMembers => f.write_str(
                "its configuration file lists other members or addresses, or it was begun from another backup",
            ),
            Refusal::OtherDisk { registered } => write!(
                f,
                "its data directory is not the registered one ({registered}): wiped, replaced, or a second \
                 process with this id"
            ),
            Refusal::OldIncarnation { seen } => {
                write!(f, "its data directory is an old copy: incarnation {seen} was seen already")
            }
            Refusal::Clone => f.write_str("another process runs on a copy of its data directory"),
            Refusal::InUse { registered } => write!(
                f,
                "it is being rebuilt while a process with its registered disk ({registered}) is alive: stop that one"
            ),
        }
    }
}

/// What goes into the log before a message that rests on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A start of the node.
    Start {
        /// The incarnation that begins.
        incarnation: Incarnation,
    },
    /// An entry received or appended: the vote for it.
    Entry(Arc<Entry>),
    /// An entry that completes a view; never a vote.
    Fill(Arc<Entry>),
    /// A promise; contains the frozen vector, which overrides the entries in the log (rule H).
    Promise {
        /// The view.
        view: ViewNumber,
        /// The ballot.
        ballot: Ballot,
        /// The vector frozen at the first promise.
        frozen: LaneVector,
    },
    /// An accepted value; a promise at the same time (rule K).
    Accept {
        /// The view.
        view: ViewNumber,
        /// The ballot.
        ballot: Ballot,
        /// The vector frozen at the first promise or acceptance.
        frozen: LaneVector,
        /// The value.
        value: Box<Value>,
    },
    /// A decision learnt.
    Decision(Decision),
    /// A snapshot from a peer has taken the place of what came before: without it, what follows makes no sense.
    Installed {
        /// Its index.
        index: Index,
        /// Its position.
        position: Position,
    },
}

impl Record {
    /// Whether it is synced even where `--sync` is weaker than always (rule E).
    pub fn always_synced(&self) -> bool {
        !matches!(self, Record::Entry(_) | Record::Fill(_))
    }
}

/// Prints a lane vector as `[3 0 9]`.
pub(crate) struct Lanes<'a>(pub(crate) &'a [Timestamp]);

impl fmt::Display for Lanes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, t) in self.0.iter().enumerate() {
            let gap = if i > 0 { " " } else { "" };
            write!(f, "{gap}{t}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received: LaneVector = self.lanes.iter().map(|l| l.received).collect();
        let frontier: LaneVector = self.lanes.iter().map(|l| l.frontier).collect();
        let accepted: LaneVector = self.lanes.iter().map(|l| l.accepted).collect();
        write!(
            f,
            "status {} clock={} received={} frontier={} accepted={} hears={} delivered={} index={}",
            self.view,
            self.clock,
            Lanes(&received),
            Lanes(&frontier),
            Lanes(&accepted),
            self.hears,
            self.delivered,
            self.index
        )?;
        if self.sealed {
            f.write_str(" sealed")?;
        }
        if self.leaving {
            f.write_str(" leaving")?;
        }
        Ok(())
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Append(e) => write!(f, "append {e}"),
            Message::Status(s) => write!(f, "{s}"),
            Message::Resend { view, lane, after } => write!(f, "resend {view} lane={lane} after={after}"),
            Message::CatchUp { view, have } => write!(f, "catch-up {view} have={}", Lanes(have)),
            Message::Fill { entries } => {
                f.write_str("fill")?;
                entries.iter().try_for_each(|e| write!(f, " {}", e.position()))
            }
            Message::SealPrepare { view, ballot, have } => {
                write!(f, "seal-prepare {view} ballot={ballot} have={}", Lanes(have))
            }
            Message::SealPromise { view, ballot, promise } => {
                write!(f, "seal-promise {view} ballot={ballot} last={}", Lanes(&promise.last))?;
                if let Some((ballot, value)) = &promise.accepted {
                    write!(f, " accepted={ballot} {value}")?;
                }
                promise.entries.iter().try_for_each(|e| write!(f, " +{}", e.position()))
            }
            Message::SealReject { view, ballot, promised } => {
                write!(f, "seal-reject {view} ballot={ballot} promised={promised}")
            }
            Message::SealAccept { view, ballot, value, entries } => {
                write!(f, "seal-accept {view} ballot={ballot} {value}")?;
                entries.iter().try_for_each(|e| write!(f, " +{}", e.position()))
            }
            Message::SealAccepted { view, ballot } => write!(f, "seal-accepted {view} ballot={ballot}"),
            Message::NewView { decisions } => {
                f.write_str("new-view")?;
                decisions.iter().try_for_each(|d| write!(f, " {} {}", d.view, d.value))
            }
            Message::ViewRequest { view } => write!(f, "view-request {view}"),
            Message::Forward { label, .. } => write!(f, "forward {label}"),
            Message::Refused { label } => write!(f, "refused {label}"),
            Message::ReadProbe { nonce } => write!(f, "read-probe {}.{}", nonce.incarnation, nonce.counter),
            Message::ReadAnswer { nonce, view, sealed, accepted } => {
                write!(f, "read-answer {}.{} {view}", nonce.incarnation, nonce.counter)?;
                if *sealed {
                    f.write_str(" sealed")?;
                }
                write!(f, " accepted={}", Lanes(accepted))
            }
            Message::SnapshotOffer { forgotten } => write!(f, "snapshot-offer forgotten={forgotten}"),
            Message::SnapshotAsk { id: None, .. } => f.write_str("snapshot-ask"),
            Message::SnapshotAsk { id: Some(id), next } => write!(f, "snapshot-ask {id} next={next}"),
            Message::SnapshotBlocks { id, first, blocks } => {
                write!(f, "snapshot-blocks {id} first={first} count={}", blocks.len())
            }
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Start { incarnation } => write!(f, "start incarnation={incarnation}"),
            Record::Entry(e) => write!(f, "entry {e}"),
            Record::Fill(e) => write!(f, "fill {e}"),
            Record::Promise { view, ballot, frozen } => {
                write!(f, "promise {view} ballot={ballot} frozen={}", Lanes(frozen))
            }
            Record::Accept { view, ballot, value, .. } => write!(f, "accept {view} ballot={ballot} {value}"),
            Record::Decision(d) => write!(f, "decision {} {}", d.view, d.value),
            Record::Installed { index, position } => write!(f, "installed index={index} at {position}"),
        }
    }
}
