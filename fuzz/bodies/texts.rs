//! Small formats of text: numbers, patterns, lines.

use lanekv::dialect::split_line;
use lanekv::store::lookup;
use lanekv::types::{Reply, decimal};

use super::Parts;
use super::batches::EmptyStore;

/// Where one line ends, the next part begins.
pub(super) const LINES: Parts = Parts { head_len: 0, split: split_lines, seal: |_| {} };

pub(super) const DIGITS: &[&[u8]] =
    &[b"-", b"0", b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616"];
pub(super) const PATTERNS: &[&[u8]] =
    &[b"*", b"?", b"[", b"]", b"^", b"-", b"\\", b"[a-z]", b"[z-a]", b"[^a]", b"**", b"*a"];

fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

/// A decimal number is what the standard library prints, and nothing else is one.
pub(super) fn decimal(input: &[u8]) {
    let found = decimal::parse(input);
    let twin = std::str::from_utf8(input).ok().and_then(|text| text.parse::<i64>().ok());
    let twin = twin.filter(|number| number.to_string().as_bytes() == input);
    assert_eq!(found, twin);
    let number = input.iter().fold(0_i64, |number, byte| number.rotate_left(8) ^ i64::from(*byte));
    let mut text = Vec::new();
    decimal::push(&mut text, number);
    assert_eq!(text, number.to_string().as_bytes());
    assert_eq!(decimal::parse(&text), Some(number));
}

/// Words of a line, put in quotes, are the same words.
pub(super) fn line(input: &[u8]) {
    let Ok(words) = split_line(input) else { return };
    let mut quoted = Vec::new();
    for word in &words {
        quoted.extend_from_slice(b" \"");
        for byte in word {
            match byte {
                b'a'..=b'z' => quoted.push(*byte),
                b'"' | b'\\' => quoted.extend([b'\\', *byte]),
                _ => quoted.extend(format!("\\x{byte:02X}").into_bytes()),
            }
        }
        quoted.push(b'"');
    }
    assert_eq!(split_line(&quoted), Ok(words));
}

/// A pattern and a text, the pattern's length first.
pub(super) fn glob(input: &[u8]) {
    let [len, rest @ ..] = input else { return };
    let (pattern, text) = rest.split_at(usize::from(*len).min(rest.len()));
    let text = &text[..text.len().min(200)];
    EmptyStore::lend(|store| {
        store.run("SET", &[text, b""]);
        let keys = lookup(b"KEYS").expect("a command").code;
        let expected =
            if naive_match(&elements(pattern), text) { vec![Reply::bulk(text)] } else { Vec::new() };
        assert_eq!(store.read(keys, &[pattern]), Reply::Array(expected), "KEYS {}", pattern.escape_ascii());
    });
}

/// What stands at one place of a pattern.
enum Element {
    Star,
    One(Box<[bool; 256]>),
}

/// A pattern read as Redis reads it.
fn elements(pattern: &[u8]) -> Vec<Element> {
    let mut elements = Vec::new();
    let mut bytes = pattern.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let mut set = Box::new([false; 256]);
        match byte {
            b'*' => {
                elements.push(Element::Star);
                continue;
            }
            b'?' => set.fill(true),
            b'\\' => set[usize::from(bytes.next().unwrap_or(b'\\'))] = true,
            b'[' => {
                let negated = bytes.next_if_eq(&b'^').is_some();
                while let Some(first) = bytes.next() {
                    let mut ahead = bytes.clone();
                    match first {
                        b'\\' => set[usize::from(bytes.next().unwrap_or(b'\\'))] = true,
                        b']' => break,
                        _ if ahead.next() == Some(b'-') && ahead.peek().is_some() => {
                            let last = ahead.next().expect("just seen");
                            set[usize::from(first.min(last))..=usize::from(first.max(last))].fill(true);
                            bytes = ahead;
                        }
                        _ => set[usize::from(first)] = true,
                    }
                }
                if negated {
                    set.iter_mut().for_each(|member| *member = !*member);
                }
            }
            _ => set[usize::from(byte)] = true,
        }
        elements.push(Element::One(set));
    }
    elements
}

/// Which beginnings of the text fit the pattern so far, element by element.
fn naive_match(elements: &[Element], text: &[u8]) -> bool {
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for element in elements {
        match element {
            Element::Star => {
                let first = fits.iter().position(|fits| *fits).unwrap_or(fits.len());
                fits[first..].fill(true);
            }
            Element::One(set) => {
                for at in (0..text.len()).rev() {
                    fits[at + 1] = fits[at] && set[usize::from(text[at])];
                }
                fits[0] = false;
            }
        }
    }
    fits[text.len()]
}
