//! Reads of single slots: `SCAN`, `RANDOMKEY`, and what `CLUSTER` asks of one.
//!
//! A slot has some hundred keys, unless a client puts very many under one hash tag. So these are **tried** first,
//! with the work of [`BRIEF_MAX`] keys, which is enough for all slots but such ones; what does not end within that is
//! begun anew as a long read ([`LongRead`](super::LongRead)). There is one way to do them, whatever is in a slot and
//! however much is done at a time; so the answer does not depend on either.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::{Item, Reply};

use super::SLOT_COUNT;
use super::error::CommandError;
use super::keyspace::Keyspace;
use super::long_read::{Found, LongReply};
use super::walk::{Filter, STEPS_PER_KEY, Sorter, Walk};

/// What a read may do before it is found to take long, in looks at keys: all slots are passed over, and a thousand
/// keys compared with a pattern.
pub(super) const BRIEF_MAX: usize = 3072;
/// So many steps of a pattern take as long as passing over a slot.
const STEPS_PER_SLOT: i64 = 4;
/// However large a count is asked for, `SCAN` ends after the slot in which it has looked at so many keys.
const LOOKED_AT_MAX: usize = 1024;
/// After so many steps of the pattern `SCAN` leaves the next slot to the next call.
const STEPS_ENOUGH: u64 = 1 << 16;
/// A cursor cannot point into a slot. If one takes more than these and what its keys cost anyway, it is refused.
const SCAN_STEPS_MAX: u64 = 1 << 20;

/// What is asked of a `SCAN`.
#[derive(Clone, Copy)]
pub(super) struct ScanOptions<'a> {
    /// The slot to begin with.
    pub(super) slot: usize,
    /// Which keys are wanted; `None`: all.
    pub(super) pattern: Option<&'a [u8]>,
    /// So many keys are to be looked at, or some more.
    pub(super) count: usize,
    /// Whether keys with strings are wanted.
    pub(super) wants_strings: bool,
}

/// SCAN: whole slots, until enough has been looked at.
pub(crate) struct Scan {
    walk: Walk,
    filter: Option<Filter>,
    count: usize,
    wants_strings: bool,
    /// How many keys have been looked at, and the steps of the pattern, in all slots and in this one.
    looked_at: usize,
    steps: u64,
    looked_at_here: u64,
    steps_here: u64,
    /// The keys of this slot that fit.
    sorter: Sorter,
    /// All of this slot have been seen.
    is_sorting: bool,
    /// The keys of the slots before it.
    found: Vec<Item>,
}

/// The steps of the pattern that a slot with so many keys may take.
fn scan_steps_max(keys: u64) -> u64 {
    SCAN_STEPS_MAX + STEPS_PER_KEY.unsigned_abs() * keys
}

impl Scan {
    pub(super) fn new(options: ScanOptions<'_>) -> Scan {
        Scan {
            walk: Walk::new(options.slot, STEPS_PER_SLOT),
            filter: options.pattern.map(Filter::new),
            count: options.count.min(LOOKED_AT_MAX),
            wants_strings: options.wants_strings,
            looked_at: 0,
            steps: 0,
            looked_at_here: 0,
            steps_here: 0,
            sorter: Sorter::default(),
            is_sorting: false,
            found: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, keys: &Keyspace, max: usize) -> Result<Option<LongReply>, CommandError> {
        self.walk.grant(max);
        let answer = self.go_on(keys);
        keys.work().count(self.walk.done(max));
        answer
    }

    fn go_on(&mut self, keys: &Keyspace) -> Result<Option<LongReply>, CommandError> {
        loop {
            if self.is_sorting {
                if !self.sorter.drain(&mut self.found, usize::MAX, &mut self.walk.share) {
                    return Ok(None);
                }
                self.is_sorting = false;
            }
            let Walk { slot, .. } = self.walk;
            let is_enough = self.looked_at >= self.count || self.steps >= STEPS_ENOUGH;
            if self.walk.is_between_slots() && (slot >= SLOT_COUNT || is_enough) {
                let items = std::mem::take(&mut self.found);
                return Ok(Some(LongReply::Keys(Found { cursor: Some(slot % SLOT_COUNT), items })));
            }
            if self.walk.is_spent() {
                return Ok(None);
            }
            if self.look_at_slot(keys)? {
                if self.steps_here > scan_steps_max(self.looked_at_here) {
                    return Err(CommandError::PatternTooCostly);
                }
                if self.sorter.is_too_long() {
                    return Err(CommandError::ReplyTooLong);
                }
                self.steps += std::mem::take(&mut self.steps_here);
                self.looked_at_here = 0;
                self.is_sorting = true;
            }
        }
    }

    /// Goes on in a slot and says whether all of it has been looked at.
    fn look_at_slot(&mut self, keys: &Keyspace) -> Result<bool, CommandError> {
        // With the dead, so the end of the slot can only be worse.
        let len = keys.slot(self.walk.slot).map_or(0, |slot| slot.len() as u64);
        let Scan { walk, filter, wants_strings, looked_at, looked_at_here, steps_here, sorter, .. } = self;
        let is_end = walk.go_on(keys, |item, share| {
            let fits = match filter {
                None => true,
                Some(filter) => {
                    let (fits, steps) = filter.compare(item.key(), share.unsigned_abs());
                    *steps_here += steps;
                    *share -= i64::try_from(steps).unwrap_or(i64::MAX);
                    let Some(fits) = fits else { return false };
                    fits
                }
            };
            (*looked_at, *looked_at_here) = (*looked_at + 1, *looked_at_here + 1);
            if fits && *wants_strings {
                sorter.push(item);
            }
            true
        });
        if self.steps_here > scan_steps_max(len) { Err(CommandError::PatternTooCostly) } else { Ok(is_end) }
    }

    /// What it holds, to be freed in pieces.
    pub(super) fn into_items(self) -> Vec<Vec<Item>> {
        self.sorter.into_items(self.found)
    }
}

/// RANDOMKEY: from a slot that was drawn on, the first one with keys; of these the one whose hash with the number that
/// was drawn is smallest, for which they need to be seen only once, in any order.
pub(crate) struct Pick {
    drawn: u64,
    walk: Walk,
    /// So many slots were without keys.
    passed: usize,
    best: Option<(u64, Item)>,
}

impl Pick {
    pub(super) fn new(drawn: u64) -> Pick {
        let first = usize::try_from(drawn % SLOT_COUNT as u64).unwrap_or(0);
        Pick { drawn, walk: Walk::new(first, STEPS_PER_SLOT), passed: 0, best: None }
    }

