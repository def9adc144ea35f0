//! Values as strings of bytes: `SET`, `GET` and their relatives.

use std::sync::Arc;

use crate::store::command::{Answer, Class, CommandSpec, Group, KeyPositions, Run, no_check};
use crate::store::error::CommandError;
use crate::store::{Applied, Store};
use crate::types::{Reply, limits};

use super::{count_reply, exactly};

const SET: CommandSpec = CommandSpec {
    name: "SET",
    code: 1,
    arity: -3,
    class: Class::Write,
    keys: KeyPositions::ONE,
    group: Group::String,
    usage: "key value [NX | XX] [GET]",
    summary: "sets a key to a value; NX: only if it is missing, XX: only if it exists, GET: answers the old value",
    alias_of: None,
    check: check_set,
    run: Run::Write(set),
};

pub(crate) static COMMANDS: [CommandSpec; 10] = [
    SET,
    CommandSpec { name: "PUT", alias_of: Some("SET"), ..SET },
    CommandSpec {
        name: "GET",
        code: 2,
        arity: 2,
        class: Class::Read,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key",
        summary: "answers the value of a key",
        alias_of: None,
        check: no_check,
        run: Run::Read(get),
    },
    CommandSpec {
        name: "APPEND",
        code: 9,
        arity: 3,
        class: Class::Write,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key value",
        summary: "puts bytes behind the value of a key and answers the new length",
        alias_of: None,
        check: no_check,
        run: Run::Write(append),
    },
    CommandSpec {
        name: "STRLEN",
        code: 10,
        arity: 2,
        class: Class::Read,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key",
        summary: "answers the length of the value of a key in bytes, 0 for a missing one",
        alias_of: None,
        check: no_check,
        run: Run::Read(strlen),
    },
    CommandSpec {
        name: "GETSET",
        code: 11,
        arity: 3,
        class: Class::Write,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key value",
        summary: "sets a key to a value and answers the old one",
        alias_of: None,
        check: no_check,
        run: Run::Write(getset),
    },
    CommandSpec {
        name: "SETNX",
        code: 12,
        arity: 3,
        class: Class::Write,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key value",
        summary: "sets a missing key to a value and answers 1; answers 0 if the key exists",
        alias_of: None,
        check: no_check,
        run: Run::Write(setnx),
    },
    CommandSpec {
        name: "MSET",
        code: 13,
        arity: -3,
        class: Class::Write,
        keys: KeyPositions::PAIRS,
        group: Group::String,
        usage: "key value [key value ...]",
        summary: "sets several keys at once",
        alias_of: None,
        check: check_mset,
        run: Run::Write(mset),
    },
    CommandSpec {
        name: "MGET",
        code: 14,
        arity: -2,
        class: Class::Read,
        keys: KeyPositions::ALL,
        group: Group::String,
        usage: "key [key ...]",
        summary: "answers the values of several keys",
        alias_of: None,
        check: no_check,
        run: Run::Read(mget),
    },
    CommandSpec {
        name: "CAS",
        code: 18,
        arity: 4,
        class: Class::Write,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key expected new",
        summary: "sets a key to a new value if its value is the expected one; answers OK, or nothing if the value \
                  is another or the key is missing",
        alias_of: None,
        check: no_check,
        run: Run::Write(cas),
    },
];

/// A value, or nothing.
fn value_reply(value: Option<Arc<[u8]>>) -> Reply {
    value.map_or(Reply::Nil, Reply::Bulk)
}

/// On which state of the key `SET` insists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Missing,
    Exists,
}

#[derive(Clone, Copy, Default)]
struct SetOptions {
    condition: Option<Condition>,
    /// Answer the old value instead of `OK`.
    get: bool,
}

