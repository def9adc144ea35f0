//! Finding keys: `KEYS`, `SCAN` and their relatives.
//!
//! The key space lists its keys in an order that differs from node to node. That must not show: whoever lists here
//! sorts, and whether a budget runs out depends on sums over all keys only.
//!
//! A cursor of `SCAN` is the number of the hash slot that is next, so it means the same on every node and stays good
//! for ever; a key that is there from the first to the last step is told exactly once.

use crate::store::command::{Answer, CommandSpec, Group, KeyPositions, Long, Run};
use crate::store::error::CommandError;
use crate::store::glob::{StepBudget, matches};
use crate::store::{LongRead, SLOT_COUNT, Store};
use crate::types::{Item, Reply, decimal};

use super::{READ, count_reply, exactly, is, parse_integer};

pub(crate) static COMMANDS: [CommandSpec; 4] = [
    CommandSpec {
        name: "KEYS",
        code: 15,
        keys: KeyPositions::NONE,
        group: Group::Generic,
        usage: "pattern",
        summary: "answers all keys that fit a pattern, in the order of their bytes: * ? [a-z] [^a] \\x",
        run: Run::Read(keys),
        long: Some(Long {
            count_min: 1,
            begin: |keys, patterns| LongRead::find(keys, patterns.first().copied().unwrap_or_default()),
        }),
        ..READ
    },
    CommandSpec {
        name: "SCAN",
        code: 36,
        arity: -2,
        keys: KeyPositions::NONE,
        group: Group::Generic,
        usage: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        summary: "answers some of the keys and where to go on; begin with 0, the end has come with 0",
        check: check_scan,
        run: Run::Read(scan),
        ..READ
    },
    CommandSpec {
        name: "RANDOMKEY",
        code: 37,
        arity: 1,
        keys: KeyPositions::NONE,
        group: Group::Generic,
        usage: "",
        summary: "answers some key",
        run: Run::Read(randomkey),
        ..READ
    },
    CommandSpec {
        name: "DBSIZE",
        code: 16,
        arity: 1,
        keys: KeyPositions::NONE,
        group: Group::Server,
        usage: "",
        summary: "answers how many keys there are",
        run: Run::Read(dbsize),
        ..READ
    },
];

fn keys(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [pattern] = exactly(arguments)?;
    Ok(LongRead::find(&store.keys, pattern).run())
}

struct ScanOptions<'a> {
    slot: usize,
    pattern: Option<&'a [u8]>,
    count: usize,
    wants_strings: bool,
}

fn scan_options<'a>(arguments: &[&'a [u8]]) -> Result<ScanOptions<'a>, CommandError> {
    let [cursor, options @ ..] = arguments else { return Err(CommandError::Syntax) };
    let is_number = !cursor.is_empty() && cursor.len() <= 20 && cursor.iter().all(u8::is_ascii_digit);
    let cursor: Option<u64> =
        std::str::from_utf8(cursor).ok().filter(|_| is_number).and_then(|c| c.parse().ok());
    let cursor = cursor.ok_or(CommandError::InvalidCursor)?;
    // A cursor that was never given out is at the end.
    let slot = usize::try_from(cursor).unwrap_or(SLOT_COUNT).min(SLOT_COUNT);
    let mut parsed = ScanOptions { slot, pattern: None, count: 10, wants_strings: true };
    let (pairs, rest) = options.as_chunks::<2>();
    for [option, value] in pairs {
        match () {
            () if is(option, "COUNT") => {
                let count = parse_integer(value)?;
                if count < 1 {
                    return Err(CommandError::Syntax);
                }
                parsed.count = usize::try_from(count).unwrap_or(usize::MAX);
            }
            () if is(option, "MATCH") => parsed.pattern = Some(value),
            () if is(option, "TYPE") => parsed.wants_strings = is(value, "string"),
            () => return Err(CommandError::Syntax),
        }
    }
    if rest.is_empty() { Ok(parsed) } else { Err(CommandError::Syntax) }
}

fn check_scan(arguments: &[&[u8]]) -> Result<(), CommandError> {
    scan_options(arguments).map(|_| ())
}

fn scan(store: &Store, arguments: &[&[u8]]) -> Answer {
    // However large a count is asked for, the loop is not held up longer than this takes.
    const LOOKED_AT_MAX: usize = 1024;
    const STEPS_MAX: u64 = 1 << 24;
    let options = scan_options(arguments)?;
    let mut budget = StepBudget(STEPS_MAX);
    let (mut slot, mut looked_at, mut found) = (options.slot, 0, Vec::new());
    while slot < SLOT_COUNT && looked_at < options.count.min(LOOKED_AT_MAX) {
        for item in store.keys.sorted_items_of(slot) {
            let key = item.key();
            looked_at += 1;
            let fits = match options.pattern {
                None => true,
                Some(pattern) => {
                    matches(pattern, key, &mut budget).map_err(|_| CommandError::PatternTooCostly)?
                }
            };
            if fits && options.wants_strings {
                found.push(Reply::bulk(key));
            }
        }
        slot += 1;
    }
    let mut cursor = Vec::new();
    decimal::push(&mut cursor, i64::try_from(slot % SLOT_COUNT).unwrap_or(0));
    Ok(Reply::Array(vec![Reply::Bulk(cursor.into()), Reply::Array(found)]))
}

fn randomkey(store: &Store, _: &[&[u8]]) -> Answer {
    let drawn = store.draw();
    let place = |drawn: u64, count: usize| usize::try_from(drawn % count.max(1) as u64).unwrap_or(0);
    let first = place(drawn, SLOT_COUNT);
    for slot in (first..SLOT_COUNT).chain(0..first) {
        let mut keys: Vec<&[u8]> = store.keys.items_of(slot).map(Item::key).collect();
        if !keys.is_empty() {
            let place = place(drawn >> 14, keys.len());
            return Ok(Reply::bulk(keys.select_nth_unstable(place).1));
        }
    }
    Ok(Reply::Nil)
}

fn dbsize(store: &Store, _: &[&[u8]]) -> Answer {
    Ok(count_reply(store.keys.len()))
}
