//! Reads that take long: done a piece at a time, from the state as it was when they began.
//!
//! `KEYS` looks at every key, `MGET` and `EXISTS` may name tens of thousands, `LCS` fills a large table. Done in one
//! go they would hold up every other client and the other nodes. So such a read freezes the keys, which costs a
//! microsecond, or holds the two that it is about, and whoever runs it asks for so many keys' work at a time and does
//! something else in between. The answer is that of the one moment when it began.
//!
//! What is found by `KEYS` is sorted in short runs that are merged at the end, so that no step takes longer than
//! any other. A single key can be more than a step's work, if the pattern makes it so: then the comparison goes on in
//! the next one. A table lists its keys in an order that differs from process to process; neither the answer nor the
//! number of steps depends on it. So keys and places of the pattern are counted in one sum, what a step does
//! beyond its share is taken off the next one's, and a pattern is found too costly after whole slots.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::{fmt, vec};

use crate::types::{Item, Reply, limits};
use crate::wire::{Reader, Writer};

use super::SLOT_COUNT;
use super::by_key::ByKey;
use super::commands::lcs::Comparison;
use super::error::CommandError;
use super::glob::{Matcher, StepBudget};
use super::keyspace::Keyspace;

/// A read with so many keys is done in pieces.
pub(super) const LONG_COUNT: usize = 1024;
/// Steps of patterns that one `KEYS` may take, a second's work or two: `*name*` over some fifty million keys.
const PATTERN_STEPS_MAX: u64 = 1 << 30;
/// So many steps of a pattern take about as long as a look at a key, which is hardly ever in the processor's cache.
const STEPS_PER_KEY: i64 = 64;
/// And so many as long as a look at a slot without keys, or at the end of one with keys.
const STEPS_PER_SLOT: i64 = 8;
/// So many cells of the table of `LCS` do.
const CELLS_PER_KEY: usize = 1024;
/// How many found keys are sorted at a time.
const RUN_LEN: usize = 1024;
/// What an element costs in a dialect beside its bytes, at most.
const ELEMENT_OVERHEAD: usize = 16;

/// A read on its way.
pub struct LongRead {
    keys: Keyspace,
    work: Work,
}

enum Work {
    Find(Find),
    Values(Each<Vec<Reply>>),
    Count(Each<usize>),
    /// LCS, or why it is refused. It holds the two items and needs nothing else.
    Compare(Result<Box<Comparison>, CommandError>),
}

/// KEYS.
struct Find {
    pattern: Box<[u8]>,
    /// What is left of the steps of the pattern.
    budget: StepBudget,
    /// What is left of this step's share, counted in steps of the pattern; below zero: taken off the next one.
    share: i64,
    at: Place,
    /// How far the key at this place has been compared.
    matcher: Matcher,
    /// So many bytes has the reply, at most.
    len: usize,
    /// What was found, in sorted runs, the last one not sorted yet.
    runs: Vec<Vec<Item>>,
    merging: Option<Merging>,
}

/// The next item to be looked at.
#[derive(Clone, Copy, Default)]
struct Place {
    slot: usize,
    /// Which table of the slot.
    leaf: usize,
    /// Which item of it.
    item: usize,
}

struct Merging {
    /// The first item of each run that is not merged yet, and which run.
    heads: BinaryHeap<Reverse<(ByKey, usize)>>,
    runs: Vec<vec::IntoIter<Item>>,
    /// All the others, in order.
    merged: Vec<Item>,
}

/// What a long read answers.
#[derive(Debug)]
pub enum LongReply {
    /// This.
    Reply(Reply),
    /// The keys of these items. They are pointers as long as nobody can send them, an eighth of what replies take.
    Keys(Vec<Item>),
}

impl LongReply {
    /// The same as a reply.
    pub fn into_reply(self) -> Reply {
        match self {
            LongReply::Reply(reply) => reply,
            LongReply::Keys(items) => {
                Reply::Array(items.into_iter().map(|item| Reply::Bulk(item.into_key_bytes())).collect())
            }
        }
    }
}

