//! From the bytes of an image back to a store, or only to its digest.
//!
//! Bytes come in pieces of any length. An item that ends in the piece that brings it is read where it is; one that
//! does not is collected first, and what is set aside for it grows with what has come of it, never with
//! what it announces.

use std::fmt;

use crate::store::keyspace::{Keyspace, key_hash};
use crate::store::sessions::{Session, Sessions};
use crate::store::{Limits, Store, combine};
use crate::types::{Index, Millis, Reply, SessionId, limits};
use crate::wire::{DecodeError, Reader};

use super::{KIND_END, KIND_KEY, KIND_MORTAL, KIND_REPLY, KIND_SESSION, KIND_TIME};

/// Bytes of an item before its parts of any length, the kind included.
const KEY_HEAD_LEN: usize = 17;
const MORTAL_HEAD_LEN: usize = 25;
const TIME_LEN: usize = 9;
const SESSION_LEN: usize = 33;
const REPLY_HEAD_LEN: usize = 13;
const END_LEN: usize = 17;
/// Arrays in arrays in a kept reply, at most.
const REPLY_DEPTH_MAX: usize = 8;
/// Elements of an array in a kept reply, at most. Each takes more memory than bytes.
const REPLY_COUNT_MAX: usize = 1 << 20;
/// How much memory is kept from one unfinished item to the next.
const SPARE_LEN_MAX: usize = 1 << 20;

/// Why bytes are no image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// An item that cannot be read.
    Item {
        /// Where it begins: bytes of the image before it.
        at: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// An item that does not fit those before it.
    Contradiction {
        /// Where it begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The bytes end before the image does.
    Unfinished {
        /// How many there are.
        at: u64,
    },
    /// The state is not the one that was announced.
    Digest {
        /// That of what was read.
        found: u64,
        /// That of the state it should be.
        expected: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Item { at, source } => write!(f, "item at byte {at} of the image: {source}"),
            ImageError::Contradiction { at, what } => write!(f, "item at byte {at} of the image: {what}"),
            ImageError::Unfinished { at } => write!(f, "the image ends early, after {at} bytes"),
            ImageError::Digest { found, expected } => {
                write!(f, "the image has the digest {found:016x}, expected {expected:016x}")
            }
        }
    }
}

impl std::error::Error for ImageError {}

/// What becomes of keys and sessions. Both say whether they were new.
trait Sink {
    fn key(&mut self, key: &[u8], value: &[u8], revision: Index, deadline: Option<Millis>) -> bool;
    fn session(&mut self, id: SessionId, session: Session) -> bool;
    /// Keys and sessions so far.
    fn counts(&self) -> (u64, u64);
    /// Of keys and sessions, and the time.
    fn digest(&self, now: Millis) -> u64;
}

/// Takes bytes apart and hands items to a sink.
#[derive(Debug)]
struct Intake<S> {
    sink: S,
    /// The beginning of an item whose rest has not come yet.
    pending: Vec<u8>,
    /// The session whose replies are coming.
    open: Option<(SessionId, Session)>,
    /// Where in the image the next item begins.
    at: u64,
    /// The replicated time, once it has come.
    time: Option<Millis>,
    ended: bool,
}

impl<S: Sink> Intake<S> {
    fn new(sink: S) -> Intake<S> {
        Intake { sink, pending: Vec::new(), open: None, at: 0, time: None, ended: false }
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), ImageError> {
        while !bytes.is_empty() {
            if self.pending.is_empty() {
                match self.item_len(bytes)? {
                    Some(len) if len <= bytes.len() => {
                        let (item, rest) = bytes.split_at(len);
                        self.item(item)?;
                        bytes = rest;
                    }
                    _ => {
                        self.pending.extend_from_slice(bytes);
                        break;
                    }
                }
                continue;
            }
            // Until its length is known, it gets byte after byte.
            let needed = self.item_len(&self.pending)?.unwrap_or(self.pending.len() + 1);
            let (more, rest) = bytes.split_at((needed - self.pending.len()).min(bytes.len()));
            self.pending.extend_from_slice(more);
            bytes = rest;
            if self.item_len(&self.pending)? == Some(self.pending.len()) {
                let mut item = std::mem::take(&mut self.pending);
                self.item(&item)?;
                if item.capacity() <= SPARE_LEN_MAX {
                    item.clear();
                    self.pending = item;
                }
            }
        }
        Ok(())
    }

