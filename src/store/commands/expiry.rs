//! When keys expire: `EXPIRE`, `TTL` and their relatives.
//!
//! A time to live is counted from the replicated time of the command that sets it, so all nodes have the same
//! deadline, whatever their clocks say. A key with a deadline that has passed is as good as deleted from the first
//! command on that comes at or after it in the total order.

use crate::store::command::{Answer, CommandSpec, Group, Run};
use crate::store::error::{CommandError, excerpt};
use crate::store::{Applied, EventClass, Store};
use crate::types::{Millis, Reply};

use super::{READ, WRITE, exactly, is, parse_integer};

const EXPIRE: CommandSpec = CommandSpec {
    name: "EXPIRE",
    code: 41,
    arity: -3,
    group: Group::Generic,
    usage: "key seconds [NX | XX | GT | LT]",
    summary: "sets in how many seconds a key expires and answers whether it did; NX: only if it would not, XX: only \
              if it would, GT: only to later, LT: only to sooner",
    check: check_expire,
    run: Run::Write(expire),
    ..WRITE
};

pub(crate) static COMMANDS: [CommandSpec; 9] = [
    EXPIRE,
    CommandSpec {
        name: "PEXPIRE",
        code: 42,
        usage: "key milliseconds [NX | XX | GT | LT]",
        summary: "sets in how many milliseconds a key expires, as EXPIRE",
        check: check_pexpire,
        run: Run::Write(pexpire),
        ..EXPIRE
    },
    CommandSpec {
        name: "EXPIREAT",
        code: 43,
        usage: "key unix-time-seconds [NX | XX | GT | LT]",
        summary: "sets at which second since 1970 a key expires, as EXPIRE",
        check: check_expireat,
        run: Run::Write(expireat),
        ..EXPIRE
    },
    CommandSpec {
        name: "PEXPIREAT",
        code: 44,
        usage: "key unix-time-milliseconds [NX | XX | GT | LT]",
        summary: "sets at which millisecond since 1970 a key expires, as EXPIRE",
        check: check_pexpireat,
        run: Run::Write(pexpireat),
        ..EXPIRE
    },
    CommandSpec {
        name: "TTL",
        code: 45,
        group: Group::Generic,
        summary: "answers in how many seconds a key expires, -1 if it does not, -2 if it is missing",
        run: Run::Read(ttl),
        ..READ
    },
    CommandSpec {
        name: "PTTL",
        code: 46,
        group: Group::Generic,
        summary: "answers in how many milliseconds a key expires, -1 if it does not, -2 if it is missing",
        run: Run::Read(pttl),
        ..READ
    },
    CommandSpec {
        name: "EXPIRETIME",
        code: 47,
        group: Group::Generic,
        summary: "answers at which second since 1970 a key expires, -1 if it does not, -2 if it is missing",
        run: Run::Read(expiretime),
        ..READ
    },
    CommandSpec {
        name: "PEXPIRETIME",
        code: 48,
        group: Group::Generic,
        summary: "answers at which millisecond since 1970 a key expires, -1 if it does not, -2 if it is missing",
        run: Run::Read(pexpiretime),
        ..READ
    },
    CommandSpec {
        name: "PERSIST",
        code: 49,
        group: Group::Generic,
        summary: "lets a key no longer expire and answers whether it would have",
        run: Run::Write(persist),
        ..WRITE
    },
];

/// What a number of a time counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// A moment as a client says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Deadline<'a> {
    pub(super) text: &'a [u8],
    pub(super) unit: Unit,
    /// Since 1970, not from now on.
    pub(super) is_absolute: bool,
}

impl Deadline<'_> {
    fn millis(self, command: &'static str) -> Result<i64, CommandError> {
        let number = parse_integer(self.text)?;
        match self.unit {
            Unit::Milliseconds => Ok(number),
            Unit::Seconds => number.checked_mul(1000).ok_or(CommandError::InvalidExpireTime { command }),
        }
    }

    /// The moment since 1970, perhaps before it.
    fn resolve(self, now: Millis, command: &'static str) -> Result<i64, CommandError> {
        let millis = self.millis(command)?;
        if self.is_absolute {
            return Ok(millis);
        }
        let now = i64::try_from(now.0).unwrap_or(i64::MAX);
        millis.checked_add(now).ok_or(CommandError::InvalidExpireTime { command })
    }

    /// Refuses what is wrong whatever the time is, where only positive numbers are allowed.
    pub(super) fn check(self, command: &'static str) -> Result<(), CommandError> {
        self.positive(Millis(0), command).map(|_| ())
    }

    /// The moment, where only positive numbers are allowed.
    pub(super) fn positive(self, now: Millis, command: &'static str) -> Result<Millis, CommandError> {
        if parse_integer(self.text)? <= 0 {
            return Err(CommandError::InvalidExpireTime { command });
        }
        self.resolve(now, command).map(|at| Millis(at.max(0).unsigned_abs()))
    }
}

/// Which deadlines `EXPIRE` may replace.
#[derive(Clone, Copy, Default)]
struct Allowed {
    none_only: bool,
    some_only: bool,
    later_only: bool,
    sooner_only: bool,
}

