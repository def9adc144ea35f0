//! Long replies become bytes some elements at a time, be the elements in the reply itself, as those of `KEYS`, or
//! deeper, as the keys that `SCAN` has found or what a transaction tells of either. An element is let go of as soon as
//! it is sent on its way, so there is nothing to be freed at the end but an empty array.
//!
//! In RESP an element looks the same wherever it stands. In text it has a number and an indentation, which each array
//! on the way keeps ([`OpenArray`]).
//!
//! A frame begins with the length and the checksum of all that follows. So the elements are turned into bytes twice:
//! the first time these are only counted and summed, and then the frame is poured like any other reply. A buffer with
//! the whole frame would spare the second time, and have hundreds of megabytes that are copied, given back, and kept
//! for as long as the client does not read.
//!
//! Elements are counted and so are the bytes in them, for a few values may be as much work as very many. Only arrays
//! are looked at: maps, sets and pushes tell about the node or its commands and are short, and so is text for people
//! to read. A single value becomes bytes at a stroke, be it long or not.
//!
//! **All connections share what a turn may do** ([`PourFund`]), and short arrays are paid for as well: a thousand of
//! them can wait for a client to read. A quarter of it is for whoever comes first; those that this did not suffice for
//! stand in a row ([`run_busy`](super::Node::run_busy)), and have the rest and what is left of that quarter.

use std::cell::Cell;
use std::vec;

use crate::dialect::{OpenArray, ReplyStyle, encode};
use crate::store::{Found, LongReply, Watch};
use crate::types::{Item, Nanos, Reply, limits};
use crate::wire::client::ResponseSum;

use super::queue::Remains;

/// A reply that is more work than this is turned into bytes piece by piece.
const POUR_WORK: usize = 1024;
/// So many bytes are as much work as an element.
const BYTES_PER_ELEMENT: usize = 256;
/// Bytes are summed when there are so many, and not for each element.
const SUMMED_LEN: usize = 4 << 10;
/// A longer element's bytes do not keep their memory.
const SUMMED_LEN_KEPT: usize = 64 << 10;

/// So much of the work of replies that are arrays is done in a turn: elements that become bytes, those in elements
/// counted, and long values for several. That is two or three milliseconds if none of them is in the processor's cache.
pub(super) const POURED_PER_TURN: usize = 8192;
/// How long it is done at a stroke: when there is room in an output, when a reply is there, and for those who wait.
pub(super) const POURING_TIME: Nanos = Nanos::of_micros(750);

/// What a turn may do for replies that are arrays. It stops where it is exceeded, by what is done at a stroke.
#[derive(Debug)]
pub(super) struct PourFund {
    /// So much has been done.
    spent: Cell<usize>,
    /// Whoever is served now may go on until so much has been done.
    max: usize,
    /// Tells when the time is up.
    watch: Watch,
}

impl PourFund {
    /// Of a turn: a quarter of it for whoever comes first.
    pub(super) fn of_turn() -> PourFund {
        PourFund { spent: Cell::new(0), max: POURED_PER_TURN / 4, watch: Watch::default() }
    }

    /// From now on this watch tells when the time is up, and then nothing is left.
    pub(super) fn set_watch(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// What is left of the turn, for all.
    pub(super) fn left(&self) -> usize {
        if self.watch.is_late() {
            return 0;
        }
        POURED_PER_TURN.saturating_sub(self.spent.get())
    }

    /// The next to be served may do so much, if so much is left.
    pub(super) fn allow(&mut self, share: usize) {
        self.max = self.spent.get() + share.min(self.left());
    }

    /// Whether whoever is served now must wait for another turn.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.get() >= self.max || self.watch.is_late()
    }

    fn spend(&self, work: usize) {
        self.spent.set(self.spent.get().saturating_add(work));
        self.watch.note(work as u64);
    }
}

/// What is left of a long reply.
#[derive(Debug)]
pub(super) struct Pouring {
    /// How long it is has to be found out first.
    measuring: Option<Box<Measuring>>,
    /// The rest of it and of those elements that are long as well, from the outside to the inside.
    rest: Vec<Rest>,
}

/// What is left of an array.
#[derive(Debug)]
struct Rest {
    array: OpenArray,
    elements: Elements,
}

#[derive(Debug)]
enum Elements {
    Replies(vec::IntoIter<Reply>),
    /// The keys of these.
    Keys(vec::IntoIter<Item>),
}

