//! One copy of the store, as far as commands can be judged: what a command does to a state, and whether that is what
//! was answered.
//!
//! Keys and values are compiled to numbers first, so that a state is one number for each key of the group. Growing a
//! value is the one thing that makes new values while the search runs.

use super::bits::Bits;
use super::groups::Group;
use super::operation::{Command, Operation, Outcome};
use super::tails::{Growth, Tail};
use super::values::{ValueId, Values};

/// The place of a key in a state.
pub(crate) type KeyId = usize;

/// [`Command`] with numbers.
#[derive(Debug)]
enum Action {
    Get(Vec<KeyId>),
    Set(Vec<(KeyId, ValueId)>),
    SetIfAbsent(Vec<(KeyId, ValueId)>),
    SetIfPresent(KeyId, ValueId),
    GetSet(KeyId, ValueId),
    CompareAndSet {
        key: KeyId,
        expected: ValueId,
        new: ValueId,
    },
    Add(KeyId, i64),
    Append(KeyId, Vec<u8>),
    /// Each key once.
    Delete(Vec<KeyId>),
    Exists(Vec<KeyId>),
    Length(KeyId),
}

/// [`Outcome`] with numbers.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Values(Vec<ValueId>),
    Integer(i64),
    Done,
    Flag(bool),
    Failed,
}

/// The operations of a group, ready to be tried on states.
#[derive(Debug)]
pub(crate) struct Model<'h> {
    keys: Vec<&'h [u8]>,
    values: Values,
    operations: Vec<(Action, Option<Answer>)>,
    /// By key; `None`: the key is not append-only, or nothing is to be left out.
    tails: Vec<Option<Tail>>,
}

