//! Keys and their values, in hash slots.
//!
//! Each of the 16,384 slots is a hash map of its own behind a pointer, and 128 slots together are a group behind
//! another. A clone of the whole key space copies 128 pointers, which takes about a microsecond. A write to a slot
//! that a clone still holds copies its group's pointers and that one slot first (`Arc::make_mut`), each at most once
//! per clone. That is what lets a snapshot be written while the store goes on. Keys and values are shared, never
//! copied. What a write can cost is bounded by its slot: some sixty keys of a million, about ten microseconds;
//! but all of them if a client puts all its keys under one hash tag.
//!
//! The **digest** is a sum, modulo 2^64, of one hash per key, so it does not depend on any order and is kept up
//! to date by each write: the hash of the old item is subtracted, that of the new one added.
//!
//! The seed of the hash maps differs from process to process, so that nobody can choose keys that collide. The
//! order in which a map lists its keys therefore differs too and must never show: whoever lists, sorts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::FixedState;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::Index;

use super::slots::{SLOT_COUNT, slot_of};

/// What is kept of one key.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The value.
    pub(crate) value: Arc<[u8]>,
    /// The index of the command that wrote it.
    pub(crate) revision: Index,
}

/// The keys of one slot. Behind pointers, so that copying a slot copies neither keys nor values: sixteen bytes more
/// for each key, and a third of the time.
pub(crate) type Slot = HashMap<Arc<[u8]>, Item, FixedState>;

/// How many slots a group has.
const GROUP_LEN: usize = 128;
const GROUP_COUNT: usize = SLOT_COUNT / GROUP_LEN;

/// Neighbouring slots; `None`: no key is in it.
#[derive(Clone)]
struct Group([Option<Arc<Slot>>; GROUP_LEN]);

impl Group {
    const EMPTY: Group = Group([const { None }; GROUP_LEN]);
}

/// All keys. A clone shares what neither side writes.
#[derive(Clone)]
pub(crate) struct Keyspace {
    /// Empty until the first write, then one place per group; `None`: no slot of it was ever written.
    groups: Vec<Option<Arc<Group>>>,
    len: usize,
    digest: u64,
    seed: u64,
}

impl Keyspace {
    /// Without keys; costs no allocation.
    pub(crate) fn new(seed: u64) -> Keyspace {
        Keyspace { groups: Vec::new(), len: 0, digest: 0, seed }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is kept of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Item> {
        self.slot(slot_of(key))?.get(key)
    }

    /// The slot with this number, if it has keys.
    pub(crate) fn slot(&self, slot: usize) -> Option<&Arc<Slot>> {
        self.groups.get(slot / GROUP_LEN)?.as_ref()?.0[slot % GROUP_LEN].as_ref()
    }

    /// The value of `key`.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.get(key).map(|item| &item.value)
    }

    /// Lets go of the groups in front of a slot: a clone that is read from front to back needs them no more.
    /// What is counted stays as it was.
    pub(crate) fn release_before(&mut self, slot: usize) {
        let read = self.groups.len().min(slot / GROUP_LEN);
        // Those before the last one went before.
        if let Some(group) = self.groups[..read].last_mut() {
            *group = None;
        }
    }

    /// Sets `key` to `value` and returns the value it had.
    pub(crate) fn set(&mut self, key: &[u8], value: Arc<[u8]>, revision: Index) -> Option<Arc<[u8]>> {
        if self.groups.is_empty() {
            self.groups.resize(GROUP_COUNT, None);
        }
        let slot = slot_of(key);
        let group = self.groups[slot / GROUP_LEN].get_or_insert_with(|| Arc::new(Group::EMPTY));
        let hasher = FixedState::with_seed(self.seed);
        let slot = Arc::make_mut(group).0[slot % GROUP_LEN]
            .get_or_insert_with(|| Arc::new(Slot::with_hasher(hasher)));
        let slot = Arc::make_mut(slot);
        let new = Item { value, revision };
        self.digest = self.digest.wrapping_add(item_hash(key, &new));
        if let Some(item) = slot.get_mut(key) {
            let old = std::mem::replace(item, new);
            self.digest = self.digest.wrapping_sub(item_hash(key, &old));
            return Some(old.value);
        }
        slot.insert(key.into(), new);
        self.len += 1;
        None
    }