/// How much work the elements of an array are, with those in them. `None`: more than is done at a stroke.
fn count_of(elements: &[Reply]) -> Option<usize> {
    fn exceeds(elements: &[Reply], left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(elements.len()) else { return true };
        *left = rest;
        elements.iter().any(|element| match element {
            Reply::Array(inner) => exceeds(inner, left),
            Reply::Bulk(bytes) => match left.checked_sub(bytes.len() / BYTES_PER_ELEMENT) {
                Some(rest) => {
                    *left = rest;
                    false
                }
                None => true,
            },
            _ => false,
        })
    }
    let mut left = POUR_WORK;
    (!exceeds(elements, &mut left)).then(|| POUR_WORK - left)
}

/// Whether a reply is turned into bytes piece by piece.
pub(super) fn is_long(reply: &Reply) -> bool {
    matches!(reply, Reply::Array(elements) if count_of(elements).is_none())
}

/// How much work keys are, if it is not more than is done at a stroke.
fn count_of_keys(items: &[Item]) -> Option<usize> {
    let left = items.iter().try_fold(POUR_WORK, |left, item| left.checked_sub(work_of(item.key().len())));
    left.map(|left| POUR_WORK - left)
}

/// How much work an element was that became so many bytes, without what is in it.
fn work_of(len: usize) -> usize {
    1 + len / BYTES_PER_ELEMENT
}

/// How much work what is in an element is, if it is not too much to be done at a stroke.
fn work_within(reply: &Reply) -> Option<usize> {
    match reply {
        Reply::Array(inner) => count_of(inner),
        _ => Some(0),
    }
}

impl Pouring {
    /// Turns a reply into bytes, or the beginning of a long one; then what is returned goes on.
    pub(super) fn begin(
        output: &mut Vec<u8>,
        style: ReplyStyle,
        reply: LongReply,
        fund: &PourFund,
    ) -> Option<Pouring> {
        let work = match &reply {
            LongReply::Reply(reply) => work_within(reply),
            LongReply::Keys(found) => count_of_keys(&found.items),
        };
        fund.spend(work.unwrap_or(1));
        if work.is_some() {
            encode(output, style, &reply.into_reply());
            return None;
        }
        let mut head = Vec::new();
        let rest = open(&mut head, style, reply)?;
        let measuring = match style {
            ReplyStyle::Binary { id } => Some(Box::new(Measuring::new(id, rest.array, head))),
            _ => {
                output.extend_from_slice(&head);
                None
            }
        };
        Some(Pouring { measuring, rest: vec![rest] })
    }

    /// Goes on for as long as the fund suffices and the output is shorter than this, and says whether all is done.
    pub(super) fn go_on(&mut self, output: &mut Vec<u8>, len_max: usize, fund: &PourFund) -> bool {
        while output.len() < len_max && !fund.is_spent() {
            match self.pour(output) {
                Some(work) => fund.spend(work),
                None => return true,
            }
        }
        false
    }

    /// Does the next element's work and says how much that was, or that all is done.
    pub(super) fn pour(&mut self, output: &mut Vec<u8>) -> Option<usize> {
        if let Some(measuring) = &mut self.measuring {
            let work = self.rest.first().and_then(|rest| measuring.measure(&rest.elements));
            if work.is_none()
                && let Some(measuring) = self.measuring.take()
            {
                self.begin_frame(output, *measuring);
            }
            return Some(work.unwrap_or(1));
        }
        let len = output.len();
        while let Some(Rest { array, elements }) = self.rest.last_mut() {
            match elements {
                Elements::Replies(replies) => {
                    match replies.next().map(|reply| (work_within(&reply), reply)) {
                        Some((None, Reply::Array(inner))) => {
                            let array = array.open(output, inner.len());
                            self.rest.push(Rest { array, elements: Elements::Replies(inner.into_iter()) });
                            return Some(1);
                        }
                        Some((within, reply)) => {
                            array.push(output, &reply);
                            return Some(work_of(output.len() - len) + within.unwrap_or(0));
                        }
                        None => {}
                    }
                }
                Elements::Keys(items) => {
                    if let Some(item) = items.next() {
                        array.push_bulk(output, item.key());
                        return Some(work_of(output.len() - len));
                    }
                }
            }
            self.rest.pop();
        }
        None
    }

