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
//! A key whose deadline has passed by the replicated time is **dead**: it is not found, listed, counted or hashed,
//! though it may still lie in its slot ([`deadlines`](super::deadlines)).
//!
//! The seed of the hash maps differs from process to process, so that nobody can choose keys that collide. The
//! order in which a map lists its keys therefore differs too and must never show: whoever lists, sorts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::FixedState;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::{Index, Millis};

use super::deadlines::Deadlines;
use super::slots::{SLOT_COUNT, slot_of};

/// The deadline of keys without one.
const NEVER: Millis = Millis(u64::MAX);

/// What is kept of one key.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The value.
    pub(crate) value: Arc<[u8]>,
    /// The index of the command that wrote it.
    pub(crate) revision: Index,
    /// [`NEVER`] if it has none: eight bytes less than an option.
    deadline: Millis,
}

impl Item {
    /// From when on by the replicated time it is dead.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        (self.deadline != NEVER).then_some(self.deadline)
    }

    /// Whether it can be seen at this time.
    pub(crate) fn is_alive(&self, now: Millis) -> bool {
        self.deadline > now || self.deadline == NEVER
    }
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

/// Gets each key that dies.
pub(crate) type Told<'a> = &'a mut dyn FnMut(&Arc<[u8]>);

/// All keys. A clone shares what neither side writes.
#[derive(Clone)]
pub(crate) struct Keyspace {
    /// Empty until the first write, then one place per group; `None`: no slot of it was ever written.
    groups: Vec<Option<Arc<Group>>>,
    /// Without the dead.
    len: usize,
    /// Without the dead.
    digest: u64,
    seed: u64,
    now: Millis,
    deadlines: Deadlines,
    flushed: Flushed,
    /// How many have died; not state.
    died: u64,
}

/// What `FLUSHALL` took away and nobody has freed yet.
#[derive(Clone, Default)]
struct Flushed {
    slots: Vec<Arc<Slot>>,
    deadlines: Vec<Deadlines>,
}

impl Flushed {
    /// Frees about so many keys and says whether there is more.
    fn free(&mut self, max: usize) -> bool {
        let mut freed = 0;
        while freed < max {
            if let Some(slot) = self.slots.pop() {
                freed += slot.len();
            } else if let Some(deadlines) = self.deadlines.last_mut() {
                let count = deadlines.shrink();
                freed += count;
                if count == 0 {
                    self.deadlines.pop();
                }
            } else {
                return false;
            }
        }
        true
    }
}

impl Keyspace {
    /// Without keys; costs no allocation.
    pub(crate) fn new(seed: u64) -> Keyspace {
        let (deadlines, flushed) = (Deadlines::default(), Flushed::default());
        Keyspace { groups: Vec::new(), len: 0, digest: 0, seed, now: Millis(0), deadlines, flushed, died: 0 }
    }

    /// A clone to be read only, which costs the copy of 128 pointers.
    pub(crate) fn freeze(&self) -> Keyspace {
        let Keyspace { len, digest, now, .. } = *self;
        Keyspace { groups: self.groups.clone(), len, digest, now, ..Keyspace::new(self.seed) }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many of them have a deadline.
    pub(crate) fn mortal_len(&self) -> usize {
        self.deadlines.len()
    }

    /// How many have died in this process.
    pub(crate) fn died(&self) -> u64 {
        self.died
    }

    /// The replicated time.
    pub(crate) fn now(&self) -> Millis {
        self.now
    }

    /// Lets the replicated time go on, and the keys die whose deadline has come. `told` gets each of them, in the
    /// order of deadlines and bytes; without it the cost does not depend on their number.
    pub(crate) fn advance(&mut self, now: Millis, mut told: Option<Told<'_>>) {
        self.now = self.now.max(now);
        while let Some(bucket) = self.deadlines.pop(self.now) {
            self.len -= bucket.keys.len();
            self.died += bucket.keys.len() as u64;
            self.digest = self.digest.wrapping_sub(bucket.digest);
            if let Some(told) = &mut told {
                bucket.keys.iter().for_each(told);
            }
            self.deadlines.bury(bucket.keys);
        }
    }

    /// Frees at most so many dead keys and says whether more are left. Nobody can see how many were freed.
    pub(crate) fn free_dead(&mut self, max: usize) -> bool {
        for _ in 0..max {
            let Some(key) = self.deadlines.next_dead() else { break };
            // It may have come back to life with a new value.
            if self.any(&key).is_some_and(|item| !item.is_alive(self.now)) {
                self.take_out(&key);
            }
        }
        self.deadlines.has_dead() || self.flushed.free(max)
    }

    /// Whether there are dead keys to be freed, or flushed ones.
    pub(crate) fn has_dead(&self) -> bool {
        self.deadlines.has_dead() || !self.flushed.slots.is_empty() || !self.flushed.deadlines.is_empty()
    }

    /// What is kept of `key`, dead or alive.
    fn any(&self, key: &[u8]) -> Option<&Item> {
        self.slot(slot_of(key))?.get(key)
    }

    /// What is kept of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Item> {
        self.any(key).filter(|item| item.is_alive(self.now))
    }

