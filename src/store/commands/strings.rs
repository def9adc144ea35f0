//! Values as strings of bytes: `SET`, `GET` and their relatives.

use crate::store::command::{Answer, CommandSpec, KeyPositions, Long, Run, When};
use crate::store::error::CommandError;
use crate::store::long_read::{LONG_COUNT, Task};
use crate::store::under_way::{Piece, Progress};
use crate::store::{Applied, EventClass, Store};
use crate::types::{Millis, Reply, limits};

use super::expiry::{Deadline, Unit};
use super::versions::Condition;
use super::{READ, WRITE, exactly, is, value_reply};

const SET: CommandSpec = CommandSpec {
    name: "SET",
    code: 1,
    arity: -3,
    usage: "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL] \
            [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest | IFREV revision]",
    summary: "sets a key to a value; NX: only if it is missing, XX: only if it exists, GET: answers the old value",
    check: check_set,
    run: Run::Write(set),
    ..WRITE
};

pub(crate) static COMMANDS: [CommandSpec; 14] = [
    SET,
    CommandSpec { name: "PUT", alias_of: Some("SET"), ..SET },
    CommandSpec { name: "GET", code: 2, summary: "answers the value of a key", run: Run::Read(get), ..READ },
    CommandSpec {
        name: "GETSET",
        code: 11,
        arity: 3,
        usage: "key value",
        summary: "sets a key to a value and answers the old one",
        run: Run::Write(getset),
        ..WRITE
    },
    CommandSpec {
        name: "SETNX",
        code: 12,
        arity: 3,
        usage: "key value",
        summary: "sets a missing key to a value and answers 1; answers 0 if the key exists",
        run: Run::Write(setnx),
        ..WRITE
    },
    CommandSpec {
        name: "SETEX",
        code: 23,
        arity: 4,
        usage: "key seconds value",
        summary: "sets a key to a value for some seconds",
        check: check_setex,
        run: Run::Write(setex),
        ..WRITE
    },
    CommandSpec {
        name: "PSETEX",
        code: 24,
        arity: 4,
        usage: "key milliseconds value",
        summary: "sets a key to a value for some milliseconds",
        check: check_psetex,
        run: Run::Write(psetex),
        ..WRITE
    },
    CommandSpec {
        name: "GETDEL",
        code: 21,
        summary: "answers the value of a key and deletes it",
        run: Run::Write(getdel),
        ..WRITE
    },
    CommandSpec {
        name: "GETEX",
        code: 22,
        arity: -2,
        usage: "key [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | PERSIST]",
        summary: "answers the value of a key and sets when it expires",
        check: check_getex,
        run: Run::Write(getex),
        ..WRITE
    },
    CommandSpec {
        name: "MSET",
        code: 13,
        arity: -3,
        keys: KeyPositions::PAIRS,
        usage: "key value [key value ...]",
        summary: "sets several keys at once",
        check: check_mset,
        run: Run::Pieces(begin_mset),
        ..WRITE
    },
    CommandSpec {
        name: "MSETNX",
        code: 20,
        arity: -3,
        keys: KeyPositions::PAIRS,
        usage: "key value [key value ...]",
        summary: "sets several keys at once if none of them exists, and answers whether it did",
        check: check_msetnx,
        run: Run::Pieces(begin_msetnx),
        ..WRITE
    },
    CommandSpec {
        name: "MGET",
        code: 14,
        arity: -2,
        keys: KeyPositions::ALL,
        usage: "key [key ...]",
        summary: "answers the values of several keys",
        run: Run::Read(mget),
        long: Some(Long { when: When::Arguments(LONG_COUNT), begin: |_, keys| Task::values(keys) }),
        ..READ
    },
    CommandSpec {
        name: "CAS",
        code: 18,
        arity: 4,
        usage: "key expected new",
        summary: "sets a key to a new value if its value is the expected one; answers OK, or nothing if the value \
                  is another or the key is missing",
        run: Run::Write(cas),
        ..WRITE
    },
    CommandSpec {
        name: "STRLEN",
        code: 10,
        summary: "answers the length of the value of a key in bytes, 0 for a missing one",
        run: Run::Read(strlen),
        ..READ
    },
];

/// When the new value expires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lifetime<'a> {
    /// Never.
    Endless,
    /// When the old one would have.
    Kept,
    /// At a moment that the client says.
    Until(Deadline<'a>),
}

#[derive(Clone, Copy)]
struct SetOptions<'a> {
    condition: Option<Condition<'a>>,
    /// Answer the old value instead of `OK`.
    get: bool,
    lifetime: Lifetime<'a>,
}