    /// The length of the item that begins here, once enough of it is there to tell.
    fn item_len(&self, bytes: &[u8]) -> Result<Option<usize>, ImageError> {
        let too_long = |what, len: usize, max: usize| {
            let source = DecodeError::TooLong { what, len: len as u64, max: max as u64 };
            ImageError::Item { at: self.at, source }
        };
        let u32_at = |at: usize| {
            bytes.get(at..at + 4).and_then(|bytes| Reader::new(bytes).u32().ok()).map(|n| n as usize)
        };
        Ok(match bytes.first() {
            None => None,
            Some(&KIND_END) => Some(END_LEN),
            Some(&KIND_SESSION) => Some(SESSION_LEN),
            Some(&KIND_TIME) => Some(TIME_LEN),
            Some(&kind @ (KIND_KEY | KIND_MORTAL)) => {
                let head = if kind == KIND_KEY { KEY_HEAD_LEN } else { MORTAL_HEAD_LEN };
                let (Some(key_len), Some(value_len)) = (u32_at(head - 8), u32_at(head - 4)) else {
                    return Ok(None);
                };
                if key_len > limits::KEY_LEN_MAX {
                    return Err(too_long("key", key_len, limits::KEY_LEN_MAX));
                }
                if value_len > limits::VALUE_LEN_CEILING {
                    return Err(too_long("value", value_len, limits::VALUE_LEN_CEILING));
                }
                Some(head + key_len + value_len)
            }
            Some(&KIND_REPLY) => {
                let Some(len) = u32_at(9) else { return Ok(None) };
                if len > limits::FRAME_LEN_MAX {
                    return Err(too_long("kept reply", len, limits::FRAME_LEN_MAX));
                }
                Some(REPLY_HEAD_LEN + len)
            }
            Some(&found) => {
                let source = DecodeError::Invalid { what: "kind of item", found: u64::from(found) };
                return Err(ImageError::Item { at: self.at, source });
            }
        })
    }

