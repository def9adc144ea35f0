//! The key-value state machine: what all nodes hold alike.
//!
//! [`Store::apply`] takes the commands of the total order one by one, [`Store::apply_some`] a long one in pieces. It is
//! a pure function of the state and the command: no clock, no randomness, nothing that differs from node to node, not
//! even limits that an operator may set. Bytes that make no sense give an error reply and change nothing, on every node
//! the same. So nodes that have applied the same commands hold the same state, and [`Store::digest`] shows it.
//!
//! | file | holds |
//! |---|---|
//! | `command` | the table of commands, lookup, what is refused before multicasting |
//! | `commands/` | one file per family: specs, checks and functions |
//! | `keyspace`, `slots`, `leaves` | keys and values in hash slots; the tables of a slot |
//! | `deadlines` | when keys expire |
//! | `event` | what subscribers are told of |
//! | `extended` | floating point as Redis has it, the same on all machines |
//! | `sha1` | names of scripts |
//! | `sessions` | exactly-once for clients that repeat commands |
//! | `image` | the state at one moment: taken in microseconds, turned into bytes and back |
//! | `long_read` | reads that are done in pieces |
//! | `slot_read` | reads of single slots, which seldom take long |
//! | `walk` | what such reads are made of |
//! | `flushed`, `doomed` | what is to be freed, when, and in which order |
//! | `under_way` | commands that are applied in pieces, and how work is counted |
//! | `by_key` | items in the order of their keys |
//! | `glob` | patterns |
//! | `error` | refusals in Redis' words |
//!
//! Left out on purpose: connections, consistency levels and everything else that commands of class `Connection` are
//! about (the node's business), and files.

mod by_key;
mod command;
mod commands;
mod deadlines;
mod doomed;
mod error;
mod event;
mod extended;
mod flushed;
mod glob;
mod image;
mod keyspace;
mod leaves;
mod long_read;
mod sessions;
mod sha1;
mod slot_read;
mod slots;
#[cfg(test)]
pub(crate) mod tests;
mod under_way;
mod walk;
mod watch;

use std::cell::Cell;
use std::vec;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::{Index, Item, Millis, Reply, limits};

pub use command::{
    Class, CommandSpec, Group, KeyPositions, all, by_code, check, check_arity, lookup, unknown_command,
};
pub use commands::messages::TICK_CODE;
pub use commands::scripts::{is_known_sha, known_script};
pub use commands::transaction::{TRANSACTION_CODE, TransactionBuilder, WATCHED_COUNT_MAX, WATCHED_LEN_MAX};
pub use error::CommandError;
pub(crate) use error::excerpt;
pub use event::{Event, EventClass};
pub use glob::StepBudget;
pub use image::{ImageChecker, ImageEncoder, ImageError, ImageKey, StoreBuilder, StoreImage};
pub use long_read::{Found, LongRead, LongReply};
pub use slots::{SLOT_COUNT, slot_of};
pub use under_way::{Fund, UnderWay};
pub use watch::{Clock, TurnClock, Watch};

use command::{Answer, Long, Run, When};
use keyspace::Keyspace;
use sessions::Sessions;

/// What the store allows.
///
/// `value_len_max` may differ from node to node: it is only asked before a command is multicast, and applying goes
/// by [`limits::VALUE_LEN_CEILING`]. All others decide what applying does and **must be the same on all nodes**.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest value that a client may write, in bytes.
    pub value_len_max: usize,
    /// Most open sessions.
    pub session_count_max: usize,
    /// A session is dropped when it has not been used for longer than this.
    pub session_idle: Millis,
    /// Most unacknowledged replies of a session.
    pub session_reply_count_max: usize,
    /// A session with so many bytes of unacknowledged replies is refused more commands.
    pub session_reply_len_max: usize,
    /// Most bytes of unacknowledged replies of all sessions together.
    pub session_total_len_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            value_len_max: limits::VALUE_LEN_MAX,
            session_count_max: 65_536,
            session_idle: Millis(3_600_000),
            session_reply_count_max: 1024,
            session_reply_len_max: 8 << 20,
            session_total_len_max: 512 << 20,
        }
    }
}

