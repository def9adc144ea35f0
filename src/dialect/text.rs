//! Plain text replies, for people at `nc`: a line each.
//!
//! `OK`, the value as it is, `Not Found`, a number, `ERR …`. Several values come one per line, numbered; an array in an
//! array is indented as far as its number reaches.

use crate::types::{Plain, Reply, decimal};

use super::resp::push_one_line;

/// Numbers the elements of an array.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbering {
    /// The number of the next element.
    next: i64,
    /// Where the numbers begin.
    indent: usize,
}

impl Numbering {
    /// For an array that begins in this column of its line.
    pub(super) fn at(column: usize) -> Numbering {
        Numbering { next: 1, indent: column }
    }

    /// Appends what comes before the next element, and returns the column in which that begins.
    pub(super) fn push(&mut self, out: &mut Vec<u8>) -> usize {
        // The first number stands on the line that the array's own number began.
        if self.next > 1 {
            out.resize(out.len() + self.indent, b' ');
        }
        let start = out.len();
        decimal::push(out, self.next);
        out.extend_from_slice(b") ");
        self.next += 1;
        self.indent + out.len() - start
    }
}

/// An array that is being listed.
struct Level<'a> {
    left: std::slice::Iter<'a, Reply>,
    numbering: Numbering,
}

/// Appends a reply that begins in this column, with its line end.
pub(super) fn encode(out: &mut Vec<u8>, reply: &Reply, column: usize) {
    // The innermost last: an explicit stack instead of recursion.
    let mut open: Vec<Level<'_>> = Vec::new();
    let mut next = Some((reply, column));
    while let Some((reply, column)) = next {
        match reply.plain() {
            Plain::Array(items) if !items.is_empty() => {
                open.push(Level { left: items.iter(), numbering: Numbering::at(column) });
            }
            leaf => encode_leaf(out, leaf),
        }
        next = None;
        while let Some(level) = open.last_mut() {
            if let Some(item) = level.left.next() {
                next = Some((item, level.numbering.push(out)));
                break;
            }
            open.pop();
        }
    }
}

/// Appends what is no array, or an empty one, with its line end.
pub(super) fn encode_leaf(out: &mut Vec<u8>, reply: Plain<'_>) {
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
