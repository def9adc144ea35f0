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

    /// Frees the next item and says whether there was one. The last ones come first: what ends the process' memory can
    /// be given back to the system.
    pub(super) fn free_next(&mut self) -> bool {
        if self.region.is_empty() {
            let Some((_, items)) = self.regions.pop_last() else { return false };
            self.region = items;
            self.region.sort_unstable_by_key(Item::address);
        }
        self.region.pop().is_some()
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
        assert!(doomed.is_empty() && !doomed.free_next());
        while !items.is_empty() {
            doomed.push(items.swap_remove(random.below(items.len())));
        }
        assert!(doomed.regions.len() > 3, "{} regions", doomed.regions.len());
        while let Some(last) = addresses.pop() {
            assert!(doomed.free_next());
            // The rest of its region lies before it.
            let next = doomed.region.last().map(Item::address);
            assert!(next.is_none_or(|next| addresses.last() == Some(&next)), "{last}");
        }
        assert!(doomed.is_empty() && !doomed.free_next());
    }
}
