//! Replies for people and programs: the text dialect's words, Redis' notation, or JSON.
//!
//! Every format ends each reply with a line feed. Arrays in arrays are walked with an explicit stack.

use crate::wire::client::WireReply;

/// How replies are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// The words of the text dialect: `OK`, the value, `Not Found`, a number, `ERR …`.
    #[default]
    Text,
    /// As redis-cli prints at a terminal: `"john"`, `(nil)`, `(integer) 3`.
    Redis,
    /// One JSON value a line: a string, null, a number, `{"error":…}`, `{"base64":…}` for bytes that are no
    /// UTF-8.
    Json,
}

/// Appends a reply in this format to `out`.
pub fn print(out: &mut Vec<u8>, format: Format, reply: &WireReply) {
    match format {
        Format::Text => print_numbered(out, reply, text_leaf),
        Format::Redis => print_numbered(out, reply, redis_leaf),
        Format::Json => print_json(out, reply),
    }
}

/// The elements of an array that are still to be printed.
struct Level<'a> {
    rest: std::slice::Iter<'a, WireReply>,
    number: usize,
    /// Digits of the largest number, so that all are aligned.
    width: usize,
    /// Whether the current element's number is still to be printed; only its first line has it.
    fresh: bool,
}

fn print_numbered(out: &mut Vec<u8>, reply: &WireReply, leaf: fn(&mut Vec<u8>, &WireReply)) {
    let mut levels: Vec<Level<'_>> = Vec::new();
    let mut next = Some(reply);
    while let Some(reply) = next {
        match reply {
            WireReply::Array(items) if !items.is_empty() => levels.push(Level {
                rest: items.iter(),
                number: 0,
                width: items.len().to_string().len(),
                fresh: false,
            }),
            _ => {
                for level in &mut levels {
                    let label = if level.fresh {
                        format!("{:>width$}) ", level.number, width = level.width)
                    } else {
                        " ".repeat(level.width + 2)
                    };
                    level.fresh = false;
                    out.extend_from_slice(label.as_bytes());
                }
                leaf(out, reply);
                out.push(b'\n');
            }
        }
        next = None;
        while let Some(level) = levels.last_mut() {
            if let Some(item) = level.rest.next() {
                level.number += 1;
                level.fresh = true;
                next = Some(item);
                break;
            }
            levels.pop();
        }
    }
}

fn text_leaf(out: &mut Vec<u8>, reply: &WireReply) {
    match reply {
        WireReply::Nil => out.extend_from_slice(b"Not Found"),
        WireReply::Status(text) | WireReply::Error(text) => out.extend_from_slice(text.as_bytes()),
        WireReply::Bulk(bytes) => out.extend_from_slice(bytes),
        WireReply::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
        WireReply::Array(_) => out.extend_from_slice(b"(empty)"),
    }
}

fn redis_leaf(out: &mut Vec<u8>, reply: &WireReply) {
    match reply {
        WireReply::Nil => out.extend_from_slice(b"(nil)"),
        WireReply::Status(text) => out.extend_from_slice(text.as_bytes()),
        WireReply::Error(text) => out.extend_from_slice(format!("(error) {text}").as_bytes()),
        WireReply::Bulk(bytes) => quote(out, bytes),
        WireReply::Integer(value) => out.extend_from_slice(format!("(integer) {value}").as_bytes()),
        WireReply::Array(_) => out.extend_from_slice(b"(empty array)"),
    }
}

