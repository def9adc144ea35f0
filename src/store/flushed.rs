//! What nobody can see any more, to be freed in pieces.
//!
//! A snapshot or a long read may still share it. Whoever lets go of it last frees it, and if that is a snapshot's
//! thread, it does so slot by slot, in any order of addresses, and leaves it to the loop's thread to put the pieces
//! together ([`doomed`](super::doomed)). So what the store does not have any more, but a clone does, *waits* here:
//! then the clone is not the last to let go of it. That decides when memory is freed and by whom, and nothing else.

use triomphe::Arc;

use crate::types::{Item, Reply};

use super::deadlines::Deadlines;
use super::doomed::Doomed;
use super::keyspace::Group;
use super::leaves::{Leaf, Slot};

/// A list of a pile has at most so many items, if it was not longer when it came.
const LIST_LEN_MAX: usize = 4096;

/// Items in lists, so that to grow never copies many, nor to shrink gives back much memory at a stroke.
#[derive(Clone, Default)]
struct Pile(Vec<Vec<Item>>);

impl Pile {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, item: Item) {
        match self.0.last_mut() {
            Some(list) if list.len() < LIST_LEN_MAX => list.push(item),
            _ => self.0.push(vec![item]),
        }
    }

    fn push_list(&mut self, items: Vec<Item>) {
        if !items.is_empty() {
            self.0.push(items);
        }
    }

    fn pop(&mut self) -> Option<Item> {
        let list = self.0.last_mut()?;
        let item = list.pop();
        if list.is_empty() {
            self.0.pop();
        }
        item
    }
}

/// What was taken away at a stroke and nobody has freed yet.
#[derive(Clone, Default)]
pub(super) struct Flushed {
    /// Those that reads have had; the store may still share them, or what is in them.
    read: Vec<Arc<Group>>,
    /// Those that were the store's own.
    own: Vec<Arc<Group>>,
    /// Of the group that is being taken apart.
    slots: Vec<Slot>,
    leaves: Vec<Arc<Leaf>>,
    /// That group was the store's own.
    is_own: bool,
    deadlines: Vec<Deadlines>,
    /// Those that reads have found; the store may still share them.
    found: Pile,
    replies: Vec<Vec<Reply>>,
    /// Items that the store does not have any more.
    removed: Pile,
    /// What is left of all that is items.
    doomed: Doomed,
    waiting: Waiting,
    /// What has waited.
    ready: Waiting,
}

/// What a clone shares that the store does not have any more.
#[derive(Clone, Default)]
struct Waiting {
    groups: Vec<Arc<Group>>,
    leaves: Vec<Arc<Leaf>>,
    items: Pile,
    /// Held by the clones that were there when the first of these came, and by nobody else once they are gone. Then all
    /// is freed together: group by group, as a clone is done with them, would be in any order of addresses again.
    clones: Option<Arc<()>>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.leaves.is_empty() && self.items.is_empty()
    }

    /// Whether the clones are gone.
    fn is_over(&self) -> bool {
        self.clones.as_ref().is_some_and(Arc::is_unique)
    }

    /// To put something aside until those who hold `clones` are gone.
    fn until(&mut self, clones: &mut Arc<()>) -> &mut Waiting {
        self.clones.get_or_insert_with(|| std::mem::replace(clones, Arc::new(())));
        self
    }
}

impl Flushed {
    /// Whether there is nothing to be freed now. Something may still wait for a clone.
    pub(super) fn is_idle(&self) -> bool {
        self.read.is_empty()
            && self.own.is_empty()
            && self.slots.is_empty()
            && self.leaves.is_empty()
            && self.deadlines.is_empty()
            && self.found.is_empty()
            && self.replies.is_empty()
            && self.removed.is_empty()
            && self.doomed.is_empty()
            && self.ready.is_empty()
            && !self.waiting.is_over()
    }

