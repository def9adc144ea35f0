//! Coverage marks: rare situations of the protocol, counted where they happen.
//!
//! A simulator that never meets a situation says nothing about it, however many seeds it runs. So each
//! place worth reaching counts here, `kvsim` prints the table, and a mark that stays at zero is a blind
//! spot. Counting costs an addition on a rare path.

/// Writes an enum of situations, and the table that counts them, from one enumeration.
macro_rules! marks {
    (
        $(#[$of_mark:meta])* $vis:vis enum $Mark:ident;
        $(#[$of_marks:meta])* struct $Marks:ident;
        $($name:ident = $text:literal,)+
    ) => {
        $(#[$of_mark])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        $vis enum $Mark {
            $(#[doc = $text] $name,)+
        }

        impl $Mark {
            /// All of them.
            pub const ALL: &[$Mark] = &[$($Mark::$name,)+];

            /// The situation in words.
            pub const fn text(self) -> &'static str {
                match self {
                    $($Mark::$name => $text,)+
                }
            }
        }

        $(#[$of_marks])*
        #[derive(Clone, PartialEq, Eq)]
        $vis struct $Marks([u64; $Mark::ALL.len()]);

        impl $Marks {
            /// Counts one.
            pub(crate) fn hit(&mut self, mark: $Mark) {
                self.0[mark as usize] += 1;
            }

            /// How often this one.
            pub fn count(&self, mark: $Mark) -> u64 {
                self.0[mark as usize]
            }

            /// Adds the counts of another.
            pub fn add(&mut self, other: &$Marks) {
                for (sum, n) in self.0.iter_mut().zip(other.0) {
                    *sum += n;
                }
            }
        }

        impl Default for $Marks {
            fn default() -> $Marks {
                $Marks([0; $Mark::ALL.len()])
            }
        }

        impl std::fmt::Debug for $Marks {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let hit = $Mark::ALL.iter().filter(|mark| self.count(**mark) > 0);
                f.debug_map().entries(hit.map(|mark| (mark, self.count(*mark)))).finish()
            }
        }
    };
}
pub(crate) use marks;

marks! {
    /// A situation of the core.
    pub enum Mark;
    /// How often each situation came up.
    struct Marks;
    Founded = "founding the cluster",
    FoundedByMajority = "founding goes on with a majority and a value accepted before",
    SealSenderLost = "a sender is sealed out because too few hear it",
    SealSenderRestarted = "a sender is sealed out because it has restarted",
    SealDeafSenders = "two senders of which one does not hear the other",
    SealBlocked = "a silent lane kept a chosen entry from delivery for too long",
    SealLeaving = "a sender asked to leave",
    SealPromotion = "a passive node is promoted",
    SealReplacement = "a new disk is registered in the place of another",
    SealNoSender = "no live sender is left",
    SteppedIn = "a voter steps in for a sealer that does not finish",
    BallotRejected = "a prepare or an accept meets a higher promise",
    BallotOutbid = "a sealer learns of a higher ballot and gives its own up",
    PromiseRepeated = "a prepare comes again and is answered again",
    PromiseHeld = "a prepare comes again while the first answer waits for the disk",
    ValueAdopted = "a value accepted in an earlier ballot is taken over",
    ValueReplaced = "an accepted value is replaced by one of a higher ballot",
    AcceptWithoutPrepare = "a value is accepted by a voter that was never asked to promise",
    AcceptFilled = "the entries that an acceptance needs came with it or were asked for",
    AcceptWaits = "an acceptance waits for entries",
    SealerCollects = "the sealer lacks entries up to the ends",
    SealerGivesUp = "the sealer cannot complete the entries and prepares again",
    GraceEnded = "the sealer decides without some voter that it hears",
    FrozenDiffers = "the log holds filled entries above the frozen vector",
    FrozenRecovered = "a node restarts in a view that it has promised to end",
    AcceptedRecovered = "a node restarts with an accepted value that is not decided yet",
    EntriesCut = "entries above the ends are void",
    OfferedAgain = "a batch is offered again in a new view",
    SkippedRepeated = "a delivered batch is a repetition",
    SkippedEarly = "a delivered batch comes before its predecessor",
    EarlyAgain = "a batch skipped as too early is offered again",
    Forwarded = "a passive node forwards a batch",
    RelayHop = "a passive node passes a forwarded batch on",
    ForwardRefused = "a forwarded batch is refused",
    TargetChanged = "a passive node changes the sender that it forwards to",
    FrontierFromOthers = "the frontier of a lane is learnt from another node than its owner",
    FrontierOverGap = "a stated frontier is not taken because entries below it are missing",
    ThirdVote = "an entry waits at the head for the majority",
    AppendGap = "an Append is dropped because one before it is missing",
    AppendSealed = "an Append is refused by a voter that has promised",
    ResendServed = "entries are sent again",
    ResendFromOthers = "entries of a lane come from another node than its owner",
    CatchUpServed = "entries of ended views are sent to a node that was away",
    CatchUpPart = "what a node lacks does not fit into one message",
    ViewsBehind = "a node is told several decisions at once",
    ReadRestarted = "a view ends while a read is under way",
    ReadSealedAnswer = "a sealed voter answers a read",
    ReadWaits = "a read waits for entries to be delivered",
    ReadRepeated = "a read asks again for an answer that is missing",
    StaleMessage = "a message of an ended view is answered with its decision",
    AheadMessage = "a message of a later view is answered with a request",
    HelloRefused = "a hello is refused",
    LostVotesFound = "a peer remembers votes that the log has lost",
    SnapshotOffered = "what a peer asks for is only in a snapshot",
    Behind = "what a node lacks is only in a snapshot",
    Installed = "a snapshot of a view that is known is installed",
    InstalledAhead = "a snapshot of a later view is installed",
    InstalledBelow = "a snapshot is installed below entries that stay",
}
