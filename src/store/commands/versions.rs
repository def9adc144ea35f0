//! Writes with a condition on what is there: by value, by digest of the value, by revision.
//!
//! The revision of a key is the index of the command that last wrote it: it rises with every write, never comes
//! twice in the life of a cluster, and is 0 for a missing key. Options as in Redis 8.4 and Valkey 9; `IFREV` and
//! `GETREV` are additions.

use crate::store::command::{Answer, CommandSpec, Group, KeyPositions, Run};
use crate::store::error::CommandError;
use crate::store::under_way::{Piece, Progress};
use crate::store::{Applied, EventClass, Store};
use crate::types::{Index, Item, Reply};

use super::{READ, WRITE, count_reply, exactly, is, parse_integer};

use xxhash_rust::xxh3::xxh3_64;

const DEL: CommandSpec = CommandSpec {
    name: "DEL",
    code: 3,
    arity: -2,
    keys: KeyPositions::ALL,
    group: Group::Generic,
    usage: "key [key ...] | key IFREV revision",
    summary: "deletes keys and answers how many there were; IFREV: only if the key has this revision",
    check: check_del,
    run: Run::Pieces(begin_del),
    ..WRITE
};

pub(crate) static COMMANDS: [CommandSpec; 6] = [
    DEL,
    CommandSpec { name: "UNLINK", alias_of: Some("DEL"), ..DEL },
    CommandSpec {
        name: "DELEX",
        code: 54,
        arity: -2,
        group: Group::String,
        usage: "key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest | IFREV revision]",
        summary: "deletes a key if its value, its digest or its revision is as said, and answers whether it did",
        check: check_delex,
        run: Run::Write(delex),
        ..WRITE
    },
    CommandSpec {
        name: "DELIFEQ",
        code: 55,
        arity: 3,
        usage: "key value",
        summary: "deletes a key if it has this value and answers whether it did",
        run: Run::Write(delifeq),
        ..WRITE
    },
    CommandSpec {
        name: "DIGEST",
        code: 56,
        summary: "answers the hash of the value of a key (XXH3, 64 bits, hexadecimal)",
        run: Run::Read(digest),
        ..READ
    },
    CommandSpec {
        name: "GETREV",
        code: 53,
        summary: "answers the revision of a key, a number that rises with every write; 0 if the key is missing",
        run: Run::Read(getrev),
        ..READ
    },
];

