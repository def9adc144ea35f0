//! Finding keys: `KEYS`, `SCAN` and their relatives.
//!
//! The key space lists its keys in an order that differs from node to node. That must not show: whoever lists here
//! sorts, and whether a budget runs out depends on sums over all keys only.
//!
//! A cursor of `SCAN` is the number of the hash slot that is next, so it means the same on every node and stays good
//! for ever; a key that is there from the first to the last step is told exactly once.

use crate::store::command::{Answer, CommandSpec, Group, KeyPositions, Long, Run};
use crate::store::error::CommandError;
use crate::store::under_way::work_of;
use crate::store::{LongRead, SLOT_COUNT, StepBudget, Store, glob_fits};
use crate::types::{Item, Reply, decimal};

use super::{READ, count_reply, exactly, is, parse_integer};

/// So many steps of a pattern take about as long as a look at a key.
const STEPS_PER_KEY: u64 = 64;
/// So many slots without keys do.
const SLOTS_PER_UNIT: usize = 16;

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
    Ok(LongRead::find(&store.keys, pattern).run(&store.keys))
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
    // After so many steps of the pattern the next slot is left to the next call.
    const STEPS_ENOUGH: u64 = 1 << 16;
    // A cursor cannot point into a slot. If one takes more than these and what its keys cost anyway, it is refused.
    const STEPS_MAX: u64 = 1 << 20;
    let options = scan_options(arguments)?;
    let (mut slot, mut looked_at, mut steps, mut found) = (options.slot, 0, 0, Vec::new());
    while slot < SLOT_COUNT && looked_at < options.count.min(LOOKED_AT_MAX) && steps < STEPS_ENOUGH {
        let items = store.keys.sorted_items_of(slot);
        let steps_max = STEPS_MAX + STEPS_PER_KEY * items.len() as u64;
        let mut budget = StepBudget(steps_max);
        for item in items {
            let key = item.key();
            looked_at += 1;
            let fits = match options.pattern {
                None => true,
                Some(pattern) => glob_fits(pattern, key, &mut budget)?,
            };
            if fits && options.wants_strings {
                found.push(Reply::bulk(key));
            }
        }
        steps += steps_max - budget.0;
        slot += 1;
    }
    store.keys.work().count(work_of(slot - options.slot, SLOTS_PER_UNIT) + steps / STEPS_PER_KEY);
    let mut cursor = Vec::new();
    decimal::push(&mut cursor, i64::try_from(slot % SLOT_COUNT).unwrap_or(0));
    Ok(Reply::Array(vec![Reply::Bulk(cursor.into()), Reply::Array(found)]))
}

fn randomkey(store: &Store, _: &[&[u8]]) -> Answer {
    let drawn = store.draw();
    let place = |drawn: u64, count: usize| usize::try_from(drawn % count.max(1) as u64).unwrap_or(0);
    let first = place(drawn, SLOT_COUNT);
    for (passed, slot) in (first..SLOT_COUNT).chain(0..first).enumerate() {
        let mut keys: Vec<&[u8]> = store.keys.items_of(slot).map(Item::key).collect();
        if !keys.is_empty() {
            store.keys.work().count(work_of(passed, SLOTS_PER_UNIT) + keys.len() as u64);
            let place = place(drawn >> 14, keys.len());
            return Ok(Reply::bulk(keys.select_nth_unstable(place).1));
        }
    }
    Ok(Reply::Nil)
}

fn dbsize(store: &Store, _: &[&[u8]]) -> Answer {
    Ok(count_reply(store.keys.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Limits;
    use crate::types::Index;

    /// One step of SCAN with a large count: the keys, and the next cursor.
    fn step(store: &Store, cursor: &str, pattern: &str) -> Result<(Vec<Reply>, String), CommandError> {
        let arguments = [cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", b"1000"];
        let Reply::Array(parts) = scan(store, &arguments)? else { panic!("an array") };
        let [Reply::Bulk(next), Reply::Array(found)] = &parts[..] else { panic!("cursor and keys") };
        Ok((found.clone(), String::from_utf8(next.to_vec()).expect("a number")))
    }

    #[test]
    fn a_costly_pattern_makes_short_steps_and_all_is_found() {
        let mut store = Store::new(Limits::default(), 1);
        for i in 0..100 {
            let text = if i % 10 == 0 { "b" } else { "" };
            store.keys.set(format!("{i}{}{text}", "a".repeat(2_000)).as_bytes(), b"", Index(1));
        }
        let pattern = "*".to_owned() + &"a".repeat(50) + "b";
        let (mut cursor, mut steps, mut found) = ("0".to_owned(), 0, Vec::new());
        while steps == 0 || cursor != "0" {
            let (keys, next) = step(&store, &cursor, &pattern).expect("not too costly");
            found.extend(keys);
            (cursor, steps) = (next, steps + 1);
        }
        assert_eq!(found.len(), 10);
        assert!((80..=101).contains(&steps), "{steps} steps");
        assert_eq!(step(&store, "0", "*").map(|(keys, next)| (keys.len(), next)), Ok((100, "0".to_owned())));
        let hopeless = "*".to_owned() + &"a".repeat(1_000) + "b";
        store.keys.set(&[b'a'; 60_000], b"", Index(1));
        let mut cursor = "0".to_owned();
        let refused = loop {
            match step(&store, &cursor, &hopeless) {
                Ok((_, next)) => cursor = next,
                Err(error) => break error,
            }
            assert_ne!(cursor, "0", "it is refused on the way");
        };
        assert_eq!(refused, CommandError::PatternTooCostly);
    }
}