    /// The slot with this number, if it has keys; the dead are among them.
    pub(crate) fn slot(&self, slot: usize) -> Option<&Arc<Slot>> {
        self.groups.get(slot / GROUP_LEN)?.as_ref()?.0[slot % GROUP_LEN].as_ref()
    }

    /// The keys of a slot that are alive, in the order of their bytes.
    pub(crate) fn keys_of(&self, slot: usize) -> Vec<&Arc<[u8]>> {
        let items = self.slot(slot).into_iter().flat_map(|slot| slot.iter());
        let mut keys: Vec<&Arc<[u8]>> =
            items.filter(|(_, item)| item.is_alive(self.now)).map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// The value of `key`.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.get(key).map(|item| &item.value)
    }

    /// The first slot from this one on that has anything in it, or [`SLOT_COUNT`]. Lets go of the groups in front of it:
    /// a clone that is read from front to back needs them no more. What is counted stays as it was.
    pub(crate) fn skip_to_used(&mut self, from: usize) -> usize {
        let mut slot = from;
        while slot < SLOT_COUNT {
            self.release_before(slot);
            match self.groups.get(slot / GROUP_LEN) {
                Some(Some(group)) if group.0[slot % GROUP_LEN].is_some() => return slot,
                Some(Some(_)) => slot += 1,
                _ => slot = (slot / GROUP_LEN + 1) * GROUP_LEN,
            }
        }
        SLOT_COUNT
    }

    fn release_before(&mut self, slot: usize) {
        let read = self.groups.len().min(slot / GROUP_LEN);
        // Those before the last one went before.
        if let Some(group) = self.groups[..read].last_mut() {
            *group = None;
        }
    }

    /// Sets `key` to `value`, without a deadline, and returns the value it had.
    pub(crate) fn set(&mut self, key: &[u8], value: Arc<[u8]>, revision: Index) -> Option<Arc<[u8]>> {
        self.set_until(key, value, revision, None)
    }

    /// Sets `key` to another value that dies when the old one would have.
    pub(crate) fn update(&mut self, key: &[u8], value: Arc<[u8]>, revision: Index) {
        let deadline = self.get(key).and_then(Item::deadline);
        self.set_until(key, value, revision, deadline);
    }

