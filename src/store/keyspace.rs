//! Keys and their values, in hash slots.
//!
//! Each of the 16,384 slots has its keys in small tables of pointers ([`leaves`](super::leaves)), and 128 slots
//! together are a group. A clone of the whole key space copies 128 pointers, which takes about a microsecond. A write
//! to a slot that a clone still holds copies its group, which is pointers to leaves, and one leaf first
//! (`Arc::make_mut`), each at most once per clone. That is what lets a snapshot be written while the store goes on.
//! Keys and values are shared, never copied, and what a write can cost does not depend on how many keys there are.
//!
//! The **digest** is a sum, modulo 2^64, of one hash per key, so it does not depend on any order and is kept up
//! to date by each write: the hash of the old item is subtracted, that of the new one added.
//!
//! A key whose deadline has passed by the replicated time is **dead**: it is not found, listed, counted or hashed,
//! though it may still lie in its slot ([`deadlines`](super::deadlines)).

use std::cell::RefCell;
use std::fmt;
use std::vec;

use triomphe::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::{Index, Item, Millis, Reply};

use super::deadlines::{DEADLINE_LEN, Deadlines};
use super::flushed::{Clones, FREED_MIN, Flushed};
use super::leaves::{Hashing, PLACE_LEN, Slot};
use super::long_read::LongRead;
use super::slots::{SLOT_COUNT, slot_of};
use super::under_way::{Work, work_of};
use super::watch::Watch;

/// How many slots a group has.
const GROUP_LEN: usize = 128;
const GROUP_COUNT: usize = SLOT_COUNT / GROUP_LEN;
/// So many bytes of a value that are read or written take as long as a look at a key.
const BYTES_PER_UNIT: usize = 4096;
/// So many pointers that are copied do: each counts one reference more in a place that is hardly ever in the cache.
const POINTERS_PER_UNIT: usize = 3;

/// When less than this part is left of the most that there was, what is removed key by key is kept until all is gone,
/// until there is more again, or until it has become that part of it, and then freed together. One by one, the last
/// keys would join what has become thousands of free pieces of all lengths ([`doomed`](super::doomed)). New keys have
/// the memory that is free already.
const SPARSE_PART: usize = 16;
const KEPT_PART: usize = 8;

/// What it counts to note a deadline or take it back: the way down a tree of all keys that die in the same moment.
const DEADLINE_WORK: u64 = 4;

/// Neighbouring slots; `None`: no key is in it.
pub(super) struct Group([Option<Slot>; GROUP_LEN]);

impl Clone for Group {
    fn clone(&self) -> Group {
        Group(Slot::copy_all(&self.0))
    }
}

impl Group {
    const EMPTY: Group = Group([const { None }; GROUP_LEN]);

    /// Those that have keys.
    pub(super) fn into_slots(self) -> impl Iterator<Item = Slot> {
        self.0.into_iter().flatten()
    }
}

/// All keys. A clone shares what neither side writes.
#[derive(Clone)]
pub(crate) struct Keyspace {
    /// Empty until the first write, then one place per group; `None`: no slot of it was ever written.
    groups: Vec<Option<Arc<Group>>>,
    /// Without the dead.
    len: usize,
    /// Without the dead.
    digest: u64,
    hashing: Hashing,
    now: Millis,
    deadlines: Deadlines,
    flushed: Flushed,
    /// How many have died; not state.
    died: u64,
    /// About how many bytes of memory the items take, the dead among them; not state.
    memory_len: usize,
    /// The most that it was.
    memory_len_max: usize,
    /// The most that it was since there last was nothing.
    full_len: usize,
    /// What was done, by reading too; not state.
    work: Work,
    /// Something was written or taken out, and perhaps freed, since the allocator was last made to tidy up; not state.
    untidy: bool,
    /// Who shares what is here; not state.
    clones: RefCell<Clones>,
    /// A frozen clone's, to be dropped after all that it shares, which stands above. Not state.
    #[expect(dead_code, reason = "what counts is that it is there")]
    token: Option<Arc<()>>,
}

impl Keyspace {
    /// Without keys; costs no allocation.
    pub(crate) fn new(seed: u64) -> Keyspace {
        Keyspace::with(Hashing::new(seed))
    }

