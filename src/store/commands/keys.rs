//! Whole keys, whatever their value is, and the database as a whole.

use crate::store::command::{Answer, Class, CommandSpec, Group, KeyPositions, Run, no_check};
use crate::store::error::CommandError;
use crate::store::glob::{StepBudget, matches};
use crate::store::{Applied, Store};
use crate::types::{Reply, limits};

use super::{count_reply, exactly};

/// Steps that one `KEYS` may take, about a second's work: `*name*` over some ten million keys.
const KEYS_STEPS_MAX: u64 = 1 << 30;

const FLUSHALL: CommandSpec = CommandSpec {
    name: "FLUSHALL",
    code: 17,
    arity: -1,
    class: Class::Write,
    keys: KeyPositions::NONE,
    group: Group::Server,
    usage: "[ASYNC | SYNC]",
    summary: "deletes all keys",
    alias_of: None,
    check: check_flushall,
    run: Run::Write(flushall),
};

pub(crate) static COMMANDS: [CommandSpec; 6] = [
    CommandSpec {
        name: "DEL",
        code: 3,
        arity: -2,
        class: Class::Write,
        keys: KeyPositions::ALL,
        group: Group::Generic,
        usage: "key [key ...]",
        summary: "deletes keys and answers how many there were",
        alias_of: None,
        check: no_check,
        run: Run::Write(del),
    },
    CommandSpec {
        name: "EXISTS",
        code: 4,
        arity: -2,
        class: Class::Read,
        keys: KeyPositions::ALL,
        group: Group::Generic,
        usage: "key [key ...]",
        summary: "answers how many of the keys exist, one that is named twice counted twice",
        alias_of: None,
        check: no_check,
        run: Run::Read(exists),
    },
    CommandSpec {
        name: "KEYS",
        code: 15,
        arity: 2,
        class: Class::Read,
        keys: KeyPositions::NONE,
        group: Group::Generic,
        usage: "pattern",
        summary: "answers all keys that fit a pattern, in the order of their bytes: * ? [a-z] [^a] \\x",
        alias_of: None,
        check: no_check,
        run: Run::Read(keys),
    },
    CommandSpec {
        name: "DBSIZE",
        code: 16,
        arity: 1,
        class: Class::Read,
        keys: KeyPositions::NONE,
        group: Group::Server,
        usage: "",
        summary: "answers how many keys there are",
        alias_of: None,
        check: no_check,
        run: Run::Read(dbsize),
    },
    FLUSHALL,
    CommandSpec { name: "FLUSHDB", alias_of: Some("FLUSHALL"), ..FLUSHALL },
];

fn del(store: &mut Store, _: Applied, arguments: &[&[u8]]) -> Answer {
    Ok(count_reply(arguments.iter().filter(|key| store.keys.remove(key)).count()))
}

fn exists(store: &Store, arguments: &[&[u8]]) -> Answer {
    Ok(count_reply(arguments.iter().filter(|key| store.keys.get(key).is_some()).count()))
}

/// The key space lists its keys in an order of its own. That must not show: the reply is sorted, and whether the
/// budget or the space for the reply runs out depends on sums over all keys only.
fn keys(store: &Store, arguments: &[&[u8]]) -> Answer {
    // What an element costs in a dialect beside its bytes, at most.
    const ELEMENT_OVERHEAD: usize = 16;
    let [pattern] = exactly(arguments)?;
    let mut budget = StepBudget(KEYS_STEPS_MAX);
    let mut len: usize = 0;
    let mut found = Vec::new();
    let mut overflow = false;
    for (key, _) in store.keys.iter() {
        if matches(pattern, key, &mut budget).map_err(|_| CommandError::PatternTooCostly)? {
            len += key.len() + ELEMENT_OVERHEAD;
            overflow |= len > limits::REPLY_LEN_MAX;
            if !overflow {
                found.push(key);
            }
        }
    }
    if overflow {
        return Err(CommandError::ReplyTooLong);
    }
    found.sort_unstable();
    Ok(Reply::Array(found.into_iter().map(Reply::bulk).collect()))
}

fn dbsize(store: &Store, _: &[&[u8]]) -> Answer {
    Ok(count_reply(store.keys.len()))
}

fn check_flushall(arguments: &[&[u8]]) -> Result<(), CommandError> {
    match arguments {
        [] => Ok(()),
        [how] if how.eq_ignore_ascii_case(b"ASYNC") || how.eq_ignore_ascii_case(b"SYNC") => Ok(()),
        _ => Err(CommandError::Syntax),
    }
}

fn flushall(store: &mut Store, _: Applied, _: &[&[u8]]) -> Answer {
    store.keys.clear();
    Ok(Reply::OK)
}
