//! The history of the registers: what the clients asked and when, and what they were answered.

use crate::linearizability::{Command, Operation, Outcome, Verdict, check};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct History {
    operations: Vec<Operation>,
}

impl History {
    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    /// An operation is over. Without an outcome nobody knows whether it took effect.
    pub(super) fn add(
        &mut self,
        client: usize,
        command: Command,
        begin: u64,
        end: u64,
        outcome: Option<Outcome>,
    ) {
        if outcome.is_none() && command.is_reader() {
            return;
        }
        self.operations.push(Operation { client: client as u64, command, begin, end, outcome });
    }

    /// Whether it can be put into one order; `false` if that was not found out within so many states.
    pub(super) fn check(&self, states_max: u64) -> Result<bool, String> {
        match check(&self.operations, states_max) {
            Verdict::Linearizable => Ok(true),
            Verdict::GaveUp { .. } => Ok(false),
            Verdict::NotLinearizable(explanation) => Err(explanation.to_string()),
        }
    }
}
