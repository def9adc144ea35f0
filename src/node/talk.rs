//! Answers about the node itself: `COMMAND`, `INFO`, `CONFIG GET`, `CLIENT LIST` and their like.
//!
//! They cost what their replies are long, and what is looked at for them, which is counted as work of the store.
//! A pipeline may ask for thousands of them. So a turn has a fund for them, as it has for reads and for what is
//! delivered: who asks when it is used up is not decoded further in this turn. Within a transaction they come at a
//! stroke, so there each has a limit for all of them together. The turn pays for those too, and for what is answered
//! only when the transaction is done, that in which it is.

use crate::store::Fund;
use crate::types::Reply;

/// What a turn may answer, a millisecond's work or less.
const PER_TURN: u64 = 768;
/// What the answers within a transaction may come to.
const PER_TRANSACTION: u64 = 2 * PER_TURN;
/// So many elements of a reply, or bytes of a text, are one look at a key.
const ELEMENTS_PER_UNIT: u64 = 8;
const BYTES_PER_UNIT: u64 = 128;
/// What a question counts that is answered when the transaction is done.
const QUESTION: u64 = 16;

/// Instead of an answer within a transaction.
const TOO_MUCH: &str = "ERR the transaction asks too much about the node; ask outside of it";

/// What a reply has cost.
pub(super) fn work_of(reply: &Reply) -> u64 {
    fn elements_of(reply: &Reply) -> u64 {
        match reply {
            Reply::Array(all) | Reply::Map(all) | Reply::Set(all) | Reply::Push(all) => {
                all.iter().map(elements_of).sum::<u64>() + all.len() as u64
            }
            _ => 0,
        }
    }
    match reply {
        Reply::Bulk(text) | Reply::Verbatim(text) => text.len() as u64 / BYTES_PER_UNIT,
        reply => elements_of(reply) / ELEMENTS_PER_UNIT,
    }
}

/// A turn's fund for such answers.
#[derive(Debug)]
pub(super) struct Talk(Fund);

impl Talk {
    /// Of a turn.
    pub(super) fn of_turn() -> Talk {
        Talk(Fund(PER_TURN))
    }

    /// For all answers within a transaction.
    pub(super) fn of_transaction() -> Talk {
        Talk(Fund(PER_TRANSACTION))
    }

    /// Whether it is used up.
    pub(super) fn is_spent(&self) -> bool {
        self.0.is_spent()
    }

    /// This was answered, and something was looked at for it.
    pub(super) fn pay(&mut self, reply: &Reply, looks: u64) {
        self.0.spend(work_of(reply).saturating_add(looks));
    }

    /// A transaction was answered, with this left of what it may ask.
    pub(super) fn pay_transaction(&mut self, rest: &Talk) {
        self.0.spend(PER_TRANSACTION - rest.0.0);
    }

    /// Another question will be answered within the transaction.
    pub(super) fn pay_question(&mut self) {
        self.0.spend(QUESTION);
    }

    /// The answer if it is used up.
    pub(super) fn refusal(&self) -> Option<Reply> {
        self.is_spent().then(|| Reply::error(TOO_MUCH))
    }
}
