//! Parts of values: `APPEND`, `GETRANGE`, `SETRANGE`.

use crate::store::command::{Answer, CommandSpec, Run};
use crate::store::error::CommandError;
use crate::store::{Applied, EventClass, Store};
use crate::types::Reply;

use super::{READ, WRITE, count_reply, exactly, grown_len, parse_integer, value_reply};

const GETRANGE: CommandSpec = CommandSpec {
    name: "GETRANGE",
    code: 26,
    arity: 4,
    usage: "key start end",
    summary: "answers the bytes of a value from one place to another, both included; negative: from the end",
    check: check_getrange,
    run: Run::Read(getrange),
    ..READ
};

pub(crate) static COMMANDS: [CommandSpec; 4] = [
    CommandSpec {
        name: "APPEND",
        code: 9,
        arity: 3,
        usage: "key value",
        summary: "puts bytes behind the value of a key and answers the new length",
        run: Run::Write(append),
        ..WRITE
    },
    GETRANGE,
    CommandSpec { name: "SUBSTR", alias_of: Some("GETRANGE"), ..GETRANGE },
    CommandSpec {
        name: "SETRANGE",
        code: 27,
        arity: 4,
        usage: "key offset value",
        summary: "writes bytes over a value from a place on, zeros before it if need be, and answers the new length",
        check: check_setrange,
        run: Run::Write(setrange),
        ..WRITE
    },
];

fn append(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, tail] = exactly(arguments)?;
    let head = store.keys.value(key).unwrap_or_default();
    let len = grown_len(head.len(), tail.len())?;
    let value = [head, tail].concat();
    store.keys.update(key, &value, at.index);
    store.note(EventClass::String, "append", key);
    Ok(count_reply(len))
}

fn check_getrange(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, start, end] = exactly(arguments)?;
    parse_integer(start)?;
    parse_integer(end).map(|_| ())
}

fn getrange(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key, start, end] = exactly(arguments)?;
    let (start, end) = (parse_integer(start)?, parse_integer(end)?);
    let Some(item) = store.keys.get(key) else { return Ok(Reply::bulk(b"")) };
    let value = item.value();
    // As Redis: only of two negative places the order is looked at before they are brought into range.
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::bulk(b""));
    }
    Ok(match inside(start, end, value.len()) {
        Some((first, last)) if last - first + 1 == value.len() => value_reply(Some(item)),
        Some((first, last)) => Reply::bulk(&value[first..=last]),
        None => Reply::bulk(b""),
    })
}

/// First and last of the places that are meant, or `None` if there are none. Negative ones count from the end.
pub(super) fn inside(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let from_end = |place: i64| {
        if place >= 0 {
            usize::try_from(place).unwrap_or(usize::MAX)
        } else {
            let back = usize::try_from(place.unsigned_abs()).unwrap_or(usize::MAX);
            len.saturating_sub(back)
        }
    };
    let first = from_end(start);
    let last = from_end(end).min(len.checked_sub(1)?);
    (first <= last).then_some((first, last))
}

fn check_setrange(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, offset, _] = exactly(arguments)?;
    if parse_integer(offset)? < 0 { Err(CommandError::Offset) } else { Ok(()) }
}

fn setrange(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, offset, part] = exactly(arguments)?;
    let offset = usize::try_from(parse_integer(offset)?).map_err(|_| CommandError::Offset)?;
    let old = store.keys.value(key).unwrap_or_default();
    if part.is_empty() {
        return Ok(count_reply(old.len()));
    }
    let end = grown_len(offset, part.len())?;
    let mut value = old.to_vec();
    value.resize(end.max(old.len()), 0);
    value[offset..end].copy_from_slice(part);
    let len = value.len();
    store.keys.update(key, &value, at.index);
    store.note(EventClass::String, "setrange", key);
    Ok(count_reply(len))
}
