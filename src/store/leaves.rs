//! The keys of one hash slot, in small tables that are copied one at a time.
//!
//! A slot begins as one *leaf*, a table of pointers to items. When it has grown past two [`LEAF_LEN`] it becomes
//! a list of leaves, which grows by **linear hashing** (Litwin, 1980): the low bits of a hash choose a leaf, and each
//! time the keys have become enough for one more leaf, the next leaf in line is split in two. So no write ever moves
//! more than one leaf's items, however many keys a client puts into one slot; the list goes back in the same way.
//!
//! A leaf is no hash table but two lists, of items and of their **tags**, sixteen bits of each hash: a hash table of
//! this size is two fifths empty on average, lists a sixth. Whoever looks for a key compares some
//! dozens of tags, sixteen at a time, and hardly ever another key than the one that it wants. The bits that choose
//! among the first [`PLACES_IN_TAG`] leaves are in the tag. So to grow, shrink, split or join leaves is to move
//! pointers, without a look at a key, which is hardly ever in the processor's cache.
//!
//! A clone shares the leaves. A write to a shared leaf copies its pointers to items, never a key or a value. The list
//! lies in the group of slots itself: one step less on the way to every key.
//!
//! The seed of the hashes differs from process to process, so that nobody can choose keys that collide. The order in
//! which items are listed therefore differs too and must never show: whoever lists, sorts.

use std::hash::{BuildHasher, Hasher};
use std::mem::size_of;

use foldhash::fast::FixedState;
use triomphe::Arc;

use crate::types::Item;

/// How many items a leaf has on average; the largest are about twice as long.
pub(super) const LEAF_LEN: usize = 56;
/// With so few items a leaf on average, leaves are joined.
const LEAF_LEN_MIN: usize = 8;
/// So many bits of a tag are those by which leaves are chosen.
const PLACE_BITS: u32 = 6;
/// To choose among so many leaves a tag is enough.
const PLACES_IN_TAG: usize = 1 << PLACE_BITS;
/// How many tags are compared at a time.
const BLOCK_LEN: usize = 16;
/// Lists of tags and of items take multiples of so many bytes, and the shortest a power of two. With few sizes, what
/// one list leaves behind fits the next one.
const TAGS_STEP: usize = 64;
const ITEMS_STEP: usize = 128;
/// The leaves of so many slots are brought into the processor's cache before the first of them is shared.
const TOUCHED: usize = 16;
/// But not more leaves than these: the first would be out of the cache again before the last is in it.
const TOUCHED_LEAVES: usize = 512;
/// Lists that have room for more than so many others are made shorter.
const SPARE_MAX: usize = 16;

/// Makes the hashes of keys.
#[derive(Clone, Debug)]
pub(super) struct Hashing(FixedState);

impl Hashing {
    /// Differs with the seed.
    pub(super) fn new(seed: u64) -> Hashing {
        Hashing(FixedState::with_seed(seed))
    }