    fn with(hashing: Hashing) -> Keyspace {
        Keyspace {
            groups: Vec::new(),
            len: 0,
            digest: 0,
            hashing,
            now: Millis(0),
            deadlines: Deadlines::default(),
            flushed: Flushed::default(),
            died: 0,
            memory_len: 0,
            memory_len_max: 0,
            full_len: 0,
            work: Work::default(),
            untidy: false,
            clones: RefCell::default(),
            token: None,
        }
    }

    /// A clone to be read only, which costs the copy of 128 pointers.
    pub(crate) fn freeze(&self) -> Keyspace {
        let Keyspace { len, digest, now, .. } = *self;
        let (groups, token) = (self.groups.clone(), Some(self.clones.borrow_mut().add()));
        Keyspace { groups, len, digest, now, token, ..Keyspace::with(self.hashing.clone()) }
    }

    /// The same without keys, which costs nothing.
    pub(crate) fn without_keys(&self) -> Keyspace {
        Keyspace::with(self.hashing.clone())
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

    /// About how many bytes of memory the keys take, and the most that they took.
    pub(crate) fn memory_len(&self) -> (usize, usize) {
        (self.memory_len, self.memory_len_max)
    }

    /// Where work is counted.
    pub(crate) fn work(&self) -> &Work {
        &self.work
    }

    /// From now on this watch tells when the time for work is up.
    pub(super) fn set_watch(&mut self, watch: Watch) {
        self.work.set_watch(watch);
    }

    /// The replicated time.
    pub(crate) fn now(&self) -> Millis {
        self.now
    }

    /// Lets the replicated time go on, and the keys die whose deadline has come. The cost does not depend on their
    /// number. If each is to be told of, [`Keyspace::take_untold`] has it next.
    pub(crate) fn advance(&mut self, now: Millis, is_told_of: bool) {
        self.now = self.now.max(now);
        while let Some(due) = self.deadlines.pop(self.now) {
            self.work.count(1);
            self.len -= due.len;
            self.died += due.len as u64;
            self.digest = self.digest.wrapping_sub(due.digest);
            self.deadlines.bury(due, is_told_of);
        }
    }

    /// Takes out the next key that has died and is to be told of, in the order of deadlines and bytes. Nothing may be
    /// written before there are none.
    pub(crate) fn take_untold(&mut self) -> Option<Item> {
        let dead = self.deadlines.next_untold()?;
        let now = self.now;
        if let Some(item) = self.take_out(dead.key(), |item| !item.is_alive(now))
            && self.keep_max() > 0
        {
            self.flushed.keep(item);
        }
        self.work.count(1);
        Some(dead)
    }

    /// Whether there are keys that have died and are to be told of.
    pub(crate) fn has_untold(&self) -> bool {
        self.deadlines.has_untold()
    }

    /// Frees about so many dead keys, or flushed ones, and says whether more are left. Nobody can see how many were
    /// freed.
    pub(crate) fn free_dead(&mut self, max: usize) -> bool {
        self.untidy |= self.has_dead();
        let mut taken_out = 0;
        while taken_out < max && (taken_out < FREED_MIN || !self.work.watch().is_late()) {
            let Some(dead) = self.deadlines.next_dead() else { break };
            taken_out += 1;
            // It may have come back to life with a new value.
            let now = self.now;
            let item = self.take_out(dead.key(), |item| !item.is_alive(now));
            if self.keep_max() > 0 {
                // As a rule the two are the same.
                self.flushed.keep(item.unwrap_or(dead));
                continue;
            }
            if let Some(item) = item {
                self.flushed.doom(item);
            }
            self.flushed.doom(dead);
            self.flushed.note_removed();
        }
        let keep = self.keep_max();
        let clones = self.clones.get_mut();
        let has_more = self.flushed.free(max, keep, clones, self.work.watch()) || self.deadlines.has_dead();
        let may_be_freed_elsewhere = clones.any();
        if std::mem::replace(&mut self.untidy, may_be_freed_elsewhere) || may_be_freed_elsewhere {
            tidy_memory();
        }
        has_more
    }

    /// Whether something was freed since the allocator was last made to tidy up.
    #[cfg(test)]
    pub(crate) fn is_untidy(&self) -> bool {
        self.untidy
    }

    /// Whether there are dead keys to be freed, or flushed ones.
    pub(crate) fn has_dead(&self) -> bool {
        self.deadlines.has_dead() || !self.flushed.is_idle(self.keep_max(), &self.clones.borrow())
    }

    /// Whether dead keys lie in their slots.
    pub(crate) fn has_unfreed(&self) -> bool {
        self.deadlines.has_dead()
    }

    /// What is kept of `key`, dead or alive.
    fn any(&self, key: &[u8]) -> Option<&Item> {
        self.slot(slot_of(key))?.get(self.hashing.of(key), key)
    }

    /// What is kept of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Item> {
        self.work.count(1);
        self.any(key).filter(|item| item.is_alive(self.now))
    }

