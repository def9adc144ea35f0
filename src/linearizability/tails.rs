//! Keys that are only appended to.
//!
//! Appending tokens to a list and reading it is the favourite test of stores, because a list tells its own history;
//! and it is the worst case of a search, because with a few appends that nobody answered there are as many lists as
//! orders of them, and the length that an append is answered does not say which of them it is. But a list that only
//! grows can be decided from its end. Let the **goal** be the longest value that was read.
//!
//! - As long as the goal has not been read, the value must be a beginning of it: nothing ever takes bytes away.
//! - Once the value is longer than the goal, no reader can look at it any more, only its length counts: the bytes
//!   behind the goal may as well be zeros, and all orders of appending the same lengths lead to the same state.
//!
//! Both hold only if no command on the key asks for the value in any other way, so a key is append-only if all its
//! commands are `APPEND`, `GET`, `EXISTS` and `STRLEN`.

use super::bits::Bits;
use super::operation::{Command, Operation, Outcome};

/// An append-only key.
#[derive(Debug)]
pub(crate) struct Tail {
    /// `None`: nobody has read any value.
    goal: Option<Goal>,
}

#[derive(Debug)]
struct Goal {
    /// The number of the operation that read it.
    reader: usize,
    bytes: Vec<u8>,
}

/// What to make of bytes that are appended.
pub(crate) enum Growth {
    /// What they are.
    Exact,
    /// Zeros: nobody will see them.
    Unseen,
    /// Nothing: the goal cannot be read any more.
    DeadEnd,
}

impl Tail {
    /// The key as an append-only one, if it is.
    pub(crate) fn of_key(key: &[u8], operations: &[&Operation]) -> Option<Tail> {
        let mut goal: Option<Goal> = None;
        for (number, operation) in operations.iter().enumerate() {
            let Operation { command, outcome, .. } = operation;
            if !command.keys().contains(&key) {
                continue;
            }
            match (command, outcome) {
                (Command::Get(keys), Some(Outcome::Values(values))) => {
                    let read = keys.iter().zip(values).filter(|(name, _)| *name == key);
                    for bytes in read.filter_map(|(_, value)| value.as_ref()) {
                        // Of several that read the same the last: it holds the value back for longest.
                        if goal.as_ref().is_none_or(|goal| goal.bytes.len() <= bytes.len()) {
                            goal = Some(Goal { reader: number, bytes: bytes.clone() });
                        }
                    }
                }
                (
                    Command::Get(_) | Command::Append { .. } | Command::Exists(_) | Command::Length { .. },
                    _,
                ) => {}
                _ => return None,
            }
        }
        Some(Tail { goal })
    }

    /// The number of the operation that read the goal.
    pub(crate) fn reader(&self) -> Option<usize> {
        self.goal.as_ref().map(|goal| goal.reader)
    }

    /// What to make of `bytes` behind a value of `old_len` bytes.
    pub(crate) fn growth(&self, old_len: usize, bytes: &[u8], linearized: &Bits) -> Growth {
        let Some(goal) = &self.goal else {
            return Growth::Unseen;
        };
        match goal.bytes.get(old_len..old_len + bytes.len()) {
            Some(wanted) if wanted == bytes => Growth::Exact,
            Some(_) => Growth::DeadEnd,
            None if linearized.contains(goal.reader) => Growth::Unseen,
            None => Growth::DeadEnd,
        }
    }
}
