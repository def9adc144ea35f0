//! Deliberate mistakes, for testing the tests.
//!
//! Each variant takes one rule away. Every one of them must change a golden script (`tests/golden.rs` says
//! which), and `kvsim --mutations` counts the seeds that the simulator needs to find it. The switch
//! exists only with the cargo feature `mutations`; without it [`mutated`] is a constant and costs nothing.

use std::fmt;

/// Writes the enum and the list of its variants from one enumeration.
macro_rules! mutations {
    ($($(#[$about:meta])* $name:ident,)+) => {
        /// A rule taken away. Letters are those of `docs/protocol.md`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Mutation {
            $($(#[$about])* $name,)+
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Mutation] = &[$(Mutation::$name,)+];
        }
    };
}

mutations! {
    /// \[A\] A restarted sender goes on with its old lane.
    RestartedSenderContinues,
    /// \[B\] A frontier is believed although entries below it are missing.
    FrontierOverGap,
    /// \[C\] A node counts as the voter of its number whatever disk it speaks from, to itself and to others.
    AnyDiskVotes,
    /// \[D\] A restarted node takes what it read back from its log for durable. The log is below the rules, so the
    /// mistake is made by the simulator and by the runner of the golden scripts.
    ReadBackIsDurable,
    /// \[E\] A log that is shorter than what peers remember of it is not noticed.
    LostVotesIgnored,
    /// \[F\] A sender is suspected by one's own ears alone.
    OwnEarsOnly,
    /// \[G\] Nobody steps in for a sealer that died.
    NoStepIn,
    /// \[H\] After a restart the frozen vector is taken from the log's entries, fillings included.
    FrozenFromLog,
    /// \[I\] A sender that has promised goes on appending.
    SealedSenderAppends,
    /// \[I\] A voter that has promised goes on taking entries and voting for them.
    SealedVoterVotes,
    /// \[J\] A sealer waits for ever for entries whose holder is gone, and the others for a sealer that is alive.
    WaitForHolder,
    /// \[K\] Accepting a value neither asks for a promise of its ballot nor is one.
    AcceptWithoutPromise,
    /// \[L\] A value that changes the voters is accepted without the entries of earlier views.
    VotersChangeEarly,
    /// \[M\] A view is taken for delivered as soon as its decision is known, whatever of it is missing.
    ViewsPassedOver,
    /// \[N\] A majority is enough to found a cluster.
    MajorityFounds,
    /// \[O\] Drops are not counted in the view, so probation never grows.
    DropsForgotten,
    /// \[P\] A batch that was skipped as too early is not offered again.
    NoReoffer,
    /// \[Q\] A read does not wait for older views.
    ReadSkipsOlderViews,
    /// A vote is counted before the entry is durable.
    VoteBeforeSync,
    /// A promise leaves before it is durable.
    PromiseBeforeSync,
    /// An acceptance leaves before it is durable.
    AcceptBeforeSync,
    /// The sealer takes the shortest of the lanes reported.
    ShortestEnds,
    /// The sealer ignores a value accepted in an earlier ballot.
    IgnoreAcceptedValue,
    /// Entries that a seal filled in are reported as accepted.
    FillIsVote,
    /// Delivery does not wait for the other senders' frontiers.
    NoFrontierWait,
    /// The own frontier is stated ahead of the clock.
    FrontierAhead,
    /// Delivery does not wait for the majority.
    DeliverUnchosen,
    /// Answers of sealed voters are counted by reads.
    SealedAnswersCount,
    /// A read is satisfied with its own node's answer.
    ReadAlone,
    /// A repeated batch is applied again.
    NoDedupe,
    /// Votes of another view are counted.
    StaleViewVotes,
    /// A lane takes entries over a gap.
    LaneOverGap,
    /// A lower ballot is promised.
    PromiseLowerBallot,
    /// A new view forgets the batches that were void in the old one.
    ForgetVoid,
    /// A decision is not waited for: the next view is entered when the sealer itself has accepted.
    DecideAlone,
    /// Nobody asks again for entries that were lost with a connection.
    NoResend,
    /// A node that was away does not ask for ended views.
    NoCatchUp,
    /// A snapshot does not have the table of origins.
    SnapshotForgetsOrigins,
    /// \[R\] Installing a snapshot takes back votes for entries above it.
    SnapshotDropsVotes,
    /// A sealer's promise in one view opens its ballot of the same name in the next.
    OldPromiseOpens,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(feature = "mutations")]
static ACTIVE: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Makes this mistake from now on, in the whole process; `None` makes none.
#[cfg(feature = "mutations")]
pub fn set_mutation(mutation: Option<Mutation>) {
    ACTIVE.store(mutation.map_or(0, |m| m as u8 + 1), std::sync::atomic::Ordering::Relaxed);
}

/// Whether this mistake is to be made.
#[cfg(feature = "mutations")]
pub(crate) fn mutated(mutation: Mutation) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::Relaxed) == mutation as u8 + 1
}

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn mutated(_: Mutation) -> bool {
    false
}