    /// The hash of a key.
    pub(super) fn of(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// What is compared before a key is.
#[expect(clippy::cast_possible_truncation, reason = "a part of the bits is wanted")]
fn tag(hash: u64) -> u16 {
    ((hash >> 32) as u16 & ((1 << PLACE_BITS) - 1)) | (hash as u16) << PLACE_BITS
}

/// How many places there are for so many.
fn room<T>(len: usize, step: usize) -> usize {
    /// What allocators put in front.
    const HEAD: usize = 8;
    let bytes = HEAD + len * size_of::<T>();
    let bytes = if bytes > step { bytes.next_multiple_of(step) } else { bytes.next_power_of_two().max(32) };
    (bytes - HEAD) / size_of::<T>()
}

fn tags_room(len: usize) -> usize {
    room::<u16>(len, TAGS_STEP)
}

fn items_room(len: usize) -> usize {
    room::<Item>(len, ITEMS_STEP)
}

/// A table of items, in no order.
pub(crate) struct Leaf {
    /// One for each item, in the same order.
    tags: Vec<u16>,
    items: Vec<Item>,
}

/// Brings what is about to be shared once more into the processor's cache, where it hardly ever is. To count one
/// reference more is an atomic operation, which waits for memory before the next can begin; these reads wait together,
/// a dozen at a time.
fn touch(counts: impl Iterator<Item = usize>) {
    std::hint::black_box(counts.fold(0, usize::wrapping_add));
}

impl Clone for Leaf {
    /// With as much room as if it had grown: it is about to be written to.
    fn clone(&self) -> Leaf {
        touch(self.items.iter().map(Item::count));
        let mut leaf = Leaf::with_room(self.len());
        leaf.tags.extend_from_slice(&self.tags);
        leaf.items.extend_from_slice(&self.items);
        leaf
    }
}

impl Leaf {
    /// Without items, but with room for so many.
    fn with_room(len: usize) -> Leaf {
        Leaf { tags: Vec::with_capacity(tags_room(len)), items: Vec::with_capacity(items_room(len)) }
    }

    /// Its items.
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item> {
        self.items.into_iter()
    }

    /// Where the item of a key is.
    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let tag = tag(hash);
        let is_at = |at: &usize| self.tags[*at] == tag && self.items[*at].key() == key;
        let (blocks, rest) = self.tags.as_chunks::<BLOCK_LEN>();
        let mut begin = 0;
        for block in blocks {
            // Without a way out in the middle, so that all are compared at once.
            if block.iter().fold(false, |found, other| found | (*other == tag))
                && let Some(at) = (begin..begin + BLOCK_LEN).find(is_at)
            {
                return Some(at);
            }
            begin += BLOCK_LEN;
        }
        (begin..begin + rest.len()).find(is_at)
    }

    fn get(&self, hash: u64, key: &[u8]) -> Option<&Item> {
        self.find(hash, key).map(|at| &self.items[at])
    }

    /// Its key must not be there.
    fn push(&mut self, tag: u16, item: Item) {
        let len = self.len();
        if len == self.tags.capacity() {
            self.tags.reserve_exact(tags_room(len + 1) - len);
        }
        if len == self.items.capacity() {
            self.items.reserve_exact(items_room(len + 1) - len);
        }
        self.tags.push(tag);
        self.items.push(item);
    }

    /// Takes the item at a place out; the last one takes its place.
    fn take(&mut self, at: usize) -> (u16, Item) {
        (self.tags.swap_remove(at), self.items.swap_remove(at))
    }

    /// Gives room back if there is much more than is needed.
    fn trim(&mut self) {
        let len = self.len();
        if self.tags.capacity() > tags_room(len + SPARE_MAX) {
            self.tags.shrink_to(tags_room(len));
        }
        if self.items.capacity() > items_room(len + SPARE_MAX) {
            self.items.shrink_to(items_room(len));
        }
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

/// Takes the item of a key out of a leaf if it is wanted. Until that is known nothing is copied.
fn take_from(
    leaf: &mut Arc<Leaf>,
    hash: u64,
    key: &[u8],
    wanted: impl FnOnce(&Item) -> bool,
) -> Option<Item> {
    let at = leaf.find(hash, key).filter(|at| wanted(&leaf.items[*at]))?;
    let leaf = Arc::make_mut(leaf);
    let (_, item) = leaf.take(at);
    leaf.trim();
    Some(item)
}

/// The place of a key that is there, in a leaf that no clone has.
fn place_in<'a>(leaf: &'a mut Arc<Leaf>, hash: u64, key: &[u8]) -> Option<&'a mut Item> {
    let at = leaf.find(hash, key)?;
    Some(&mut Arc::make_mut(leaf).items[at])
}

/// Two leaves or more.
#[derive(Clone)]
pub(crate) struct Leaves {
    leaves: Vec<Arc<Leaf>>,
    /// Of all leaves together.
    len: usize,
}

/// The leaf of a hash when there are so many.
fn place(hash: u64, count: usize) -> usize {
    let bits = usize::try_from(hash >> 32).expect("half of its bits");
    let whole = count.next_power_of_two();
    let place = bits & (whole - 1);
    // Those beyond the end have not been split off yet.
    if place < count { place } else { place - whole / 2 }
}

impl Leaves {
    fn leaf(&self, hash: u64) -> &Arc<Leaf> {
        &self.leaves[place(hash, self.leaves.len())]
    }