/// Where in the total order a command stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Its index.
    pub index: Index,
    /// The replicated time; it never goes back.
    pub now: Millis,
}

/// Keys, values and client sessions. A clone is cheap and shares what neither side writes.
#[derive(Clone, Debug)]
pub struct Store {
    keys: Keyspace,
    sessions: Sessions,
    limits: Limits,
    /// What subscribers are to be told, in order.
    events: Vec<Event>,
    /// Whether what happens to keys is among it.
    tells_of_keys: bool,
    /// Whether that they expire is.
    tells_of_expired: bool,
    /// Counts what was drawn at random, so that two draws differ. Each command of the total order begins with a count
    /// of its own: what is drawn in one is the same on every node.
    draws: Cell<u64>,
}

impl Store {
    /// Without keys. `seed` makes hash collisions unforeseeable; it has no other effect, and each process should
    /// have its own.
    pub fn new(limits: Limits, seed: u64) -> Store {
        Store {
            keys: Keyspace::new(seed),
            sessions: Sessions::default(),
            limits,
            events: Vec::new(),
            tells_of_keys: false,
            tells_of_expired: false,
            draws: Cell::new(0),
        }
    }

    /// Tells subscribers that something happened to a key.
    fn note(&mut self, class: EventClass, name: &'static str, key: &[u8]) {
        if self.tells_of_keys {
            self.events.push(Event::Key { class, name, key: key.into() });
        }
    }

    /// Whether [`Store::take_events`] is to tell what happens to keys. This node's own choice: the state does not
    /// depend on it.
    pub fn tell_of_keys(&mut self, wanted: bool) {
        (self.tells_of_keys, self.tells_of_expired) = (wanted, wanted);
    }

    /// Whether that they expire is to be among it: then each is told of before the next command begins.
    pub fn tell_of_expired(&mut self, wanted: bool) {
        self.tells_of_expired = wanted;
    }

    /// What has happened since the last time, in order: for subscribers at this node. To be called after each
    /// command.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Frees the memory of at most so many keys that have expired and says whether more are left. Nothing shows
    /// how many were freed, so each node does this when it has time.
    pub fn free_expired(&mut self, max: usize) -> bool {
        self.keys.free_dead(max)
    }

    /// Whether [`Store::free_expired`] has something to do.
    pub fn has_expired(&self) -> bool {
        self.keys.has_dead()
    }

    /// Whether the allocator has to be made to put together what was freed.
    #[cfg(test)]
    pub(crate) fn is_untidy(&self) -> bool {
        self.keys.is_untidy()
    }

    /// How many keys have a time to live: while there are some, the replicated time has to go on.
    pub fn mortal_key_count(&self) -> usize {
        self.keys.mortal_len()
    }

    /// How many keys have expired since this process began; not part of the state.
    pub fn expired_count(&self) -> u64 {
        self.keys.died()
    }

    /// The replicated time as of the last command.
    pub fn now(&self) -> Millis {
        self.keys.now()
    }

    /// The revision of a key: the index of its last write; 0 if it is missing.
    pub fn revision(&self, key: &[u8]) -> Index {
        self.keys.get(key).map_or(Index(0), Item::revision)
    }

    /// A number that nobody foresees, for commands that choose at random and change nothing.
    fn draw(&self) -> u64 {
        self.draws.set(self.draws.get().wrapping_add(1));
        let mut state = self.keys.digest() ^ self.keys.now().0.rotate_left(32) ^ self.draws.get();
        crate::types::splitmix64(&mut state)
    }

    /// Answers a command of class `Read` from the store as it is. `arguments` are without the name.
    pub fn read(&self, code: u8, arguments: &[&[u8]]) -> Reply {
        self.answer_read(code, arguments).unwrap_or_else(Reply::from)
    }