/// The option that says when a value expires, if it is one; its number is not looked at yet.
fn deadline_option<'a>(option: &[u8], value: Option<&&'a [u8]>) -> Option<Deadline<'a>> {
    let text = *value?;
    let (unit, is_absolute) = match () {
        () if is(option, "EX") => (Unit::Seconds, false),
        () if is(option, "PX") => (Unit::Milliseconds, false),
        () if is(option, "EXAT") => (Unit::Seconds, true),
        () if is(option, "PXAT") => (Unit::Milliseconds, true),
        () => return None,
    };
    Some(Deadline { text, unit, is_absolute })
}

/// Whether two options that say when a value expires are the same: then the later one counts, as in Redis.
fn is_same_kind(one: Lifetime<'_>, other: Lifetime<'_>) -> bool {
    match (one, other) {
        (Lifetime::Until(a), Lifetime::Until(b)) => a.unit == b.unit && a.is_absolute == b.is_absolute,
        (a, b) => a == b,
    }
}

fn set_options<'a>(mut options: &[&'a [u8]]) -> Result<SetOptions<'a>, CommandError> {
    let mut parsed = SetOptions { condition: None, get: false, lifetime: Lifetime::Endless };
    while let [option, rest @ ..] = options {
        options = rest;
        if is(option, "GET") {
            parsed.get = true;
            continue;
        }
        if let Some((condition, taken)) = Condition::parse(option, rest)? {
            let same = parsed.condition.is_none_or(|other| other == condition && taken == 0);
            if !same {
                return Err(CommandError::Syntax);
            }
            parsed.condition = Some(condition);
            options = &rest[taken..];
            continue;
        }
        let lifetime = if is(option, "KEEPTTL") {
            Lifetime::Kept
        } else {
            let deadline = deadline_option(option, rest.first()).ok_or(CommandError::Syntax)?;
            options = &rest[1..];
            Lifetime::Until(deadline)
        };
        if parsed.lifetime != Lifetime::Endless && !is_same_kind(parsed.lifetime, lifetime) {
            return Err(CommandError::Syntax);
        }
        parsed.lifetime = lifetime;
    }
    Ok(parsed)
}

fn check_set(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let options = set_options(arguments.get(2..).unwrap_or_default())?;
    if let Lifetime::Until(deadline) = options.lifetime {
        deadline.check("set")?;
    }
    Ok(())
}

fn set(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, value, options @ ..] = arguments else {
        return Err(CommandError::Syntax);
    };
    let options = set_options(options)?;
    let deadline = match options.lifetime {
        Lifetime::Endless => None,
        Lifetime::Kept => store.keys.get(key).and_then(|item| item.deadline()),
        Lifetime::Until(deadline) => Some(deadline.positive(at.now, "set")?),
    };
    let met = options.condition.is_none_or(|condition| condition.is_met(store.keys.get(key)));
    let old = if options.get { store.keys.get(key).cloned() } else { None };
    if met {
        store.keys.set_until(key, value, at.index, deadline);
        store.note(EventClass::String, "set", key);
        if matches!(options.lifetime, Lifetime::Until(_)) {
            store.note(EventClass::Generic, "expire", key);
        }
    }
    Ok(match (options.get, met) {
        (true, _) => value_reply(old.as_ref()),
        (false, true) => Reply::OK,
        (false, false) => Reply::Nil,
    })
}

fn get(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    Ok(value_reply(store.keys.get(key)))
}

fn strlen(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    Ok(super::count_reply(store.keys.get(key).map_or(0, |item| item.value().len())))
}

fn put(store: &mut Store, at: Applied, key: &[u8], value: &[u8]) {
    store.keys.set(key, value, at.index);
    store.note(EventClass::String, "set", key);
}

fn getset(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, value] = exactly(arguments)?;
    let old = store.keys.get(key).cloned();
    put(store, at, key, value);
    Ok(value_reply(old.as_ref()))
}

fn setnx(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, value] = exactly(arguments)?;
    if store.keys.get(key).is_some() {
        return Ok(Reply::Integer(0));
    }
    put(store, at, key, value);
    Ok(Reply::Integer(1))
}

fn check_setex(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, text, _] = exactly(arguments)?;
    Deadline { text, unit: Unit::Seconds, is_absolute: false }.check("setex")
}

fn setex(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    set_for(store, at, arguments, Unit::Seconds, "setex")
}

fn check_psetex(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, text, _] = exactly(arguments)?;
    Deadline { text, unit: Unit::Milliseconds, is_absolute: false }.check("psetex")
}

fn psetex(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    set_for(store, at, arguments, Unit::Milliseconds, "psetex")
}

fn set_for(store: &mut Store, at: Applied, arguments: &[&[u8]], unit: Unit, name: &'static str) -> Answer {
    let [key, text, value] = exactly(arguments)?;
    let deadline = Deadline { text, unit, is_absolute: false }.positive(at.now, name)?;
    store.keys.set_until(key, value, at.index, Some(deadline));
    store.note(EventClass::String, "set", key);
    store.note(EventClass::Generic, "expire", key);
    Ok(Reply::OK)
}

