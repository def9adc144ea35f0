//! The key-value state machine: what all nodes hold alike.
//!
//! [`Store::apply`] takes the commands of the total order one by one. It is a pure function of the state and the
//! command: no clock, no randomness, nothing that differs from node to node, not even limits that an operator may
//! set. Bytes that make no sense give an error reply and change nothing, on every node the same. So nodes that have
//! applied the same commands hold the same state, and [`Store::digest`] shows it.
//!
//! | file | holds |
//! |---|---|
//! | `command` | the table of commands, lookup, what is refused before multicasting |
//! | `commands/` | one file per family: specs, checks and functions |
//! | `keyspace`, `slots` | keys and values in hash slots |
//! | `sessions` | exactly-once for clients that repeat commands |
//! | `image` | the state at one moment: taken in microseconds, turned into bytes and back |
//! | `glob` | patterns |
//! | `error` | refusals in Redis' words |
//!
//! Left out on purpose: connections, consistency levels and everything else that commands of class `Connection` are
//! about (the node's business), and files.

mod command;
mod commands;
mod error;
mod glob;
mod image;
mod keyspace;
mod sessions;
mod slots;
#[cfg(test)]
pub(crate) mod tests;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::{Index, Millis, Reply, limits};
use crate::wire::batch::{BatchCommand, SessionSeq};

pub use command::{Class, CommandSpec, Group, KeyPositions, all, by_code, check, lookup, unknown_command};
pub use error::CommandError;
pub use image::{ImageChecker, ImageEncoder, ImageError, ImageKey, StoreBuilder, StoreImage};
pub use slots::{SLOT_COUNT, slot_of};

use command::{Answer, Run};
use keyspace::Keyspace;
use sessions::{Admission, Sessions};

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
}

impl Store {
    /// Without keys. `seed` makes hash collisions unforeseeable; it has no other effect, and each process should
    /// have its own.
    pub fn new(limits: Limits, seed: u64) -> Store {
        Store { keys: Keyspace::new(seed), sessions: Sessions::default(), limits }
    }

    /// Applies the next command of the total order and returns its reply. Reads are welcome: they are multicast
    /// when a client asks for ordered ones.
    ///
    /// With `want_reply` false the reply may be `Nil` instead, which spares building one that nobody waits for.
    pub fn apply(&mut self, at: Applied, command: &BatchCommand<'_>, want_reply: bool) -> Reply {
        self.sessions.expire(at.now, &self.limits);
        let answer = match command.session {
            None => self.run(at, command, want_reply),
            Some(place) => self.apply_in_session(at, place, command, want_reply),
        };
        answer.unwrap_or_else(Reply::from)
    }

    fn apply_in_session(
        &mut self,
        at: Applied,
        place: SessionSeq,
        command: &BatchCommand<'_>,
        want_reply: bool,
    ) -> Answer {
        let is_read = by_code(command.code).is_some_and(|spec| spec.class == Class::Read);
        match self.sessions.admit(place, at.now, &self.limits)? {
            Admission::Next if is_read => {
                self.sessions.complete(place, None, &self.limits);
                self.run(at, command, want_reply)
            }
            Admission::Next => {
                // The reply is state, so it is made on every node. An error is a reply too.
                let reply = self.run(at, command, true).unwrap_or_else(Reply::from);
                self.sessions.complete(place, Some(&reply), &self.limits);
                Ok(reply)
            }
            Admission::Applied(reply) => Ok(reply),
            Admission::Forgotten(_) if is_read => self.run(at, command, want_reply),
            Admission::Forgotten(error) => Err(error),
        }
    }

    fn run(&mut self, at: Applied, command: &BatchCommand<'_>, want_reply: bool) -> Answer {
        let Some(spec) = by_code(command.code) else {
            return Err(CommandError::UnknownCode { code: command.code });
        };
        match spec.run {
            Run::Read(_) if !want_reply => Ok(Reply::Nil),
            Run::Read(read) => {
                spec.validate(&command.arguments, limits::VALUE_LEN_CEILING)?;
                read(self, &command.arguments)
            }
            Run::Write(write) => {
                spec.validate(&command.arguments, limits::VALUE_LEN_CEILING)?;
                write(self, at, &command.arguments)
            }
            Run::Node => Err(CommandError::NotReplicated { name: spec.name }),
        }
    }

    /// Answers a command of class `Read` from the store as it is. `arguments` are without the name.
    pub fn read(&self, code: u8, arguments: &[&[u8]]) -> Reply {
        self.answer_read(code, arguments).unwrap_or_else(Reply::from)
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

    /// How many sessions are open.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// A hash of everything that is replicated: keys, values, revisions, sessions. Equal states have equal digests;
    /// different ones have different digests but for one chance in 2^64. Kept up to date by every write, so asking
    /// costs nothing.
    pub fn digest(&self) -> u64 {
        combine(self.keys.digest(), self.sessions.digest())
    }

    /// The same number, computed anew from all that is there: a checker's way to see that [`Store::digest`] is true.
    /// Takes as long as reading everything.
    pub fn digest_recomputed(&self) -> u64 {
        combine(self.keys.digest_recomputed(), self.sessions.digest_recomputed())
    }
}

fn combine(keys: u64, sessions: u64) -> u64 {
    xxh3_64_with_seed(&keys.to_le_bytes(), sessions)
}
