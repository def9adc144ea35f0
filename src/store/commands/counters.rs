//! Values as numbers in decimal: `INCR` and its relatives.

use crate::store::command::{Answer, CommandSpec, Run};
use crate::store::error::CommandError;
use crate::store::extended::{Extended, Parsed};
use crate::store::{Applied, EventClass, Store};
use crate::types::{Reply, decimal};

use super::{WRITE, exactly, parse_integer};

pub(crate) static COMMANDS: [CommandSpec; 5] = [
    CommandSpec {
        name: "INCR",
        code: 5,
        summary: "adds one to the number at a key, 0 if missing, and answers the sum",
        run: Run::Write(incr),
        ..WRITE
    },
    CommandSpec {
        name: "DECR",
        code: 6,
        summary: "takes one from the number at a key, 0 if missing, and answers the rest",
        run: Run::Write(decr),
        ..WRITE
    },
    CommandSpec {
        name: "INCRBY",
        code: 7,
        arity: 3,
        usage: "key increment",
        summary: "adds to the number at a key, 0 if missing, and answers the sum",
        check: check_incrby,
        run: Run::Write(incrby),
        ..WRITE
    },
    CommandSpec {
        name: "DECRBY",
        code: 8,
        arity: 3,
        usage: "key decrement",
        summary: "takes from the number at a key, 0 if missing, and answers the rest",
        check: check_decrby,
        run: Run::Write(decrby),
        ..WRITE
    },
    CommandSpec {
        name: "INCRBYFLOAT",
        code: 25,
        arity: 3,
        usage: "key increment",
        summary: "adds to the number with a fraction at a key, 0 if missing, and answers the sum",
        run: Run::Write(incrbyfloat),
        ..WRITE
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
    store.keys.update(key, &digits, at.index);
    store.note(EventClass::String, "incrby", key);
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

fn incrbyfloat(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, increment] = exactly(arguments)?;
    let old = match store.keys.value(key) {
        Some(value) => Extended::parse(value).ok_or(CommandError::NotAFloat)?,
        None => Parsed::Finite(Extended::ZERO),
    };
    let increment = Extended::parse(increment).ok_or(CommandError::NotAFloat)?;
    let (Parsed::Finite(old), Parsed::Finite(increment)) = (old, increment) else {
        return Err(CommandError::NotFinite);
    };
    let Parsed::Finite(sum) = old.add(increment) else {
        return Err(CommandError::NotFinite);
    };
    let text = sum.to_text();
    let reply = Reply::bulk(&text);
    store.keys.update(key, &text, at.index);
    store.note(EventClass::String, "incrbyfloat", key);
    Ok(reply)
}