    /// Sets `key` to `value` and returns the value it had. With a deadline that has passed the key is missing
    /// afterwards.
    pub(crate) fn set_until(
        &mut self,
        key: &[u8],
        value: Arc<[u8]>,
        revision: Index,
        deadline: Option<Millis>,
    ) -> Option<Arc<[u8]>> {
        // One that can never come is none.
        let deadline = deadline.filter(|deadline| *deadline != NEVER);
        let new = Item { value, revision, deadline: deadline.unwrap_or(NEVER) };
        if !new.is_alive(self.now) {
            return self.remove(key).map(|item| item.value);
        }
        if self.groups.is_empty() {
            self.groups.resize(GROUP_COUNT, None);
        }
        let slot = slot_of(key);
        let group = self.groups[slot / GROUP_LEN].get_or_insert_with(|| Arc::new(Group::EMPTY));
        let hasher = FixedState::with_seed(self.seed);
        let slot = Arc::make_mut(group).0[slot % GROUP_LEN]
            .get_or_insert_with(|| Arc::new(Slot::with_hasher(hasher)));
        let slot = Arc::make_mut(slot);
        let hash = item_hash(key, &new);
        self.digest = self.digest.wrapping_add(hash);
        self.len += 1;
        // The key as it is shared by slot and deadlines; only made where it is needed.
        let mut shared: Option<Arc<[u8]>> = None;
        if deadline.is_some() {
            shared = Some(slot.get_key_value(key).map_or_else(|| Arc::from(key), |(key, _)| Arc::clone(key)));
        }
        let old = match slot.get_mut(key) {
            Some(item) => Some(std::mem::replace(item, new)),
            None => slot.insert(shared.clone().unwrap_or_else(|| Arc::from(key)), new),
        };
        let old = old.filter(|old| old.is_alive(self.now));
        if let Some(old) = &old {
            self.forget(key, old);
        }
        if let (Some(deadline), Some(key)) = (deadline, shared) {
            self.deadlines.insert(deadline, key, hash);
        }
        old.map(|old| old.value)
    }

    /// Takes a living item out of the account.
    fn forget(&mut self, key: &[u8], old: &Item) {
        let hash = item_hash(key, old);
        self.len -= 1;
        self.digest = self.digest.wrapping_sub(hash);
        if let Some(deadline) = old.deadline() {
            self.deadlines.remove(deadline, key, hash);
        }
    }

    /// Takes `key` out and returns what was kept of it.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Item> {
        // Asked before `make_mut`, which may have to copy the slot.
        self.get(key)?;
        let old = self.take_out(key)?;
        self.forget(key, &old);
        Some(old)
    }

    /// Takes `key` out of its slot.
    fn take_out(&mut self, key: &[u8]) -> Option<Item> {
        let slot = slot_of(key);
        let group = self.groups.get_mut(slot / GROUP_LEN)?.as_mut()?;
        let place = &mut Arc::make_mut(group).0[slot % GROUP_LEN];
        let slot = Arc::make_mut(place.as_mut()?);
        let old = slot.remove(key)?;
        if slot.is_empty() {
            *place = None;
        }
        Some(old)
    }

    /// Takes all keys out. Their memory is freed later, by [`Keyspace::free_dead`].
    pub(crate) fn clear(&mut self) {
        for group in std::mem::take(&mut self.groups).into_iter().flatten() {
            // What a clone still holds is freed with it.
            if let Ok(group) = Arc::try_unwrap(group) {
                self.flushed.slots.extend(group.0.into_iter().flatten());
            }
        }
        self.flushed.deadlines.push(std::mem::take(&mut self.deadlines));
        self.len = 0;
        self.digest = 0;
    }

    /// All keys with what is kept of them, **in an order that differs from process to process**.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Item)> {
        let slots = self.groups.iter().flatten().flat_map(|group| group.0.iter().flatten());
        let items = slots.flat_map(|slot| slot.iter().map(|(key, item)| (&**key, item)));
        items.filter(|(_, item)| item.is_alive(self.now))
    }

    /// Equal for equal keys, values, revisions and deadlines.
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
    key_hash(key, &item.value, item.revision, item.deadline())
}