    pub(super) fn step(&mut self, keys: &Keyspace, max: usize) -> Option<LongReply> {
        self.walk.grant(max);
        let answer = self.go_on(keys);
        keys.work().count(self.walk.done(max));
        answer
    }

    fn go_on(&mut self, keys: &Keyspace) -> Option<LongReply> {
        let Pick { drawn, walk, passed, best } = self;
        while !walk.is_spent() {
            let before = walk.slot;
            let is_end = walk.go_on(keys, |item, _| {
                let hash = xxh3_64_with_seed(item.key(), *drawn);
                let is_better = |(other, best): &(u64, Item)| (hash, item.key()) < (*other, best.key());
                if best.as_ref().is_none_or(is_better) {
                    *best = Some((hash, item.clone()));
                }
                true
            });
            if !is_end {
                break;
            }
            *passed += walk.slot - before;
            walk.slot %= SLOT_COUNT;
            if best.is_some() || *passed >= SLOT_COUNT {
                let key = best.take().map_or(Reply::Nil, |(_, item)| Reply::Bulk(item.into_key_bytes()));
                return Some(LongReply::Reply(key));
            }
        }
        None
    }
}

/// CLUSTER GETKEYSINSLOT: the first keys of a slot.
pub(crate) struct SlotKeys {
    slot: usize,
    max: usize,
    walk: Walk,
    sorter: Sorter,
    found: Vec<Item>,
}

impl SlotKeys {
    /// Of this slot, at most so many.
    pub(super) fn new(slot: usize, max: usize) -> SlotKeys {
        let walk = Walk::new(slot, STEPS_PER_SLOT);
        SlotKeys { slot, max, walk, sorter: Sorter::default(), found: Vec::new() }
    }

    pub(super) fn step(&mut self, keys: &Keyspace, max: usize) -> Result<Option<LongReply>, CommandError> {
        self.walk.grant(max);
        let is_ready = self.go_on(keys);
        keys.work().count(self.walk.done(max));
        if self.sorter.is_too_long() {
            return Err(CommandError::ReplyTooLong);
        }
        let items = |found: &mut Vec<Item>| Found { cursor: None, items: std::mem::take(found) };
        Ok(is_ready.then(|| LongReply::Keys(items(&mut self.found))))
    }

    fn go_on(&mut self, keys: &Keyspace) -> bool {
        let SlotKeys { slot, max, walk, sorter, found } = self;
        let visit = |item: &Item, _: &mut i64| {
            sorter.push(item);
            true
        };
        (walk.slot != *slot || walk.go_on(keys, visit)) && sorter.drain(found, *max, &mut walk.share)
    }

    /// What it holds, to be freed in pieces.
    pub(super) fn into_items(self) -> Vec<Vec<Item>> {
        self.sorter.into_items(self.found)
    }
}

/// CLUSTER COUNTKEYSINSLOT. Only while dead keys wait to be freed each one has to be looked at.
pub(crate) struct SlotCount {
    slot: usize,
    has_dead: bool,
    walk: Walk,
    count: usize,
}

impl SlotCount {
    /// Of this slot of these keys.
    pub(super) fn new(keys: &Keyspace, slot: usize) -> SlotCount {
        SlotCount { slot, has_dead: keys.has_unfreed(), walk: Walk::new(slot, STEPS_PER_SLOT), count: 0 }
    }

    pub(super) fn step(&mut self, keys: &Keyspace, max: usize) -> Option<LongReply> {
        self.walk.grant(max);
        let count = &mut self.count;
        let visit = |_: &Item, _: &mut i64| {
            *count += 1;
            true
        };
        let is_known = if self.has_dead {
            self.walk.go_on(keys, visit)
        } else {
            self.count = keys.slot(self.slot).map_or(0, super::leaves::Slot::len);
            true
        };
        keys.work().count(self.walk.done(max));
        is_known.then(|| LongReply::Reply(super::commands::count_reply(self.count)))
    }
}
