//! Splits a line into arguments by Redis' inline rules.
//!
//! Words are separated by white space. In `"…"`, `\n \r \t \b \a` and `\xHH` stand for bytes and a backslash
//! takes any other byte as it is; in `'…'` only `\'` is special. A closing quote ends its word, so that
//! something else must not follow it directly.

use std::fmt;

/// Quotes that do not match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unbalanced;

impl fmt::Display for Unbalanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unbalanced quotes")
    }
}

impl std::error::Error for Unbalanced {}

/// The arguments in `line`.
///
/// # Errors
/// A quote that is not closed, or closed in the middle of a word.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // A vertical tab is white space for C, and thus for Redis, but not for `trim_ascii`.
        if let [0x0b, tail @ ..] = rest {
            rest = tail;
            continue;
        }
        if rest.is_empty() {
            return Ok(words);
        }
        words.push(word(&mut rest)?);
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Takes one word off the front.
fn word(rest: &mut &[u8]) -> Result<Vec<u8>, Unbalanced> {
    let mut out = Vec::new();
    while let [byte, tail @ ..] = *rest {
        match byte {
            _ if is_space(*byte) => break,
            b'"' | b'\'' => {
                *rest = tail;
                if *byte == b'"' {
                    double_quoted(rest, &mut out)?
                } else {
                    single_quoted(rest, &mut out)?
                }
                return match rest.first() {
                    Some(next) if !is_space(*next) => Err(Unbalanced),
                    _ => Ok(out),
                };
            }
            _ => {
                out.push(*byte);
                *rest = tail;
            }
        }
    }
    Ok(out)
}

fn double_quoted(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Unbalanced> {
    loop {
        let (byte, tail) = match *rest {
            [] => return Err(Unbalanced),
            [b'"', tail @ ..] => {
                *rest = tail;
                return Ok(());
            }
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), tail)
            }
            [b'\\', byte, tail @ ..] => {
                let byte = match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                };
                (byte, tail)
            }
            [byte, tail @ ..] => (*byte, tail),
        };
        out.push(byte);
        *rest = tail;
    }
}

fn single_quoted(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Unbalanced> {
    loop {
        let (byte, tail) = match *rest {
            [] => return Err(Unbalanced),
            [b'\'', tail @ ..] => {
                *rest = tail;
                return Ok(());
            }
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        out.push(byte);
        *rest = tail;
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        split(line.as_bytes()).expect("balanced")
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(words("  SET  k\tv \r"), [&b"SET"[..], b"k", b"v"]);
        assert_eq!(
            words(r#"SET k "a b\x00\n\"\\\q\xzz" 'it\'s \n'"#)[2..],
            [&b"a b\0\n\"\\qxzz"[..], b"it's \\n"]
        );
        assert_eq!(words(r#"a"b c""#), [b"ab c"]);
        assert_eq!(words(r#""" ''"#), [b"", b""]);
        assert_eq!(words("\u{b}a\u{b}b"), [b"a", b"b"]);
        assert_eq!(words("gr\u{fc}n"), ["gr\u{fc}n".as_bytes()]);
        assert!(words("   ").is_empty());
    }

    #[test]
    fn quotes_that_do_not_match() {
        for line in ["\"a", "'a", "\"a\"b", "'a'b", "\"a\\\"", "x\"", "'a\\'", "\"\\"] {
            assert_eq!(split(line.as_bytes()), Err(Unbalanced), "{line}");
        }
    }
}