    /// The slot with this number, if it has keys; the dead are among them.
    pub(crate) fn slot(&self, slot: usize) -> Option<&Slot> {
        self.groups.get(slot / GROUP_LEN)?.as_ref()?.0[slot % GROUP_LEN].as_ref()
    }

    /// So many slots from this one on are seen to be empty without a look at each: the rest of a group that was never
    /// written to, or none.
    pub(crate) fn empty_run(&self, slot: usize) -> usize {
        match self.groups.get(slot / GROUP_LEN) {
            Some(Some(_)) => 0,
            _ => GROUP_LEN - slot % GROUP_LEN,
        }
    }

    /// The items of a slot that are alive, **in an order that differs from process to process**.
    pub(crate) fn items_of(&self, slot: usize) -> impl Iterator<Item = &Item> {
        self.slot(slot).into_iter().flat_map(Slot::iter).filter(|item| item.is_alive(self.now))
    }

    /// The items of a slot that are alive, in the order of their keys. All at once, however many they are: not for the
    /// loop.
    pub(crate) fn sorted_items_of(&self, slot: usize) -> Vec<&Item> {
        let mut items: Vec<&Item> = self.items_of(slot).collect();
        items.sort_unstable_by_key(|item| item.key());
        items
    }

    /// The value of `key`.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        let value = self.get(key).map(Item::value);
        self.work.count(work_of(value.map_or(0, <[u8]>::len), BYTES_PER_UNIT));
        value
    }

    /// The first slot from this one on that has anything in it, or [`SLOT_COUNT`]. Lets go of the groups in front of
    /// it: a clone that is read from front to back needs them no more. What is counted stays as it was.
    pub(crate) fn skip_to_used(&mut self, from: usize) -> usize {
        let mut slot = from;
        loop {
            self.release_before(slot);
            if slot >= SLOT_COUNT {
                return SLOT_COUNT;
            }
            if let Some(Some(group)) = self.groups.get(slot / GROUP_LEN)
                && let Some(ahead) = group.0[slot % GROUP_LEN..].iter().position(Option::is_some)
            {
                return slot + ahead;
            }
            slot = (slot / GROUP_LEN + 1) * GROUP_LEN;
        }
    }

    fn release_before(&mut self, slot: usize) {
        let read = self.groups.len().min(slot / GROUP_LEN);
        // Those before the last one went before.
        if let Some(group) = self.groups[..read].last_mut() {
            *group = None;
        }
    }

    /// Sets `key` to `value`, without a deadline, and says whether it was there.
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], revision: Index) -> bool {
        self.write(key, Some((value, revision)), |_| Item::new(key, value, revision, None))
    }

    /// Sets `key` to another value that dies when the old one would have.
    pub(crate) fn update(&mut self, key: &[u8], value: &[u8], revision: Index) {
        let now = self.now;
        self.write(key, Some((value, revision)), |old| {
            let old = old.filter(|old| old.is_alive(now));
            Item::new(key, value, revision, old.and_then(Item::deadline))
        });
    }

    /// Sets `key` to `value` and says whether it was there. With a deadline that has passed the key is missing
    /// afterwards.
    pub(crate) fn set_until(
        &mut self,
        key: &[u8],
        value: &[u8],
        revision: Index,
        deadline: Option<Millis>,
    ) -> bool {
        match deadline {
            None => self.set(key, value, revision),
            Some(_) => self.put(Item::new(key, value, revision, deadline)),
        }
    }

    /// Puts an item in the place of the one with the same key and says whether there was one. An item that is dead
    /// is only taken away.
    pub(crate) fn put(&mut self, item: Item) -> bool {
        if !item.is_alive(self.now) {
            return self.remove(item.key()).is_some();
        }
        let key = item.clone();
        self.write(key.key(), None, |_| item)
    }

    /// Writes to the place of a key and says whether it was there. A value and its revision are written over the old
    /// ones if the item can stay; otherwise `make` gets what is there, dead or alive, and makes the new item, which is
    /// alive.
    fn write(
        &mut self,
        key: &[u8],
        over: Option<(&[u8], Index)>,
        make: impl FnOnce(Option<&Item>) -> Item,
    ) -> bool {
        self.untidy = true;
        if self.groups.is_empty() {
            self.groups.resize(GROUP_COUNT, None);
        }
        let hashing = &self.hashing;
        let (slot, place) = (slot_of(key), hashing.of(key));
        let group = self.groups[slot / GROUP_LEN].get_or_insert_with(|| Arc::new(Group::EMPTY));
        let slot = own_slot(group, slot, place, &self.work);
        self.work.count(2);
        let mut there = slot.as_mut().and_then(|slot| slot.get_mut(place, key));
        let old_hash = there.as_deref().map_or(0, item_hash);
        if let (Some(item), Some((value, revision))) = (&mut there, over)
            && item.overwrite(value, revision)
        {
            // Only what has no deadline can stay, so it was alive.
            self.digest = self.digest.wrapping_sub(old_hash).wrapping_add(item_hash(item));
            return true;
        }
        let new = make(there.as_deref());
        let (hash, len) = (item_hash(&new), memory_len(&new));
        let bytes = new.value().len() + there.as_deref().map_or(0, |old| old.value().len());
        self.work.count(work_of(bytes, BYTES_PER_UNIT));
        let mortal = new.deadline().map(|deadline| (deadline, new.clone()));
        let old = match there {
            Some(item) => Some(std::mem::replace(item, new)),
            None => {
                match slot {
                    Some(slot) => slot.insert(place, hashing, new),
                    empty => *empty = Some(Slot::new(place, new)),
                }
                None
            }
        };
        self.memory_len = self.memory_len + len - old.as_ref().map_or(0, memory_len);
        self.memory_len_max = self.memory_len_max.max(self.memory_len);
        self.full_len = self.full_len.max(self.memory_len);
        self.digest = self.digest.wrapping_add(hash);
        self.len += 1;
        let old = old.filter(|old| old.is_alive(self.now));
        if let Some(old) = &old {
            self.forget(old, old_hash);
        }
        if let Some((deadline, item)) = mortal {
            self.work.count(DEADLINE_WORK);
            self.deadlines.insert(deadline, item, hash);
        }
        old.is_some()
    }

    /// Takes a living item with this hash out of the account.
    fn forget(&mut self, old: &Item, hash: u64) {
        self.len -= 1;
        self.digest = self.digest.wrapping_sub(hash);
        if let Some(deadline) = old.deadline() {
            self.work.count(DEADLINE_WORK);
            self.deadlines.remove(deadline, old.key(), hash);
        }
    }

    /// Takes `key` out and returns what was kept of it.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Item> {
        let old = self.take_living(key)?;
        if self.keep_max() > 0 {
            self.flushed.keep(old.clone());
        }
        Some(old)
    }

    /// Takes `key` out and says whether it was there. Its memory is freed later, by [`Keyspace::free_dead`].
    pub(crate) fn unlink(&mut self, key: &[u8]) -> bool {
        let Some(old) = self.take_living(key) else { return false };
        if self.keep_max() > 0 {
            self.flushed.keep(old);
        } else {
            self.flushed.push_removed(old);
        }
        true
    }

    fn take_living(&mut self, key: &[u8]) -> Option<Item> {
        let now = self.now;
        let old = self.take_out(key, |item| item.is_alive(now))?;
        self.forget(&old, item_hash(&old));
        Some(old)
    }

    /// So many bytes of what is removed key by key may be kept: none, unless there is little left but not nothing.
    fn keep_max(&self) -> usize {
        let is_sparse = self.memory_len > 0 && self.memory_len < self.full_len / SPARSE_PART;
        if is_sparse { self.full_len / KEPT_PART } else { 0 }
    }

    /// How many bytes are kept.
    #[cfg(test)]
    pub(super) fn kept_len(&self) -> usize {
        self.flushed.kept_len()
    }

    /// Takes `key` out of its slot if what is kept of it is wanted.
    fn take_out(&mut self, key: &[u8], wanted: impl Fn(&Item) -> bool) -> Option<Item> {
        let (slot, hash) = (slot_of(key), self.hashing.of(key));
        self.work.count(2);
        let group = self.groups.get_mut(slot / GROUP_LEN)?.as_mut()?;
        // A group that a clone has is copied for nothing less than a key.
        if !group.is_unique() {
            group.0[slot % GROUP_LEN].as_ref()?.get(hash, key).filter(|item| wanted(item))?;
        }
        let place = own_slot(group, slot, hash, &self.work);
        let slot = place.as_mut()?;
        let old = slot.remove(hash, key, wanted)?;
        if slot.len() == 0 {
            *place = None;
        }
        self.work.count(work_of(old.value().len(), BYTES_PER_UNIT));
        self.memory_len -= memory_len(&old);
        if self.memory_len == 0 {
            self.full_len = 0;
        }
        self.untidy = true;
        Some(old)
    }

    /// Takes all keys out. Their memory is freed later, by [`Keyspace::free_dead`].
    pub(crate) fn clear(&mut self) {
        self.flushed.push_all(&mut self.groups, &mut self.deadlines);
        self.len = 0;
        self.digest = 0;
        self.memory_len = 0;
        self.full_len = 0;
    }

    /// Takes the keys of another store, which nobody wants any more, to be freed by [`Keyspace::free_dead`]. One of the
    /// two must be as it was made, without a clone and with nothing to be freed.
    pub(super) fn bury(&mut self, other: &mut Keyspace) {
        if !other.flushed.is_empty() || other.clones.get_mut().were_any() {
            std::mem::swap(&mut self.clones, &mut other.clones);
            std::mem::swap(&mut self.flushed, &mut other.flushed);
        }
        self.flushed.push_all(&mut other.groups, &mut other.deadlines);
    }

    /// Takes what a read holds, to be freed by [`Keyspace::free_dead`]. What the store has as well it lets go of at
    /// once, so that no write has to copy it any more.
    pub(crate) fn discard(&mut self, read: LongRead) {
        let (keys, items, replies) = read.into_parts();
        self.discard_keys(keys);
        items.into_iter().for_each(|items| self.discard_items(items));
        self.discard_replies(replies);
    }

    /// The same for a clone. Of a group that was changed meanwhile there are items that only the clone has.
    pub(super) fn discard_keys(&mut self, keys: Keyspace) {
        for (at, frozen) in keys.groups.into_iter().enumerate() {
            let own = self.groups.get(at).and_then(Option::as_ref);
            let is_same = own.zip(frozen.as_ref()).is_some_and(|(own, frozen)| Arc::ptr_eq(own, frozen));
            if !is_same {
                self.flushed.push_read(frozen);
            }
        }
    }

    /// The same for items.
    pub(crate) fn discard_items(&mut self, items: impl IntoIterator<IntoIter = vec::IntoIter<Item>>) {
        self.flushed.push_found(items.into_iter());
    }

    /// The same for replies.
    pub(crate) fn discard_replies(&mut self, replies: impl IntoIterator<IntoIter = vec::IntoIter<Reply>>) {
        self.flushed.push_replies(replies.into_iter());
    }

    /// All that is kept, **in an order that differs from process to process**.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        (0..SLOT_COUNT).flat_map(|slot| self.items_of(slot))
    }

    /// Equal for equal keys, values, revisions and deadlines.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The digest from nothing but the items; for checkers.
    pub(crate) fn digest_recomputed(&self) -> u64 {
        self.iter().fold(0, |sum, item| sum.wrapping_add(item_hash(item)))
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keyspace({} keys, digest {:016x})", self.len, self.digest)
    }
}