impl<'h> Model<'h> {
    /// Of all operations of a group, numbered as there.
    pub(crate) fn new(group: &Group<'h>) -> Model<'h> {
        let mut keys: Vec<&[u8]> =
            group.operations.iter().flat_map(|operation| operation.command.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut values = Values::new();
        let operations = group
            .operations
            .iter()
            .map(|operation| {
                let action = action(&operation.command, &keys, &mut values);
                (action, operation.outcome.as_ref().map(|outcome| answer(outcome, &mut values)))
            })
            .collect();
        let tails = keys.iter().map(|_| None).collect();
        Model { keys, values, operations, tails }
    }

    /// Leaves out what cannot lead to an order, or makes no difference, on append-only keys.
    pub(crate) fn cut_tails(&mut self, operations: &[&Operation]) {
        for (tail, key) in self.tails.iter_mut().zip(&self.keys) {
            *tail = Tail::of_key(key, operations);
        }
    }

    /// The keys, in the order of a state.
    pub(crate) fn keys(&self) -> &[&'h [u8]] {
        &self.keys
    }

    /// The bytes of a value.
    pub(crate) fn bytes(&self, id: ValueId) -> Option<&[u8]> {
        self.values.bytes(id)
    }

    /// The state before any operation.
    pub(crate) fn initial(&self) -> Vec<ValueId> {
        vec![ValueId::MISSING; self.keys.len()]
    }

    /// Whether an operation on this state is answered as it was; without an answer, it always is. Adds to `changes`
    /// what it sets, in order. `linearized` are the answered operations that have been taken.
    pub(crate) fn step(
        &mut self,
        operation: usize,
        state: &[ValueId],
        linearized: &Bits,
        changes: &mut Vec<(KeyId, ValueId)>,
    ) -> bool {
        let (action, seen) = &self.operations[operation];
        let fits = |answer: Answer| seen.as_ref().is_none_or(|seen| *seen == answer);
        let exists = |key: &KeyId| state[*key] != ValueId::MISSING;
        match action {
            Action::Get(keys) => match seen {
                None => true,
                Some(Answer::Values(values)) => keys.iter().map(|key| &state[*key]).eq(values.iter()),
                Some(_) => false,
            },
            Action::Set(pairs) => {
                changes.extend(pairs);
                fits(Answer::Done)
            }
            Action::SetIfAbsent(pairs) => {
                let met = !pairs.iter().any(|(key, _)| exists(key));
                if met {
                    changes.extend(pairs);
                }
                fits(Answer::Flag(met))
            }
            Action::SetIfPresent(key, value) => {
                let met = exists(key);
                if met {
                    changes.push((*key, *value));
                }
                fits(Answer::Flag(met))
            }
            Action::GetSet(key, value) => {
                changes.push((*key, *value));
                fits(Answer::Values(vec![state[*key]]))
            }
            Action::CompareAndSet { key, expected, new } => {
                let met = state[*key] == *expected;
                if met {
                    changes.push((*key, *new));
                }
                fits(Answer::Flag(met))
            }
            Action::Add(key, by) => match self.values.sum(state[*key], *by) {
                None => fits(Answer::Failed),
                Some(sum) => {
                    // Asked before the sum becomes a value.
                    let fits = fits(Answer::Integer(sum));
                    if fits {
                        changes.push((*key, self.values.decimal(sum)));
                    }
                    fits
                }
            },
            Action::Append(key, bytes) => {
                let old = state[*key];
                if !fits(count(self.values.len(old) + bytes.len())) {
                    return false;
                }
                let growth = match &self.tails[*key] {
                    None => Growth::Exact,
                    Some(tail) => tail.growth(self.values.len(old), bytes, linearized),
                };
                let new = match growth {
                    Growth::Exact => self.values.append(old, bytes),
                    Growth::Unseen => self.values.append(old, &vec![0; bytes.len()]),
                    Growth::DeadEnd => return false,
                };
                changes.push((*key, new));
                true
            }
            Action::Delete(keys) => {
                let found = keys.iter().filter(|key| exists(key));
                let before = changes.len();
                changes.extend(found.map(|key| (*key, ValueId::MISSING)));
                fits(count(changes.len() - before))
            }
            Action::Exists(keys) => fits(count(keys.iter().filter(|key| exists(key)).count())),
            Action::Length(key) => fits(count(self.values.len(state[*key]))),
        }
    }
}

fn count(count: usize) -> Answer {
    Answer::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

fn action(command: &Command, keys: &[&[u8]], values: &mut Values) -> Action {
    let key =
        |key: &Vec<u8>| keys.binary_search(&key.as_slice()).expect("the keys of all commands are there");
    let mut pairs = |pairs: &[(Vec<u8>, Vec<u8>)]| {
        pairs.iter().map(|(name, value)| (key(name), values.id(value))).collect()
    };
    match command {
        Command::Get(keys) => Action::Get(keys.iter().map(key).collect()),
        Command::Set(all) => Action::Set(pairs(all)),
        Command::SetIfAbsent(all) => Action::SetIfAbsent(pairs(all)),
        Command::SetIfPresent { key: name, value } => Action::SetIfPresent(key(name), values.id(value)),
        Command::GetSet { key: name, value } => Action::GetSet(key(name), values.id(value)),
        Command::CompareAndSet { key: name, expected, new } => Action::CompareAndSet {
            key: key(name),
            expected: values.id_of(expected.as_deref()),
            new: values.id(new),
        },
        Command::Add { key: name, by } => Action::Add(key(name), *by),
        Command::Append { key: name, bytes } => Action::Append(key(name), bytes.clone()),
        Command::Delete(names) => {
            let mut ids: Vec<KeyId> = names.iter().map(key).collect();
            ids.sort_unstable();
            ids.dedup();
            Action::Delete(ids)
        }
        Command::Exists(keys) => Action::Exists(keys.iter().map(key).collect()),
        Command::Length { key: name } => Action::Length(key(name)),
    }
}

fn answer(outcome: &Outcome, values: &mut Values) -> Answer {
    match outcome {
        Outcome::Values(all) => {
            Answer::Values(all.iter().map(|value| values.id_of(value.as_deref())).collect())
        }
        Outcome::Integer(number) => Answer::Integer(*number),
        Outcome::Done => Answer::Done,
        Outcome::Flag(flag) => Answer::Flag(*flag),
        Outcome::Failed => Answer::Failed,
    }
}