    fn item(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let at = self.at;
        let contradiction = |what| Err(ImageError::Contradiction { at, what });
        if self.ended {
            return contradiction("something behind the end");
        }
        self.take(bytes).map_err(|fault| match fault {
            Fault::Decode(source) => ImageError::Item { at, source },
            Fault::What(what) => ImageError::Contradiction { at, what },
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut r = Reader::new(bytes);
        let kind = r.u8()?;
        if kind == KIND_REPLY {
            let (seq, _) = (r.u64()?, r.u32()?);
            let reply = decode_reply(&mut r)?;
            r.finish()?;
            let Some((_, session)) = &mut self.open else {
                return Err(Fault::What("a kept reply without its session"));
            };
            if !session.restore_reply(seq, reply) {
                return Err(Fault::What("a kept reply that its session cannot have"));
            }
            return Ok(());
        }
        self.close_session()?;
        match kind {
            KIND_KEY | KIND_MORTAL => {
                let revision = Index(r.u64()?);
                let deadline = if kind == KIND_MORTAL { Some(Millis(r.u64()?)) } else { None };
                let (key_len, _) = (r.u32()?, r.u32()?);
                let key = r.bytes(key_len as usize)?;
                // A dead key is not in an image; the largest number stands for having no deadline.
                if deadline.is_some_and(|at| at <= self.time.unwrap_or_default() || at == Millis(u64::MAX)) {
                    return Err(Fault::What("a deadline that no key can have"));
                }
                if !self.sink.key(key, r.rest(), revision, deadline) {
                    return Err(Fault::What("a key for the second time"));
                }
            }
            KIND_SESSION => {
                let (id, last_used) = (SessionId(r.u64()?), Millis(r.u64()?));
                let (last_seq, acked) = (r.u64()?, r.u64()?);
                // A number that could not be followed by another would stop the store later.
                if acked > last_seq || last_seq == u64::MAX {
                    return Err(Fault::What("a session that acknowledges more than there was"));
                }
                self.open = Some((id, Session::new(last_used, last_seq, acked)));
            }
            KIND_TIME => {
                let time = Millis(r.u64()?);
                if self.at > 0 || time == Millis(0) {
                    return Err(Fault::What("a time that is not where it belongs"));
                }
                self.time = Some(time);
            }
            _ => {
                if (r.u64()?, r.u64()?) != self.sink.counts() {
                    return Err(Fault::What("other counts of keys and sessions than there were"));
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    fn close_session(&mut self) -> Result<(), Fault> {
        let Some((id, session)) = self.open.take() else { return Ok(()) };
        if self.sink.session(id, session) {
            Ok(())
        } else {
            Err(Fault::What("a session for the second time"))
        }
    }

    /// Checks that everything has come and makes `expected`.
    fn check_end(&self, expected: u64) -> Result<(), ImageError> {
        if !self.ended || !self.pending.is_empty() {
            return Err(ImageError::Unfinished { at: self.at + self.pending.len() as u64 });
        }
        let found = self.sink.digest(self.time.unwrap_or_default());
        if found == expected { Ok(()) } else { Err(ImageError::Digest { found, expected }) }
    }
}

/// What is wrong with an item, before it is known where it was.
enum Fault {
    Decode(DecodeError),
    What(&'static str),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Fault {
        Fault::Decode(error)
    }
}

/// Reads a reply with an explicit stack.
fn decode_reply(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    // Arrays that still want elements, the innermost last.
    let mut open: Vec<(Vec<Reply>, usize)> = Vec::new();
    loop {
        let mut done = match r.u8()? {
            0 => Reply::Nil,
            1 => {
                let text = r.blob("status", limits::INLINE_LEN_MAX)?;
                let found = text.len() as u64;
                Reply::status(text).ok_or(DecodeError::Invalid { what: "status", found })?
            }
            2 => Reply::bulk(r.blob("bulk", limits::FRAME_LEN_MAX)?),
            3 => Reply::Integer(r.i64()?),
            4 => {
                let text = r.blob("error", limits::INLINE_LEN_MAX)?;
                let found = text.len() as u64;
                let text =
                    std::str::from_utf8(text).map_err(|_| DecodeError::Invalid { what: "error", found })?;
                Reply::error(text)
            }
            5 => {
                let count = r.count("array", REPLY_COUNT_MAX, 1)?;
                if count > 0 {
                    if open.len() == REPLY_DEPTH_MAX {
                        let max = REPLY_DEPTH_MAX as u64;
                        return Err(DecodeError::TooLong { what: "nesting", len: max + 1, max });
                    }
                    open.push((Vec::new(), count));
                    continue;
                }
                Reply::Array(Vec::new())
            }
            found => return Err(DecodeError::Invalid { what: "reply", found: u64::from(found) }),
        };
        loop {
            let Some((mut items, count)) = open.pop() else { return Ok(done) };
            items.push(done);
            if items.len() < count {
                open.push((items, count));
                break;
            }
            done = Reply::Array(items);
        }
    }
}

#[derive(Debug)]
struct Building {
    keys: Keyspace,
    sessions: Sessions,
}

impl Sink for Building {
    fn key(&mut self, key: &[u8], value: &[u8], revision: Index, deadline: Option<Millis>) -> bool {
        !self.keys.set_until(key, value, revision, deadline)
    }

    fn session(&mut self, id: SessionId, session: Session) -> bool {
        self.sessions.restore(id, session)
    }

    fn counts(&self) -> (u64, u64) {
        (self.keys.len() as u64, self.sessions.len() as u64)
    }

    fn digest(&self, now: Millis) -> u64 {
        combine(self.keys.digest(), self.sessions.digest(), now)
    }
}

/// Makes a store of the bytes of an image.
#[derive(Debug)]
pub struct StoreBuilder(Intake<Building>);

impl StoreBuilder {
    /// Nothing read yet. `seed` as in [`Store::new`].
    pub fn new(seed: u64) -> StoreBuilder {
        StoreBuilder(Intake::new(Building { keys: Keyspace::new(seed), sessions: Sessions::default() }))
    }

    /// Takes the next bytes, in pieces of any length.
    ///
    /// # Errors
    /// They are not what an encoder makes. The builder is of no use after that.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.0.push(bytes)
    }

    /// How many keys there are so far.
    pub fn key_count(&self) -> usize {
        self.0.sink.keys.len()
    }

    /// The store, if everything has come and makes the state with this digest.
    ///
    /// # Errors
    /// Something is missing, or it is another state.
    pub fn finish(self, limits: Limits, digest: u64) -> Result<Store, ImageError> {
        self.0.check_end(digest)?;
        let Building { mut keys, sessions } = self.0.sink;
        keys.advance(self.0.time.unwrap_or_default(), false);
        Ok(Store { keys, sessions, limits, ..Store::new(Limits::default(), 0) })
    }
}

#[derive(Debug, Default)]
struct Checking {
    counts: (u64, u64),
    keys: u64,
    sessions: u64,
}

impl Sink for Checking {
    fn key(&mut self, key: &[u8], value: &[u8], revision: Index, deadline: Option<Millis>) -> bool {
        self.counts.0 += 1;
        self.keys = self.keys.wrapping_add(key_hash(key, value, revision, deadline));
        true
    }

    fn session(&mut self, id: SessionId, session: Session) -> bool {
        self.counts.1 += 1;
        self.sessions = self.sessions.wrapping_add(session.digest(id));
        true
    }

    fn counts(&self) -> (u64, u64) {
        self.counts
    }

    fn digest(&self, now: Millis) -> u64 {
        combine(self.keys, self.sessions, now)
    }
}

/// Reads the bytes of an image and keeps nothing but counts and digest. A key that comes twice shows in the digest.
#[derive(Debug)]
pub struct ImageChecker(Intake<Checking>);

impl Default for ImageChecker {
    fn default() -> ImageChecker {
        ImageChecker(Intake::new(Checking::default()))
    }
}

impl ImageChecker {
    /// Takes the next bytes, in pieces of any length.
    ///
    /// # Errors
    /// As [`StoreBuilder::push`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.0.push(bytes)
    }

    /// Checks that everything has come and makes the state with this digest.
    ///
    /// # Errors
    /// As [`StoreBuilder::finish`].
    pub fn finish(&self, digest: u64) -> Result<(), ImageError> {
        self.0.check_end(digest)
    }
}