/// The place of a slot in a group that no clone has, to be written to where this hash belongs. Counts what is copied
/// for it, now and by the write.
fn own_slot<'a>(group: &'a mut Arc<Group>, slot: usize, hash: u64, work: &Work) -> &'a mut Option<Slot> {
    if Arc::strong_count(group) > 1 {
        let pointers: usize = group.0.iter().flatten().map(Slot::leaf_count).sum();
        work.count(work_of(pointers + GROUP_LEN, POINTERS_PER_UNIT));
    }
    let slot = &mut Arc::make_mut(group).0[slot % GROUP_LEN];
    let copied = slot.as_ref().map_or(0, |slot| slot.shared_len(hash));
    work.count(work_of(copied, POINTERS_PER_UNIT));
    slot
}

/// Makes the allocator put together what was just freed. That of glibc keeps small pieces on a list until somebody
/// wants a larger one, and whoever that is waits until all of them have been joined with their neighbours: after a
/// million keys for a quarter of a second. Asking after each thousand shares that out. Other allocators do not mind.
fn tidy_memory() {
    /// Longer than any that is kept in reserve by a thread.
    const LARGE: usize = 4 << 10;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
}

/// About how many bytes of memory a key takes, with its places in the tables.
pub(crate) fn memory_len(item: &Item) -> usize {
    item.memory_len() + PLACE_LEN + if item.deadline().is_some() { DEADLINE_LEN } else { 0 }
}