    fn leaf_mut(&mut self, hash: u64) -> &mut Arc<Leaf> {
        let place = place(hash, self.leaves.len());
        &mut self.leaves[place]
    }

    /// Makes another leaf of a part of the one whose turn it is.
    fn split(&mut self, hashing: &Hashing) {
        let new = self.leaves.len();
        let count = new + 1;
        let from = Arc::make_mut(&mut self.leaves[new - count.next_power_of_two() / 2]);
        let mut part = Leaf::with_room(from.len() / 2);
        // From the end: what takes the place of an item that is taken out has been looked at.
        for at in (0..from.len()).rev() {
            let hash = match from.tags[at] {
                tag if count <= PLACES_IN_TAG => u64::from(tag) << 32,
                _ => hashing.of(from.items[at].key()),
            };
            if place(hash, count) == new {
                let (tag, item) = from.take(at);
                part.push(tag, item);
            }
        }
        from.trim();
        part.trim();
        self.leaves.push(Arc::new(part));
    }

    /// Puts the last leaf back into the one that it was split from.
    fn join(&mut self) {
        let count = self.leaves.len();
        let Some(last) = self.leaves.pop() else { return };
        let into = Arc::make_mut(&mut self.leaves[count - 1 - count.next_power_of_two() / 2]);
        for (tag, item) in last.tags.iter().zip(&last.items) {
            into.push(*tag, item.clone());
        }
    }
}

/// The items of a slot, at least one.
#[derive(Clone)]
pub(crate) enum Slot {
    /// Few.
    One(Arc<Leaf>),
    /// More.
    Many(Leaves),
}

impl Slot {
    /// With one item.
    pub(super) fn new(hash: u64, item: Item) -> Slot {
        let mut leaf = Leaf::with_room(1);
        leaf.push(tag(hash), item);
        Slot::One(Arc::new(leaf))
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Slot::One(leaf) => leaf.len(),
            Slot::Many(leaves) => leaves.len,
        }
    }

    /// How many leaves there are.
    pub(super) fn leaf_count(&self) -> usize {
        self.leaves().len()
    }

    /// How many pointers a write to the leaf of this hash has to copy, because a clone has it too.
    pub(super) fn shared_len(&self, hash: u64) -> usize {
        let leaf = match self {
            Slot::One(leaf) => leaf,
            Slot::Many(leaves) => leaves.leaf(hash),
        };
        if Arc::strong_count(leaf) > 1 { leaf.len() } else { 0 }
    }

    /// The item of a key.
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<&Item> {
        match self {
            Slot::One(leaf) => leaf.get(hash, key),
            Slot::Many(leaves) => leaves.leaf(hash).get(hash, key),
        }
    }

    /// The place of a key that is there, in a leaf that no clone has.
    pub(super) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Item> {
        match self {
            Slot::One(leaf) => place_in(leaf, hash, key),
            Slot::Many(leaves) => place_in(leaves.leaf_mut(hash), hash, key),
        }
    }

    /// Puts an item in whose key is not there.
    pub(super) fn insert(&mut self, hash: u64, hashing: &Hashing, item: Item) {
        match self {
            Slot::One(leaf) => {
                let leaf = Arc::make_mut(leaf);
                leaf.push(tag(hash), item);
                if leaf.len() > 2 * LEAF_LEN {
                    let len = leaf.len();
                    let mut leaves =
                        Leaves { leaves: vec![Arc::new(std::mem::replace(leaf, Leaf::with_room(0)))], len };
                    leaves.split(hashing);
                    *self = Slot::Many(leaves);
                }
            }
            Slot::Many(leaves) => {
                Arc::make_mut(leaves.leaf_mut(hash)).push(tag(hash), item);
                leaves.len += 1;
                if leaves.len > (leaves.leaves.len() + 1) * LEAF_LEN {
                    leaves.split(hashing);
                }
            }
        }
    }

