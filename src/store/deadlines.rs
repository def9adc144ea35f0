//! When keys expire.
//!
//! Keys with the same deadline share a *bucket*, and buckets of about a second share a *span*. Both know how many
//! keys they have and what these add to the digest. When the replicated time passes a deadline, its bucket is taken
//! off as a whole, or its span: from that moment on its keys count nowhere and nobody sees them, at the same place
//! of the total order on all nodes and at a cost that does not depend on their number. After a second's step that
//! is a thousand buckets at most; after an hour in which nobody could write, a few thousand spans as well.
//! What the keys occupy is freed afterwards, some at a time, whenever there is time: nothing shows how far that has
//! come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::types::{Item, Millis};

use super::by_key::ByKey;

/// The milliseconds of a span: 2 to this power.
const SPAN_BITS: u32 = 10;

/// The items of a bucket, in the order of their keys, so that what is told of them is the same everywhere. Nearly
/// always it is one, for which a tree would be a great waste.
#[derive(Clone, Debug)]
enum Items {
    One(ByKey),
    Many(BTreeSet<ByKey>),
}

/// Keys that expire at one moment, at least one.
#[derive(Clone, Debug)]
struct Bucket {
    items: Items,
    /// The sum of what they add to the digest.
    digest: u64,
}

impl Bucket {
    fn len(&self) -> usize {
        match &self.items {
            Items::One(_) => 1,
            Items::Many(items) => items.len(),
        }
    }

    fn insert(&mut self, item: ByKey) {
        match &mut self.items {
            Items::One(one) => {
                let both = BTreeSet::from([one.clone(), item]);
                self.items = Items::Many(both);
            }
            Items::Many(items) => drop(items.insert(item)),
        }
    }

    /// Takes an item out, but for the last one: then the bucket is to go.
    fn remove(&mut self, key: &[u8]) -> Removed {
        match &mut self.items {
            Items::One(item) if item.0.key() == key => Removed::Last,
            Items::One(_) => Removed::Nothing,
            Items::Many(items) => match items.remove(key) {
                false => Removed::Nothing,
                true if items.is_empty() => Removed::Last,
                true => Removed::One,
            },
        }
    }
}

enum Removed {
    Nothing,
    One,
    Last,
}

/// The buckets of about a second.
#[derive(Clone, Debug, Default)]
struct Span {
    buckets: BTreeMap<Millis, Bucket>,
    len: usize,
    digest: u64,
}

/// Keys that have died.
pub(super) struct Due {
    /// How many.
    pub(super) len: usize,
    /// The sum of what they added to the digest.
    pub(super) digest: u64,
    buckets: BTreeMap<Millis, Bucket>,
}

/// All deadlines, and the keys that have passed theirs and are still in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    /// By their deadlines without the lowest [`SPAN_BITS`].
    spans: BTreeMap<u64, Span>,
    len: usize,
    /// To be told of, in the order of deadlines and bytes.
    untold: VecDeque<BTreeMap<Millis, Bucket>>,
    /// To be freed.
    dead: VecDeque<BTreeMap<Millis, Bucket>>,
}

/// What a deadline costs beside the item: an entry of a tree, two thirds full, and heads.
pub(super) const DEADLINE_LEN: usize = (size_of::<Millis>() + size_of::<Bucket>()) * 3 / 2 + 8;