fn item_hash(item: &Item) -> u64 {
    key_hash(item.key(), item.value(), item.revision(), item.deadline())
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

    #[test]
    fn the_digest_is_that_of_the_contents_whatever_the_history_and_the_seed() {
        let mut one = Keyspace::new(1);
        let mut two = Keyspace::new(2);
        assert_eq!(one.digest(), 0);
        for i in 0..100 {
            one.set(format!("k{i}").as_bytes(), b"old", Index(i));
        }
        for i in (0..100).rev() {
            let key = format!("k{i}");
            assert!(one.set(key.as_bytes(), b"v", Index(1000 + i)));
            two.set(key.as_bytes(), b"v", Index(1000 + i));
        }
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.digest(), one.digest_recomputed());
        assert_eq!((one.len(), two.len()), (100, 100));
        assert_eq!(one.get(b"k7").map(Item::revision), Some(Index(1007)));
        two.set(b"k7", b"v", Index(1));
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
        live.set(b"a", b"1", Index(1));
        live.set(b"b", b"2", Index(2));
        let kept = live.clone();
        assert!(live.remove(b"missing").is_none());
        live.set(b"a", b"3", Index(3));
        assert_eq!(kept.value(b"a"), Some(&b"1"[..]));
        assert_eq!(live.value(b"a"), Some(&b"3"[..]));
        let shared = |key: &[u8]| match (live.slot(slot_of(key)), kept.slot(slot_of(key))) {
            (Some(a), Some(b)) => a.places() == b.places(),
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
                keys.advance(Millis(now), true);
                while let Some(item) = keys.take_untold() {
                    told.push(item.key().to_vec());
                }
                other.advance(Millis(now), false);
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
                    keys.update(&key, b"u", revision);
                    other.update(&key, b"u", revision);
                    twin.insert(key.clone(), (i, deadline));
                }
                choice => {
                    let deadline = (choice < 6).then(|| Millis(now + random.next() % 60));
                    keys.set_until(&key, b"v", revision, deadline);
                    other.set_until(&key, b"v", revision, deadline);
                    twin.insert(key.clone(), (i, deadline.map_or(u64::MAX, |deadline| deadline.0)));
                    twin.retain(|_, item| item.1 > now);
                }
            }
            keys.free_dead(random.below(3));
            other.free_dead(if i % 1000 == 0 { usize::MAX } else { 0 });
            let found =
                keys.get(&key).map(|item| (item.revision().0, item.deadline().map_or(u64::MAX, |at| at.0)));
            assert_eq!(found, twin.get(&key).copied());
            assert_eq!((keys.len(), other.len()), (twin.len(), twin.len()));
            let mortal = twin.values().filter(|item| item.1 != u64::MAX).count();
            assert_eq!((keys.mortal_len(), other.mortal_len()), (mortal, mortal));
            assert_eq!(keys.digest(), other.digest());
            if i % 50 == 0 {
                assert_eq!(keys.digest(), keys.digest_recomputed());
                assert_eq!(other.digest(), other.digest_recomputed());
                let mut listed: Vec<_> = other.iter().map(|item| item.key().to_vec()).collect();
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
        other.set_until(b"k1", b"w", Index(1), Some(Millis(now + 5)));
        let mut steps = 0;
        while other.free_dead(5) {
            steps += 1;
        }
        assert!(steps > 1 && !other.has_dead(), "in {steps} steps");
        assert_eq!((other.len(), other.mortal_len(), held(&other)), (1, 1, 1));
    }
}