/// MGET or EXISTS: one key after the other.
struct Each<T> {
    /// Each with its length in front.
    packed: Box<[u8]>,
    /// So many bytes of them are done.
    at: usize,
    /// The bytes of all values so far.
    len: usize,
    result: T,
}

impl<T> Each<T> {
    fn new(arguments: &[&[u8]], result: T) -> Each<T> {
        let mut packed = Vec::with_capacity(arguments.iter().map(|key| 4 + key.len()).sum());
        let mut writer = Writer::new(&mut packed);
        for key in arguments {
            writer.blob(key);
        }
        Each { packed: packed.into_boxed_slice(), at: 0, len: 0, result }
    }

    /// Visits the next keys, at most so many. Says whether there are more.
    fn visit(&mut self, max: usize, mut visit: impl FnMut(&[u8], &mut T, &mut usize)) -> bool {
        for _ in 0..max {
            let mut reader = Reader::new(&self.packed[self.at..]);
            if reader.rest().is_empty() {
                return false;
            }
            let key = reader.blob("key", self.packed.len()).expect("packed here");
            visit(key, &mut self.result, &mut self.len);
            self.at = self.packed.len() - reader.rest().len();
        }
        self.at < self.packed.len()
    }
}

impl fmt::Debug for LongRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.work {
            Work::Find(_) => "keys that fit a pattern",
            Work::Values(_) => "values",
            Work::Count(_) => "a count",
            Work::Compare(_) => "what two values have in common",
        };
        write!(f, "{what} of {:?}", self.keys)
    }
}

impl LongRead {
    /// All keys that fit a pattern.
    pub(super) fn find(keys: &Keyspace, pattern: &[u8]) -> LongRead {
        let find = Find {
            pattern: pattern.into(),
            budget: StepBudget(PATTERN_STEPS_MAX),
            share: 0,
            at: Place::default(),
            matcher: Matcher::default(),
            len: 0,
            runs: Vec::new(),
            merging: None,
        };
        LongRead { keys: keys.freeze(), work: Work::Find(find) }
    }

    /// The values of these keys.
    pub(super) fn values(keys: &Keyspace, arguments: &[&[u8]]) -> LongRead {
        LongRead { keys: keys.freeze(), work: Work::Values(Each::new(arguments, Vec::new())) }
    }

    /// How many of these keys exist.
    pub(super) fn count(keys: &Keyspace, arguments: &[&[u8]]) -> LongRead {
        LongRead { keys: keys.freeze(), work: Work::Count(Each::new(arguments, 0)) }
    }

    /// What the values of two keys have in common.
    pub(super) fn compare(keys: &Keyspace, arguments: &[&[u8]]) -> LongRead {
        let comparison = Comparison::begin(keys, arguments).map(Box::new);
        LongRead { keys: keys.without_keys(), work: Work::Compare(comparison) }
    }

    /// Goes on for about so many keys, at least one, and returns the answer once it is there. Slots of the key space
    /// without keys count as well, and so does a pattern that needs many steps.
    pub fn step(&mut self, max: usize) -> Option<LongReply> {
        let max = max.max(1);
        let LongRead { keys, work } = self;
        let answer = match work {
            Work::Find(find) => {
                let answer = find.step(keys, max);
                // What was done beyond the share is counted when it is taken off the next one.
                keys.work()
                    .count((share_of(max) - find.share.max(0)).unsigned_abs() / STEPS_PER_KEY.unsigned_abs());
                answer.transpose()?.map(LongReply::Keys)
            }
            Work::Values(each) => {
                let has_more = each.visit(max, |key, replies, len| {
                    let item = keys.get(key);
                    *len += item.map_or(0, |item| item.value().len());
                    // What is refused anyway need not be held.
                    if *len <= limits::REPLY_LEN_MAX {
                        replies.push(super::commands::value_reply(item));
                    }
                });
                if has_more {
                    return None;
                }
                if each.len > limits::REPLY_LEN_MAX {
                    Err(CommandError::ReplyTooLong)
                } else {
                    Ok(LongReply::Reply(Reply::Array(std::mem::take(&mut each.result))))
                }
            }
            Work::Count(each) => {
                let has_more =
                    each.visit(max, |key, count, _| *count += usize::from(keys.get(key).is_some()));
                if has_more {
                    return None;
                }
                Ok(LongReply::Reply(super::commands::count_reply(each.result)))
            }
            Work::Compare(Err(error)) => Err(error.clone()),
            Work::Compare(Ok(comparison)) => {
                let cells = max.saturating_mul(CELLS_PER_KEY);
                let mut left = cells;
                let reply = comparison.step(&mut left);
                keys.work().count(((cells - left).div_ceil(CELLS_PER_KEY)) as u64);
                Ok(LongReply::Reply(reply?))
            }
        };
        Some(answer.unwrap_or_else(|error| LongReply::Reply(error.into())))
    }

