//! RESP, the protocol of Redis: arrays of bulk strings in, replies of RESP2 or RESP3 out.
//!
//! An array is `*<count>\r\n`, then for each argument `$<length>\r\n<bytes>\r\n`. It may arrive in any pieces; what has
//! been understood is remembered, so that the work is linear in the bytes. Stricter than Redis in one point: the bytes
//! behind an argument must be CR LF, because otherwise a client with a wrong length would have its value taken for
//! commands.

use std::ops::Range;

use crate::types::{Plain, Reply, decimal};

use super::DecodeLimits;
use super::error::ProtocolError;
use super::line::{Ending, Line, read_line};

/// What the next bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Expect {
    /// The line with the number of arguments.
    #[default]
    Count,
    /// The line with the length of an argument.
    Length,
    /// So many bytes of an argument, and its line end.
    Bytes(usize),
}

/// An array of which perhaps not all has arrived. Places are counted from its first byte.
#[derive(Debug, Default)]
pub(super) struct ArrayParser {
    expect: Expect,
    /// What comes before this has been understood.
    at: usize,
    /// There is no line end between `at` and this.
    scanned: usize,
    /// Arguments still to come.
    left: usize,
    /// The bytes of all arguments so far.
    len: usize,
    /// Where the arguments are.
    places: Vec<Range<usize>>,
}

/// What the bytes so far amount to.
pub(super) enum Progress {
    /// All arguments are there, see [`ArrayParser::places`]; the array has so many bytes.
    Whole { len: usize },
    /// An array without arguments of so many bytes, which is ignored.
    Empty { len: usize },
    /// At least so many bytes are needed, counted from the first of the array.
    Partial { needed: usize },
}

impl ArrayParser {
    /// Where the arguments of the whole array are.
    pub(super) fn places(&self) -> &[Range<usize>] {
        &self.places
    }

    /// Forgets the array, and all of a large one's memory.
    pub(super) fn reset(&mut self) {
        const PLACES_KEPT: usize = 64;
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        places.shrink_to(PLACES_KEPT);
        *self = ArrayParser { places, ..ArrayParser::default() };
    }

    /// Goes on where it stopped; `input` begins with the first byte of the array.
    pub(super) fn advance(&mut self, input: &[u8], limits: &DecodeLimits) -> Result<Progress, ProtocolError> {
        loop {
            match self.expect {
                Expect::Count => {
                    let too_big = ProtocolError::TooBigCountString;
                    let invalid = ProtocolError::InvalidMultibulkLength;
                    let Some(count) = self.number(input, limits, too_big, &invalid)? else {
                        return Ok(Progress::Partial { needed: input.len() + 1 });
                    };
                    if count <= 0 {
                        return Ok(Progress::Empty { len: self.at });
                    }
                    self.left = usize::try_from(count)
                        .ok()
                        .filter(|&count| count <= limits.argument_count_max)
                        .ok_or(invalid)?;
                    self.expect = Expect::Length;
                }
                Expect::Length => {
                    if self.left == 0 {
                        return Ok(Progress::Whole { len: self.at });
                    }
                    match input.get(self.at) {
                        None | Some(b'$') => {}
                        Some(&found) => return Err(ProtocolError::ExpectedBulk { found }),
                    }
                    let too_big = ProtocolError::TooBigBulkCountString;
                    let invalid = ProtocolError::InvalidBulkLength;
                    let Some(len) = self.number(input, limits, too_big, &invalid)? else {
                        return Ok(Progress::Partial { needed: input.len() + 1 });
                    };
                    let len =
                        usize::try_from(len).ok().filter(|&len| len <= limits.bulk_len_max).ok_or(invalid)?;
                    self.len = self.len.saturating_add(len);
                    if self.len > limits.command_len_max {
                        return Err(ProtocolError::TooBigRequest);
                    }
                    self.expect = Expect::Bytes(len);
                }
                Expect::Bytes(len) => {
                    let end = self.at.saturating_add(len);
                    let next = end.saturating_add(2);
                    match input.get(end..next) {
                        None => return Ok(Progress::Partial { needed: next }),
                        Some(b"\r\n") => {}
                        Some(_) => return Err(ProtocolError::InvalidBulkLength),
                    }
                    self.places.push(self.at..end);
                    self.at = next;
                    self.scanned = next;
                    self.left -= 1;
                    self.expect = Expect::Length;
                }
            }
        }
    }