/// What a key adds to the digest.
pub(crate) fn key_hash(key: &[u8], value: &[u8], revision: Index, deadline: Option<Millis>) -> u64 {
    let hash = xxh3_64_with_seed(value, xxh3_64_with_seed(key, revision.0));
    deadline.map_or(hash, |deadline| xxh3_64_with_seed(&deadline.0.to_le_bytes(), hash))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::tests::SplitMix;

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
        assert!(one.remove(b"k7").is_some() && one.remove(b"k7").is_none() && two.remove(b"k7").is_some());
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
        assert!(live.remove(b"missing").is_none());
        live.set(b"a", value("3"), Index(3));
        assert_eq!(kept.value(b"a"), Some(&value("1")));
        assert_eq!(live.value(b"a"), Some(&value("3")));
        let shared = |key: &[u8]| match (live.slot(slot_of(key)), kept.slot(slot_of(key))) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => panic!("both have the slot"),
        };
        assert!(shared(b"b") && !shared(b"a"));
    }

    /// A twin that looks at every deadline at every moment, and frees at other times.
    #[test]
    fn a_dead_key_is_gone_whenever_it_is_freed() {
        let mut random = SplitMix(5);
        let mut keys = Keyspace::new(1);
        let mut other = Keyspace::new(2);
        let mut twin: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
        let mut now = 1000;
        for i in 0..20_000 {
            if random.below(4) == 0 {
                now += random.next() % 20;
                let mut told = Vec::new();
                keys.advance(Millis(now), Some(&mut |key| told.push(key.to_vec())));
                other.advance(Millis(now), None);
                let dead: Vec<_> = twin.iter().filter(|(_, item)| item.1 <= now).collect();
                let mut dead: Vec<_> = dead.iter().map(|(key, item)| (item.1, key.to_vec())).collect();
                dead.sort();
                assert_eq!(told, dead.into_iter().map(|(_, key)| key).collect::<Vec<_>>());
                twin.retain(|_, item| item.1 > now);
            }
            let key = format!("k{}", random.below(60)).into_bytes();
            let revision = Index(i);
            match random.below(8) {
                0 => {
                    let was = twin.remove(&key).is_some();
                    assert_eq!((keys.remove(&key).is_some(), other.remove(&key).is_some()), (was, was));
                }
                1 => {
                    let deadline = twin.get(&key).map_or(u64::MAX, |item| item.1);
                    keys.update(&key, value("u"), revision);
                    other.update(&key, value("u"), revision);
                    twin.insert(key.clone(), (i, deadline));
                }
                choice => {
                    let deadline = (choice < 6).then(|| Millis(now + random.next() % 60));
                    keys.set_until(&key, value("v"), revision, deadline);
                    other.set_until(&key, value("v"), revision, deadline);
                    twin.insert(key.clone(), (i, deadline.map_or(u64::MAX, |deadline| deadline.0)));
                    twin.retain(|_, item| item.1 > now);
                }
            }
            keys.free_dead(random.below(3));
            other.free_dead(if i % 1000 == 0 { usize::MAX } else { 0 });
            let found = keys.get(&key).map(|item| (item.revision.0, item.deadline));
            assert_eq!(found, twin.get(&key).map(|(revision, deadline)| (*revision, Millis(*deadline))));
            assert_eq!((keys.len(), other.len()), (twin.len(), twin.len()));
            let mortal = twin.values().filter(|item| item.1 != u64::MAX).count();
            assert_eq!((keys.mortal_len(), other.mortal_len()), (mortal, mortal));
            assert_eq!(keys.digest(), other.digest());
            if i % 50 == 0 {
                assert_eq!(keys.digest(), keys.digest_recomputed());
                assert_eq!(other.digest(), other.digest_recomputed());
                let mut listed: Vec<_> = other.iter().map(|(key, _)| key.to_vec()).collect();
                listed.sort();
                assert_eq!(listed, twin.keys().cloned().collect::<Vec<_>>());
            }
        }
        while keys.free_dead(7) {}
        keys.free_dead(7);
        other.free_dead(usize::MAX);
        let held =
            |keys: &Keyspace| (0..SLOT_COUNT).filter_map(|s| keys.slot(s)).map(|s| s.len()).sum::<usize>();
        assert_eq!((held(&keys), held(&other)), (twin.len(), twin.len()));
        other.clear();
        assert_eq!((other.len(), other.mortal_len(), other.digest(), held(&other)), (0, 0, 0, 0));
        other.set_until(b"k1", value("w"), Index(1), Some(Millis(now + 5)));
        let mut steps = 0;
        while other.free_dead(5) {
            steps += 1;
        }
        assert!(steps > 1 && !other.has_dead(), "in {steps} steps");
        assert_eq!((other.len(), other.mortal_len(), held(&other)), (1, 1, 1));
    }
}