    /// What was done so far, in the units of a [`Fund`](super::Fund).
    pub(super) fn work(&self) -> u64 {
        self.keys.work().done()
    }

    /// All of it at once. The work is counted with that of the keys that it was begun for.
    pub(super) fn run(mut self, keys: &Keyspace) -> Reply {
        loop {
            if let Some(reply) = self.step(usize::MAX) {
                keys.work().count(self.work());
                return reply.into_reply();
            }
        }
    }

    /// What it holds, to be freed in pieces: the keys as they were, and pointers to some of them.
    pub(super) fn into_parts(self) -> (Keyspace, Vec<Vec<Item>>, Vec<Reply>) {
        let LongRead { keys, work } = self;
        match work {
            Work::Find(Find { mut runs, merging, .. }) => {
                if let Some(merging) = merging {
                    runs = merging.runs.into_iter().map(Iterator::collect).collect();
                    runs.push(merging.heads.into_iter().map(|Reverse((ByKey(item), _))| item).collect());
                    runs.push(merging.merged);
                }
                (keys, runs, Vec::new())
            }
            Work::Values(each) => (keys, Vec::new(), each.result),
            Work::Count(_) | Work::Compare(_) => (keys, Vec::new(), Vec::new()),
        }
    }
}

impl Find {
    fn step(&mut self, keys: &Keyspace, max: usize) -> Result<Option<Vec<Item>>, CommandError> {
        self.share = self.share.saturating_add(share_of(max));
        while self.at.slot < SLOT_COUNT {
            if self.share <= 0 {
                return Ok(None);
            }
            // They count like any others: how many steps there are depends on nothing but the keys.
            let empty = keys.empty_run(self.at.slot);
            if empty > 0 {
                self.at.slot += empty;
                self.share -= i64::try_from(empty).unwrap_or(i64::MAX) * STEPS_PER_SLOT;
            } else {
                self.look_at_leaf(keys)?;
            }
        }
        if self.len > limits::REPLY_LEN_MAX {
            return Err(CommandError::ReplyTooLong);
        }
        let merging = self.merging.get_or_insert_with(|| Merging::new(std::mem::take(&mut self.runs)));
        while self.share > 0 {
            if !merging.step() {
                return Ok(Some(std::mem::take(&mut merging.merged)));
            }
            self.share -= STEPS_PER_KEY;
        }
        Ok(None)
    }

    /// Looks at the rest of a leaf, as far as the share goes, and moves on.
    fn look_at_leaf(&mut self, keys: &Keyspace) -> Result<(), CommandError> {
        let Place { slot, leaf, item } = self.at;
        let Some(items) = keys.slot(slot).and_then(|slot| slot.items_of_leaf(leaf)) else {
            if self.budget.0 == 0 {
                return Err(CommandError::PatternTooCostly);
            }
            self.at = Place { slot: slot + 1, ..Place::default() };
            self.share -= STEPS_PER_SLOT;
            return Ok(());
        };
        for item in items.skip(item) {
            if self.share <= 0 {
                return Ok(());
            }
            if item.is_alive(keys.now()) && !self.look_at(item) {
                return Ok(());
            }
            self.at.item += 1;
        }
        self.at = Place { slot, leaf: leaf + 1, item: 0 };
        Ok(())
    }

