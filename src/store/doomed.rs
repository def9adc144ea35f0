//! Items that are to be freed, neighbours in memory one after the other.
//!
//! The allocator joins a piece that is freed with free ones beside it, and keeps large pieces in the order of their
//! lengths. If a million items are freed in any order, the last ones join what has become thousands of pieces of
//! hundreds of kilobytes, each of which then looks for its new place in that order: a turn's share of five hundred
//! items was seen to take 100 ms. In the order of addresses there is one piece that grows. Besides, neighbours share
//! pages and lines of the processor's cache.
//!
//! The order shows nowhere else.

use std::collections::BTreeMap;

use crate::types::Item;

/// A region of memory has 2 to this power bytes. Its items are sorted at a stroke, two thousand small ones.
const REGION_BITS: u32 = 18;

/// Items to be freed.
#[derive(Clone, Default)]
pub(super) struct Doomed {
    /// By address without the lowest [`REGION_BITS`].
    regions: BTreeMap<usize, Vec<Item>>,
    /// The rest of the region that is being freed, in the order of addresses.
    region: Vec<Item>,
}

impl Doomed {
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty() && self.region.is_empty()
    }

    pub(super) fn push(&mut self, item: Item) {
        self.regions.entry(item.address() >> REGION_BITS).or_default().push(item);
    }

    /// Takes out the next item, to be freed; one that is here several times only once. The last ones come first, and
    /// the piece grows towards what is in use.
    pub(super) fn take_next(&mut self) -> Option<Item> {
        if self.region.is_empty() {
            (_, self.region) = self.regions.pop_last()?;
            self.region.sort_unstable_by_key(Item::address);
        }
        let item = self.region.pop()?;
        while self.region.last().is_some_and(|same| same.address() == item.address()) {
            self.region.pop();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::SplitMix;
    use crate::types::Index;

    #[test]
    fn items_are_freed_from_the_last_to_the_first() {
        let mut random = SplitMix(3);
        let mut items: Vec<Item> =
            (0..20_000).map(|i| Item::new(format!("key-{i}").as_bytes(), &[0; 40], Index(1), None)).collect();
        let mut addresses: Vec<usize> = items.iter().map(Item::address).collect();
        addresses.sort_unstable();
        let mut doomed = Doomed::default();
        assert!(doomed.is_empty() && doomed.take_next().is_none());
        while !items.is_empty() {
            let item = items.swap_remove(random.below(items.len()));
            (0..random.below(3)).for_each(|_| doomed.push(item.clone()));
            doomed.push(item);
        }
        assert!(doomed.regions.len() > 3, "{} regions", doomed.regions.len());
        while let Some(last) = addresses.pop() {
            let item = doomed.take_next().expect("as many as there were");
            assert!(item.address() == last && !item.is_shared());
            // The rest of its region lies before it.
            let next = doomed.region.last().map(Item::address);
            assert!(next.is_none_or(|next| addresses.last() == Some(&next)), "{last}");
        }
        assert!(doomed.is_empty() && doomed.take_next().is_none());
    }
}
