//! Long replies become bytes some elements at a time, be the elements in the reply itself, as those of `KEYS`, or
//! deeper, as the keys that `SCAN` has found or what a transaction tells of either.
//!
//! That needs a dialect in which an element looks the same wherever it stands. Text numbers the elements and a frame
//! begins with the length of all, so there a long reply is turned into bytes at a stroke.

use std::vec;

use crate::dialect::{ReplyStyle, encode, encode_array_head, encode_bulk};
use crate::store::{Found, LongReply};
use crate::types::{Item, Reply};

use super::queue::Remains;

/// A reply that counts for more elements than this is turned into bytes piece by piece.
const POUR_COUNT: usize = 1024;
/// So many bytes of a long reply count as another element.
const BYTES_PER_ELEMENT: usize = 256;

/// What is left of a long reply.
#[derive(Debug)]
pub(super) struct Pouring {
    style: ReplyStyle,
    /// The rest of it and of those elements that are long as well, from the outside to the inside.
    rest: Vec<Elements>,
}

#[derive(Debug)]
enum Elements {
    Replies(vec::IntoIter<Reply>),
    /// The keys of these.
    Keys(vec::IntoIter<Item>),
}

/// For how many elements a reply counts: those that it has, those of its elements, and what long ones count for.
/// `None`: too many.
fn count_of(reply: &Reply) -> Option<usize> {
    fn exceeds(reply: &Reply, left: &mut usize) -> bool {
        let (count, elements): (usize, &[Reply]) = match reply {
            Reply::Array(elements) => (elements.len(), elements),
            Reply::Bulk(bytes) => (bytes.len() / BYTES_PER_ELEMENT, &[]),
            _ => return false,
        };
        let Some(rest) = left.checked_sub(count) else { return true };
        *left = rest;
        elements.iter().any(|element| exceeds(element, left))
    }
    let mut left = POUR_COUNT;
    (!exceeds(reply, &mut left)).then(|| POUR_COUNT - left)
}

/// Whether a reply is turned into bytes piece by piece.
pub(super) fn is_long(reply: &Reply) -> bool {
    matches!(reply, Reply::Array(_)) && count_of(reply).is_none()
}

/// The same for keys.
fn are_long(items: &[Item]) -> bool {
    let mut left = POUR_COUNT;
    items.iter().any(|item| match left.checked_sub(1 + item.key().len() / BYTES_PER_ELEMENT) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}

impl Pouring {
    /// Turns a reply into bytes, or the beginning of a long one; then what is returned goes on.
    pub(super) fn begin(output: &mut Vec<u8>, style: ReplyStyle, reply: LongReply) -> Option<Pouring> {
        let rest = match reply {
            LongReply::Reply(reply) if is_long(&reply) => open(output, style, reply),
            LongReply::Keys(found) if are_long(&found.items) && encode_head(output, style, &found) => {
                Some(Elements::Keys(found.items.into_iter()))
            }
            reply => {
                encode(output, style, &reply.into_reply());
                None
            }
        };
        rest.map(|rest| Pouring { style, rest: vec![rest] })
    }

    /// Turns the next element into bytes. Returns for how many it counts, with those in it and what their bytes take,
    /// or `None` if there was none.
    pub(super) fn pour(&mut self, output: &mut Vec<u8>) -> Option<usize> {
        let before = output.len();
        let count = self.pour_element(output)?;
        Some(count + (output.len() - before) / BYTES_PER_ELEMENT)
    }

    fn pour_element(&mut self, output: &mut Vec<u8>) -> Option<usize> {
        let style = self.style;
        while let Some(elements) = self.rest.last_mut() {
            match elements {
                Elements::Replies(replies) => {
                    if let Some(reply) = replies.next() {
                        let count = count_of(&reply);
                        match count {
                            Some(_) => encode(output, style, &reply),
                            None => self.rest.extend(open(output, style, reply)),
                        }
                        return Some(1 + count.unwrap_or(0));
                    }
                }
                Elements::Keys(items) => {
                    if let Some(item) = items.next() {
                        encode_bulk(output, style, item.key());
                        return Some(1);
                    }
                }
            }
            self.rest.pop();
        }
        None
    }

    /// Nobody waits for it any more.
    pub(super) fn leave_to(self, remains: &mut Remains) {
        for elements in self.rest {
            match elements {
                Elements::Replies(replies) => remains.replies.push(replies.collect()),
                Elements::Keys(items) => remains.items.push(items.collect()),
            }
        }
    }
}

/// Appends what comes before the elements of a long reply, and returns these; or all of it.
fn open(output: &mut Vec<u8>, style: ReplyStyle, reply: Reply) -> Option<Elements> {
    match reply {
        Reply::Array(elements) if encode_array_head(output, style, elements.len()) => {
            Some(Elements::Replies(elements.into_iter()))
        }
        reply => {
            encode(output, style, &reply);
            None
        }
    }
}

/// Appends what comes before keys, if they may follow one by one. Says whether that is so.
fn encode_head(output: &mut Vec<u8>, style: ReplyStyle, found: &Found) -> bool {
    if let Some(cursor) = found.cursor {
        if !encode_array_head(output, style, 2) {
            return false;
        }
        encode(output, style, &Found::cursor_reply(cursor));
    }
    encode_array_head(output, style, found.items.len())
}
