//! Reads that take long: done a piece at a time, from the state as it was when they began.
//!
//! `KEYS` looks at every key, `MGET` and `EXISTS` may name tens of thousands, `LCS` fills a large table, and a single
//! slot can have millions of keys for `SCAN` to list. Done in one go they would hold up every other client and the
//! other nodes. So such a read freezes the keys, which costs a microsecond, or holds the two that it is about, and
//! whoever runs it asks for so many keys' work at a time and does something else in between. The answer is that of the
//! one moment when it began.
//!
//! What is to be done is a [`Task`], which knows how far it has come and is shown the keys at each step; a read that
//! turns out to be short is done with the keys as they are. What is found is sorted in short runs that are merged at
//! the end, so that no step takes longer than any other. A single key can be more than a step's work, if the pattern
//! makes it so: then the comparison goes on in the next one. A pattern is found too costly after whole slots, since
//! the order within one must not show ([`walk`](super::walk)).

use std::fmt;

use crate::types::{Item, Reply, decimal, limits};
use crate::wire::{Reader, Writer};

use super::SLOT_COUNT;
use super::commands::lcs::Comparison;
use super::error::CommandError;
use super::glob::StepBudget;
use super::keyspace::Keyspace;
use super::slot_read::{Pick, Scan, SlotCount, SlotKeys};
use super::walk::{Filter, Sorter, Walk};

/// A read with so many keys is done in pieces.
pub(super) const LONG_COUNT: usize = 1024;
/// Steps of patterns that one `KEYS` may take, a second's work or two: `*name*` over some fifty million keys.
const PATTERN_STEPS_MAX: u64 = 1 << 30;
/// So many steps take as long as a look at a slot without keys, or at the end of one with keys.
const STEPS_PER_SLOT: i64 = 8;
/// So many cells of the table of `LCS` do.
const CELLS_PER_KEY: usize = 1024;
/// A read on its way.
pub struct LongRead {
    keys: Keyspace,
    task: Task,
}

/// What is to be done for a read, and how far it has come.
pub(crate) enum Task {
    Find(Find),
    Values(Each<Vec<Reply>>),
    Count(Each<usize>),
    /// It holds the two items and needs nothing else.
    Compare(Box<Comparison>),
    Scan(Box<Scan>),
    Pick(Pick),
    SlotKeys(SlotKeys),
    SlotCount(SlotCount),
    Refused(CommandError),
}

/// KEYS.
pub(crate) struct Find {
    filter: Filter,
    /// What is left of the steps of the pattern.
    budget: StepBudget,
    walk: Walk,
    sorter: Sorter,
    found: Vec<Item>,
}

/// What a long read answers.
#[derive(Debug)]
pub enum LongReply {
    /// This.
    Reply(Reply),
    /// Keys.
    Keys(Found),
}

/// The keys of items. They are pointers as long as nobody can send them, an eighth of what replies take.
#[derive(Debug)]
pub struct Found {
    /// What `SCAN` says in front of them: where to go on.
    pub cursor: Option<usize>,
    /// Whose keys.
    pub items: Vec<Item>,
}

impl Found {
    /// The cursor as `SCAN` tells it.
    pub fn cursor_reply(cursor: usize) -> Reply {
        let mut text = Vec::new();
        decimal::push(&mut text, i64::try_from(cursor).unwrap_or(i64::MAX));
        Reply::Bulk(text.into())
    }

    /// The whole reply, with the keys as elements of one.
    pub fn reply_of(cursor: Option<usize>, keys: Vec<Reply>) -> Reply {
        match cursor {
            None => Reply::Array(keys),
            Some(cursor) => Reply::Array(vec![Found::cursor_reply(cursor), Reply::Array(keys)]),
        }
    }
}

impl LongReply {
    /// The same as a reply.
    pub fn into_reply(self) -> Reply {
        match self {
            LongReply::Reply(reply) => reply,
            LongReply::Keys(Found { cursor, items }) => Found::reply_of(
                cursor,
                items.into_iter().map(|item| Reply::Bulk(item.into_key_bytes())).collect(),
            ),
        }
    }
}

