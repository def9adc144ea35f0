//! The commands, one file per family.
//!
//! A file has the family's specs first, then their checks and functions in the same order. A function gets arguments
//! that its spec has let pass, without the name, and still takes them apart with checks of its own: nothing here
//! panics on bytes.

pub(crate) mod connection;
pub(crate) mod counters;
pub(crate) mod keys;
pub(crate) mod session;
pub(crate) mod strings;

use crate::types::{Reply, decimal};

use super::error::CommandError;

/// Takes exactly `N` arguments apart. Arity has been checked; whoever adds a command and gets its arity wrong
/// gets a syntax error instead of a panic on all nodes.
fn exactly<'a, const N: usize>(arguments: &[&'a [u8]]) -> Result<[&'a [u8]; N], CommandError> {
    <[&[u8]; N]>::try_from(arguments).map_err(|_| CommandError::Syntax)
}

/// The number that these bytes are in decimal.
fn parse_integer(bytes: &[u8]) -> Result<i64, CommandError> {
    decimal::parse(bytes).ok_or(CommandError::NotAnInteger)
}

/// An integer reply from a count or a length.
fn count_reply(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}
