//! Which keys are in use: few at a time, so that clients meet, and none for long, so that histories can be checked.
//!
//! Deciding whether a history is linearizable gets expensive with its length, and with each write of which nobody
//! knows the outcome. So there is a handful of **slots**, and the key in a slot is replaced by a new
//! one every second, after some hundred operations, or soon after a write to it got no answer. A key that was
//! replaced is read once more, so that a write that took effect late is seen. A group is the keys of a slot that
//! belong together: its name is what stands before the colon.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const AGE_MAX: Duration = Duration::from_secs(1);
const OPERATIONS_MAX: u32 = 300;
/// So many operations may still go to a key after a write without an answer.
const AFTER_DOUBT: u32 = 12;

/// What the keys of a slot are used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Values that are set, compared and deleted.
    Register,
    /// A number that is added to.
    Counter,
    /// A text that is appended to, and never anything else.
    List,
    /// Two registers that are also set and read together.
    Pair,
}

const SLOTS: [Use; 8] = [
    Use::Register,
    Use::Register,
    Use::Register,
    Use::Counter,
    Use::Counter,
    Use::List,
    Use::Pair,
    Use::Pair,
];

struct Slot {
    generation: u32,
    born: Instant,
    operations: u32,
    operations_max: u32,
}

/// The keys of one slot at one time.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    slot: usize,
    generation: u32,
    /// What for.
    pub(crate) used_as: Use,
}

impl Keys {
    /// Their names.
    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        let Keys { slot, generation, used_as } = self;
        let letter = match used_as {
            Use::Register => 'r',
            Use::Counter => 'n',
            Use::List => 'l',
            Use::Pair => 'p',
        };
        let name = format!("{letter}{slot}.{generation}");
        match used_as {
            Use::Pair => vec![format!("{name}:a").into_bytes(), format!("{name}:b").into_bytes()],
            _ => vec![name.into_bytes()],
        }
    }
}

/// The group that a key belongs to.
pub(crate) fn group_of(key: &[u8]) -> &[u8] {
    key.split(|b| *b == b':').next().unwrap_or(key)
}

/// All slots, shared by all clients.
pub(crate) struct Keyspace {
    slots: Vec<Mutex<Slot>>,
    /// Replaced, and to be read once more.
    replaced: Mutex<VecDeque<Keys>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keyspace {
    pub(crate) fn new() -> Keyspace {
        let now = Instant::now();
        let slot = |_| Slot { generation: 0, born: now, operations: 0, operations_max: OPERATIONS_MAX };
        Keyspace {
            slots: SLOTS.iter().map(slot).map(Mutex::new).collect(),
            replaced: Mutex::new(VecDeque::new()),
        }
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The keys of a slot for one more operation.
    pub(crate) fn take(&self, slot: usize) -> Keys {
        let mut state = lock(&self.slots[slot]);
        if state.operations >= state.operations_max || state.born.elapsed() > AGE_MAX {
            let keys = Keys { slot, generation: state.generation, used_as: SLOTS[slot] };
            lock(&self.replaced).push_back(keys);
            *state = Slot {
                generation: state.generation + 1,
                born: Instant::now(),
                operations: 0,
                operations_max: OPERATIONS_MAX,
            };
        }
        state.operations += 1;
        Keys { slot, generation: state.generation, used_as: SLOTS[slot] }
    }

    /// A write to these keys got no answer.
    pub(crate) fn doubt(&self, keys: &Keys) {
        let mut state = lock(&self.slots[keys.slot]);
        if state.generation == keys.generation {
            state.operations_max = state.operations_max.min(state.operations + AFTER_DOUBT);
        }
    }

    /// Keys that were replaced and not read since.
    pub(crate) fn take_replaced(&self) -> Option<Keys> {
        lock(&self.replaced).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubted_key_is_replaced_soon_and_read_once_more() {
        let keyspace = Keyspace::new();
        let pair = SLOTS.iter().position(|used_as| *used_as == Use::Pair).unwrap();
        let first = keyspace.take(pair);
        assert_eq!(group_of(&first.names()[0]), group_of(&first.names()[1]));
        keyspace.doubt(&first);
        let mut generations: Vec<u32> = (0..20).map(|_| keyspace.take(pair).generation).collect();
        assert_eq!(generations.pop(), Some(1));
        assert_eq!(generations.iter().filter(|generation| **generation == 0).count() as u32, AFTER_DOUBT);
        assert_eq!(keyspace.take_replaced().map(|keys| keys.names()), Some(first.names()));
        assert!(keyspace.take_replaced().is_none());
        // Doubts about keys that were replaced change nothing.
        keyspace.doubt(&first);
        assert_eq!(lock(&keyspace.slots[pair]).operations_max, OPERATIONS_MAX);
    }
}