/// MGET or EXISTS: one key after the other.
pub(crate) struct Each<T> {
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
        let what = match self.task {
            Task::Find(_) => "keys that fit a pattern",
            Task::Values(_) => "values",
            Task::Count(_) => "a count",
            Task::Compare(_) => "what two values have in common",
            Task::Scan(_) => "keys from a cursor on",
            Task::Pick(_) => "some key",
            Task::SlotKeys(_) => "keys of a slot",
            Task::SlotCount(_) => "the number of a slot's keys",
            Task::Refused(_) => "nothing",
        };
        write!(f, "{what} of {:?}", self.keys)
    }
}

impl Task {
    /// All keys that fit a pattern.
    pub(super) fn find(pattern: &[u8]) -> Task {
        Task::Find(Find {
            filter: Filter::new(pattern),
            budget: StepBudget(PATTERN_STEPS_MAX),
            walk: Walk::new(0, STEPS_PER_SLOT),
            sorter: Sorter::default(),
            found: Vec::new(),
        })
    }

    /// The values of these keys.
    pub(super) fn values(arguments: &[&[u8]]) -> Task {
        Task::Values(Each::new(arguments, Vec::new()))
    }

    /// How many of these keys exist.
    pub(super) fn count(arguments: &[&[u8]]) -> Task {
        Task::Count(Each::new(arguments, 0))
    }

    /// What the values of two keys have in common.
    pub(super) fn compare(keys: &Keyspace, arguments: &[&[u8]]) -> Task {
        Comparison::begin(keys, arguments).map_or_else(Task::Refused, |begun| Task::Compare(Box::new(begun)))
    }

    /// Goes on for about so many keys, at least one, and returns the answer once it is there. Slots of the key space
    /// without keys count as well, and so does a pattern that needs many steps. The keys must be the same every time.
    pub(super) fn step(&mut self, keys: &Keyspace, max: usize) -> Option<LongReply> {
        let max = max.max(1);
        let answer = match self {
            Task::Find(find) => {
                find.walk.grant(max);
                let answer = find.step(keys);
                keys.work().count(find.walk.done(max));
                answer.transpose()?
            }
            Task::Values(each) => {
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
            Task::Count(each) => {
                let has_more =
                    each.visit(max, |key, count, _| *count += usize::from(keys.get(key).is_some()));
                if has_more {
                    return None;
                }
                Ok(LongReply::Reply(super::commands::count_reply(each.result)))
            }
            Task::Compare(comparison) => {
                let cells = max.saturating_mul(CELLS_PER_KEY);
                let mut left = cells;
                let reply = comparison.step(&mut left);
                keys.work().count(((cells - left).div_ceil(CELLS_PER_KEY)) as u64);
                Ok(LongReply::Reply(reply?))
            }
            Task::Scan(scan) => scan.step(keys, max).transpose()?,
            Task::Pick(pick) => Ok(pick.step(keys, max)?),
            Task::SlotKeys(slot) => slot.step(keys, max).transpose()?,
            Task::SlotCount(slot) => Ok(slot.step(keys, max)?),
            Task::Refused(error) => Err(error.clone()),
        };
        Some(answer.unwrap_or_else(|error| LongReply::Reply(error.into())))
    }

    /// All of it at once.
    pub(super) fn run(mut self, keys: &Keyspace) -> Reply {
        loop {
            if let Some(reply) = self.step(keys, usize::MAX) {
                return reply.into_reply();
            }
        }
    }
}

impl LongRead {
    /// A read of the keys as they are now.
    pub(super) fn new(keys: &Keyspace, task: Task) -> LongRead {
        let keys = match task {
            Task::Compare(_) | Task::Refused(_) => keys.without_keys(),
            _ => keys.freeze(),
        };
        LongRead { keys, task }
    }

    /// Goes on for about so many keys, at least one, and returns the answer once it is there.
    pub fn step(&mut self, max: usize) -> Option<LongReply> {
        self.task.step(&self.keys, max)
    }

    /// What was done so far, in the units of a [`Fund`](super::Fund).
    pub(super) fn work(&self) -> u64 {
        self.keys.work().done()
    }

