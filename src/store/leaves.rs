//! The keys of one hash slot, in small tables that are copied one at a time.
//!
//! A slot begins as one *leaf*, a hash table of pointers to items. When it has grown past two [`LEAF_LEN`] it becomes
//! a list of leaves, which grows by **linear hashing** (Litwin, 1980): the low bits of a hash choose a leaf, and each
//! time the keys have become enough for one more leaf, the next leaf in line is split in two. So no write ever moves
//! more than one leaf's items, however many keys a client puts into one slot; the list goes back in the same way.
//!
//! A clone shares the leaves. A write to a shared leaf copies its pointers to items, never a key or a value. The list
//! lies in the group of slots itself: one step less on the way to every key.
//!
//! The seed of the hashes differs from process to process, so that nobody can choose keys that collide. The order in
//! which items are listed therefore differs too and must never show: whoever lists, sorts.

use std::hash::{BuildHasher, Hasher};
use std::mem::size_of;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::types::Item;

/// How many items a leaf has on average; the largest are about twice as long.
pub(super) const LEAF_LEN: usize = 56;
/// With so few items a leaf on average, leaves are joined.
const LEAF_LEN_MIN: usize = 8;

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

/// A hash table of items.
#[derive(Clone, Default)]
pub(crate) struct Leaf(HashTable<Item>);

impl Leaf {
    fn get(&self, hash: u64, key: &[u8]) -> Option<&Item> {
        self.0.find(hash, |item| item.key() == key)
    }

    fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Item> {
        self.0.find_mut(hash, |item| item.key() == key)
    }

    /// The key must not be there.
    fn insert(&mut self, hash: u64, hashing: &Hashing, item: Item) {
        self.0.insert_unique(hash, item, |item| hashing.of(item.key()));
    }

    fn remove(&mut self, hash: u64, hashing: &Hashing, key: &[u8]) -> Option<Item> {
        let entry = self.0.find_entry(hash, |item| item.key() == key).ok()?;
        let (item, _) = entry.remove();
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2, |item| hashing.of(item.key()));
        }
        Some(item)
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Two leaves or more.
#[derive(Clone)]
pub(crate) struct Leaves {
    leaves: Vec<Arc<Leaf>>,
    /// Of all leaves together.
    len: usize,
}

/// The leaf of a hash when there are so many. The table in a leaf goes by other bits.
fn place(hash: u64, count: usize) -> usize {
    let bits = usize::try_from(hash >> 32).expect("half of its bits");
    let whole = count.next_power_of_two();
    let place = bits & (whole - 1);
    // Those beyond the end have not been split off yet.
    if place < count { place } else { place - whole / 2 }
}

impl Leaves {
    fn leaf(&self, hash: u64) -> &Leaf {
        &self.leaves[place(hash, self.leaves.len())]
    }

    fn leaf_mut(&mut self, hash: u64) -> &mut Leaf {
        let place = place(hash, self.leaves.len());
        Arc::make_mut(&mut self.leaves[place])
    }

    /// Makes another leaf of a part of the one whose turn it is.
    fn split(&mut self, hashing: &Hashing) {
        let new = self.leaves.len();
        let count = new + 1;
        let from = Arc::make_mut(&mut self.leaves[new - count.next_power_of_two() / 2]);
        let mut part = Leaf(HashTable::with_capacity(from.0.len() / 2));
        for item in from.0.extract_if(|item| place(hashing.of(item.key()), count) == new) {
            part.insert(hashing.of(item.key()), hashing, item);
        }
        from.0.shrink_to(from.0.len(), |item| hashing.of(item.key()));
        self.leaves.push(Arc::new(part));
    }