fn set_options(options: &[&[u8]]) -> Result<SetOptions, CommandError> {
    let mut parsed = SetOptions::default();
    for option in options {
        let condition = if option.eq_ignore_ascii_case(b"NX") {
            Condition::Missing
        } else if option.eq_ignore_ascii_case(b"XX") {
            Condition::Exists
        } else if option.eq_ignore_ascii_case(b"GET") {
            parsed.get = true;
            continue;
        } else {
            return Err(CommandError::Syntax);
        };
        if parsed.condition.is_some_and(|other| other != condition) {
            return Err(CommandError::Syntax);
        }
        parsed.condition = Some(condition);
    }
    Ok(parsed)
}

fn check_set(arguments: &[&[u8]]) -> Result<(), CommandError> {
    set_options(arguments.get(2..).unwrap_or_default()).map(|_| ())
}

fn set(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, value, options @ ..] = arguments else {
        return Err(CommandError::Syntax);
    };
    let options = set_options(options)?;
    let met = match options.condition {
        None => true,
        Some(Condition::Missing) => store.keys.get(key).is_none(),
        Some(Condition::Exists) => store.keys.get(key).is_some(),
    };
    let old =
        if met { store.keys.set(key, Arc::from(*value), at.index) } else { store.keys.value(key).cloned() };
    Ok(match (options.get, met) {
        (true, _) => value_reply(old),
        (false, true) => Reply::OK,
        (false, false) => Reply::Nil,
    })
}

fn get(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    Ok(value_reply(store.keys.value(key).cloned()))
}

/// What a value is allowed to grow to depends on nothing that an operator sets, so it is the same on all nodes.
fn grown_len(head: usize, tail: usize) -> Result<usize, CommandError> {
    let len = head.saturating_add(tail);
    if len > limits::VALUE_LEN_CEILING { Err(CommandError::ValueTooLong) } else { Ok(len) }
}

fn append(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, tail] = exactly(arguments)?;
    let head = store.keys.value(key).map_or(&[][..], |value| value);
    let len = grown_len(head.len(), tail.len())?;
    let value = Arc::from([head, tail].concat());
    store.keys.set(key, value, at.index);
    Ok(count_reply(len))
}

fn strlen(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    Ok(count_reply(store.keys.value(key).map_or(0, |value| value.len())))
}

fn getset(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, value] = exactly(arguments)?;
    Ok(value_reply(store.keys.set(key, Arc::from(value), at.index)))
}

fn setnx(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, value] = exactly(arguments)?;
    if store.keys.get(key).is_some() {
        return Ok(Reply::Integer(0));
    }
    store.keys.set(key, Arc::from(value), at.index);
    Ok(Reply::Integer(1))
}

fn check_mset(arguments: &[&[u8]]) -> Result<(), CommandError> {
    if !arguments.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity { name: "mset".into() });
    }
    Ok(())
}

fn mset(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let (pairs, []) = arguments.as_chunks::<2>() else {
        return Err(CommandError::Syntax);
    };
    for [key, value] in pairs {
        store.keys.set(key, Arc::from(*value), at.index);
    }
    Ok(Reply::OK)
}

fn mget(store: &Store, arguments: &[&[u8]]) -> Answer {
    let mut len = 0;
    let mut values = Vec::with_capacity(arguments.len());
    for key in arguments {
        let value = store.keys.value(key).cloned();
        len += value.as_ref().map_or(0, |value| value.len());
        if len > limits::REPLY_LEN_MAX {
            return Err(CommandError::ReplyTooLong);
        }
        values.push(value_reply(value));
    }
    Ok(Reply::Array(values))
}

fn cas(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, expected, new] = exactly(arguments)?;
    if store.keys.value(key).is_none_or(|value| **value != *expected) {
        return Ok(Reply::Nil);
    }
    store.keys.set(key, Arc::from(new), at.index);
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_grows_up_to_the_ceiling() {
        assert_eq!(grown_len(limits::VALUE_LEN_CEILING - 1, 1), Ok(limits::VALUE_LEN_CEILING));
        assert_eq!(grown_len(limits::VALUE_LEN_CEILING, 1), Err(CommandError::ValueTooLong));
    }
}