    /// What it holds, to be freed in pieces: the keys as they were, and pointers to some of them.
    pub(super) fn into_parts(self) -> (Keyspace, Vec<Vec<Item>>, Vec<Reply>) {
        let LongRead { keys, task } = self;
        let (items, replies) = match task {
            Task::Find(Find { sorter, found, .. }) => (sorter.into_items(found), Vec::new()),
            Task::Scan(scan) => (scan.into_items(), Vec::new()),
            Task::SlotKeys(slot) => (slot.into_items(), Vec::new()),
            Task::Values(each) => (Vec::new(), each.result),
            Task::Count(_) | Task::Compare(_) | Task::Pick(_) | Task::SlotCount(_) | Task::Refused(_) => {
                (Vec::new(), Vec::new())
            }
        };
        (keys, items, replies)
    }
}

impl Find {
    fn step(&mut self, keys: &Keyspace) -> Result<Option<LongReply>, CommandError> {
        let Find { filter, budget, walk, sorter, found } = self;
        while walk.slot < SLOT_COUNT {
            if walk.is_spent() {
                return Ok(None);
            }
            let is_end = walk.go_on(keys, |item, share| {
                let (fits, steps) = filter.compare(item.key(), budget.0.min(share.unsigned_abs()));
                budget.0 -= steps;
                *share -= i64::try_from(steps).unwrap_or(i64::MAX);
                match fits {
                    Some(true) => sorter.push(item),
                    Some(false) => {}
                    None if budget.0 > 0 => return false,
                    // Without a budget the rest of the slot is only walked over.
                    None => filter.leave(),
                }
                true
            });
            if is_end && budget.0 == 0 {
                return Err(CommandError::PatternTooCostly);
            }
        }
        if sorter.is_too_long() {
            return Err(CommandError::ReplyTooLong);
        }
        let is_sorted = !walk.is_spent() && sorter.drain(found, usize::MAX, &mut walk.share);
        let items = |found: &mut Vec<Item>| Found { cursor: None, items: std::mem::take(found) };
        Ok(is_sorted.then(|| LongReply::Keys(items(found))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::walk::STEPS_PER_KEY;
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
        let (reply, steps) = run(LongRead::new(&keys.clone(), Task::find(b"*")), 500, || {
            keys.advance(Millis(10), false);
            keys.remove(format!("key-{number}").as_bytes());
            keys.set(format!("new-{number}").as_bytes(), b"x", Index(2));
            number += 1;
        });
        let expected: Vec<Reply> = expected.iter().map(|key| Reply::bulk(key)).collect();
        assert_eq!(reply, Reply::Array(expected));
        // So many slots and keys are looked at, and keys merged.
        assert!((82..120).contains(&steps), "{steps} steps");
        let all_at_once = Task::find(b"key-1999?").run(&keys);
        assert_eq!(all_at_once, run(LongRead::new(&keys, Task::find(b"key-1999?")), 1, || {}).0);
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
            let (reply, steps) = run(LongRead::new(&fresh, Task::find(b"*")), max, || {});
            assert_eq!((reply, steps), (Reply::Array(Vec::new()), work / max + 1));
            assert_eq!(
                run(LongRead::new(&emptied, Task::find(b"*")), max, || {}).1,
                steps,
                "{max} at a time"
            );
        }
    }

    #[test]
    fn many_values_come_in_the_order_of_the_question() {
        let mut keys = filled(5_000);
        let names: Vec<Vec<u8>> = (0..6_000).rev().map(|i| format!("key-{i}").into_bytes()).collect();
        let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
        let (count, steps) = run(LongRead::new(&keys, Task::count(&names)), 100, || {});
        assert_eq!((count, steps), (Reply::Integer(5_000), 60));
        let (values, steps) = run(LongRead::new(&keys.clone(), Task::values(&names)), 100, || keys.clear());
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
            let (reply, steps) = run(LongRead::new(&keys, Task::find(pattern.as_bytes())), max, || {});
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
        let mut task = Task::find(pattern.as_bytes());
        let Task::Find(find) = &mut task else { panic!("a search") };
        find.budget = StepBudget(1 << 24);
        assert_eq!(task.run(&keys), refused);
        assert!(keys.work().done() - before >= 1 << 18, "counted as 64 steps to a key");
        let pattern = "*".to_owned() + &"a".repeat(100) + "b";
        assert_eq!(
            run(LongRead::new(&keys, Task::find(pattern.as_bytes())), 65_536, || {}).0,
            Reply::Array(Vec::new())
        );
    }
}
