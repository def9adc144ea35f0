//! The state at one moment, to be read while the store goes on.
//!
//! [`Store::freeze`] clones pointers and nothing else. The image may go to another thread, which turns it into
//! bytes, a bounded piece at a time ([`ImageEncoder`]); [`StoreBuilder`] makes a store with the same digest of them.
//!
//! The bytes follow from the state alone: the time, slots in order, in a slot the keys in the order of their bytes,
//! then the sessions by number. So all nodes write the same bytes at the same index, and one that got half of them
//! from one peer may take the rest from another. A reader takes the items in whatever order they come.
//!
//! # Format
//! Items without gaps, each with its kind in front; docs/formats.md has the same as tables:
//! ```text
//! 1 key      revision u64, key length u32, value length u32, key, value
//! 4 mortal   revision u64, deadline u64, key length u32, value length u32, key, value
//! 5 time     the replicated time u64; if it is not there, 0
//! 2 session  number u64, last used u64, last command u64, acknowledged up to u64
//! 3 reply    of the session before it: number of the command u64, length u32, reply as in a response
//! 0 end      keys u64, sessions u64
//! ```

mod decode;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::types::{Bytes, Index, Item, Millis, SessionId};
use crate::wire::Writer;
use crate::wire::client::encode_reply;

use super::keyspace::Keyspace;
use super::sessions::{Session, Table};
use super::{SLOT_COUNT, Store, combine};

pub use decode::{ImageChecker, ImageError, StoreBuilder};

/// Kinds of items.
const KIND_END: u8 = 0;
const KIND_KEY: u8 = 1;
const KIND_SESSION: u8 = 2;
const KIND_REPLY: u8 = 3;
const KIND_MORTAL: u8 = 4;
const KIND_TIME: u8 = 5;

/// What a key has in an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageKey<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The index of the command that wrote it.
    pub revision: Index,
    /// From when on by the replicated time it is dead.
    pub deadline: Option<Millis>,
}

/// All keys, values and sessions as they were at one moment.
#[derive(Clone, Debug)]
pub struct StoreImage {
    keys: Box<Keyspace>,
    sessions: Table,
}

impl Store {
    /// The state as it is now. Costs some microseconds whatever the store holds; from then on the first write to
    /// a slot copies that slot, as long as the image lives.
    pub fn freeze(&self) -> StoreImage {
        StoreImage { keys: Box::new(self.keys.freeze()), sessions: self.sessions.freeze() }
    }
}

impl StoreImage {
    /// How many keys there are.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// How many sessions are open.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What [`Store::digest`] was.
    pub fn digest(&self) -> u64 {
        combine(self.keys.digest(), self.sessions.digest(), self.keys.now())
    }

    /// The keys of a slot, in the order of their bytes.
    pub fn slot(&self, slot: usize) -> Vec<ImageKey<'_>> {
        let keys = self.keys.sorted_items_of(slot).into_iter().map(|item| ImageKey {
            key: item.key(),
            value: item.value(),
            revision: item.revision(),
            deadline: item.deadline(),
        });
        keys.collect()
    }

    /// Turns it into bytes. The encoder lets go of the slots that it is done with, so that the store need not copy
    /// them any more.
    pub fn into_encoder(self) -> ImageEncoder {
        let (keys, sessions) = (self.key_count() as u64, self.session_count() as u64);
        ImageEncoder {
            keys: self.keys,
            sessions: self.sessions,
            stage: Stage::Time,
            totals: (keys, sessions),
            head: Vec::new(),
            value: None,
            done: 0,
        }
    }
}

/// What comes next.
enum Stage {
    /// The replicated time.
    Time,
    /// This slot, from its first key on.
    Slot(usize),
    /// The rest of a slot: its items in falling order, so that the next is the last.
    Items { slot: usize, items: Vec<Item> },
    /// The sessions, in falling order.
    Sessions(Vec<SessionId>),
    /// The rest of a session: from this reply on.
    Replies { session: Arc<Session>, next: usize, rest: Vec<SessionId> },
    /// Nothing.
    Ended,
}

