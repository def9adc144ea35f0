//! What nobody can see any more, to be freed in pieces.
//!
//! A snapshot or a long read may still share it. Whoever lets go of it last frees it, and if that is a snapshot's
//! thread, it does so slot by slot, in any order of addresses, and leaves it to the loop's thread to put the pieces
//! together ([`doomed`](super::doomed)). So what the store does not have any more, but a clone does, *waits* here:
//! then the clone is not the last to let go of it. That decides when memory is freed and by whom, and nothing else.
//!
//! What is removed key by key is freed soon, and in the order in which it comes. When few keys are left it is *kept*,
//! and freed together.

use std::vec;

use triomphe::Arc;

use crate::types::{Item, Reply};

use super::deadlines::Deadlines;
use super::doomed::Doomed;
use super::keyspace::Group;
use super::leaves::{Leaf, Slot};
use super::watch::Watch;

/// A list of a pile has at most so many items.
const LIST_LEN_MAX: usize = 4096;

/// So many keys are freed besides those that were removed, however long that takes.
pub(super) const FREED_MIN: usize = 32;

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

    fn pop(&mut self) -> Option<Item> {
        let list = self.0.last_mut()?;
        let item = list.pop();
        if list.is_empty() {
            self.0.pop();
        }
        item
    }
}

/// Takes the last item of the last of these. None of them is empty.
fn pop_of_all(lists: &mut Vec<vec::IntoIter<Item>>) -> Option<Item> {
    let list = lists.last_mut()?;
    let item = list.next_back();
    if list.as_slice().is_empty() {
        lists.pop();
    }
    item
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
    /// Whose that group was.
    whose: Whose,
    deadlines: Vec<Deadlines>,
    /// Those that reads have found; the store may still share them.
    found: Vec<vec::IntoIter<Item>>,
    replies: Vec<vec::IntoIter<Reply>>,
    /// Items that the store does not have any more.
    removed: Pile,
    /// So many of them came since something was last freed, and of those below while they are being freed.
    removed_since: usize,
    /// What is left of all that is items.
    doomed: Doomed,
    /// Whether those are being freed.
    draining: bool,
    /// So many bytes of them are kept until there are more, if they are not being freed already.
    kept_len: usize,
    /// What has waited, and for which clone: who shares it still is an older one, or none.
    ready: Waiting,
    ready_after: u64,
}

/// Whose a group was.
#[derive(Clone, Copy, Default)]
enum Whose {
    /// A read's.
    #[default]
    Read,
    /// The store's own, and only clones older than this one may have it.
    Store(u64),
}

/// What a clone shares that the store does not have any more.
#[derive(Clone, Default)]
struct Waiting {
    groups: Vec<Arc<Group>>,
    leaves: Vec<Arc<Leaf>>,
    items: Pile,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.leaves.is_empty() && self.items.is_empty()
    }
}

/// The clones of a store that live, the oldest first, and what waits for each to end.
///
/// Who has a thing that is shared, nobody knows. It waits for the youngest clone, then for the next older one if
/// somebody has it still, and so on; in the end it is let go of. So whatever others do, it waits for each clone once at
/// most, and for none that was made later. With a clone's end, all that has waited for it is freed together: group by
/// group, as a snapshot is done with them, would be in any order of addresses again.
#[derive(Clone, Default)]
pub(super) struct Clones {
    /// How many there were.
    count: u64,
    ages: Vec<Age>,
}

#[derive(Clone)]
struct Age {
    number: u64,
    /// The clone has it too, as long as it lives.
    token: Arc<()>,
    waiting: Waiting,
}

impl Age {
    fn lives(&self) -> bool {
        !self.token.is_unique()
    }
}

impl Clones {
    /// What a new clone has to hold for as long as it shares anything.
    pub(super) fn add(&mut self) -> Arc<()> {
        self.ages.retain(|age| age.lives() || !age.waiting.is_empty());
        let (number, token) = (self.count, Arc::new(()));
        self.count += 1;
        self.ages.push(Age { number, token: Arc::clone(&token), waiting: Waiting::default() });
        token
    }

    /// Whether there ever was one.
    pub(super) fn were_any(&self) -> bool {
        self.count > 0
    }

    /// Whether one lives.
    pub(super) fn any(&self) -> bool {
        self.ages.iter().any(Age::lives)
    }

