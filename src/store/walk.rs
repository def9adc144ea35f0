//! What reads that look at many keys are made of: going over slots, comparing with a pattern, putting in order. Each
//! does as much as its share allows and goes on later, within a slot and even within a key.
//!
//! A share is counted in steps of a pattern. A table lists its keys in an order that differs from process to process;
//! as keys, slots and steps are counted in one sum, and what is done beyond a share is taken off the next one, neither
//! an answer nor the number of shares depends on that order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::vec;

use crate::types::{Item, limits};

use super::by_key::ByKey;
use super::glob::{Matcher, StepBudget};
use super::keyspace::Keyspace;

/// So many steps of a pattern take about as long as a look at a key, which is hardly ever in the processor's cache.
pub(super) const STEPS_PER_KEY: i64 = 64;
/// How many keys are sorted at a time.
const RUN_LEN: usize = 1024;
/// What an element costs in a dialect beside its bytes, at most.
const ELEMENT_OVERHEAD: usize = 16;

/// The share of a step that looks at so many keys.
pub(super) fn share_of(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX).saturating_mul(STEPS_PER_KEY)
}

/// A way over slots, from front to back.
pub(super) struct Walk {
    /// The slot of the next item.
    pub(super) slot: usize,
    /// Which table of the slot.
    leaf: usize,
    /// Which item of it.
    item: usize,
    /// What is left of this share; below zero: taken off the next one.
    pub(super) share: i64,
    /// What it takes to pass over a slot without keys, or the end of one with keys.
    steps_per_slot: i64,
}

impl Walk {
    /// Begins in front of a slot, without a share.
    pub(super) fn new(slot: usize, steps_per_slot: i64) -> Walk {
        Walk { slot, leaf: 0, item: 0, share: 0, steps_per_slot }
    }

    /// Adds the share of a step that looks at so many keys.
    pub(super) fn grant(&mut self, max: usize) {
        self.share = self.share.saturating_add(share_of(max));
    }

    /// About how many keys' work of this share is done. What was done beyond it is counted with the next one.
    pub(super) fn done(&self, max: usize) -> u64 {
        (share_of(max) - self.share.max(0)).unsigned_abs() / STEPS_PER_KEY.unsigned_abs()
    }

    /// Whether nothing is left of the share.
    pub(super) fn is_spent(&self) -> bool {
        self.share <= 0
    }

    /// Whether the next item is the first of its slot.
    pub(super) fn is_between_slots(&self) -> bool {
        (self.leaf, self.item) == (0, 0)
    }

    /// Shows the items of the slot that are alive, from the next one on, while the share lasts; `visit` says whether
    /// it is done with an item. Returns whether this is the end of the slot; then the next one stands in front of
    /// another. Those that are known to be without keys are passed over together.
    pub(super) fn go_on(&mut self, keys: &Keyspace, mut visit: impl FnMut(&Item, &mut i64) -> bool) -> bool {
        // They count like any others: how many steps there are depends on nothing but the keys.
        let empty = keys.empty_run(self.slot);
        if empty > 0 {
            self.slot += empty;
            self.share -= i64::try_from(empty).unwrap_or(i64::MAX) * self.steps_per_slot;
            return true;
        }
        while let Some(items) = keys.slot(self.slot).and_then(|slot| slot.items_of_leaf(self.leaf)) {
            for item in items.skip(self.item) {
                // The dead cost a look as well, until they are freed.
                if self.share <= 0 || (item.is_alive(keys.now()) && !visit(item, &mut self.share)) {
                    return false;
                }
                self.share -= STEPS_PER_KEY;
                self.item += 1;
            }
            (self.leaf, self.item) = (self.leaf + 1, 0);
        }
        (self.slot, self.leaf) = (self.slot + 1, 0);
        self.share -= self.steps_per_slot;
        true
    }
}

/// A pattern, and how far a key has been compared with it.
pub(super) struct Filter {
    pattern: Box<[u8]>,
    matcher: Matcher,
}

impl Filter {
    pub(super) fn new(pattern: &[u8]) -> Filter {
        Filter { pattern: pattern.into(), matcher: Matcher::default() }
    }

