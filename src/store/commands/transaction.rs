//! `MULTI` … `EXEC` as one command of the total order.
//!
//! The node collects the commands and the revisions that `WATCH` has seen. Here the revisions are compared and the
//! commands run one after the other, with nothing between: whoever watches a key has seen the state in which the
//! transaction takes place, as far as it watched, so transactions are strictly serializable across nodes.
//!
//! # Format
//! The first argument, then the watched keys, then the arguments of the commands in order:
//! ```text
//! number of watched keys u32; for each its revision u64
//! number of commands u32; for each its code u8, the number of its arguments u32
//! ```

use crate::store::command::{Answer, Class, CommandSpec, Group, KeyPositions, Run, by_code};
use crate::store::error::CommandError;
use crate::store::sessions::reply_len;
use crate::store::{Applied, Store};
use crate::types::{Index, Reply, limits};
use crate::wire::{DecodeError, Reader, Writer};

use super::WRITE;

/// The code of the command that carries a transaction.
pub const TRANSACTION_CODE: u8 = 64;

pub(crate) static COMMANDS: [CommandSpec; 1] = [CommandSpec {
    name: "TRANSACTION",
    code: TRANSACTION_CODE,
    arity: -2,
    class: Class::Internal,
    keys: KeyPositions::NONE,
    group: Group::Transactions,
    usage: "",
    summary: "runs commands one after the other with nothing between, if watched keys are as they were",
    check: super::no_check,
    run: Run::Write(run),
    ..WRITE
}];

/// So many keys may be watched, and so many bytes may they have together.
pub const WATCHED_COUNT_MAX: usize = 4096;
/// See [`WATCHED_COUNT_MAX`].
pub const WATCHED_LEN_MAX: usize = 1 << 20;
/// Bytes of arguments, keys watched not counted.
const LEN_MAX: usize = limits::COMMAND_LEN_MAX / 2;
/// Arguments, keys watched and the plan not counted; and commands.
const COUNT_MAX: usize = limits::ARGUMENT_COUNT_MAX - WATCHED_COUNT_MAX - 1;

/// Puts the arguments of a transaction together. What it makes is within the limits of a command, or a batch with it
/// could not be read.
#[derive(Debug, Default)]
pub struct TransactionBuilder {
    watched: Vec<(Box<[u8]>, Index)>,
    commands: Vec<(u8, u32)>,
    arguments: Vec<Box<[u8]>>,
    len: usize,
    watched_len: usize,
}

impl TransactionBuilder {
    /// Adds a watched key with the revision that it must still have.
    ///
    /// # Panics
    /// With more keys or bytes than [`WATCHED_COUNT_MAX`] and [`WATCHED_LEN_MAX`] allow.
    pub fn watch(&mut self, key: &[u8], revision: Index) {
        self.watched_len += key.len();
        let fits = self.watched.len() < WATCHED_COUNT_MAX && self.watched_len <= WATCHED_LEN_MAX;
        assert!(fits, "whoever watches keys counts them");
        self.watched.push((Box::from(key), revision));
    }

    /// Adds a command. Says whether there was room.
    pub fn push(&mut self, code: u8, arguments: &[&[u8]]) -> bool {
        let len: usize = arguments.iter().map(|argument| argument.len()).sum();
        let count = self.arguments.len() + arguments.len();
        if self.len + len > LEN_MAX || count > COUNT_MAX || self.commands.len() >= COUNT_MAX {
            return false;
        }
        self.len += len;
        self.commands.push((code, u32::try_from(arguments.len()).expect("just compared")));
        self.arguments.extend(arguments.iter().map(|argument| Box::from(*argument)));
        true
    }

    /// The arguments of the command that carries it.
    pub fn finish(self) -> Vec<Box<[u8]>> {
        let mut plan = Vec::new();
        let mut w = Writer::new(&mut plan);
        w.count(self.watched.len());
        for (_, revision) in &self.watched {
            w.u64(revision.0);
        }
        w.count(self.commands.len());
        for (code, count) in &self.commands {
            w.u8(*code);
            w.u32(*count);
        }
        let mut arguments = vec![plan.into_boxed_slice()];
        arguments.extend(self.watched.into_iter().map(|(key, _)| key));
        arguments.extend(self.arguments);
        arguments
    }
}

struct Plan {
    revisions: Vec<Index>,
    commands: Vec<(u8, usize)>,
}

fn decode(plan: &[u8]) -> Result<Plan, DecodeError> {
    let mut r = Reader::new(plan);
    let count = r.count("watched keys", limits::ARGUMENT_COUNT_MAX, 8)?;
    let mut revisions = Vec::with_capacity(count);
    for _ in 0..count {
        revisions.push(Index(r.u64()?));
    }
    let count = r.count("commands", limits::ARGUMENT_COUNT_MAX, 5)?;
    let mut commands = Vec::with_capacity(count);
    for _ in 0..count {
        commands.push((r.u8()?, r.u32()? as usize));
    }
    r.finish()?;
    Ok(Plan { revisions, commands })
}

fn run(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [plan, rest @ ..] = arguments else { return Err(CommandError::Syntax) };
    let plan = decode(plan).map_err(|_| CommandError::Syntax)?;
    // Nothing is changed before all of it is known to be whole.
    let total = plan.commands.iter().fold(plan.revisions.len(), |sum, (_, count)| sum.saturating_add(*count));
    if total != rest.len() {
        return Err(CommandError::Syntax);
    }
    let (watched, mut rest) = rest.split_at(plan.revisions.len());
    if watched.iter().zip(&plan.revisions).any(|(key, revision)| store.revision(key) != *revision) {
        return Ok(Reply::NilArray);
    }
    let (mut replies, mut len) = (Vec::with_capacity(plan.commands.len()), 0_usize);
    for (code, count) in plan.commands {
        let (arguments, after) = rest.split_at(count);
        rest = after;
        let answer = match by_code(code) {
            Some(spec) if spec.class == Class::Internal => {
                Err(CommandError::NotReplicated { name: spec.name })
            }
            // Its token would not differ from that of another acquisition in the same transaction.
            Some(spec) if spec.group == Group::Lock => {
                Err(CommandError::NotInTransaction { name: spec.name })
            }
            Some(spec) => store.run_spec(at, spec, arguments),
            None => Err(CommandError::UnknownCode { code }),
        };
        let reply = answer.unwrap_or_else(Reply::from);
        // What was done is done; what is told of it has to fit into one reply.
        len = len.saturating_add(reply_len(&reply));
        let fits = len <= limits::REPLY_LEN_MAX;
        replies.push(if fits { reply } else { CommandError::ReplyTooLong.into() });
    }
    Ok(Reply::Array(replies))
}