    /// Where to put what may have to wait for a clone older than this one.
    fn older_than(&mut self, number: u64) -> Option<&mut Waiting> {
        let mut ages = self.ages.iter_mut().rev();
        ages.find(|age| age.number < number && age.lives()).map(|age| &mut age.waiting)
    }

    /// Whether something waits for a clone that is gone.
    fn is_any_over(&self) -> bool {
        self.ages.iter().any(|age| !age.lives() && !age.waiting.is_empty())
    }

    /// What has waited for a clone that is gone, and its number.
    fn take_over(&mut self) -> Option<(Waiting, u64)> {
        let at = self.ages.iter().position(|age| !age.lives() && !age.waiting.is_empty())?;
        let age = self.ages.remove(at);
        Some((age.waiting, age.number))
    }
}

impl Flushed {
    /// Whether there is nothing to be freed now, with so many bytes kept. Something may still wait for a clone.
    pub(super) fn is_idle(&self, keep: usize, clones: &Clones) -> bool {
        self.kept_len <= keep
            && self.read.is_empty()
            && self.own.is_empty()
            && self.slots.is_empty()
            && self.leaves.is_empty()
            && self.deadlines.is_empty()
            && self.found.is_empty()
            && self.replies.is_empty()
            && self.removed.is_empty()
            && !self.draining
            && self.ready.is_empty()
            && !clones.is_any_over()
    }

    /// Whether there is nothing to be freed, now or later.
    pub(super) fn is_empty(&self) -> bool {
        self.doomed.is_empty() && self.is_idle(0, &Clones::default())
    }

    /// Takes all that a store had.
    pub(super) fn push_all(&mut self, groups: &mut Vec<Option<Arc<Group>>>, deadlines: &mut Deadlines) {
        self.own.extend(std::mem::take(groups).into_iter().flatten());
        self.deadlines.push(std::mem::take(deadlines));
    }

    /// Takes an item that was removed.
    pub(super) fn push_removed(&mut self, item: Item) {
        self.removed.push(item);
        self.removed_since += 1;
    }

    /// One of those taken was removed since something was last freed: freeing is to keep up with that.
    pub(super) fn note_removed(&mut self) {
        self.removed_since += 1;
    }

    /// Takes an item to be freed when there are more of them than [`Flushed::free`] is told to keep.
    pub(super) fn keep(&mut self, item: Item) {
        self.removed_since += usize::from(self.draining);
        self.kept_len += item.memory_len();
        self.doomed.push(item);
    }

    /// Takes an item to be freed in the order of addresses: one that was taken away among many.
    pub(super) fn doom(&mut self, item: Item) {
        self.doomed.push(item);
        self.draining = true;
    }

    /// Takes groups that a read has had.
    pub(super) fn push_read(&mut self, groups: impl IntoIterator<Item = Arc<Group>>) {
        self.read.extend(groups);
    }

    /// Takes what is left of the items that a read has found.
    pub(super) fn push_found(&mut self, items: vec::IntoIter<Item>) {
        if !items.as_slice().is_empty() {
            self.found.push(items);
        }
    }

    /// Takes what is left of replies.
    pub(super) fn push_replies(&mut self, replies: vec::IntoIter<Reply>) {
        if !replies.as_slice().is_empty() {
            self.replies.push(replies);
        }
    }