    /// Goes on comparing the same key, with so many steps at most. Returns whether it fits, or `None` if they do not
    /// suffice, and how many were taken.
    pub(super) fn compare(&mut self, key: &[u8], steps_max: u64) -> (Option<bool>, u64) {
        let mut budget = StepBudget(steps_max);
        let fits = self.matcher.go_on(&self.pattern, key, &mut budget).ok();
        if fits.is_some() {
            self.matcher = Matcher::default();
        }
        (fits, steps_max - budget.0)
    }

    /// Leaves a key that has not been compared to its end.
    pub(super) fn leave(&mut self) {
        self.matcher = Matcher::default();
    }
}

/// Puts items in the order of their keys: in short runs that are merged at the end, so that no step takes longer than
/// any other.
#[derive(Default)]
pub(super) struct Sorter {
    /// So many bytes has a reply with their keys, at most.
    len: usize,
    /// Sorted but for the last one.
    runs: Vec<Vec<Item>>,
    merging: Option<Merging>,
}

struct Merging {
    /// The first item of each run that is not merged yet, and which run.
    heads: BinaryHeap<Reverse<(ByKey, usize)>>,
    runs: Vec<vec::IntoIter<Item>>,
    /// How many have been merged.
    count: usize,
}

fn sort(run: &mut [Item]) {
    run.sort_unstable_by(|a, b| a.key().cmp(b.key()));
}

impl Sorter {
    /// Takes an item in.
    pub(super) fn push(&mut self, item: &Item) {
        self.len = self.len.saturating_add(item.key().len() + ELEMENT_OVERHEAD);
        // What is refused anyway need not be held.
        if self.is_too_long() {
            return;
        }
        match self.runs.last_mut() {
            Some(run) if run.len() < RUN_LEN => run.push(item.clone()),
            last => {
                if let Some(run) = last {
                    sort(run);
                }
                self.runs.push(vec![item.clone()]);
            }
        }
    }

    /// Whether all that was ever taken in is too long for a reply.
    pub(super) fn is_too_long(&self) -> bool {
        self.len > limits::REPLY_LEN_MAX
    }

    /// Appends the items to `sorted`, at most so many, while the share lasts. Says whether that is all; then it is
    /// ready for others.
    pub(super) fn drain(&mut self, sorted: &mut Vec<Item>, max: usize, share: &mut i64) -> bool {
        if self.merging.is_none() {
            if let Some(run) = self.runs.last_mut() {
                sort(run);
            }
            if self.runs.len() <= 1 {
                for mut run in self.runs.drain(..) {
                    run.truncate(max);
                    sorted.append(&mut run);
                }
                return true;
            }
            sorted.reserve(self.runs.iter().map(Vec::len).sum::<usize>().min(max));
        }
        let merging = self.merging.get_or_insert_with(|| Merging::new(std::mem::take(&mut self.runs)));
        while *share > 0 {
            match merging.next(max) {
                Some(item) => sorted.push(item),
                None => {
                    // What is left of the runs stays for whoever frees it.
                    if merging.heads.is_empty() {
                        self.merging = None;
                    }
                    return true;
                }
            }
            *share -= STEPS_PER_KEY;
        }
        false
    }

    /// What it holds, and what it has put in order, to be freed in pieces.
    pub(super) fn into_items(self, sorted: Vec<Item>) -> Vec<Vec<Item>> {
        let mut items = self.runs;
        items.push(sorted);
        if let Some(merging) = self.merging {
            items.extend(merging.runs.into_iter().map(Iterator::collect));
            items.push(merging.heads.into_iter().map(|Reverse((ByKey(item), _))| item).collect());
        }
        items
    }
}

impl Merging {
    fn new(runs: Vec<Vec<Item>>) -> Merging {
        let mut runs: Vec<vec::IntoIter<Item>> = runs.into_iter().map(Vec::into_iter).collect();
        let heads = runs.iter_mut().enumerate();
        let heads = heads.filter_map(|(run, items)| Some(Reverse((ByKey(items.next()?), run))));
        Merging { heads: heads.collect(), runs, count: 0 }
    }

    /// The next item, if so many have not been taken yet.
    fn next(&mut self, max: usize) -> Option<Item> {
        if self.count >= max {
            return None;
        }
        let mut head = self.heads.peek_mut()?;
        self.count += 1;
        let Reverse((ByKey(first), run)) = &mut *head;
        Some(match self.runs[*run].next() {
            Some(next) => std::mem::replace(first, next),
            None => PeekMut::pop(head).0.0.0,
        })
    }
}
