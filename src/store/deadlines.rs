//! When keys expire.
//!
//! Keys with the same deadline share a *bucket*, which knows how many they are and what they add to the digest. When
//! the replicated time passes a deadline, its bucket is taken off as a whole: from that moment on its keys count
//! nowhere and nobody sees them, at the same place of the total order on all nodes and at a cost that does not depend
//! on their number. What they occupy is freed afterwards, some at a time, whenever there is time: nothing shows how
//! far that has come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::types::Millis;

/// Keys that expire at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    /// In order, so that what is told of them is the same everywhere.
    pub(super) keys: BTreeSet<Arc<[u8]>>,
    /// The sum of what they add to the digest.
    pub(super) digest: u64,
}

/// All deadlines, and the keys that have passed theirs and are still in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    buckets: BTreeMap<Millis, Bucket>,
    len: usize,
    dead: VecDeque<BTreeSet<Arc<[u8]>>>,
}

impl Deadlines {
    /// How many keys have a deadline that has not passed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, deadline: Millis, key: Arc<[u8]>, hash: u64) {
        let bucket = self.buckets.entry(deadline).or_default();
        bucket.digest = bucket.digest.wrapping_add(hash);
        bucket.keys.insert(key);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, deadline: Millis, key: &[u8], hash: u64) {
        let Some(bucket) = self.buckets.get_mut(&deadline) else { return };
        if bucket.keys.remove(key) {
            bucket.digest = bucket.digest.wrapping_sub(hash);
            self.len -= 1;
            if bucket.keys.is_empty() {
                self.buckets.remove(&deadline);
            }
        }
    }

    /// Takes off the first bucket whose deadline is `now` or earlier.
    pub(super) fn pop(&mut self, now: Millis) -> Option<Bucket> {
        let first = self.buckets.first_entry().filter(|first| *first.key() <= now)?;
        let bucket = first.remove();
        self.len -= bucket.keys.len();
        Some(bucket)
    }

    /// Notes keys that are to be freed.
    pub(super) fn bury(&mut self, keys: BTreeSet<Arc<[u8]>>) {
        self.dead.push_back(keys);
    }

    /// The next key that is to be freed.
    pub(super) fn next_dead(&mut self) -> Option<Arc<[u8]>> {
        loop {
            match self.dead.front_mut()?.pop_first() {
                Some(key) => return Some(key),
                None => drop(self.dead.pop_front()),
            }
        }
    }

    /// Whether keys wait for being freed.
    pub(super) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Lets go of some of the keys, whatever their deadlines are, and says how many. None: it is empty.
    pub(super) fn shrink(&mut self) -> usize {
        self.pop(Millis(u64::MAX))
            .map(|bucket| bucket.keys)
            .or_else(|| self.dead.pop_front())
            .map_or(0, |k| k.len())
    }
}