    /// Takes all that a store had.
    pub(super) fn push_all(&mut self, groups: Vec<Option<Arc<Group>>>, deadlines: Deadlines) {
        self.own.extend(groups.into_iter().flatten());
        self.deadlines.push(deadlines);
    }

    /// Takes an item that was removed.
    pub(super) fn push_removed(&mut self, item: Item) {
        self.removed.push(item);
    }

    /// Takes an item that was removed, among many of its age.
    pub(super) fn push_expired(&mut self, item: Item) {
        self.doomed.push(item);
    }

    /// Takes groups that a read has had.
    pub(super) fn push_read(&mut self, groups: impl IntoIterator<Item = Arc<Group>>) {
        self.read.extend(groups);
    }

    /// Takes items that a read has found.
    pub(super) fn push_found(&mut self, items: Vec<Item>) {
        self.found.push_list(items);
    }

    /// Takes replies.
    pub(super) fn push_replies(&mut self, replies: Vec<Reply>) {
        if !replies.is_empty() {
            self.replies.push(replies);
        }
    }

    /// Frees at most so many keys, or a leaf's more, and says whether there is something left. `clones` is held by
    /// each clone of the store, and another one once something begins to wait for those.
    pub(super) fn free(&mut self, max: usize, clones: &mut Arc<()>) -> bool {
        let mut freed = 0;
        while freed < max {
            freed += 1;
            if let Some(item) = self.found.pop() {
                drop(item);
            } else if let Some(replies) = self.replies.last_mut() {
                match replies.pop() {
                    None => drop(self.replies.pop()),
                    Some(Reply::Array(elements)) => self.replies.push(elements),
                    Some(_) => {}
                }
            } else if let Some(leaf) = self.leaves.pop() {
                freed += leaf.len();
                self.take_apart(leaf, self.is_own, clones);
            } else if let Some(slot) = self.slots.pop() {
                self.leaves = slot.into_leaves();
            } else if let Some(group) = self.read.pop() {
                self.is_own = false;
                self.slots.extend(Arc::try_unwrap(group).into_iter().flat_map(Group::into_slots));
            } else if let Some(leaf) = self.ready.leaves.pop() {
                freed += leaf.len();
                self.take_apart(leaf, true, clones);
            } else if let Some(group) = self.own.pop().or_else(|| self.ready.groups.pop()) {
                self.is_own = true;
                match Arc::try_unwrap(group) {
                    Ok(group) => self.slots.extend(group.into_slots()),
                    Err(group) if self.has_clones(clones) => self.waiting.until(clones).groups.push(group),
                    Err(_) => {}
                }
            } else if let Some(deadlines) = self.deadlines.last_mut() {
                match deadlines.next_of_all() {
                    Some(item) => self.doomed.push(item),
                    None => drop(self.deadlines.pop()),
                }
            } else if let Some(item) = self.ready.items.pop() {
                self.doomed.push(item);
            } else if self.waiting.is_over() {
                self.ready = std::mem::take(&mut self.waiting);
            } else if let Some(item) = self.removed.pop().or_else(|| self.doomed.take_next()) {
                if item.is_shared() && self.has_clones(clones) {
                    self.waiting.until(clones).items.push(item);
                }
            } else {
                return false;
            }
        }
        !self.is_idle()
    }

    fn take_apart(&mut self, leaf: Arc<Leaf>, is_own: bool, clones: &mut Arc<()>) {
        match Arc::try_unwrap(leaf) {
            // Of a read's items, the store may have some.
            Ok(leaf) => {
                let items = leaf.into_items().filter(|item| is_own || !item.is_shared());
                items.for_each(|item| self.doomed.push(item));
            }
            Err(leaf) if is_own && self.has_clones(clones) => self.waiting.until(clones).leaves.push(leaf),
            Err(_) => {}
        }
    }

    /// Whether a clone lives.
    pub(super) fn has_clones(&self, clones: &Arc<()>) -> bool {
        !clones.is_unique() || self.waiting.clones.as_ref().is_some_and(|clones| !clones.is_unique())
    }
}