    /// Reads a line that is a sign and a number, and steps over it. `None`: its end is not there yet.
    fn number(
        &mut self,
        input: &[u8],
        limits: &DecodeLimits,
        too_big: ProtocolError,
        invalid: &ProtocolError,
    ) -> Result<Option<i64>, ProtocolError> {
        match read_line(input, self.at, self.scanned, limits.inline_len_max) {
            Line::Partial => {
                self.scanned = input.len();
                Ok(None)
            }
            Line::Whole { content: [_, digits @ ..], ending: Ending::CrLf, next } => {
                self.at = next;
                self.scanned = next;
                decimal::parse(digits).map(Some).ok_or_else(|| invalid.clone())
            }
            Line::Whole { .. } => Err(invalid.clone()),
            Line::TooLong => Err(too_big),
        }
    }
}

/// The versions differ in what types of replies they have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RespVersion {
    /// What every client begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// Appends a reply.
pub(super) fn encode(out: &mut Vec<u8>, version: RespVersion, reply: &Reply) {
    // An explicit stack instead of recursion; the last is the next to be written.
    let mut todo = Vec::new();
    let mut next = Some(reply);
    while let Some(reply) = next {
        let is_new = version == RespVersion::Resp3;
        match reply {
            Reply::NilArray if !is_new => out.extend_from_slice(b"*-1\r\n"),
            Reply::Map(items) if is_new => {
                push_head(out, b'%', items.len() / 2);
                todo.extend(items.iter().rev());
            }
            Reply::Set(items) if is_new => {
                push_head(out, b'~', items.len());
                todo.extend(items.iter().rev());
            }
            Reply::Push(items) if is_new => {
                push_head(out, b'>', items.len());
                todo.extend(items.iter().rev());
            }
            Reply::Verbatim(bytes) if is_new => {
                push_head(out, b'=', bytes.len() + 4);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Reply::Double(text) if is_new => push_line(out, b',', text),
            Reply::BigNumber(text) if is_new => push_line(out, b'(', text),
            Reply::Boolean(value) if is_new => push_line(out, b'#', if *value { "t" } else { "f" }),
            other => match other.plain() {
                Plain::Nil => out.extend_from_slice(if is_new { b"_\r\n" } else { b"$-1\r\n" }),
                Plain::Status(text) => push_line(out, b'+', text),
                Plain::Bulk(bytes) => push_bulk(out, bytes),
                Plain::Integer(number) => {
                    out.push(b':');
                    decimal::push(out, number);
                    out.extend_from_slice(b"\r\n");
                }
                Plain::Error(text) => {
                    out.push(b'-');
                    push_one_line(out, text);
                    out.extend_from_slice(b"\r\n");
                }
                Plain::Array(items) => {
                    push_head(out, b'*', items.len());
                    todo.extend(items.iter().rev());
                }
            },
        }
        next = todo.pop();
    }
}

fn push_line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(super) fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    push_head(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn push_head(out: &mut Vec<u8>, kind: u8, len: usize) {
    out.push(kind);
    decimal::push(out, i64::try_from(len).expect("no allocation is larger than 2^63 - 1"));
    out.extend_from_slice(b"\r\n");
}

/// Appends an error's text. Errors are one line, but a client's own words may be quoted in them, and a line end there
/// would forge a second reply.
pub(super) fn push_one_line(out: &mut Vec<u8>, text: &str) {
    let text = text.trim_end_matches(['\r', '\n']);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
}
