//! Plain text replies, for people at `nc`: a line each.
//!
//! `OK`, the value as it is, `Not Found`, a number, `ERR …`. Several values come one per line, numbered; an array in an
//! array is indented as far as its number reaches.

use crate::types::{Plain, Reply, decimal};

use super::resp::push_one_line;

/// An array that is being listed.
struct Level<'a> {
    left: std::slice::Iter<'a, Reply>,
    /// The number of the next element.
    number: i64,
    /// Where its numbers begin.
    indent: usize,
}

/// Appends a reply with its line end.
pub(super) fn encode(out: &mut Vec<u8>, reply: &Reply) {
    // The innermost last: an explicit stack instead of recursion.
    let mut open: Vec<Level<'_>> = Vec::new();
    let mut next = Some((reply, 0));
    while let Some((reply, column)) = next {
        match reply.plain() {
            Plain::Array(items) if !items.is_empty() => {
                open.push(Level { left: items.iter(), number: 1, indent: column });
            }
            leaf => encode_leaf(out, leaf),
        }
        next = None;
        while let Some(level) = open.last_mut() {
            let Some(item) = level.left.next() else {
                open.pop();
                continue;
            };
            // The first number stands on the line that the array's own number began.
            if level.number > 1 {
                out.resize(out.len() + level.indent, b' ');
            }
            let start = out.len();
            decimal::push(out, level.number);
            out.extend_from_slice(b") ");
            level.number += 1;
            next = Some((item, level.indent + out.len() - start));
            break;
        }
    }
}

fn encode_leaf(out: &mut Vec<u8>, reply: Plain<'_>) {
    match reply {
        Plain::Nil => out.extend_from_slice(b"Not Found"),
        Plain::Status(text) => out.extend_from_slice(text.as_bytes()),
        Plain::Bulk(bytes) => out.extend_from_slice(bytes),
        Plain::Integer(number) => decimal::push(out, number),
        Plain::Error(text) => push_one_line(out, text),
        Plain::Array(_) => out.extend_from_slice(b"(empty)"),
    }
    out.push(b'\n');
}