    /// Compares an item's key with the pattern. `false`: there is more to be done than the share allows.
    fn look_at(&mut self, item: &Item) -> bool {
        let key = item.key();
        let steps = self.budget.0.min(self.share.unsigned_abs());
        let mut budget = StepBudget(steps);
        let fits = self.matcher.go_on(&self.pattern, key, &mut budget);
        let spent = steps - budget.0;
        self.budget.0 -= spent;
        self.share -= i64::try_from(spent).unwrap_or(i64::MAX);
        // Without a budget the rest of the slot is only walked over.
        if fits.is_err() && self.budget.0 > 0 {
            return false;
        }
        self.matcher = Matcher::default();
        self.share -= STEPS_PER_KEY;
        if fits == Ok(true) {
            self.len = self.len.saturating_add(key.len() + ELEMENT_OVERHEAD);
            // What is refused anyway need not be held.
            if self.len <= limits::REPLY_LEN_MAX {
                self.push(item.clone());
            }
        }
        true
    }

    fn push(&mut self, item: Item) {
        match self.runs.last_mut() {
            Some(run) if run.len() < RUN_LEN => run.push(item),
            last => {
                if let Some(run) = last {
                    sort(run);
                }
                self.runs.push(vec![item]);
            }
        }
    }
}

/// The share of a step with so many keys.
fn share_of(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX).saturating_mul(STEPS_PER_KEY)
}

fn sort(run: &mut [Item]) {
    run.sort_unstable_by(|a, b| a.key().cmp(b.key()));
}

impl Merging {
    fn new(mut runs: Vec<Vec<Item>>) -> Merging {
        if let Some(run) = runs.last_mut() {
            sort(run);
        }
        let merged = Vec::with_capacity(runs.iter().map(Vec::len).sum());
        let mut runs: Vec<vec::IntoIter<Item>> = runs.into_iter().map(Vec::into_iter).collect();
        let heads = runs.iter_mut().enumerate();
        let heads = heads.filter_map(|(run, items)| Some(Reverse((ByKey(items.next()?), run))));
        Merging { heads: heads.collect(), runs, merged }
    }

    /// Takes the next key over. Says whether there was one.
    fn step(&mut self) -> bool {
        let Some(mut head) = self.heads.peek_mut() else { return false };
        let Reverse((ByKey(first), run)) = &mut *head;
        let item = match self.runs[*run].next() {
            Some(next) => std::mem::replace(first, next),
            None => PeekMut::pop(head).0.0.0,
        };
        self.merged.push(item);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Index, Millis};

    fn filled(count: usize) -> Keyspace {
        let mut keys = Keyspace::new(1);
        for i in 0..count {
            keys.set(format!("key-{i}").as_bytes(), format!("{i}").as_bytes(), Index(1));
        }
        keys
    }

    /// Steps until the answer is there; after each, something changes.
    fn run(mut read: LongRead, max: usize, mut change: impl FnMut()) -> (Reply, usize) {
        for steps in 1.. {
            if let Some(reply) = read.step(max) {
                return (reply.into_reply(), steps);
            }
            change();
        }
        unreachable!("numbers do not end")
    }

    #[test]
    fn keys_of_one_moment_are_found_in_order_and_in_bounded_steps() {
        let mut keys = filled(20_000);
        keys.set_until(b"key-mortal", b"x", Index(1), Some(Millis(5)));
        let mut expected: Vec<Vec<u8>> = (0..20_000).map(|i| format!("key-{i}").into_bytes()).collect();
        expected.push(b"key-mortal".to_vec());
        expected.sort();
        let mut number = 0;
        let (reply, steps) = run(LongRead::find(&keys.clone(), b"*"), 500, || {
            keys.advance(Millis(10), false);
            keys.remove(format!("key-{number}").as_bytes());
            keys.set(format!("new-{number}").as_bytes(), b"x", Index(2));
            number += 1;
        });
        let expected: Vec<Reply> = expected.iter().map(|key| Reply::bulk(key)).collect();
        assert_eq!(reply, Reply::Array(expected));
        // So many slots and keys are looked at, and keys merged.
        assert!((82..120).contains(&steps), "{steps} steps");
        let all_at_once = LongRead::find(&keys, b"key-1999?").run(&keys);
        assert_eq!(all_at_once, run(LongRead::find(&keys, b"key-1999?"), 1, || {}).0);
    }