    /// Frees at most so many keys, besides as many as were removed since the last time, or a leaf's more, and says
    /// whether there is something left to be freed now. When the time is up, [`FREED_MIN`] besides those removed are
    /// enough. What is kept is not freed, unless it is more than `keep` bytes; then it is, to the last.
    pub(super) fn free(&mut self, max: usize, keep: usize, clones: &mut Clones, watch: &Watch) -> bool {
        let removed = std::mem::take(&mut self.removed_since);
        let (min, max) = (removed.saturating_add(FREED_MIN), removed.saturating_add(max));
        self.draining |= self.kept_len > keep;
        let (mut freed, mut noted) = (0, 0);
        while freed < max && (freed < min || !watch.is_late()) {
            watch.note((freed - noted) as u64);
            noted = freed;
            freed += 1;
            if let Some(item) = pop_of_all(&mut self.found) {
                self.doom_or_keep(item, keep);
            } else if let Some(replies) = self.replies.last_mut() {
                match replies.next_back() {
                    None => drop(self.replies.pop()),
                    Some(Reply::Array(elements)) => self.replies.push(elements.into_iter()),
                    Some(_) => {}
                }
            } else if let Some(leaf) = self.leaves.pop() {
                freed += leaf.len();
                self.take_apart(leaf, self.whose, keep, clones);
            } else if let Some(slot) = self.slots.pop() {
                self.leaves = slot.into_leaves();
            } else if let Some(group) = self.read.pop() {
                self.whose = Whose::Read;
                self.slots.extend(Arc::try_unwrap(group).into_iter().flat_map(Group::into_slots));
            } else if let Some(group) = self.own.pop() {
                self.take_group_apart(group, u64::MAX, clones);
            } else if let Some(leaf) = self.ready.leaves.pop() {
                freed += leaf.len();
                self.take_apart(leaf, Whose::Store(self.ready_after), keep, clones);
            } else if let Some(group) = self.ready.groups.pop() {
                self.take_group_apart(group, self.ready_after, clones);
            } else if let Some(deadlines) = self.deadlines.last_mut() {
                match deadlines.next_of_all() {
                    Some(item) => self.doom(item),
                    None => drop(self.deadlines.pop()),
                }
            } else if let Some(item) = self.ready.items.pop() {
                if let Some(item) = self.doom_or_keep(item, keep)
                    && let Some(waiting) = clones.older_than(self.ready_after)
                {
                    waiting.items.push(item);
                }
            } else if let Some((waiting, number)) = clones.take_over() {
                (self.ready, self.ready_after) = (waiting, number);
            } else if let Some(item) = self.removed.pop().or_else(|| self.next_doomed()) {
                if item.is_shared()
                    && let Some(waiting) = clones.older_than(u64::MAX)
                {
                    waiting.items.push(item);
                }
            } else {
                return false;
            }
        }
        !self.is_idle(keep, clones)
    }

    /// Takes an item that was one of few, if nobody shares it.
    fn doom_or_keep(&mut self, item: Item, keep: usize) -> Option<Item> {
        if item.is_shared() {
            return Some(item);
        }
        if keep > 0 {
            self.keep(item);
        } else {
            self.doom(item);
        }
        None
    }

    /// How many bytes are kept until there are more.
    #[cfg(test)]
    pub(super) fn kept_len(&self) -> usize {
        self.kept_len
    }

    /// Takes out the next item to be freed, unless they are kept.
    fn next_doomed(&mut self) -> Option<Item> {
        if !self.draining {
            return None;
        }
        let item = self.doomed.take_next();
        if item.is_none() {
            (self.draining, self.kept_len) = (false, 0);
        }
        item
    }

    /// Takes one of the store's own groups apart, unless a clone older than this one may have it.
    fn take_group_apart(&mut self, group: Arc<Group>, number: u64, clones: &mut Clones) {
        self.whose = Whose::Store(number);
        match Arc::try_unwrap(group) {
            Ok(group) => self.slots.extend(group.into_slots()),
            Err(group) => {
                if let Some(waiting) = clones.older_than(number) {
                    waiting.groups.push(group);
                }
            }
        }
    }

