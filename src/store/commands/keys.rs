//! Whole keys, whatever their value is, and the database as a whole.

use crate::store::command::{Answer, CommandSpec, Group, KeyPositions, Long, Run, When};
use crate::store::error::{CommandError, excerpt};
use crate::store::keyspace::memory_len;
use crate::store::long_read::{LONG_COUNT, Task};
use crate::store::{Applied, EventClass, Store};
use crate::types::{Reply, decimal};

use super::{READ, WRITE, check_database, count_reply, exactly, is, parse_integer};

const FLUSHALL: CommandSpec = CommandSpec {
    name: "FLUSHALL",
    code: 17,
    arity: -1,
    keys: KeyPositions::NONE,
    group: Group::Server,
    usage: "[ASYNC | SYNC]",
    summary: "deletes all keys",
    check: check_flushall,
    run: Run::Write(flushall),
    ..WRITE
};

const EXISTS: CommandSpec = CommandSpec {
    name: "EXISTS",
    code: 4,
    arity: -2,
    keys: KeyPositions::ALL,
    group: Group::Generic,
    usage: "key [key ...]",
    summary: "answers how many of the keys exist, one that is named twice counted twice",
    run: Run::Read(exists),
    long: Some(Long { when: When::Arguments(LONG_COUNT), begin: |_, keys| Task::count(keys) }),
    ..READ
};

pub(crate) static COMMANDS: [CommandSpec; 10] = [
    EXISTS,
    CommandSpec { name: "TOUCH", alias_of: Some("EXISTS"), ..EXISTS },
    FLUSHALL,
    CommandSpec { name: "FLUSHDB", alias_of: Some("FLUSHALL"), ..FLUSHALL },
    CommandSpec {
        name: "TYPE",
        code: 35,
        group: Group::Generic,
        summary: "answers what kind of value a key has: string, or none if it is missing",
        run: Run::Read(type_of),
        ..READ
    },
    CommandSpec {
        name: "RENAME",
        code: 38,
        arity: 3,
        keys: KeyPositions { first: 1, last: 2, step: 1 },
        group: Group::Generic,
        usage: "key newkey",
        summary: "gives a key another name, in place of the key that had it",
        run: Run::Write(rename),
        ..WRITE
    },
    CommandSpec {
        name: "RENAMENX",
        code: 39,
        arity: 3,
        keys: KeyPositions { first: 1, last: 2, step: 1 },
        group: Group::Generic,
        usage: "key newkey",
        summary: "gives a key another name if no key has it, and answers whether it did",
        run: Run::Write(renamenx),
        ..WRITE
    },
    CommandSpec {
        name: "COPY",
        code: 40,
        arity: -3,
        keys: KeyPositions { first: 1, last: 2, step: 1 },
        group: Group::Generic,
        usage: "source destination [DB 0] [REPLACE]",
        summary: "copies a key with its time to live and answers whether it did; REPLACE: over an existing one too",
        check: check_copy,
        run: Run::Write(copy),
        ..WRITE
    },
    CommandSpec {
        name: "OBJECT",
        code: 50,
        arity: -2,
        subcommands: &[("ENCODING", 3), ("FREQ", 3), ("IDLETIME", 3), ("REFCOUNT", 3), ("HELP", 2)],
        keys: KeyPositions { first: 2, last: 2, step: 1 },
        group: Group::Generic,
        usage: "ENCODING | REFCOUNT | IDLETIME | FREQ key",
        summary: "answers how Redis would keep a value",
        check: check_object,
        run: Run::Read(object),
        ..READ
    },
    CommandSpec {
        name: "MEMORY",
        code: 65,
        arity: -2,
        subcommands: &[("USAGE", -3)],
        keys: KeyPositions { first: 2, last: 2, step: 1 },
        group: Group::Server,
        usage: "USAGE key [SAMPLES count]",
        summary: "answers about how many bytes of memory a key takes",
        check: check_memory,
        run: Run::Read(memory),
        ..READ
    },
];

fn exists(store: &Store, arguments: &[&[u8]]) -> Answer {
    Ok(count_reply(arguments.iter().filter(|key| store.keys.get(key).is_some()).count()))
}

fn check_flushall(arguments: &[&[u8]]) -> Result<(), CommandError> {
    match arguments {
        [] => Ok(()),
        [how] if is(how, "ASYNC") || is(how, "SYNC") => Ok(()),
        _ => Err(CommandError::Syntax),
    }
}

fn flushall(store: &mut Store, _: Applied, _: &[&[u8]]) -> Answer {
    store.keys.clear();
    Ok(Reply::OK)
}

fn type_of(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    Ok(Reply::Status(if store.keys.get(key).is_some() { "string" } else { "none" }))
}

