//! The commands, one file per family.
//!
//! A file has the family's specs first, then their checks and functions in the same order. A function gets arguments
//! that its spec has let pass, without the name, and still takes them apart with checks of its own: nothing here
//! panics on bytes.

pub(crate) mod bits;
pub(crate) mod connection;
pub(crate) mod counters;
pub(crate) mod dump;
pub(crate) mod expiry;
pub(crate) mod keys;
pub(crate) mod lcs;
pub(crate) mod listing;
pub(crate) mod locks;
pub(crate) mod messages;
pub(crate) mod ranges;
pub(crate) mod scripts;
pub(crate) mod session;
pub(crate) mod strings;
pub(crate) mod transaction;
pub(crate) mod versions;

use crate::types::{Item, Reply, decimal, limits};

use super::command::{Class, CommandSpec, Group, KeyPositions, Run, no_check};
use super::error::CommandError;

/// What most writes of one key have in common; `run` is always given.
const WRITE: CommandSpec = CommandSpec {
    name: "",
    code: 0,
    arity: 2,
    class: Class::Write,
    keys: KeyPositions::ONE,
    group: Group::String,
    usage: "key",
    summary: "",
    subcommands: &[],
    alias_of: None,
    check: no_check,
    run: Run::Node,
    long: None,
};

/// The same for reads.
const READ: CommandSpec = CommandSpec { class: Class::Read, ..WRITE };

/// Takes exactly `N` arguments apart. Arity has been checked; whoever adds a command and gets its arity wrong
/// gets a syntax error instead of a panic on all nodes.
fn exactly<'a, const N: usize>(arguments: &[&'a [u8]]) -> Result<[&'a [u8]; N], CommandError> {
    <[&[u8]; N]>::try_from(arguments).map_err(|_| CommandError::Syntax)
}

/// The number that these bytes are in decimal.
fn parse_integer(bytes: &[u8]) -> Result<i64, CommandError> {
    decimal::parse(bytes).ok_or(CommandError::NotAnInteger)
}

/// Refuses every number of a database but that of the only one.
pub(crate) fn check_database(text: &[u8]) -> Result<(), CommandError> {
    let number = parse_integer(text)?;
    match i32::try_from(number).map_err(|_| CommandError::DatabaseNumber)? {
        0 => Ok(()),
        _ => Err(CommandError::DatabaseIndex),
    }
}

/// An integer reply from a count or a length.
pub(super) fn count_reply(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// The value of an item, without a copy, or nothing.
pub(super) fn value_reply(item: Option<&Item>) -> Reply {
    item.map_or(Reply::Nil, |item| Reply::Bulk(item.value_bytes()))
}

/// Whether an argument is this word, in upper or lower case.
fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// What a value is allowed to grow to depends on nothing that an operator sets, so it is the same on all nodes.
fn grown_len(head: usize, tail: usize) -> Result<usize, CommandError> {
    let len = head.saturating_add(tail);
    if len > limits::VALUE_LEN_CEILING { Err(CommandError::ValueTooLong) } else { Ok(len) }
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
