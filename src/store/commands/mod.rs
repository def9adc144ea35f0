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

use super::error::CommandError;

/// Takes exactly `N` arguments apart. Arity has been checked; whoever adds a command and gets its arity wrong
/// gets a syntax error instead of a panic on all nodes.
fn exactly<'a, const N: usize>(arguments: &[&'a [u8]]) -> Result<[&'a [u8]; N], CommandError> {
    <[&[u8]; N]>::try_from(arguments).map_err(|_| CommandError::Syntax)
}

/// The number that these bytes are in decimal, as strict as Redis: no plus sign, no zeros in front, no blanks.
fn parse_integer(bytes: &[u8]) -> Result<i64, CommandError> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let canonical = match digits {
        [b'0'] => bytes.len() == 1,
        [b'1'..=b'9', ..] => digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(bytes).ok().filter(|_| canonical);
    text.and_then(|text| text.parse().ok()).ok_or(CommandError::NotAnInteger)
}

/// An integer reply from a count or a length.
fn count_reply(count: usize) -> crate::types::Reply {
    crate::types::Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_in_redis() {
        for good in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(parse_integer(good.to_string().as_bytes()), Ok(good));
        }
        for bad in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "-01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999",
        ] {
            assert_eq!(parse_integer(bad.as_bytes()), Err(CommandError::NotAnInteger), "{bad}");
        }
    }
}
