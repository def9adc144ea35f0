//! Is there an order? The linearizability checker for histories of clients.
//!
//! A **history** says what each client asked, when, and what it was answered. It is **linearizable** (Herlihy and
//! Wing, "Linearizability: a correctness condition for concurrent objects", 1990) if all operations can be put into
//! one order such that each is answered as a single copy of the store would answer it in that order, and such that
//! an operation that ended before another began stands before it. The checker knows nothing about nodes, lanes or
//! votes: it sees what clients see, and so finds mistakes that the cluster and its other checkers share.
//!
//! # Time
//!
//! `a` precedes `b` if `a.end < b.begin`. Operations that only touch (`a.end == b.begin`) are concurrent: a clock
//! that shows the same time twice does not say which came first. That holds for the operations of one client too; a
//! coarse clock therefore makes the check weaker, never wrong. A counter of events is a good clock.
//!
//! An operation without an answer may have taken effect at any time after its begin, even long after its client gave
//! up, or never; at most once in any case. An error reply that leaves this open (no quorum, too late) is no answer;
//! an operation that was certainly refused does not belong in a history at all.
//!
//! # The search
//!
//! Deciding this is NP-complete (Gibbons and Korach, "Testing shared memories", 1997), so the search is one with
//! backtracking, and gives up after a number of states.
//!
//! - **Groups.** Linearizability is local: a history is linearizable if the part of each object is. A key is an
//!   object; a command on several keys joins theirs into one.
//! - **Wing and Gong** ("Testing and verifying concurrent objects", 1993): begins and ends form a list in time order.
//!   Whatever begins before the first end in the list may be next. Taking an operation removes both of its events;
//!   going back puts them in again.
//! - **Lowe** ("Testing for linearizability", 2017): a set of operations already taken, together with the state that
//!   they lead to, is visited once. Both are compared in full, not by hash. Operations are taken just in time: those
//!   that must end soon before those that need not happen at all.
//! - **Readers first.** An answered operation that changed nothing, by its answer, and fits the present state is
//!   taken at once, without an alternative. In any order of what is left it can be moved to the front: its answer
//!   fits here, and nothing after it can tell.
//! - **Fewer guesses.** Of two visited situations with the same answered operations taken and the same state, one
//!   that has used up a subset of the unanswered operations of the other can do whatever the other can, because an
//!   unanswered operation has no deadline and no duty. So the other is dropped. Of unanswered operations with the
//!   same command, the one that began first goes first; an unanswered reader is left out.
//! - **Append-only keys** are decided by the longest value that anybody has read, see the `tails` module.
//!
//! # Left out on purpose
//!
//! Commands about all keys (`FLUSHALL`, `KEYS`, `DBSIZE`), which would join everything into one group; the ceiling
//! of a value's length; sessions, since a repetition is part of one operation. Reads with the consistency `local`
//! are not linearizable and do not belong in a history.

mod bits;
mod explanation;
mod groups;
mod model;
mod operation;
mod search;
mod tails;
mod values;

pub use explanation::Explanation;
pub use operation::{Command, Operation, Outcome};

use search::Findings;

/// What the checker says about a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none, and this is how far one gets.
    NotLinearizable(Explanation),
    /// Not known: some group has more states than the search may look at, and no other group is wrong.
    GaveUp {
        /// How many states were looked at in all groups together.
        states: u64,
    },
}

/// Whether the history is linearizable, starting without any key. The operations may come in any order.
///
/// Looks at no more than `states_max` states in each group of keys; see [`check_counting`].
///
/// # Panics
///
/// If an answered operation ends before it begins.
pub fn check(history: &[Operation], states_max: u64) -> Verdict {
    check_counting(history, states_max).0
}

/// Like [`check`], and says how many states were looked at in all groups together. A state takes some hundred bytes
/// of memory for as long as its group is being searched.
///
/// # Panics
///
/// If an answered operation ends before it begins.
pub fn check_counting(history: &[Operation], states_max: u64) -> (Verdict, u64) {
    for operation in history {
        let ends_after = operation.outcome.is_none() || operation.begin <= operation.end;
        assert!(ends_after, "an operation ends before it begins: {operation}");
    }
    let mut states = 0;
    let mut gave_up = false;
    for group in groups::split(history) {
        let result = search::search(&group, states_max);
        states += result.states;
        match result.findings {
            Findings::Order => {}
            Findings::NoOrder { best } => {
                return (Verdict::NotLinearizable(Explanation::new(&group, &best)), states);
            }
            Findings::TooMany => gave_up = true,
        }
    }
    (if gave_up { Verdict::GaveUp { states } } else { Verdict::Linearizable }, states)
}