    fn take_apart(&mut self, leaf: Arc<Leaf>, whose: Whose, keep: usize, clones: &mut Clones) {
        match (Arc::try_unwrap(leaf), whose) {
            (Ok(leaf), Whose::Store(_)) => leaf.into_items().for_each(|item| self.doom(item)),
            // The store may have some of them.
            (Ok(leaf), Whose::Read) => {
                leaf.into_items().for_each(|item| drop(self.doom_or_keep(item, keep)));
            }
            (Err(leaf), Whose::Store(number)) => {
                if let Some(waiting) = clones.older_than(number) {
                    waiting.leaves.push(leaf);
                }
            }
            (Err(_), Whose::Read) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::keyspace::Keyspace;
    use crate::store::slots::{SLOT_COUNT, slot_of};
    use crate::types::{Index, Item, Millis};

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
    fn freeing_keeps_up_with_removing() {
        let mut keys = filled(None);
        // Of the last ones some are kept.
        for i in 0..KEY_COUNT * 9 / 10 {
            keys.unlink(&name(i));
            if i % (5 * STEP as u64) == 0 {
                keys.free_dead(STEP);
            }
        }
        let steps = free(&mut keys);
        assert!(steps <= 2, "{steps} steps");
    }

    /// How many of them somebody else has too.
    fn held(items: &[Item]) -> usize {
        items.iter().filter(|item| item.is_shared()).count()
    }

    #[test]
    fn what_is_removed_does_not_wait_for_what_has_expired() {
        let mut keys = filled(None);
        let items: Vec<Item> = (0..500).filter_map(|i| keys.get(&name(i)).cloned()).collect();
        for i in 0..KEY_COUNT {
            keys.set_until(format!("mortal-{i}").as_bytes(), b"value", Index(i), Some(Millis(1_000)));
        }
        assert!(items.iter().all(|item| keys.unlink(item.key())));
        keys.advance(Millis(1_000), false);
        assert!(keys.free_dead(STEP) && held(&items) == 0, "{} of 500", held(&items));
    }

    /// A store with a hundred keys left of what there was, and some of the others kept; and what there was.
    fn sparse() -> (Keyspace, Vec<Item>) {
        let mut keys = filled(None);
        let items: Vec<Item> = keys.iter().cloned().collect();
        assert!(items[100..].iter().all(|item| keys.unlink(item.key())));
        free(&mut keys);
        assert!(keys.kept_len() > 0 && held(&items) > 1_000);
        (keys, items)
    }

    #[test]
    fn what_is_removed_key_by_key_is_kept_when_little_is_left_and_freed_when_nothing_is() {
        type Remove = fn(&mut Keyspace, &[u8]) -> bool;
        let ways: [Remove; 2] = [Keyspace::unlink, |keys, key| keys.remove(key).is_some()];
        for remove in ways {
            let mut keys = filled(None);
            let items: Vec<Item> = keys.iter().cloned().collect();
            let mut most = 0;
            for (i, item) in items.iter().enumerate() {
                assert!(remove(&mut keys, item.key()));
                free(&mut keys);
                if i % 50 == 0 {
                    let held = held(&items[..=i]);
                    assert!(held == 0 || held > most, "all are freed or none");
                    most = most.max(held);
                }
            }
            assert!(most.abs_diff(items.len() / 16) < 60, "{most} of {}", items.len());
            assert_eq!((held(&items), keys.kept_len()), (0, 0));
        }
    }

    #[test]
    fn what_expires_when_little_is_left_is_kept_as_well_and_counted_once() {
        const MORTAL: u64 = 400;
        for is_told_of in [false, true] {
            let mut keys = filled(None);
            for i in 0..MORTAL {
                keys.set_until(&name(i), b"value", Index(i), Some(Millis(1_000 + i / 300)));
            }
            let len = keys.get(&name(1)).map_or(0, Item::memory_len);
            assert!((MORTAL..KEY_COUNT).all(|i| keys.unlink(&name(i))));
            free(&mut keys);
            let (items, before): (Vec<Item>, _) = (keys.iter().cloned().collect(), keys.kept_len());
            let mut expire = |now| {
                keys.advance(Millis(now), is_told_of);
                while keys.take_untold().is_some() {}
                free(&mut keys);
                (keys.kept_len(), keys.len())
            };
            assert_eq!(expire(1_000), (before + 300 * len, 100));
            assert_eq!(held(&items), items.len());
            assert_eq!(expire(2_000), (0, 0));
            assert_eq!(held(&items), 0);
        }
    }

    #[test]
    fn no_more_is_kept_than_a_part_of_what_there_was_and_nothing_when_there_are_many_keys_again() {
        let (mut keys, items) = sparse();
        let (_, peak) = keys.memory_len();
        let (mut most, mut drains) = (0, 0);
        for item in &items[100..] {
            keys.set(item.key(), item.value(), Index(0));
            assert!(keys.remove(item.key()).is_some());
            most = most.max(keys.kept_len());
            drains += usize::from(keys.has_dead());
            free(&mut keys);
        }
        assert!(most.abs_diff(peak / 8) < 2_000, "{most} of {peak}");
        assert!((3..10).contains(&drains), "{drains}");
        for item in &items {
            keys.set(item.key(), item.value(), Index(0));
        }
        assert!(keys.has_dead(), "nobody has removed anything since");
        free(&mut keys);
        assert_eq!(keys.kept_len(), 0);
    }

    #[test]
    fn what_is_kept_is_freed_with_all_the_rest() {
        let (mut keys, items) = sparse();
        let clone = keys.freeze();
        keys.clear();
        free(&mut keys);
        assert_eq!(keys.kept_len(), 0, "though the clone lives");
        drop(clone);
        free(&mut keys);
        assert_eq!(held(&items), 0);
    }

    #[test]
    fn freeing_what_was_kept_keeps_up_with_removing() {
        let (mut keys, items) = sparse();
        let (_, peak) = keys.memory_len();
        let mut rest = items[100..].iter().cycle();
        let mut replace = |keys: &mut Keyspace| {
            let item = rest.next().expect("without end");
            keys.set(item.key(), item.value(), Index(0));
            assert!(keys.remove(item.key()).is_some());
        };
        while !keys.has_dead() {
            replace(&mut keys);
        }
        assert!(keys.kept_len() > peak / 8);
        let mut steps = 0;
        while keys.free_dead(10) {
            (0..20).for_each(|_| replace(&mut keys));
            steps += 1;
        }
        assert!((100..1_000).contains(&steps), "{steps} steps");
    }

    /// What a read gives back can be a single item.
    #[test]
    fn what_is_kept_stays_when_a_read_gives_something_back() {
        let (mut keys, items) = sparse();
        let key = items[0].key().to_vec();
        drop(items);
        let (read, before) = (keys.freeze(), keys.kept_len());
        keys.set(&key, b"other value", Index(0));
        keys.discard_keys(read);
        free(&mut keys);
        assert!(keys.kept_len() > before);
    }

    #[test]
    fn another_store_is_freed_in_pieces_whichever_of_the_two_stays() {
        for is_used in [false, true] {
            let (mut keys, mut other) = (filled(None), filled(Some(Millis(1_000))));
            let used = if is_used { &mut keys } else { &mut other };
            let clone = used.freeze();
            let digest = keys.digest();
            keys.bury(&mut other);
            drop(other);
            let before = free(&mut keys);
            drop(clone);
            let steps = (before, free(&mut keys));
            let is_right = if is_used { steps.0 >= ALL } else { steps.1 >= ALL };
            assert!(is_right, "{steps:?} steps before and after the end of the clone");
            assert_eq!((keys.digest_recomputed(), keys.len()), (digest, 20_000));
        }
    }

    #[test]
    fn what_is_kept_goes_with_the_store_that_takes_the_other() {
        let (mut keys, (mut other, items)) = (filled(None), sparse());
        keys.bury(&mut other);
        drop(other);
        assert!(held(&items) > 1_000, "what was kept is not freed yet");
        free(&mut keys);
        assert_eq!((held(&items), keys.len(), keys.kept_len()), (0, 20_000, 0));
    }

    /// A snapshot may take minutes, and a read that is frozen behind a reply that its client does not read may last for
    /// ever. What is put aside for others must not wait for it.
    #[test]
    fn what_a_clone_never_had_does_not_wait_for_it() {
        let mut keys = filled(None);
        let oldest = keys.freeze();
        for round in 0..3 {
            keys.clear();
            for i in 0..KEY_COUNT {
                keys.set(&name(i), b"value", Index(i));
            }
            let younger = keys.freeze();
            keys.clear();
            free(&mut keys);
            drop(younger);
            assert!(keys.has_dead(), "round {round}: nobody has these any more");
            let steps = free(&mut keys);
            assert!(steps >= ALL, "round {round}: {steps} steps");
        }
        drop(oldest);
    }

    /// Of those that were there none has these keys any more: a reply does that its client does not read. Clones that
    /// were made later never had them.
    #[test]
    fn nothing_waits_again_for_clones_that_came_later() {
        let mut keys = filled(None);
        let reply: Vec<_> = keys.iter().cloned().collect();
        let mut clone = keys.freeze();
        keys.clear();
        free(&mut keys);
        let mut steps = 0;
        for _ in 0..10 {
            clone = keys.freeze();
            steps += free(&mut keys);
        }
        // Taken apart, put aside for the one that came later, let go of, and the rest of each step.
        assert!(steps < 6 * ALL, "{steps} steps, where {ALL} free all keys");
        drop((clone, reply));
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
            let address = |keys: &Keyspace| keys.get(&name(i)).map(Item::address);
            let before = (places(&keys), address(&keys));
            keys.set(&name(i), b"again", Index(2 * KEY_COUNT + i));
            assert_eq!((places(&keys), address(&keys)), before, "nothing was copied for key {i}");
        }
        drop(other);
    }
}
