//! Values as 64-bit numbers in decimal: `INCR` and its relatives.

use crate::store::command::{Answer, Class, CommandSpec, Group, KeyPositions, Run, no_check};
use crate::store::error::CommandError;
use crate::store::{Applied, Store};
use crate::types::{Reply, decimal};

use super::{exactly, parse_integer};

pub(crate) static COMMANDS: [CommandSpec; 4] = [
    CommandSpec {
        name: "INCR",
        code: 5,
        arity: 2,
        class: Class::Write,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key",
        summary: "adds one to the number at a key, 0 if missing, and answers the sum",
        alias_of: None,
        check: no_check,
        run: Run::Write(incr),
    },
    CommandSpec {
        name: "DECR",
        code: 6,
        arity: 2,
        class: Class::Write,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key",
        summary: "takes one from the number at a key, 0 if missing, and answers the rest",
        alias_of: None,
        check: no_check,
        run: Run::Write(decr),
    },
    CommandSpec {
        name: "INCRBY",
        code: 7,
        arity: 3,
        class: Class::Write,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key increment",
        summary: "adds to the number at a key, 0 if missing, and answers the sum",
        alias_of: None,
        check: check_incrby,
        run: Run::Write(incrby),
    },
    CommandSpec {
        name: "DECRBY",
        code: 8,
        arity: 3,
        class: Class::Write,
        keys: KeyPositions::ONE,
        group: Group::String,
        usage: "key decrement",
        summary: "takes from the number at a key, 0 if missing, and answers the rest",
        alias_of: None,
        check: check_decrby,
        run: Run::Write(decrby),
    },
];

fn add(store: &mut Store, at: Applied, key: &[u8], delta: i64) -> Answer {
    let old = match store.keys.value(key) {
        Some(value) => parse_integer(value)?,
        None => 0,
    };
    let sum = old.checked_add(delta).ok_or(CommandError::Overflow)?;
    let mut digits = Vec::new();
    decimal::push(&mut digits, sum);
    store.keys.set(key, digits.into(), at.index);
    Ok(Reply::Integer(sum))
}

fn incr(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    add(store, at, key, 1)
}

fn decr(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    add(store, at, key, -1)
}

fn check_incrby(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, increment] = exactly(arguments)?;
    parse_integer(increment).map(|_| ())
}

fn incrby(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, increment] = exactly(arguments)?;
    add(store, at, key, parse_integer(increment)?)
}

fn decrement(argument: &[u8]) -> Result<i64, CommandError> {
    parse_integer(argument)?.checked_neg().ok_or(CommandError::DecrementOverflow)
}

fn check_decrby(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, amount] = exactly(arguments)?;
    decrement(amount).map(|_| ())
}

fn decrby(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, amount] = exactly(arguments)?;
    add(store, at, key, decrement(amount)?)
}
