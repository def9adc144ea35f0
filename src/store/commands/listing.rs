//! Finding keys: `KEYS`, `SCAN` and their relatives.
//!
//! The key space lists its keys in an order that differs from node to node. That must not show: whoever lists here
//! sorts, and whether a budget runs out depends on sums over all keys only.
//!
//! A cursor of `SCAN` is the number of the hash slot that is next, so it means the same on every node and stays good
//! for ever; a key that is there from the first to the last step is told exactly once.

use crate::store::command::{Answer, CommandSpec, Group, KeyPositions, Long, Run, When};
use crate::store::error::CommandError;
use crate::store::long_read::Task;
use crate::store::slot_read::{Pick, Scan, ScanOptions, SlotCount, SlotKeys};
use crate::store::{SLOT_COUNT, Store};
use crate::types::decimal;

use super::{READ, count_reply, is, parse_integer};

pub(crate) static COMMANDS: [CommandSpec; 4] = [
    CommandSpec {
        name: "KEYS",
        code: 15,
        keys: KeyPositions::NONE,
        group: Group::Generic,
        usage: "pattern",
        summary: "answers all keys that fit a pattern, in the order of their bytes: * ? [a-z] [^a] \\x",
        run: Run::Read(|store, arguments| Ok(find(store, arguments).run(&store.keys))),
        long: Some(Long { when: When::Arguments(1), begin: find }),
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
        run: Run::Read(|store, arguments| Ok(begin_scan(store, arguments).run(&store.keys))),
        long: Some(Long { when: When::Tried, begin: begin_scan }),
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
        run: Run::Read(|store, _| Ok(begin_randomkey(store, &[]).run(&store.keys))),
        long: Some(Long { when: When::Tried, begin: begin_randomkey }),
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

fn find(_: &Store, arguments: &[&[u8]]) -> Task {
    Task::find(arguments.first().copied().unwrap_or_default())
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

fn begin_scan(_: &Store, arguments: &[&[u8]]) -> Task {
    scan_options(arguments).map_or_else(Task::Refused, |options| Task::Scan(Box::new(Scan::new(options))))
}

fn begin_randomkey(store: &Store, _: &[&[u8]]) -> Task {
    Task::Pick(Pick::new(store.draw()))
}

/// COUNTKEYSINSLOT and GETKEYSINSLOT of `CLUSTER`.
pub(super) fn begin_slot(store: &Store, arguments: &[&[u8]]) -> Task {
    let number = |text: &[u8]| decimal::parse(text).and_then(|number| usize::try_from(number).ok());
    let slot = |text: &[u8]| number(text).filter(|slot| *slot < SLOT_COUNT);
    match arguments {
        [word, text] if is(word, "COUNTKEYSINSLOT") => match slot(text) {
            Some(slot) => Task::SlotCount(SlotCount::new(&store.keys, slot)),
            None => Task::Refused(CommandError::InvalidSlot),
        },
        [word, text, count] if is(word, "GETKEYSINSLOT") => match (slot(text), number(count)) {
            (Some(slot), Some(count)) => Task::SlotKeys(SlotKeys::new(slot, count)),
            _ => Task::Refused(CommandError::InvalidSlotOrCount),
        },
        _ => Task::Refused(CommandError::Syntax),
    }
}

fn dbsize(store: &Store, _: &[&[u8]]) -> Answer {
    Ok(count_reply(store.keys.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Limits;
    use crate::types::{Index, Reply};

    /// One step of SCAN with a large count: the keys, and the next cursor.
    fn step(store: &Store, cursor: &str, pattern: &str) -> Result<(Vec<Reply>, String), CommandError> {
        let arguments = [cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", b"1000"];
        let reply = begin_scan(store, &arguments).run(&store.keys);
        if reply == Reply::from(CommandError::PatternTooCostly) {
            return Err(CommandError::PatternTooCostly);
        }
        let Reply::Array(parts) = reply else { panic!("an array") };
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