#[cfg(test)]
mod tests {
    use crate::store::keyspace::Keyspace;
    use crate::store::slots::{SLOT_COUNT, slot_of};
    use crate::types::{Index, Millis};

    const KEY_COUNT: u64 = 20_000;
    const STEP: usize = 100;
    /// So many steps it takes to free all keys, at least.
    const ALL: u64 = KEY_COUNT / STEP as u64;

    fn name(i: u64) -> Vec<u8> {
        format!("key-{i}").into_bytes()
    }

    fn filled(deadline: Option<Millis>) -> Keyspace {
        let mut keys = Keyspace::new(1);
        for i in 0..KEY_COUNT {
            keys.set_until(&name(i), b"value", Index(i), deadline);
        }
        keys
    }

    /// Frees what can be freed now, and says in how many steps.
    fn free(keys: &mut Keyspace) -> u64 {
        let mut steps = 1;
        while keys.free_dead(STEP) {
            steps += 1;
        }
        assert!(!keys.has_dead());
        steps
    }

    #[test]
    fn what_a_clone_shares_is_freed_after_it_whatever_way_it_was_taken_out() {
        type TakeOut = fn(&mut Keyspace);
        let ways: [(TakeOut, Option<Millis>); 4] = [
            (Keyspace::clear, None),
            (Keyspace::clear, Some(Millis(1_000))),
            (|keys| (0..KEY_COUNT).for_each(|i| assert!(keys.unlink(&name(i)))), None),
            (|keys| keys.advance(Millis(1_000), false), Some(Millis(1_000))),
        ];
        for (way, (take_out, deadline)) in ways.into_iter().enumerate() {
            for writes in [0, 1, 300] {
                let mut keys = filled(deadline);
                let (clone, digest) = (keys.freeze(), keys.digest());
                for i in 0..writes {
                    keys.set_until(&name(i), b"other", Index(KEY_COUNT + i), deadline);
                }
                take_out(&mut keys);
                free(&mut keys);
                assert_eq!((keys.len(), clone.digest_recomputed()), (0, digest));
                drop(clone);
                assert!(keys.has_dead(), "way {way}: it was left to the clone");
                // What was written over goes with the clone.
                let steps = free(&mut keys);
                assert!(steps >= ALL - writes / STEP as u64, "way {way}, {writes} writes: {steps} steps");
            }
        }
    }

    #[test]
    fn clones_without_end_hold_up_nothing_but_what_they_share() {
        let mut keys = filled(None);
        let mut clones = vec![keys.freeze()];
        let mut steps = 0;
        for i in 0..KEY_COUNT {
            keys.unlink(&name(i));
            if i % 1_000 == 0 {
                clones.push(keys.freeze());
                steps += free(&mut keys);
            }
            if clones.len() > 3 {
                clones.remove(0);
            }
        }
        steps += free(&mut keys);
        assert!(steps > ALL / 2, "{steps} of {ALL} steps with a clone always there");
        drop(clones);
        free(&mut keys);
        assert_eq!(keys.digest(), 0);
    }

    #[test]
    fn what_a_read_gives_back_is_not_kept_from_the_store() {
        let mut keys = filled(None);
        // Somebody might be waited for: a clone that lives, though it has let go of all keys.
        let mut other = keys.freeze();
        let mut slot = 0;
        while slot < SLOT_COUNT {
            slot = other.skip_to_used(slot + 1);
        }
        let read = keys.freeze();
        for i in 0..1_000 {
            keys.set(&name(i), b"other", Index(KEY_COUNT + i));
        }
        keys.discard_keys(read);
        free(&mut keys);
        for i in 0..KEY_COUNT {
            let places = |keys: &Keyspace| keys.slot(slot_of(&name(i))).map(|slot| slot.places());
            let before = places(&keys);
            keys.set(&name(i), b"again", Index(2 * KEY_COUNT + i));
            assert_eq!(places(&keys), before, "nothing was copied for key {i}");
        }
        drop(other);
    }
}
