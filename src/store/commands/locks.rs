//! Locks with fencing tokens.
//!
//! A lock is a key with a time to live; its value is the owner, its revision the **token**. So a token is the index of
//! the acquisition: it rises with every acquisition in the whole cluster, a resource that remembers the highest token
//! it has seen can refuse whoever holds an older one, and any other write to the key takes the lock away. `RENEW`
//! is the only write that leaves a key's revision as it is.

use crate::store::command::{Answer, CommandSpec, Group, Run};
use crate::store::error::CommandError;
use crate::store::{Applied, EventClass, Store};
use crate::types::{Index, Millis, Reply};

use super::versions::parse_revision;
use super::{WRITE, exactly, parse_integer};

pub(crate) static COMMANDS: [CommandSpec; 3] = [
    CommandSpec {
        name: "LOCK",
        code: 57,
        arity: -3,
        group: Group::Lock,
        usage: "name ttl-milliseconds [owner]",
        summary: "takes a lock for some time and answers its token, which rises with every acquisition; nothing if \
                  it is held",
        check: check_lock,
        run: Run::Write(lock),
        ..WRITE
    },
    CommandSpec {
        name: "RENEW",
        code: 58,
        arity: 4,
        group: Group::Lock,
        usage: "name token ttl-milliseconds",
        summary: "keeps a lock for some more time from now on and answers whether it was still held",
        check: check_renew,
        run: Run::Write(renew),
        ..WRITE
    },
    CommandSpec {
        name: "UNLOCK",
        code: 59,
        arity: 3,
        group: Group::Lock,
        usage: "name token",
        summary: "gives a lock back and answers whether it was still held",
        check: check_unlock,
        run: Run::Write(unlock),
        ..WRITE
    },
];

fn parse_ttl(text: &[u8], command: &'static str) -> Result<Millis, CommandError> {
    let ttl = u64::try_from(parse_integer(text)?).unwrap_or(0);
    if ttl == 0 { Err(CommandError::InvalidExpireTime { command }) } else { Ok(Millis(ttl)) }
}

fn check_lock(arguments: &[&[u8]]) -> Result<(), CommandError> {
    match arguments {
        [_, ttl] | [_, ttl, _] => parse_ttl(ttl, "lock").map(|_| ()),
        _ => Err(CommandError::WrongArity { name: "lock".into() }),
    }
}

fn lock(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [name, ttl, owner @ ..] = arguments else { return Err(CommandError::Syntax) };
    let deadline = at.now.plus(parse_ttl(ttl, "lock")?);
    if store.keys.get(name).is_some() {
        return Ok(Reply::Nil);
    }
    let owner = owner.first().copied().unwrap_or_default();
    store.keys.set_until(name, owner, at.index, Some(deadline));
    store.note(EventClass::String, "set", name);
    store.note(EventClass::Generic, "expire", name);
    Ok(Reply::Integer(i64::try_from(at.index.0).unwrap_or(i64::MAX)))
}

fn is_held(store: &Store, name: &[u8], token: &[u8]) -> Result<bool, CommandError> {
    let token = parse_revision(token)?;
    Ok(token != Index(0) && store.revision(name) == token)
}

fn check_renew(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, token, ttl] = exactly(arguments)?;
    parse_revision(token)?;
    parse_ttl(ttl, "renew").map(|_| ())
}

fn renew(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [name, token, ttl] = exactly(arguments)?;
    let deadline = at.now.plus(parse_ttl(ttl, "renew")?);
    if !is_held(store, name, token)? {
        return Ok(Reply::Integer(0));
    }
    if let Some(item) = store.keys.get(name) {
        let renewed = item.with(name, item.revision(), Some(deadline));
        store.keys.put(renewed);
        store.note(EventClass::Generic, "expire", name);
    }
    Ok(Reply::Integer(1))
}

fn check_unlock(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, token] = exactly(arguments)?;
    parse_revision(token).map(|_| ())
}

fn unlock(store: &mut Store, _: Applied, arguments: &[&[u8]]) -> Answer {
    let [name, token] = exactly(arguments)?;
    if !is_held(store, name, token)? {
        return Ok(Reply::Integer(0));
    }
    store.keys.remove(name);
    store.note(EventClass::Generic, "del", name);
    Ok(Reply::Integer(1))
}