    /// Turns what comes before the elements into bytes, now that it is known.
    fn begin_frame(&mut self, output: &mut Vec<u8>, measured: Measuring) {
        if measured.sum.fits() {
            measured.sum.encode_head(output);
            output.extend_from_slice(&measured.head);
            return;
        }
        let text = format!("ERR reply exceeds {} bytes, ask for less at a time", limits::FRAME_LEN_MAX);
        encode(output, ReplyStyle::Binary { id: measured.sum.id() }, &Reply::error(text));
        // The elements are let go of some at a time, as if they were sent.
        for rest in &mut self.rest {
            rest.array = OpenArray::silent();
        }
    }

    /// Nobody waits for it any more. It can be millions of elements, and none of them is moved.
    pub(super) fn leave_to(self, remains: &mut Remains) {
        for Rest { elements, .. } in self.rest {
            match elements {
                Elements::Replies(replies) => remains.replies.push(replies),
                Elements::Keys(items) => remains.items.push(items),
            }
        }
    }
}

/// Appends what comes before the elements of a long reply, and returns these.
fn open(output: &mut Vec<u8>, style: ReplyStyle, reply: LongReply) -> Option<Rest> {
    match reply {
        LongReply::Reply(Reply::Array(elements)) => {
            let array = OpenArray::begin(output, style, elements.len());
            Some(Rest { array, elements: Elements::Replies(elements.into_iter()) })
        }
        LongReply::Reply(_) => None,
        LongReply::Keys(Found { cursor, items }) => {
            let array = match cursor {
                None => OpenArray::begin(output, style, items.len()),
                Some(cursor) => {
                    let mut pair = OpenArray::begin(output, style, 2);
                    pair.push(output, &Found::cursor_reply(cursor));
                    pair.open(output, items.len())
                }
            };
            Some(Rest { array, elements: Elements::Keys(items.into_iter()) })
        }
    }
}

/// Goes through the elements of a frame's reply before they are sent.
#[derive(Debug)]
struct Measuring {
    sum: ResponseSum,
    /// What comes before the elements.
    head: Vec<u8>,
    /// How far it is, from the outside to the inside: arrays, and the number of the next element in each.
    path: Vec<(OpenArray, usize)>,
    /// What is not in the sum yet.
    bytes: Vec<u8>,
}

impl Measuring {
    fn new(id: u64, array: OpenArray, head: Vec<u8>) -> Measuring {
        let mut sum = ResponseSum::new(id);
        sum.add(&head);
        Measuring { sum, head, path: vec![(array, 0)], bytes: Vec::new() }
    }

    /// Looks at the next element and says how much work that was. `None`: that was all, or too much.
    fn measure(&mut self, outermost: &Elements) -> Option<usize> {
        if !self.sum.fits() {
            return None;
        }
        let len = self.bytes.len();
        while let Some(((array, next), outer)) = self.path.split_last_mut() {
            let number = *next;
            *next += 1;
            match outermost {
                Elements::Keys(items) => {
                    if let Some(item) = items.as_slice().get(number) {
                        array.push_bulk(&mut self.bytes, item.key());
                        return Some(self.sum_up(len));
                    }
                }
                Elements::Replies(replies) => {
                    let next = innermost(replies.as_slice(), outer).get(number);
                    match next.map(|reply| (work_within(reply), reply)) {
                        Some((None, Reply::Array(inner))) => {
                            let array = array.open(&mut self.bytes, inner.len());
                            self.path.push((array, 0));
                            return Some(1);
                        }
                        Some((within, reply)) => {
                            array.push(&mut self.bytes, reply);
                            return Some(self.sum_up(len) + within.unwrap_or(0));
                        }
                        None => {}
                    }
                }
            }
            self.path.pop();
        }
        self.sum.add(&self.bytes);
        None
    }

    /// Sums what has come together since there were `len` bytes, if it is enough.
    fn sum_up(&mut self, len: usize) -> usize {
        let work = work_of(self.bytes.len() - len);
        if self.bytes.len() >= SUMMED_LEN {
            self.sum.add(&self.bytes);
            self.bytes.clear();
            self.bytes.shrink_to(SUMMED_LEN_KEPT);
        }
        work
    }
}

/// The elements of the innermost of these arrays, of which each has been entered at the element before its next one.
fn innermost<'a>(outermost: &'a [Reply], outer: &[(OpenArray, usize)]) -> &'a [Reply] {
    let mut elements = outermost;
    for (_, next) in outer {
        if let Some(Reply::Array(inner)) = elements.get(next - 1) {
            elements = inner;
        }
    }
    elements
}