impl Deadlines {
    /// How many keys have a deadline that has not passed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, deadline: Millis, item: Item, hash: u64) {
        let span = self.spans.entry(deadline.0 >> SPAN_BITS).or_default();
        span.len += 1;
        span.digest = span.digest.wrapping_add(hash);
        self.len += 1;
        match span.buckets.get_mut(&deadline) {
            Some(bucket) => {
                bucket.digest = bucket.digest.wrapping_add(hash);
                bucket.insert(ByKey(item));
            }
            None => {
                span.buckets.insert(deadline, Bucket { items: Items::One(ByKey(item)), digest: hash });
            }
        }
    }

    pub(super) fn remove(&mut self, deadline: Millis, key: &[u8], hash: u64) {
        let Some(span) = self.spans.get_mut(&(deadline.0 >> SPAN_BITS)) else { return };
        let Some(bucket) = span.buckets.get_mut(&deadline) else { return };
        match bucket.remove(key) {
            Removed::Nothing => return,
            Removed::One => bucket.digest = bucket.digest.wrapping_sub(hash),
            Removed::Last => drop(span.buckets.remove(&deadline)),
        }
        self.len -= 1;
        span.len -= 1;
        span.digest = span.digest.wrapping_sub(hash);
        if span.len == 0 {
            self.spans.remove(&(deadline.0 >> SPAN_BITS));
        }
    }

    /// Takes off the first keys whose deadline is `now` or earlier: those of a span or of a bucket.
    pub(super) fn pop(&mut self, now: Millis) -> Option<Due> {
        let mut first = self.spans.first_entry()?;
        let due = if *first.key() < now.0 >> SPAN_BITS {
            let Span { buckets, len, digest } = first.remove();
            Due { len, digest, buckets }
        } else {
            let span = first.get_mut();
            let bucket = span.buckets.first_entry().filter(|bucket| *bucket.key() <= now)?;
            let (deadline, bucket) = bucket.remove_entry();
            let (len, digest) = (bucket.len(), bucket.digest);
            span.len -= len;
            span.digest = span.digest.wrapping_sub(digest);
            if span.len == 0 {
                first.remove();
            }
            Due { len, digest, buckets: BTreeMap::from([(deadline, bucket)]) }
        };
        self.len -= due.len;
        Some(due)
    }

    /// Notes keys that are to be freed, after each has been told of if that is wanted.
    pub(super) fn bury(&mut self, due: Due, is_told_of: bool) {
        let queue = if is_told_of { &mut self.untold } else { &mut self.dead };
        queue.push_back(due.buckets);
    }

    /// The next item that is to be told of, and freed then.
    pub(super) fn next_untold(&mut self) -> Option<Item> {
        next_of(&mut self.untold)
    }

    /// The next item that is to be freed.
    pub(super) fn next_dead(&mut self) -> Option<Item> {
        next_of(&mut self.dead)
    }

    /// Whether there are keys to be told of.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Whether keys wait for being freed.
    pub(super) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// The next of all items, whatever their deadlines are: for what is to be freed as a whole.
    pub(super) fn next_of_all(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.next_dead().or_else(|| self.next_untold()) {
                return Some(item);
            }
            let (_, span) = self.spans.pop_first()?;
            self.dead.push_back(span.buckets);
        }
    }
}

/// Takes out the next item, in the order of deadlines and bytes.
fn next_of(queue: &mut VecDeque<BTreeMap<Millis, Bucket>>) -> Option<Item> {
    loop {
        let Some(mut bucket) = queue.front_mut()?.first_entry() else {
            queue.pop_front();
            continue;
        };
        let item = match &mut bucket.get_mut().items {
            Items::One(_) => match bucket.remove().items {
                Items::One(item) => Some(item),
                Items::Many(_) => None,
            },
            Items::Many(items) => {
                let item = items.pop_first();
                if items.is_empty() {
                    bucket.remove();
                }
                item
            }
        };
        if queue.front().is_some_and(BTreeMap::is_empty) {
            queue.pop_front();
        }
        if let Some(item) = item {
            return Some(item.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Index;

    /// However many keys have died, and however long nobody looked.
    #[test]
    fn the_dead_are_taken_off_by_spans_and_buckets() {
        let mut deadlines = Deadlines::default();
        let mut sum = 0u64;
        for i in 0..10_000u64 {
            let deadline = Millis(10_000 + i / 2);
            let item = Item::new(i.to_string().as_bytes(), b"", Index(1), Some(deadline));
            deadlines.insert(deadline, item, i);
            sum += i;
        }
        assert!(deadlines.pop(Millis(9_999)).is_none());
        let (mut pops, mut len, mut digest) = (0, 0, 0u64);
        let mut order = Vec::new();
        while let Some(due) = deadlines.pop(Millis(14_000)) {
            pops += 1;
            len += due.len;
            digest += due.digest;
            deadlines.bury(due, true);
        }
        while let Some(item) = deadlines.next_untold() {
            order.push(item.key().to_vec());
        }
        // The spans that end before, and the milliseconds of the last.
        assert_eq!((len, deadlines.len()), (8_002, 1_998));
        assert_eq!(order.len(), 8_002);
        assert!(pops <= 4 + 1024, "{pops} steps");
        let mut first = [b"0".to_vec(), b"1".to_vec()];
        first.sort();
        assert_eq!(order[..2], first);
        assert_eq!(digest, (0..8_002).sum::<u64>());
        while let Some(due) = deadlines.pop(Millis(1_000_000)) {
            len += due.len;
            digest += due.digest;
            deadlines.bury(due, false);
        }
        assert_eq!((len, digest), (10_000, sum));
        let mut freed = 0;
        while deadlines.next_dead().is_some() {
            freed += 1;
        }
        assert!(freed == 1_998 && !deadlines.has_dead() && !deadlines.has_untold());
    }
}