    /// Takes the item of a key out if it is wanted. Until that is known nothing is copied.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        key: &[u8],
        wanted: impl FnOnce(&Item) -> bool,
    ) -> Option<Item> {
        match self {
            Slot::One(leaf) => take_from(leaf, hash, key, wanted),
            Slot::Many(leaves) => {
                let old = take_from(leaves.leaf_mut(hash), hash, key, wanted)?;
                leaves.len -= 1;
                if leaves.len < leaves.leaves.len() * LEAF_LEN_MIN {
                    leaves.join();
                }
                if let [leaf] = &leaves.leaves[..] {
                    let leaf = Arc::clone(leaf);
                    *self = Slot::One(leaf);
                }
                Some(old)
            }
        }
    }

    /// Copies of neighbours, which share their leaves.
    pub(super) fn copy_all<const N: usize>(slots: &[Option<Slot>; N]) -> [Option<Slot>; N] {
        std::array::from_fn(|at| {
            if at.is_multiple_of(TOUCHED) {
                let leaves = slots[at..].iter().take(TOUCHED).flatten().flat_map(Slot::leaves);
                touch(leaves.take(TOUCHED_LEAVES).map(Arc::strong_count));
            }
            slots[at].clone()
        })
    }

    fn leaves(&self) -> &[Arc<Leaf>] {
        match self {
            Slot::One(leaf) => std::slice::from_ref(leaf),
            Slot::Many(leaves) => &leaves.leaves,
        }
    }

    /// All items, **in an order that differs from process to process**.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.leaves().iter().flat_map(|leaf| leaf.items.iter())
    }

    /// The items of one leaf, in such an order. `None`: there are not so many leaves.
    pub(super) fn items_of_leaf(&self, leaf: usize) -> Option<impl Iterator<Item = &Item>> {
        Some(self.leaves().get(leaf)?.items.iter())
    }

    /// The leaves; those that a clone has too are freed with it.
    pub(super) fn into_leaves(self) -> Vec<Arc<Leaf>> {
        match self {
            Slot::One(leaf) => vec![leaf],
            Slot::Many(leaves) => leaves.leaves,
        }
    }

    /// Where its leaves are: the same for two that share them.
    #[cfg(test)]
    pub(super) fn places(&self) -> Vec<*const Leaf> {
        self.leaves().iter().map(Arc::as_ptr).collect()
    }
}