/// On which state of a key a write insists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition<'a> {
    Missing,
    Exists,
    Equal(&'a [u8]),
    NotEqual(&'a [u8]),
    DigestEqual(&'a [u8]),
    DigestNotEqual(&'a [u8]),
    Revision(Index),
}

impl<'a> Condition<'a> {
    /// The condition that this option is, and how many of the arguments behind it belong to it. `None`: it is no
    /// condition.
    pub(super) fn parse(
        option: &[u8],
        rest: &[&'a [u8]],
    ) -> Result<Option<(Condition<'a>, usize)>, CommandError> {
        if is(option, "NX") {
            return Ok(Some((Condition::Missing, 0)));
        }
        if is(option, "XX") {
            return Ok(Some((Condition::Exists, 0)));
        }
        let with_value = ["IFEQ", "IFNE", "IFDEQ", "IFDNE", "IFREV"].iter().any(|word| is(option, word));
        if !with_value {
            return Ok(None);
        }
        let Some(&value) = rest.first() else { return Err(CommandError::Syntax) };
        Ok(Some((
            match () {
                () if is(option, "IFEQ") => Condition::Equal(value),
                () if is(option, "IFNE") => Condition::NotEqual(value),
                () if is(option, "IFREV") => Condition::Revision(parse_revision(value)?),
                () if value.len() != 16 || !value.iter().all(u8::is_ascii_hexdigit) => {
                    return Err(CommandError::NotADigest);
                }
                () if is(option, "IFDEQ") => Condition::DigestEqual(value),
                () => Condition::DigestNotEqual(value),
            },
            1,
        )))
    }

    /// Whether the key is so.
    pub(super) fn is_met(self, item: Option<&Item>) -> bool {
        match (self, item) {
            (Condition::Missing | Condition::NotEqual(_) | Condition::DigestNotEqual(_), None) => true,
            (Condition::Missing, Some(_)) => false,
            (Condition::Exists, item) => item.is_some(),
            (Condition::Revision(wanted), item) => wanted == item.map_or(Index(0), Item::revision),
            (Condition::Equal(_) | Condition::DigestEqual(_), None) => false,
            (Condition::Equal(value), Some(item)) => item.value() == value,
            (Condition::NotEqual(value), Some(item)) => item.value() != value,
            (Condition::DigestEqual(digest), Some(item)) => is_digest(digest, item),
            (Condition::DigestNotEqual(digest), Some(item)) => !is_digest(digest, item),
        }
    }
}

fn is_digest(digest: &[u8], item: &Item) -> bool {
    digest_of(item.value()).as_bytes().eq_ignore_ascii_case(digest)
}

fn digest_of(value: &[u8]) -> String {
    format!("{:016x}", xxh3_64(value))
}

pub(super) fn parse_revision(text: &[u8]) -> Result<Index, CommandError> {
    u64::try_from(parse_integer(text)?).map(Index).map_err(|_| CommandError::NotAnInteger)
}

/// `DEL key IFREV revision`, and not three keys.
fn del_at_revision<'a>(arguments: &[&'a [u8]]) -> Result<Option<(&'a [u8], Index)>, CommandError> {
    match arguments {
        [key, option, revision] if is(option, "IFREV") => Ok(Some((key, parse_revision(revision)?))),
        _ => Ok(None),
    }
}

fn check_del(arguments: &[&[u8]]) -> Result<(), CommandError> {
    del_at_revision(arguments).map(|_| ())
}

fn remove(store: &mut Store, key: &[u8]) -> bool {
    let was_there = store.keys.remove(key).is_some();
    note_deleted(store, key, was_there)
}

/// The same, but what it frees is freed later.
fn unlink(store: &mut Store, key: &[u8]) -> bool {
    let was_there = store.keys.unlink(key);
    note_deleted(store, key, was_there)
}

fn note_deleted(store: &mut Store, key: &[u8], was_there: bool) -> bool {
    if was_there {
        store.note(EventClass::Generic, "del", key);
    }
    was_there
}

/// `DEL`.
#[derive(Debug, Default)]
pub(crate) struct Deletion {
    /// How many keys have been looked at, and how many of them were there.
    looked_at: usize,
    deleted: usize,
}

impl Deletion {
    pub(crate) fn go_on(&mut self, store: &mut Store, piece: Piece, arguments: &[&[u8]]) -> Option<Answer> {
        // To free one key at once is cheaper; many would hold up everybody else.
        const FREED_AT_ONCE: usize = 64;
        match del_at_revision(arguments) {
            Err(error) => return Some(Err(error)),
            Ok(Some((key, revision))) => {
                let is_met = Condition::Revision(revision).is_met(store.keys.get(key));
                return Some(Ok(Reply::Integer(i64::from(is_met && remove(store, key)))));
            }
            Ok(None) => {}
        }
        while let Some(key) = arguments.get(self.looked_at) {
            let deleted =
                if arguments.len() <= FREED_AT_ONCE { remove(store, key) } else { unlink(store, key) };
            self.looked_at += 1;
            self.deleted += usize::from(deleted);
            if piece.ends(store, arguments.len() - self.looked_at) {
                return None;
            }
        }
        Some(Ok(count_reply(self.deleted)))
    }
}

fn begin_del(_: &[&[u8]]) -> Result<Progress, CommandError> {
    Ok(Progress::Deletion(Deletion::default()))
}

fn delex_condition<'a>(options: &[&'a [u8]]) -> Result<Option<Condition<'a>>, CommandError> {
    match options {
        [] => Ok(None),
        [option, rest @ ..] => match Condition::parse(option, rest)? {
            Some((condition, 1)) if rest.len() == 1 => Ok(Some(condition)),
            _ => Err(CommandError::Syntax),
        },
    }
}

fn check_delex(arguments: &[&[u8]]) -> Result<(), CommandError> {
    delex_condition(arguments.get(1..).unwrap_or_default()).map(|_| ())
}

fn delex(store: &mut Store, _: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, options @ ..] = arguments else { return Err(CommandError::Syntax) };
    let is_met = delex_condition(options)?.is_none_or(|condition| condition.is_met(store.keys.get(key)));
    Ok(Reply::Integer(i64::from(is_met && remove(store, key))))
}

fn delifeq(store: &mut Store, _: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, value] = exactly(arguments)?;
    let is_met = Condition::Equal(value).is_met(store.keys.get(key));
    Ok(Reply::Integer(i64::from(is_met && remove(store, key))))
}

fn digest(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    Ok(store.keys.value(key).map_or(Reply::Nil, |value| Reply::bulk(digest_of(value).as_bytes())))
}

fn getrev(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key] = exactly(arguments)?;
    Ok(Reply::Integer(i64::try_from(store.revision(key).0).unwrap_or(i64::MAX)))
}
