//! What clients asked and were answered.

use std::fmt;

/// What a client asked: the commands of the store that can be judged key by key. Keys and values are any bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Command {
    /// `GET`, `MGET`: [`Outcome::Values`], one for each key.
    Get(Vec<Vec<u8>>),
    /// `SET`, `MSET`: [`Outcome::Done`]. Of a key that is named twice, the last value counts.
    Set(Vec<(Vec<u8>, Vec<u8>)>),
    /// `SETNX`, `SET … NX`: [`Outcome::Flag`], true if none of the keys existed and all were set.
    SetIfAbsent(Vec<(Vec<u8>, Vec<u8>)>),
    /// `SET … XX`: [`Outcome::Flag`], true if the key existed and was set.
    SetIfPresent {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// `GETSET`, `SET … GET`: [`Outcome::Values`], the old one.
    GetSet {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// `CAS`: [`Outcome::Flag`], true if the value was the expected one and was replaced.
    CompareAndSet {
        /// The key.
        key: Vec<u8>,
        /// The value that is expected. `None`: that the key is missing, which the store offers as `SET … NX`.
        expected: Option<Vec<u8>>,
        /// The value after it.
        new: Vec<u8>,
    },
    /// `INCR`, `DECR`, `INCRBY`, `DECRBY`: [`Outcome::Integer`], the sum; or [`Outcome::Failed`] if the value is not a
    /// number or the sum would not fit into 64 bits. A missing key counts as zero.
    Add {
        /// The key.
        key: Vec<u8>,
        /// What is added to its number.
        by: i64,
    },
    /// `APPEND`: [`Outcome::Integer`], the new length. A missing key counts as empty.
    Append {
        /// The key.
        key: Vec<u8>,
        /// What comes behind its value.
        bytes: Vec<u8>,
    },
    /// `DEL`: [`Outcome::Integer`], how many of the keys there were.
    Delete(Vec<Vec<u8>>),
    /// `EXISTS`: [`Outcome::Integer`], how many of the keys there are, one that is named twice counted twice.
    Exists(Vec<Vec<u8>>),
    /// `STRLEN`: [`Outcome::Integer`], 0 for a missing key.
    Length {
        /// The key.
        key: Vec<u8>,
    },
}

/// What a client was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Values in the order of the keys. `None`: the key is missing.
    Values(Vec<Option<Vec<u8>>>),
    /// A number: a sum, a length, a count.
    Integer(i64),
    /// `OK`.
    Done,
    /// Whether a condition was met.
    Flag(bool),
    /// An error that was decided in the order and changed nothing, such as adding to a text. An error that leaves open
    /// whether the command is applied is no outcome at all.
    Failed,
}

/// One command of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Who asked; only to be shown.
    pub client: u64,
    /// What.
    pub command: Command,
    /// When it was asked, in any unit.
    pub begin: u64,
    /// When it was answered, in the same unit; means nothing without an outcome.
    pub end: u64,
    /// What was answered. `None`: nothing; it takes effect once at any time after `begin`, or never.
    pub outcome: Option<Outcome>,
}

impl Command {
    /// The keys that decide the answer or may be changed.
    pub fn keys(&self) -> Vec<&[u8]> {
        match self {
            Command::Get(keys) | Command::Delete(keys) | Command::Exists(keys) => {
                keys.iter().map(Vec::as_slice).collect()
            }
            Command::Set(pairs) | Command::SetIfAbsent(pairs) => {
                pairs.iter().map(|(key, _)| key.as_slice()).collect()
            }
            Command::SetIfPresent { key, .. }
            | Command::GetSet { key, .. }
            | Command::CompareAndSet { key, .. }
            | Command::Add { key, .. }
            | Command::Append { key, .. }
            | Command::Length { key } => vec![key],
        }
    }

    /// Whether it never changes anything.
    pub fn is_reader(&self) -> bool {
        matches!(self, Command::Get(_) | Command::Exists(_) | Command::Length { .. })
    }
}

impl Operation {
    /// Whether the answer says that nothing was changed.
    pub(crate) fn changed_nothing(&self) -> bool {
        self.command.is_reader()
            || match self.outcome {
                Some(Outcome::Failed | Outcome::Flag(false)) => true,
                Some(Outcome::Integer(0)) => matches!(self.command, Command::Delete(_)),
                _ => false,
            }
    }
}

/// Bytes that are shown in full; of longer ones, so many at the beginning and half as many at the end.
const SHOWN_LEN: usize = 48;

/// Bytes as a reader wants them: quoted, with escapes, and not too many.
pub(crate) struct Quoted<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        if bytes.len() <= SHOWN_LEN {
            return write!(f, "\"{}\"", bytes.escape_ascii());
        }
        let (head, tail) = (&bytes[..SHOWN_LEN / 2], &bytes[bytes.len() - SHOWN_LEN / 4..]);
        write!(f, "\"{}…{}\" ({} bytes)", head.escape_ascii(), tail.escape_ascii(), bytes.len())
    }
}

/// A value, or that there is none.
pub(crate) struct Shown<'a>(pub(crate) Option<&'a [u8]>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => Quoted(bytes).fmt(f),
            None => f.write_str("nil"),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, keys: &[Vec<u8>]| {
            f.write_str(name)?;
            keys.iter().try_for_each(|key| write!(f, " {}", Quoted(key)))
        };
        let pairs = |f: &mut fmt::Formatter<'_>, name: &str, pairs: &[(Vec<u8>, Vec<u8>)]| {
            f.write_str(name)?;
            pairs.iter().try_for_each(|(key, value)| write!(f, " {} {}", Quoted(key), Quoted(value)))
        };
        match self {
            Command::Get(keys) => list(f, if keys.len() == 1 { "GET" } else { "MGET" }, keys),
            Command::Delete(keys) => list(f, "DEL", keys),
            Command::Exists(keys) => list(f, "EXISTS", keys),
            Command::Set(all) => pairs(f, if all.len() == 1 { "SET" } else { "MSET" }, all),
            Command::SetIfAbsent(all) => pairs(f, if all.len() == 1 { "SETNX" } else { "MSETNX" }, all),
            Command::SetIfPresent { key, value } => write!(f, "SET {} {} XX", Quoted(key), Quoted(value)),
            Command::GetSet { key, value } => write!(f, "GETSET {} {}", Quoted(key), Quoted(value)),
            Command::CompareAndSet { key, expected, new } => {
                write!(f, "CAS {} {} {}", Quoted(key), Shown(expected.as_deref()), Quoted(new))
            }
            Command::Add { key, by } => write!(f, "INCRBY {} {by}", Quoted(key)),
            Command::Append { key, bytes } => write!(f, "APPEND {} {}", Quoted(key), Quoted(bytes)),
            Command::Length { key } => write!(f, "STRLEN {}", Quoted(key)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Values(values) => {
                let mut between = "";
                values.iter().try_for_each(|value| {
                    write!(f, "{between}{}", Shown(value.as_deref()))?;
                    between = " ";
                    Ok(())
                })
            }
            Outcome::Integer(number) => write!(f, "{number}"),
            Outcome::Done => f.write_str("OK"),
            Outcome::Flag(flag) => write!(f, "{flag}"),
            Outcome::Failed => f.write_str("an error"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { client, command, begin, end, outcome } = self;
        match outcome {
            Some(outcome) => write!(f, "client {client}  {begin}..{end}  {command} -> {outcome}"),
            None => write!(f, "client {client}  {begin}..  {command} -> no answer"),
        }
    }
}