    /// The same, unless it takes long: then `None`, and [`Store::begin_long_read`] is the way.
    pub fn read_briefly(&self, code: u8, arguments: &[&[u8]]) -> Option<Reply> {
        let Some((spec, long)) = long_of(code, arguments) else { return Some(self.read(code, arguments)) };
        if let Err(error) = spec.validate(arguments, limits::VALUE_LEN_CEILING) {
            return Some(error.into());
        }
        match long.when {
            When::Arguments(_) => None,
            When::Tried => {
                let reply = (long.begin)(self, arguments).step(&self.keys, slot_read::BRIEF_MAX);
                reply.map(LongReply::into_reply)
            }
        }
    }

    /// Begins a read that takes long or may do so, if this is one and its arguments are right. It sees the store as it
    /// is now.
    pub fn begin_long_read(&self, code: u8, arguments: &[&[u8]]) -> Option<LongRead> {
        let (spec, long) = long_of(code, arguments)?;
        spec.validate(arguments, limits::VALUE_LEN_CEILING).ok()?;
        Some(LongRead::new(&self.keys, (long.begin)(self, arguments)))
    }

    /// Frees a read that is done, or that nobody waits for any more, in pieces ([`Store::free_expired`]).
    pub fn discard(&mut self, read: LongRead) {
        self.keys.discard(read);
    }

    /// Frees the keys of another store in the same way. One of the two must have been made of an image and never used.
    pub fn bury(&mut self, other: &mut Store) {
        self.keys.bury(&mut other.keys);
    }

    /// Frees items that nobody waits for any more in the same way.
    pub fn discard_items(&mut self, items: impl IntoIterator<IntoIter = vec::IntoIter<Item>>) {
        self.keys.discard_items(items);
    }

    /// Frees replies that nobody waits for any more in the same way.
    pub fn discard_replies(&mut self, replies: impl IntoIterator<IntoIter = vec::IntoIter<Reply>>) {
        self.keys.discard_replies(replies);
    }

    fn answer_read(&self, code: u8, arguments: &[&[u8]]) -> Answer {
        let spec = by_code(code).ok_or(CommandError::UnknownCode { code })?;
        let Run::Read(read) = spec.run else {
            return Err(CommandError::NotARead { name: spec.name });
        };
        spec.validate(arguments, limits::VALUE_LEN_CEILING)?;
        read(self, arguments)
    }

    /// How many keys there are.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// About how many bytes of memory the keys take, and the most that they have taken in this process. Counted, not
    /// asked of the system; not part of the state.
    pub fn memory_len(&self) -> (usize, usize) {
        self.keys.memory_len()
    }

    /// How many sessions are open.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// A hash of everything that is replicated: keys, values, revisions, deadlines, sessions, the time. Equal states
    /// have equal digests; different ones have different digests but for one chance in 2^64. Kept up to date by every
    /// write, so asking costs nothing.
    pub fn digest(&self) -> u64 {
        combine(self.keys.digest(), self.sessions.digest(), self.keys.now())
    }

    /// The same number, computed anew from all that is there: a checker's way to see that [`Store::digest`] is true.
    /// Takes as long as reading everything.
    pub fn digest_recomputed(&self) -> u64 {
        combine(self.keys.digest_recomputed(), self.sessions.digest_recomputed(), self.keys.now())
    }
}

/// The command with this code, and how it is done in pieces, if with these arguments it takes long or may do so.
fn long_of(code: u8, arguments: &[&[u8]]) -> Option<(&'static CommandSpec, Long)> {
    let spec = by_code(code)?;
    Some((spec, spec.long_with(arguments)?))
}

/// Whether all of a text fits a pattern of `KEYS`.
///
/// # Errors
/// [`CommandError::PatternTooCostly`]: the steps do not suffice.
pub fn glob_fits(pattern: &[u8], text: &[u8], budget: &mut StepBudget) -> Result<bool, CommandError> {
    glob::matches(pattern, text, budget).map_err(|_| CommandError::PatternTooCostly)
}

fn combine(keys: u64, sessions: u64, now: Millis) -> u64 {
    xxh3_64_with_seed(&keys.to_le_bytes(), sessions ^ now.0.rotate_left(17))
}