    #[test]
    fn empty_slots_cost_the_same_whether_they_were_ever_written_to_or_not() {
        let fresh = filled(0);
        let mut emptied = filled(20_000);
        for i in 0..20_000 {
            emptied.remove(format!("key-{i}").as_bytes());
        }
        assert!(fresh.empty_run(0) > 0 && emptied.empty_run(0) == 0);
        let work = SLOT_COUNT / usize::try_from(STEPS_PER_KEY / STEPS_PER_SLOT).unwrap();
        for max in [1, 100, 1024, work, usize::MAX] {
            let (reply, steps) = run(LongRead::find(&fresh, b"*"), max, || {});
            assert_eq!((reply, steps), (Reply::Array(Vec::new()), work / max + 1));
            assert_eq!(run(LongRead::find(&emptied, b"*"), max, || {}).1, steps, "{max} at a time");
        }
    }

    #[test]
    fn many_values_come_in_the_order_of_the_question() {
        let mut keys = filled(5_000);
        let names: Vec<Vec<u8>> = (0..6_000).rev().map(|i| format!("key-{i}").into_bytes()).collect();
        let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
        let (count, steps) = run(LongRead::count(&keys, &names), 100, || {});
        assert_eq!((count, steps), (Reply::Integer(5_000), 60));
        let (values, steps) = run(LongRead::values(&keys.clone(), &names), 100, || keys.clear());
        let Reply::Array(values) = values else { panic!("an array") };
        assert_eq!((values.len(), steps), (6_000, 60));
        assert_eq!((&values[0], &values[5_999]), (&Reply::Nil, &Reply::bulk(b"0")));
        assert_eq!(values.iter().filter(|value| **value != Reply::Nil).count(), 5_000);
    }

    /// However the tables list their keys, and however costly a key is, a step has its share and no more.
    #[test]
    fn a_costly_pattern_is_compared_in_as_many_steps_in_any_order() {
        let texts: Vec<String> = (0..40).map(|i| format!("{{x}}{}{i}", "a".repeat(i * 50))).collect();
        let pattern = "*".to_owned() + &"a".repeat(400) + "b*";
        let steps_of = |seed, max| {
            let mut keys = Keyspace::new(seed);
            for text in &texts {
                keys.set(text.as_bytes(), b"", Index(1));
            }
            let (reply, steps) = run(LongRead::find(&keys, pattern.as_bytes()), max, || {});
            assert_eq!(reply, Reply::Array(Vec::new()));
            steps
        };
        let work: usize = texts.iter().map(|text| text.len().saturating_sub(400) * 400).sum();
        let steps = steps_of(1, 200);
        assert!(steps > work / 200 / 64, "{steps} steps for {work} comparisons");
        for seed in 2..5 {
            assert_eq!(steps_of(seed, 200), steps);
        }
    }

    #[test]
    fn a_pattern_that_is_too_costly_is_refused_in_the_end() {
        let mut keys = Keyspace::new(1);
        keys.set(&[b'a'; 60_000], b"", Index(1));
        let pattern = "*".to_owned() + &"a".repeat(16_000) + "b";
        let (refused, before) = (Reply::from(CommandError::PatternTooCostly), keys.work().done());
        let mut read = LongRead::find(&keys, pattern.as_bytes());
        let Work::Find(find) = &mut read.work else { panic!("a search") };
        find.budget = StepBudget(1 << 24);
        assert_eq!(read.run(&keys), refused);
        assert!(keys.work().done() - before >= 1 << 18, "counted as 64 steps to a key");
        let pattern = "*".to_owned() + &"a".repeat(100) + "b";
        assert_eq!(run(LongRead::find(&keys, pattern.as_bytes()), 65_536, || {}).0, Reply::Array(Vec::new()));
    }
}