    /// Puts the last leaf back into the one that it was split from.
    fn join(&mut self, hashing: &Hashing) {
        let count = self.leaves.len();
        let Some(last) = self.leaves.pop() else { return };
        let into = Arc::make_mut(&mut self.leaves[count - 1 - count.next_power_of_two() / 2]);
        for item in &last.0 {
            into.insert(hashing.of(item.key()), hashing, item.clone());
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
    pub(super) fn new(hash: u64, hashing: &Hashing, item: Item) -> Slot {
        let mut leaf = Leaf::default();
        leaf.insert(hash, hashing, item);
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
            Slot::Many(leaves) => &leaves.leaves[place(hash, leaves.leaves.len())],
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
            Slot::One(leaf) => Arc::make_mut(leaf).get_mut(hash, key),
            Slot::Many(leaves) => leaves.leaf_mut(hash).get_mut(hash, key),
        }
    }

    /// Puts an item in whose key is not there.
    pub(super) fn insert(&mut self, hash: u64, hashing: &Hashing, item: Item) {
        match self {
            Slot::One(leaf) => {
                let leaf = Arc::make_mut(leaf);
                leaf.insert(hash, hashing, item);
                if leaf.len() > 2 * LEAF_LEN {
                    let len = leaf.len();
                    let mut leaves = Leaves { leaves: vec![Arc::new(std::mem::take(leaf))], len };
                    leaves.split(hashing);
                    *self = Slot::Many(leaves);
                }
            }
            Slot::Many(leaves) => {
                leaves.leaf_mut(hash).insert(hash, hashing, item);
                leaves.len += 1;
                if leaves.len > (leaves.leaves.len() + 1) * LEAF_LEN {
                    leaves.split(hashing);
                }
            }
        }
    }

    /// Takes the item of a key out.
    pub(super) fn remove(&mut self, hash: u64, hashing: &Hashing, key: &[u8]) -> Option<Item> {
        match self {
            Slot::One(leaf) => Arc::make_mut(leaf).remove(hash, hashing, key),
            Slot::Many(leaves) => {
                let old = leaves.leaf_mut(hash).remove(hash, hashing, key)?;
                leaves.len -= 1;
                if leaves.len < leaves.leaves.len() * LEAF_LEN_MIN {
                    leaves.join(hashing);
                }
                if let [leaf] = &leaves.leaves[..] {
                    let leaf = Arc::clone(leaf);
                    *self = Slot::One(leaf);
                }
                Some(old)
            }
        }
    }

    fn leaves(&self) -> &[Arc<Leaf>] {
        match self {
            Slot::One(leaf) => std::slice::from_ref(leaf),
            Slot::Many(leaves) => &leaves.leaves,
        }
    }

    /// All items, **in an order that differs from process to process**.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.leaves().iter().flat_map(|leaf| leaf.0.iter())
    }

    /// The items of one leaf, in such an order. `None`: there are not so many leaves.
    pub(super) fn items_of_leaf(&self, leaf: usize) -> Option<impl Iterator<Item = &Item>> {
        Some(self.leaves().get(leaf)?.0.iter())
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

/// What a table costs for each of its items: a pointer and a byte, at a load of three fifths, and heads.
pub(super) const PLACE_LEN: usize = (size_of::<Item>() + 1) * 5 / 3 + 2;

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
                        slot = Some(Slot::new(hash, &hashing, item));
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
                let old = full.remove(hash, &hashing, &key);
                assert_eq!(old.map(|old| old.revision().0), twin.remove(&key));
                if full.len() == 0 {
                    slot = None;
                }
            }
            let Some(slot) = &slot else { continue };
            assert_eq!(slot.len(), twin.len());
            assert_eq!(slot.get(hash, &key).map(|item| item.revision().0), twin.get(&key).copied());
            largest = largest.max(slot.leaves().iter().map(|leaf| leaf.len()).max().unwrap_or(0));
            most = most.max(slot.leaves().len());
            if step % 1_000 == 0 {
                assert_eq!(listed(slot), twin.clone().into_iter().collect::<Vec<_>>());
                if let Some((slot, twin)) = frozen.replace((slot.clone(), twin.clone())) {
                    assert_eq!(listed(&slot), twin.into_iter().collect::<Vec<_>>());
                }
            }
        }
        assert!(most > 60, "{most} leaves");
        assert!(largest < 4 * LEAF_LEN, "the largest leaf had {largest} items");
        let len = twin.len();
        assert!(slot.is_none_or(|slot| slot.leaves().len() <= len / LEAF_LEN_MIN + 1), "leaves are joined");
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