/// What a table costs for each of its items: a pointer and a tag, at a load of four fifths, and heads.
pub(super) const PLACE_LEN: usize = (size_of::<Item>() + size_of::<u16>()) * 5 / 4 + 1;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::tests::SplitMix;
    use crate::types::Index;

    fn item(key: &[u8], revision: u64) -> Item {
        Item::new(key, b"v", Index(revision), None)
    }

    /// A slot beside an ordered map, growing and shrinking; and clones that must not change.
    #[test]
    fn a_slot_keeps_its_items_while_it_grows_and_shrinks() {
        let hashing = Hashing::new(3);
        let mut random = SplitMix(1);
        let mut slot: Option<Slot> = None;
        let mut twin: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut frozen: Option<(Slot, BTreeMap<Vec<u8>, u64>)> = None;
        let listed = |slot: &Slot| {
            let mut listed: Vec<_> = slot.iter().map(|i| (i.key().to_vec(), i.revision().0)).collect();
            listed.sort();
            listed
        };
        let (mut largest, mut most) = (0, 0);
        for step in 0..60_000_u64 {
            let key = random.below(6_000).to_string().into_bytes();
            let hash = hashing.of(&key);
            // Up in the first half, down in the second.
            let adds = random.below(10) < if step < 30_000 { 8 } else { 2 };
            if adds {
                let item = item(&key, step);
                let old = match &mut slot {
                    None => {
                        slot = Some(Slot::new(hash, item));
                        None
                    }
                    Some(slot) => match slot.get_mut(hash, &key) {
                        Some(place) => Some(std::mem::replace(place, item)),
                        None => {
                            slot.insert(hash, &hashing, item);
                            None
                        }
                    },
                };
                assert_eq!(old.map(|old| old.revision().0), twin.insert(key.clone(), step));
            } else if let Some(full) = &mut slot {
                let old = full.remove(hash, &key, |_| true);
                assert_eq!(old.map(|old| old.revision().0), twin.remove(&key));
                if full.len() == 0 {
                    slot = None;
                }
            }
            let Some(slot) = &slot else { continue };
            assert_eq!(slot.len(), twin.len());
            assert_eq!(slot.get(hash, &key).map(|item| item.revision().0), twin.get(&key).copied());
            for leaf in slot.leaves() {
                let len = leaf.len() + SPARE_MAX;
                let (tags, items) = (leaf.tags.capacity(), leaf.items.capacity());
                assert!(tags <= tags_room(len) && items <= items_room(len), "room for {tags} and {items}");
            }
            largest = largest.max(slot.leaves().iter().map(|leaf| leaf.len()).max().unwrap_or(0));
            most = most.max(slot.leaves().len());
            if step % 1_000 == 0 {
                assert_eq!(listed(slot), twin.clone().into_iter().collect::<Vec<_>>());
                if let Some((slot, twin)) = frozen.replace((slot.clone(), twin.clone())) {
                    assert_eq!(listed(&slot), twin.into_iter().collect::<Vec<_>>());
                }
            }
        }
        assert!(most > PLACES_IN_TAG + 10, "{most} leaves");
        assert!(largest < 4 * LEAF_LEN, "the largest leaf had {largest} items");
        let len = twin.len();
        assert!(slot.is_none_or(|slot| slot.leaves().len() <= len / LEAF_LEN_MIN + 1), "leaves are joined");
    }

    #[test]
    fn what_is_not_wanted_is_not_copied() {
        let hashing = Hashing::new(4);
        let keys: Vec<Vec<u8>> = (0..500).map(|i: u32| i.to_string().into_bytes()).collect();
        let (first, rest) = keys.split_first().expect("there are some");
        let mut slot = Slot::new(hashing.of(first), item(first, 0));
        rest.iter().for_each(|key| slot.insert(hashing.of(key), &hashing, item(key, 0)));
        let frozen = slot.clone();
        assert!(slot.remove(hashing.of(b"x"), b"x", |_| true).is_none());
        for key in &keys {
            assert!(slot.remove(hashing.of(key), key, |item| item.revision() != Index(0)).is_none());
        }
        assert_eq!((slot.places(), slot.len()), (frozen.places(), 500));
        assert!(slot.remove(hashing.of(first), first, |item| item.key() == first).is_some());
        let (before, after) = (frozen.places(), slot.places());
        assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), 1);
        assert_eq!((frozen.len(), slot.len()), (500, 499));
    }

    #[test]
    fn lists_fill_what_is_allocated_for_them() {
        let rooms = |lens: [usize; 5], room: fn(usize) -> usize| lens.map(room);
        assert_eq!(rooms([0, 3, 4, 8, 16], items_room), [3, 3, 7, 15, 31]);
        assert_eq!(rooms([1, 13, 28, 29, 61], tags_room), [12, 28, 28, 60, 92]);
        let (mut leaf, mut rooms) = (Leaf::with_room(0), 0);
        for i in 0..2 * LEAF_LEN {
            let before = (leaf.tags.capacity(), leaf.items.capacity());
            leaf.push(0, item(b"k", i as u64));
            let after = (leaf.tags.capacity(), leaf.items.capacity());
            rooms += usize::from(before != after);
            let copy = leaf.clone();
            assert_eq!(after, (copy.tags.capacity(), copy.items.capacity()));
            assert!(after.0 <= tags_room(i + 1) && after.1 <= items_room(i + 1));
        }
        assert!(rooms < 14, "has grown {rooms} times");
    }

    #[test]
    fn a_tag_is_enough_to_choose_among_few_leaves() {
        let mut random = SplitMix(6);
        for count in 1..=PLACES_IN_TAG {
            for _ in 0..100 {
                let hash = random.next();
                assert_eq!(place(u64::from(tag(hash)) << 32, count), place(hash, count));
            }
        }
    }

    #[test]
    fn every_hash_has_a_leaf_and_a_split_moves_only_to_the_new_one() {
        let mut random = SplitMix(2);
        for count in 1..200 {
            for _ in 0..200 {
                let hash = random.next();
                let (before, after) = (place(hash, count), place(hash, count + 1));
                assert!(before < count);
                assert!(before == after || after == count);
                if after == count {
                    assert_eq!(before, count - (count + 1).next_power_of_two() / 2);
                }
            }
        }
    }
}