/// Moves a key. Says whether it did, which it does not if the name is taken and `over` is false.
fn move_to(store: &mut Store, at: Applied, from: &[u8], to: &[u8], over: bool) -> Result<bool, CommandError> {
    if store.keys.get(from).is_none() {
        return Err(CommandError::NoSuchKey);
    }
    if from == to {
        return Ok(over);
    }
    if !over && store.keys.get(to).is_some() {
        return Ok(false);
    }
    let item = store.keys.remove(from).ok_or(CommandError::NoSuchKey)?;
    let deadline = item.deadline();
    store.keys.put(item.with(to, at.index, deadline));
    store.note(EventClass::Generic, "rename_from", from);
    store.note(EventClass::Generic, "rename_to", to);
    Ok(true)
}

fn rename(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [from, to] = exactly(arguments)?;
    move_to(store, at, from, to, true).map(|_| Reply::OK)
}

fn renamenx(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [from, to] = exactly(arguments)?;
    move_to(store, at, from, to, false).map(|moved| Reply::Integer(i64::from(moved)))
}

/// Whether `COPY` may replace.
fn copy_options(arguments: &[&[u8]]) -> Result<bool, CommandError> {
    let [from, to, options @ ..] = arguments else { return Err(CommandError::Syntax) };
    let (mut over, mut options) = (false, options);
    loop {
        match options {
            [] => break,
            [option, rest @ ..] if is(option, "REPLACE") => {
                over = true;
                options = rest;
            }
            [option, index, rest @ ..] if is(option, "DB") => {
                check_database(index)?;
                options = rest;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    if from == to { Err(CommandError::SameKey) } else { Ok(over) }
}

fn check_copy(arguments: &[&[u8]]) -> Result<(), CommandError> {
    copy_options(arguments).map(|_| ())
}

fn copy(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let over = copy_options(arguments)?;
    let [from, to, ..] = arguments else { return Err(CommandError::Syntax) };
    let Some(item) = store.keys.get(from) else { return Ok(Reply::Integer(0)) };
    if !over && store.keys.get(to).is_some() {
        return Ok(Reply::Integer(0));
    }
    let copy = item.with(to, at.index, item.deadline());
    store.keys.put(copy);
    store.note(EventClass::Generic, "copy_to", to);
    Ok(Reply::Integer(1))
}

fn unknown(command: &'static str, found: &[u8]) -> CommandError {
    CommandError::UnknownSubcommand { command, found: excerpt(found, 128).into() }
}

const OBJECT_HELP: [&str; 11] = [
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
];

const OBJECT_HELP_END: [&str; 4] = [
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

fn check_object(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [what, rest @ ..] = arguments else { return Err(CommandError::Syntax) };
    if is(what, "HELP") && rest.is_empty() {
        return Ok(());
    }
    for word in ["ENCODING", "REFCOUNT", "IDLETIME", "FREQ", "HELP"] {
        if is(what, word) {
            let name = format!("object|{}", word.to_ascii_lowercase()).into();
            let takes = usize::from(word != "HELP");
            return if rest.len() == takes { Ok(()) } else { Err(CommandError::WrongArity { name }) };
        }
    }
    Err(unknown("OBJECT", what))
}

fn object(store: &Store, arguments: &[&[u8]]) -> Answer {
    // The longest string that Redis keeps in one piece with its head.
    const EMBEDDED_LEN_MAX: usize = 44;
    let [what, key] = match arguments {
        [what, key] => [*what, *key],
        _ => {
            let lines = OBJECT_HELP.iter().chain(&OBJECT_HELP_END);
            return Ok(Reply::Array(lines.map(|line| Reply::Status(line)).collect()));
        }
    };
    let Some(value) = store.keys.value(key) else { return Ok(Reply::Nil) };
    Ok(match () {
        () if is(what, "ENCODING") && decimal::parse(value).is_some() => Reply::bulk(b"int"),
        () if is(what, "ENCODING") && value.len() <= EMBEDDED_LEN_MAX => Reply::bulk(b"embstr"),
        () if is(what, "ENCODING") => Reply::bulk(b"raw"),
        () if is(what, "REFCOUNT") => Reply::Integer(1),
        () if is(what, "IDLETIME") => Reply::Integer(0),
        () => return Err(CommandError::NoFrequencies),
    })
}

fn check_memory(arguments: &[&[u8]]) -> Result<(), CommandError> {
    match arguments {
        [what] if is(what, "USAGE") => Err(CommandError::WrongArity { name: "memory|usage".into() }),
        [what, _, options @ ..] if is(what, "USAGE") => {
            let mut rest = options;
            // From left to right: the first fault is told.
            while let [option, after @ ..] = rest {
                rest = match after {
                    [count, after @ ..] if is(option, "SAMPLES") && parse_integer(count)? >= 0 => after,
                    _ => return Err(CommandError::Syntax),
                };
            }
            Ok(())
        }
        [what, ..] => Err(unknown("MEMORY", what)),
        [] => Err(CommandError::Syntax),
    }
}

fn memory(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [_, key, ..] = arguments else { return Err(CommandError::Syntax) };
    let Some(item) = store.keys.get(key) else { return Ok(Reply::Nil) };
    Ok(count_reply(memory_len(item)))
}