/// Redis' notation of bytes; what it prints can be typed in again.
fn quote(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(*byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

fn print_json(out: &mut Vec<u8>, reply: &WireReply) {
    // Per open array, what is left of it.
    let mut open: Vec<std::slice::Iter<'_, WireReply>> = Vec::new();
    let mut next = Some(reply);
    while let Some(reply) = next {
        match reply {
            WireReply::Nil => out.extend_from_slice(b"null"),
            WireReply::Status(text) => json_string(out, text),
            WireReply::Bulk(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => json_string(out, text),
                Err(_) => {
                    out.extend_from_slice(b"{\"base64\":\"");
                    base64(out, bytes);
                    out.extend_from_slice(b"\"}");
                }
            },
            WireReply::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
            WireReply::Error(text) => {
                out.extend_from_slice(b"{\"error\":");
                json_string(out, text);
                out.push(b'}');
            }
            WireReply::Array(items) => {
                out.push(b'[');
                open.push(items.iter());
                // The first element has no comma in front.
                next = open.last_mut().and_then(Iterator::next);
                if next.is_some() {
                    continue;
                }
            }
        }
        next = None;
        while let Some(rest) = open.last_mut() {
            if let Some(item) = rest.next() {
                out.push(b',');
                next = Some(item);
                break;
            }
            out.push(b']');
            open.pop();
        }
    }
    out.push(b'\n');
}

fn json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            // Delete is allowed as it is, but no terminal shows it.
            0..=0x1f | 0x7f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// RFC 4648, section 4, with padding.
fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { digit } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, reply: &WireReply) -> String {
        let mut out = Vec::new();
        print(&mut out, format, reply);
        String::from_utf8(out).expect("UTF-8")
    }

    fn bulk(bytes: &[u8]) -> WireReply {
        WireReply::Bulk(bytes.to_vec())
    }

    fn nested() -> WireReply {
        let inner = WireReply::Array(vec![WireReply::Integer(1), WireReply::Array(vec![]), bulk(b"x")]);
        let mut items = vec![bulk(b"a"), inner, WireReply::Nil];
        items.resize(10, WireReply::Error("ERR e".into()));
        WireReply::Array(items)
    }

    #[test]
    fn single_replies_in_each_format() {
        let cases = [
            (WireReply::Nil, "Not Found", "(nil)", "null"),
            (WireReply::Status("OK".into()), "OK", "OK", "\"OK\""),
            (WireReply::Integer(-3), "-3", "(integer) -3", "-3"),
            (WireReply::Error("ERR no".into()), "ERR no", "(error) ERR no", "{\"error\":\"ERR no\"}"),
            (bulk(b"john"), "john", "\"john\"", "\"john\""),
            (bulk(b""), "", "\"\"", "\"\""),
            (bulk(b"a\"\\\n\x01\x7f"), "a\"\\\n\x01\x7f", r#""a\"\\\n\x01\x7f""#, r#""a\"\\\n\u0001\u007f""#),
            (bulk("\u{fc}".as_bytes()), "\u{fc}", r#""\xc3\xbc""#, "\"\u{fc}\""),
            (WireReply::Array(vec![]), "(empty)", "(empty array)", "[]"),
        ];
        for (reply, text, redis, json) in cases {
            assert_eq!(printed(Format::Text, &reply), format!("{text}\n"));
            assert_eq!(printed(Format::Redis, &reply), format!("{redis}\n"));
            assert_eq!(printed(Format::Json, &reply), format!("{json}\n"));
        }
    }

    #[test]
    fn arrays_are_numbered_and_aligned() {
        let text = printed(Format::Text, &nested());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..6],
            [" 1) a", " 2) 1) 1", "    2) (empty)", "    3) x", " 3) Not Found", " 4) ERR e"]
        );
        assert_eq!(lines.last(), Some(&"10) ERR e"));
        assert!(
            printed(Format::Redis, &nested()).contains("\n    2) (empty array)\n    3) \"x\"\n 3) (nil)\n")
        );
    }

    #[test]
    fn json_nests() {
        let json = printed(Format::Json, &nested());
        assert!(json.starts_with("[\"a\",[1,[],\"x\"],null,{\"error\":\"ERR e\"},"), "{json}");
        assert!(json.ends_with("}]\n") && json.lines().count() == 1, "{json}");
        let deep = WireReply::Array(vec![WireReply::Array(vec![WireReply::Array(vec![])])]);
        assert_eq!(printed(Format::Json, &deep), "[[[]]]\n");
        assert_eq!(printed(Format::Text, &deep), "1) 1) (empty)\n");
    }

    #[test]
    fn bytes_that_are_no_text_become_base64() {
        let cases = [
            (&b"\xff"[..], "/w=="),
            (b"\xff\xfe", "//4="),
            (b"\xff\xfe\0", "//4A"),
            (b"\xffabc", "/2FiYw=="),
        ];
        for (bytes, text) in cases {
            assert_eq!(printed(Format::Json, &bulk(bytes)), format!("{{\"base64\":\"{text}\"}}\n"));
        }
    }
}
