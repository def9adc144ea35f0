//! Reads that take long: done a piece at a time, from the state as it was when they began.
//!
//! `KEYS` looks at every key, `MGET` and `EXISTS` may name tens of thousands. Done in one go they would hold up every
//! other client and the other nodes. So such a read freezes the keys, which costs a microsecond, and whoever runs it
//! asks for so many keys' work at a time and does something else in between. The answer is that of the one moment
//! when it began.
//!
//! What is found by `KEYS` is sorted in short runs that are merged at the end, so that no step takes longer than
//! any other. Which budget runs out first never depends on the order in which a table lists its keys.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::{fmt, vec};

use crate::types::{Item, Reply, limits};
use crate::wire::{Reader, Writer};

use super::SLOT_COUNT;
use super::by_key::ByKey;
use super::error::CommandError;
use super::glob::{StepBudget, matches};
use super::keyspace::Keyspace;

/// A read with so many keys is done in pieces.
pub(super) const LONG_COUNT: usize = 1024;
/// Steps of patterns that one `KEYS` may take, about a second's work: `*name*` over some ten million keys.
const PATTERN_STEPS_MAX: u64 = 1 << 30;
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
}

/// KEYS.
struct Find {
    pattern: Box<[u8]>,
    budget: StepBudget,
    /// The next slot to be looked at.
    slot: usize,
    /// So many bytes has the reply, at most.
    len: usize,
    /// What was found, in sorted runs, the last one not sorted yet.
    runs: Vec<Vec<Item>>,
    merging: Option<Merging>,
}

struct Merging {
    /// The first item of each run that is not merged yet, and which run.
    heads: BinaryHeap<Reverse<(ByKey, usize)>>,
    runs: Vec<vec::IntoIter<Item>>,
    replies: Vec<Reply>,
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
            slot: 0,
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

    /// Goes on for about so many keys, at least one, and returns the answer once it is there. A slot of the key space
    /// is looked at as a whole.
    pub fn step(&mut self, max: usize) -> Option<Reply> {
        let max = max.max(1);
        let LongRead { keys, work } = self;
        let answer = match work {
            Work::Find(find) => find.step(keys, max).transpose()?,
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
                    Ok(Reply::Array(std::mem::take(&mut each.result)))
                }
            }
            Work::Count(each) => {
                let has_more =
                    each.visit(max, |key, count, _| *count += usize::from(keys.get(key).is_some()));
                if has_more {
                    return None;
                }
                Ok(super::commands::count_reply(each.result))
            }
        };
        Some(answer.unwrap_or_else(Reply::from))
    }

    /// All of it at once.
    pub(super) fn run(mut self) -> Reply {
        loop {
            if let Some(reply) = self.step(usize::MAX) {
                return reply;
            }
        }
    }

    /// What it holds, to be freed in pieces: the keys as they were, and pointers to some of them.
    pub(super) fn into_parts(self) -> (Keyspace, Vec<Vec<Item>>, Vec<Reply>) {
        let LongRead { keys, work } = self;
        match work {
            Work::Find(Find { mut runs, merging, .. }) => {
                let mut replies = Vec::new();
                if let Some(merging) = merging {
                    runs = merging.runs.into_iter().map(Iterator::collect).collect();
                    runs.push(merging.heads.into_iter().map(|Reverse((ByKey(item), _))| item).collect());
                    replies = merging.replies;
                }
                (keys, runs, replies)
            }
            Work::Values(each) => (keys, Vec::new(), each.result),
            Work::Count(_) => (keys, Vec::new(), Vec::new()),
        }
    }
}

impl Find {
    fn step(&mut self, keys: &Keyspace, max: usize) -> Result<Option<Reply>, CommandError> {
        let mut looked_at = 0;
        while self.slot < SLOT_COUNT {
            if looked_at >= max {
                return Ok(None);
            }
            // They count like any others: where the work is interrupted depends on nothing but the keys.
            let empty = keys.empty_run(self.slot).min(max - looked_at);
            if empty > 0 {
                looked_at += empty;
                self.slot += empty;
                continue;
            }
            looked_at += 1;
            for item in keys.items_of(self.slot) {
                looked_at += 1;
                let key = item.key();
                let fits = matches(&self.pattern, key, &mut self.budget);
                if fits.map_err(|_| CommandError::PatternTooCostly)? {
                    self.len = self.len.saturating_add(key.len() + ELEMENT_OVERHEAD);
                    // What is refused anyway need not be held.
                    if self.len <= limits::REPLY_LEN_MAX {
                        self.push(item.clone());
                    }
                }
            }
            self.slot += 1;
        }
        if self.len > limits::REPLY_LEN_MAX {
            return Err(CommandError::ReplyTooLong);
        }
        let merging = self.merging.get_or_insert_with(|| Merging::new(std::mem::take(&mut self.runs)));
        for _ in looked_at..max {
            if !merging.step() {
                return Ok(Some(Reply::Array(std::mem::take(&mut merging.replies))));
            }
        }
        Ok(None)
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

fn sort(run: &mut [Item]) {
    run.sort_unstable_by(|a, b| a.key().cmp(b.key()));
}

impl Merging {
    fn new(mut runs: Vec<Vec<Item>>) -> Merging {
        if let Some(run) = runs.last_mut() {
            sort(run);
        }
        let mut runs: Vec<vec::IntoIter<Item>> = runs.into_iter().map(Vec::into_iter).collect();
        let heads = runs.iter_mut().enumerate();
        let heads = heads.filter_map(|(run, items)| Some(Reverse((ByKey(items.next()?), run))));
        Merging { heads: heads.collect(), runs, replies: Vec::new() }
    }

    /// Takes the next key over. Says whether there was one.
    fn step(&mut self) -> bool {
        let Some(mut head) = self.heads.peek_mut() else { return false };
        let Reverse((ByKey(first), run)) = &mut *head;
        self.replies.push(Reply::bulk(first.key()));
        match self.runs[*run].next() {
            Some(item) => *first = item,
            None => drop(std::collections::binary_heap::PeekMut::pop(head)),
        }
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
                return (reply, steps);
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
            keys.advance(Millis(10), None);
            keys.remove(format!("key-{number}").as_bytes());
            keys.set(format!("new-{number}").as_bytes(), b"x", Index(2));
            number += 1;
        });
        let expected: Vec<Reply> = expected.iter().map(|key| Reply::bulk(key)).collect();
        assert_eq!(reply, Reply::Array(expected));
        // So many slots and keys are looked at, and keys merged.
        assert!((90..130).contains(&steps), "{steps} steps");
        let all_at_once = LongRead::find(&keys, b"key-1999?").run();
        assert_eq!(all_at_once, run(LongRead::find(&keys, b"key-1999?"), 1, || {}).0);
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
}