impl Allowed {
    fn parse(options: &[&[u8]]) -> Result<Allowed, CommandError> {
        let mut allowed = Allowed::default();
        for option in options {
            match () {
                () if is(option, "NX") => allowed.none_only = true,
                () if is(option, "XX") => allowed.some_only = true,
                () if is(option, "GT") => allowed.later_only = true,
                () if is(option, "LT") => allowed.sooner_only = true,
                () => {
                    let found = excerpt(option, 128).into();
                    return Err(CommandError::UnsupportedOption { found });
                }
            }
        }
        if allowed.none_only && (allowed.some_only || allowed.later_only || allowed.sooner_only) {
            return Err(CommandError::MissingAndPresent);
        }
        if allowed.later_only && allowed.sooner_only {
            return Err(CommandError::LaterAndSooner);
        }
        Ok(allowed)
    }

    fn replaces(self, old: Option<Millis>, new: i64) -> bool {
        let old = old.map(|old| i64::try_from(old.0).unwrap_or(i64::MAX));
        !(self.none_only && old.is_some()
            || self.some_only && old.is_none()
            || self.later_only && old.is_none_or(|old| new <= old)
            || self.sooner_only && old.is_some_and(|old| new >= old))
    }
}

/// How one of the four takes its number.
struct Kind {
    unit: Unit,
    is_absolute: bool,
    name: &'static str,
}

const IN_SECONDS: Kind = Kind { unit: Unit::Seconds, is_absolute: false, name: "expire" };
const IN_MILLIS: Kind = Kind { unit: Unit::Milliseconds, is_absolute: false, name: "pexpire" };
const AT_SECONDS: Kind = Kind { unit: Unit::Seconds, is_absolute: true, name: "expireat" };
const AT_MILLIS: Kind = Kind { unit: Unit::Milliseconds, is_absolute: true, name: "pexpireat" };

impl Kind {
    fn check(&self, arguments: &[&[u8]]) -> Result<(), CommandError> {
        let [_, text, options @ ..] = arguments else {
            return Err(CommandError::Syntax);
        };
        Allowed::parse(options)?;
        self.deadline(text).resolve(Millis(0), self.name).map(|_| ())
    }

    fn deadline<'a>(&self, text: &'a [u8]) -> Deadline<'a> {
        Deadline { text, unit: self.unit, is_absolute: self.is_absolute }
    }

    fn run(&self, store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
        let [key, text, options @ ..] = arguments else {
            return Err(CommandError::Syntax);
        };
        let allowed = Allowed::parse(options)?;
        let moment = self.deadline(text).resolve(at.now, self.name)?;
        let Some(item) = store.keys.get(key) else {
            return Ok(Reply::Integer(0));
        };
        if !allowed.replaces(item.deadline(), moment) {
            return Ok(Reply::Integer(0));
        }
        let item = item.clone();
        let deadline = Millis(moment.max(0).unsigned_abs());
        store.keys.put(item.with(key, at.index, Some(deadline)));
        let name = if deadline <= at.now { "del" } else { "expire" };
        store.note(EventClass::Generic, name, key);
        Ok(Reply::Integer(1))
    }
}

fn check_expire(arguments: &[&[u8]]) -> Result<(), CommandError> {
    IN_SECONDS.check(arguments)
}

fn expire(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    IN_SECONDS.run(store, at, arguments)
}

fn check_pexpire(arguments: &[&[u8]]) -> Result<(), CommandError> {
    IN_MILLIS.check(arguments)
}

fn pexpire(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    IN_MILLIS.run(store, at, arguments)
}

fn check_expireat(arguments: &[&[u8]]) -> Result<(), CommandError> {
    AT_SECONDS.check(arguments)
}

fn expireat(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    AT_SECONDS.run(store, at, arguments)
}

fn check_pexpireat(arguments: &[&[u8]]) -> Result<(), CommandError> {
    AT_MILLIS.check(arguments)
}

fn pexpireat(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    AT_MILLIS.run(store, at, arguments)
}

/// A number about the deadline of a key.
fn about(store: &Store, arguments: &[&[u8]], number: impl FnOnce(Millis) -> u64) -> Answer {
    let [key] = exactly(arguments)?;
    Ok(Reply::Integer(match store.keys.get(key).map(|item| item.deadline()) {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => i64::try_from(number(deadline)).unwrap_or(i64::MAX),
    }))
}

fn ttl(store: &Store, arguments: &[&[u8]]) -> Answer {
    about(store, arguments, |deadline| deadline.since(store.now()).0.saturating_add(500) / 1000)
}

fn pttl(store: &Store, arguments: &[&[u8]]) -> Answer {
    about(store, arguments, |deadline| deadline.since(store.now()).0)
}

fn expiretime(store: &Store, arguments: &[&[u8]]) -> Answer {
    about(store, arguments, |deadline| deadline.0.saturating_add(500) / 1000)
}

fn pexpiretime(store: &Store, arguments: &[&[u8]]) -> Answer {
    about(store, arguments, |deadline| deadline.0)
}

fn persist(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    let Some(item) = store.keys.get(key).filter(|item| item.deadline().is_some()) else {
        return Ok(Reply::Integer(0));
    };
    let endless = item.with(key, at.index, None);
    store.keys.put(endless);
    store.note(EventClass::Generic, "persist", key);
    Ok(Reply::Integer(1))
}