fn getdel(store: &mut Store, _: Applied, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    let old = store.keys.remove(key);
    if old.is_some() {
        store.note(EventClass::Generic, "del", key);
    }
    Ok(value_reply(old.as_ref()))
}

/// What `GETEX` does to the deadline: nothing, take it away, set it.
fn getex_options<'a>(mut options: &[&'a [u8]]) -> Result<Option<Option<Deadline<'a>>>, CommandError> {
    let mut parsed: Option<Option<Deadline<'_>>> = None;
    while let [option, rest @ ..] = options {
        let wanted = if is(option, "PERSIST") {
            options = rest;
            None
        } else {
            let deadline = deadline_option(option, rest.first()).ok_or(CommandError::Syntax)?;
            options = &rest[1..];
            Some(deadline)
        };
        let lifetime = |deadline: Option<Deadline<'a>>| deadline.map_or(Lifetime::Endless, Lifetime::Until);
        if parsed.is_some_and(|earlier| !is_same_kind(lifetime(earlier), lifetime(wanted))) {
            return Err(CommandError::Syntax);
        }
        parsed = Some(wanted);
    }
    Ok(parsed)
}

fn check_getex(arguments: &[&[u8]]) -> Result<(), CommandError> {
    // Whether the number is one is not asked for a missing key.
    getex_options(arguments.get(1..).unwrap_or_default()).map(|_| ())
}

fn getex(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, options @ ..] = arguments else {
        return Err(CommandError::Syntax);
    };
    let change = getex_options(options)?;
    let Some(item) = store.keys.get(key) else { return Ok(Reply::Nil) };
    let (item, old) = (item.clone(), item.deadline());
    let reply = Reply::Bulk(item.value_bytes());
    let deadline: Option<Millis> = match change {
        None => return Ok(reply),
        Some(None) if old.is_none() => return Ok(reply),
        Some(None) => None,
        Some(Some(deadline)) => Some(deadline.positive(at.now, "getex")?),
    };
    store.keys.put(item.with(key, at.index, deadline));
    let name = match deadline {
        None => "persist",
        Some(deadline) if deadline <= at.now => "del",
        Some(_) => "expire",
    };
    store.note(EventClass::Generic, name, key);
    Ok(reply)
}

fn check_pairs(arguments: &[&[u8]], name: &str) -> Result<(), CommandError> {
    if !arguments.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity { name: name.into() });
    }
    Ok(())
}

fn check_mset(arguments: &[&[u8]]) -> Result<(), CommandError> {
    check_pairs(arguments, "mset")
}

/// `MSET` and `MSETNX`: first the look at all keys, if it has to be, then the writes.
#[derive(Debug)]
pub(crate) struct Assignment {
    only_missing: bool,
    /// How many pairs have been looked at, and written.
    looked_at: usize,
    written: usize,
}

impl Assignment {
    pub(crate) fn go_on(&mut self, store: &mut Store, piece: Piece, arguments: &[&[u8]]) -> Option<Answer> {
        let (pairs, []) = arguments.as_chunks::<2>() else {
            return Some(Err(CommandError::Syntax));
        };
        while let Some([key, _]) = pairs.get(self.looked_at).filter(|_| self.only_missing) {
            if store.keys.get(key).is_some() {
                return Some(Ok(Reply::Integer(0)));
            }
            self.looked_at += 1;
            if piece.ends(store, pairs.len()) {
                return None;
            }
        }
        while let Some([key, value]) = pairs.get(self.written) {
            put(store, piece.at, key, value);
            self.written += 1;
            if piece.ends(store, pairs.len() - self.written) {
                return None;
            }
        }
        Some(Ok(if self.only_missing { Reply::Integer(1) } else { Reply::OK }))
    }
}

fn begin_mset(_: &[&[u8]]) -> Result<Progress, CommandError> {
    Ok(Progress::Assignment(Assignment { only_missing: false, looked_at: 0, written: 0 }))
}

fn check_msetnx(arguments: &[&[u8]]) -> Result<(), CommandError> {
    check_pairs(arguments, "msetnx")
}

fn begin_msetnx(_: &[&[u8]]) -> Result<Progress, CommandError> {
    Ok(Progress::Assignment(Assignment { only_missing: true, looked_at: 0, written: 0 }))
}

fn mget(store: &Store, arguments: &[&[u8]]) -> Answer {
    let mut len = 0;
    let mut values = Vec::with_capacity(arguments.len());
    for key in arguments {
        let item = store.keys.get(key);
        len += item.map_or(0, |item| item.value().len());
        if len > limits::REPLY_LEN_MAX {
            return Err(CommandError::ReplyTooLong);
        }
        values.push(value_reply(item));
    }
    Ok(Reply::Array(values))
}

fn cas(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, expected, new] = exactly(arguments)?;
    if store.keys.value(key).is_none_or(|value| value != expected) {
        return Ok(Reply::Nil);
    }
    put(store, at, key, new);
    Ok(Reply::OK)
}