/// Turns an image into bytes, a bounded piece at a time. Beside the image it holds pointers to one slot's items, or
/// one kept reply.
pub struct ImageEncoder {
    keys: Box<Keyspace>,
    sessions: Table,
    stage: Stage,
    totals: (u64, u64),
    /// The item on its way: its bytes, or those before its value.
    head: Vec<u8>,
    value: Option<Bytes>,
    /// How many bytes of both are handed out.
    done: usize,
}

impl ImageEncoder {
    /// Appends the next bytes to `out`, as many as are left, at most `max`. Says whether there were any: the end
    /// has come when there are none.
    pub fn next_chunk(&mut self, out: &mut Vec<u8>, max: usize) -> bool {
        let start = out.len();
        loop {
            let room = max - (out.len() - start);
            if room == 0 {
                return true;
            }
            let value = self.value.as_deref().unwrap_or_default();
            let rest = match self.done.checked_sub(self.head.len()) {
                None => &self.head[self.done..],
                Some(done) => &value[done..],
            };
            if rest.is_empty() {
                if !self.begin_item() {
                    return out.len() > start;
                }
                continue;
            }
            let len = rest.len().min(room);
            out.extend_from_slice(&rest[..len]);
            self.done += len;
        }
    }

    /// Puts the next item into `head` and `value`.
    fn begin_item(&mut self) -> bool {
        self.head.clear();
        self.value = None;
        self.done = 0;
        loop {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Time => {
                    self.stage = Stage::Slot(0);
                    if self.keys.now() == Millis(0) {
                        continue;
                    }
                    let mut w = Writer::new(&mut self.head);
                    w.u8(KIND_TIME);
                    w.u64(self.keys.now().0);
                    return true;
                }
                Stage::Slot(SLOT_COUNT) => {
                    self.keys.skip_to_used(SLOT_COUNT);
                    let mut ids = self.sessions.ids();
                    ids.reverse();
                    Stage::Sessions(ids)
                }
                Stage::Slot(slot) => {
                    let slot = self.keys.skip_to_used(slot);
                    match self.keys.slot(slot) {
                        None => Stage::Slot(SLOT_COUNT),
                        Some(_) => {
                            let items = self.keys.sorted_items_of(slot).into_iter().rev().cloned().collect();
                            Stage::Items { slot, items }
                        }
                    }
                }
                Stage::Items { slot, mut items } => match items.pop() {
                    None => Stage::Slot(slot + 1),
                    Some(item) => {
                        let mut w = Writer::new(&mut self.head);
                        w.u8(if item.deadline().is_some() { KIND_MORTAL } else { KIND_KEY });
                        w.u64(item.revision().0);
                        if let Some(deadline) = item.deadline() {
                            w.u64(deadline.0);
                        }
                        w.count(item.key().len());
                        w.count(item.value().len());
                        w.bytes(item.key());
                        self.value = Some(item.value_bytes());
                        self.stage = Stage::Items { slot, items };
                        return true;
                    }
                },
                Stage::Sessions(mut rest) => {
                    let mut w = Writer::new(&mut self.head);
                    let Some(id) = rest.pop() else {
                        w.u8(KIND_END);
                        w.u64(self.totals.0);
                        w.u64(self.totals.1);
                        return true;
                    };
                    let session = self.sessions.get(id).expect("an image does not change");
                    w.u8(KIND_SESSION);
                    for field in [id.0, session.last_used.0, session.last_seq, session.acked] {
                        w.u64(field);
                    }
                    self.stage = Stage::Replies { session: Arc::clone(session), next: 0, rest };
                    return true;
                }
                Stage::Replies { session, next, rest } => match session.replies.get(next) {
                    None => Stage::Sessions(rest),
                    Some(kept) => {
                        let mut w = Writer::new(&mut self.head);
                        w.u8(KIND_REPLY);
                        w.u64(kept.seq);
                        let len_at = self.head.len();
                        self.head.extend_from_slice(&[0; 4]);
                        encode_reply(&mut self.head, &kept.reply);
                        let len = u32::try_from(self.head.len() - len_at - 4).expect("replies are limited");
                        self.head[len_at..len_at + 4].copy_from_slice(&len.to_le_bytes());
                        self.stage = Stage::Replies { session, next: next + 1, rest };
                        return true;
                    }
                },
                Stage::Ended => return false,
            }
        }
    }
}