    /// Takes `key` out; says whether it was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        // Asked before `make_mut`, which may have to copy the slot.
        if self.get(key).is_none() {
            return false;
        }
        let slot = slot_of(key);
        let Some(group) = self.groups.get_mut(slot / GROUP_LEN).and_then(Option::as_mut) else {
            return false;
        };
        let place = &mut Arc::make_mut(group).0[slot % GROUP_LEN];
        let Some(slot) = place else {
            return false;
        };
        let slot = Arc::make_mut(slot);
        let Some(old) = slot.remove(key) else {
            return false;
        };
        if slot.is_empty() {
            *place = None;
        }
        self.digest = self.digest.wrapping_sub(item_hash(key, &old));
        self.len -= 1;
        true
    }

    /// Takes all keys out.
    pub(crate) fn clear(&mut self) {
        self.groups = Vec::new();
        self.len = 0;
        self.digest = 0;
    }

    /// All keys with what is kept of them, **in an order that differs from process to process**.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Item)> {
        let slots = self.groups.iter().flatten().flat_map(|group| group.0.iter().flatten());
        slots.flat_map(|slot| slot.iter().map(|(key, item)| (&**key, item)))
    }

    /// Equal for equal keys, values and revisions.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The digest from nothing but the items; for checkers.
    pub(crate) fn digest_recomputed(&self) -> u64 {
        self.iter().fold(0, |sum, (key, item)| sum.wrapping_add(item_hash(key, item)))
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keyspace({} keys, digest {:016x})", self.len, self.digest)
    }
}

fn item_hash(key: &[u8], item: &Item) -> u64 {
    key_hash(key, &item.value, item.revision)
}

/// What a key adds to the digest.
pub(crate) fn key_hash(key: &[u8], value: &[u8], revision: Index) -> u64 {
    xxh3_64_with_seed(value, xxh3_64_with_seed(key, revision.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Arc<[u8]> {
        Arc::from(text.as_bytes())
    }

    #[test]
    fn the_digest_is_that_of_the_contents_whatever_the_history_and_the_seed() {
        let mut one = Keyspace::new(1);
        let mut two = Keyspace::new(2);
        assert_eq!(one.digest(), 0);
        for i in 0..100 {
            one.set(format!("k{i}").as_bytes(), value("old"), Index(i));
        }
        for i in (0..100).rev() {
            let key = format!("k{i}");
            assert_eq!(one.set(key.as_bytes(), value("v"), Index(1000 + i)), Some(value("old")));
            two.set(key.as_bytes(), value("v"), Index(1000 + i));
        }
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.digest(), one.digest_recomputed());
        assert_eq!((one.len(), two.len()), (100, 100));
        assert_eq!(one.get(b"k7").map(|item| item.revision), Some(Index(1007)));
        two.set(b"k7", value("v"), Index(1));
        assert_ne!(one.digest(), two.digest(), "revisions count");
        assert!(one.remove(b"k7") && !one.remove(b"k7") && two.remove(b"k7"));
        assert_eq!(one.digest(), two.digest());
        for i in 0..100 {
            two.remove(format!("k{i}").as_bytes());
        }
        assert!((0..SLOT_COUNT).all(|slot| two.slot(slot).is_none()), "an empty slot costs nothing");
        one.clear();
        assert_eq!((one.len(), one.digest(), one.digest_recomputed()), (0, 0, 0));
    }

    #[test]
    fn a_clone_keeps_what_it_had_and_shares_what_is_not_written() {
        let mut live = Keyspace::new(7);
        live.set(b"a", value("1"), Index(1));
        live.set(b"b", value("2"), Index(2));
        let kept = live.clone();
        assert!(!live.remove(b"missing"));
        live.set(b"a", value("3"), Index(3));
        assert_eq!(kept.value(b"a"), Some(&value("1")));
        assert_eq!(live.value(b"a"), Some(&value("3")));
        let shared = |key: &[u8]| match (live.slot(slot_of(key)), kept.slot(slot_of(key))) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => panic!("both have the slot"),
        };
        assert!(shared(b"b") && !shared(b"a"));
    }
}
