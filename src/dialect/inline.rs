//! Lines typed by people and simple programs: words between blanks, with Redis' rules for quotes.
//!
//! In double quotes `\n \r \t \b \a`, `\xHH` and `\` before any other byte have their usual meaning; in single quotes
//! only `\'`. A closing quote must be followed by a blank or the end. Quotes may begin in the middle of a word: `a"b c"`
//! is one. Other than in Redis, whose lines are C strings, a zero byte is a byte like any other.

use std::ops::Range;

use super::error::ProtocolError;

/// Takes a line apart. The words are appended to `words`, without quotes and escapes; `places` says where each is.
pub(super) fn split(
    line: &[u8],
    words: &mut Vec<u8>,
    places: &mut Vec<Range<usize>>,
) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest
            && is_blank(*first)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = words.len();
        rest = word(rest, words)?;
        places.push(start..words.len());
    }
}

/// What stands between words. Inside a word, only some of these end it: see [`word`].
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Reads one word and returns what follows it.
fn word<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] | [b' ' | b'\t' | b'\n' | b'\r', ..] => return Ok(rest),
            [b'"', tail @ ..] => return double_quoted(tail, out),
            [b'\'', tail @ ..] => return single_quoted(tail, out),
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        (rest, _) = match rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [b'"', tail @ ..] => return behind_quote(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (tail, out.push(hex(*high) << 4 | hex(*low)))
            }
            [b'\\', escaped, tail @ ..] => {
                let byte = match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                };
                (tail, out.push(byte))
            }
            [byte, tail @ ..] => (tail, out.push(*byte)),
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        (rest, _) = match rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [b'\'', tail @ ..] => return behind_quote(tail),
            [b'\\', b'\'', tail @ ..] => (tail, out.push(b'\'')),
            [byte, tail @ ..] => (tail, out.push(*byte)),
        };
    }
}

fn behind_quote(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest.first() {
        Some(&byte) if !is_blank(byte) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(rest),
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit.to_ascii_lowercase() - b'a') + 10,
    }
}

/// Whether the line belongs to an HTTP request. A web page can make a browser send such lines to this port, and with
/// them commands in the body, so the connection must end before the body is read. `PUT /path HTTP/1.1` would even be
/// a command.
pub(super) fn is_http(line: &[u8]) -> bool {
    let starts_with =
        |word: &[u8]| line.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    let version = line.len().checked_sub(9).and_then(|start| line.get(start..));
    let has_version = matches!(
        version,
        Some([b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit()
    );
    has_version || starts_with(b"post ") || starts_with(b"host:")
}

#[cfg(test)]
mod tests {
    use super::super::split_line;
    use super::*;

    #[test]
    fn lines_are_split_as_in_redis() {
        let cases: [(&[u8], &[&[u8]]); 16] = [
            (b"", &[]),
            (b"  \t ", &[]),
            (b"SET name john", &[b"SET", b"name", b"john"]),
            (b"  a\t\tb  ", &[b"a", b"b"]),
            (b"a\rb", &[b"a", b"b"]),
            (b"SET k \"hello world\"", &[b"SET", b"k", b"hello world"]),
            (b"\"\" ''", &[b"", b""]),
            (b"\"a\\n\\r\\t\\b\\a\\\\\\\"\\q\"", &[b"a\n\r\t\x08\x07\\\"q"]),
            (b"\"\\x41\\xfF\\x00\\xg0\\x4\"", &[b"A\xff\0xg0x4"]),
            (b"'it\\'s \\n \"x\"'", &[b"it's \\n \"x\""]),
            (b"a\"b c\"", &[b"ab c"]),
            (b"a'b c' d", &[b"ab c", b"d"]),
            (b"a\\b", &[b"a\\b"]),
            (b"a\0b \xff", &[b"a\0b", b"\xff"]),
            (b"a\x0bb \x0c c", &[b"a\x0bb", b"c"]),
            (b"\"a\"\x0b\"b\"", &[b"a", b"b"]),
        ];
        for (line, expected) in cases {
            let found = split_line(line).expect("balanced");
            assert_eq!(found, expected, "{}", line.escape_ascii());
        }
        for line in
            [b"\"".as_slice(), b"'", b"\"a", b"'a\\'", b"\"a\\\"", b"\"a\"b", b"'a'b", b"a\"b\"c", b"\"\\"]
        {
            assert_eq!(split_line(line), Err(ProtocolError::UnbalancedQuotes), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn web_browsers_are_recognized() {
        for line in [
            "POST / HTTP/1.1",
            "POST /",
            "post x",
            "Host: localhost",
            "HOST:x",
            "GET / HTTP/1.1",
            "PUT /a HTTP/1.0",
        ] {
            assert!(is_http(line.as_bytes()), "{line}");
        }
        for line in ["GET / HTTP/", "SET a \"b HTTP/1.1\"", "POSTAL", "GET hostname", "HTTP/1.1", "", "hos"] {
            assert!(!is_http(line.as_bytes()), "{line}");
        }
    }
}
