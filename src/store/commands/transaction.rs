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

use std::fmt;

use crate::store::Store;
use crate::store::command::{Answer, Class, CommandSpec, Group, KeyPositions, Run, by_code};
use crate::store::error::CommandError;
use crate::store::sessions::reply_len;
use crate::store::under_way::{ELEMENTS_PER_UNIT, Piece, Progress, work_of};
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
    run: Run::Pieces(begin),
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

/// How far a transaction has come.
pub(crate) struct Transaction {
    plan: Plan,
    /// How many watched keys are as they should be.
    unchanged: usize,
    /// How many commands have been begun, and how many arguments they have.
    begun: usize,
    argument_count: usize,
    /// The last one of them, if it is not done.
    current: Option<Progress>,
    /// Of those that are done, if somebody wants them.
    replies: Vec<Reply>,
    /// The bytes of all replies.
    len: usize,
    /// So many elements of the last reply are among them. `None`: all.
    measured: Option<usize>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a transaction, {} of {} commands begun", self.begun, self.plan.commands.len())
    }
}

fn begin(arguments: &[&[u8]]) -> Result<Progress, CommandError> {
    let [plan, rest @ ..] = arguments else { return Err(CommandError::Syntax) };
    let plan = decode(plan).map_err(|_| CommandError::Syntax)?;
    // Nothing is changed before all of it is known to be whole.
    let total = plan.commands.iter().fold(plan.revisions.len(), |sum, (_, count)| sum.saturating_add(*count));
    if total != rest.len() {
        return Err(CommandError::Syntax);
    }
    Ok(Progress::Transaction(Box::new(Transaction {
        plan,
        unchanged: 0,
        begun: 0,
        argument_count: 0,
        current: None,
        replies: Vec::new(),
        len: 0,
        measured: None,
    })))
}

impl Transaction {
    pub(crate) fn go_on(&mut self, store: &mut Store, piece: Piece, arguments: &[&[u8]]) -> Option<Answer> {
        let arguments = arguments.get(1..).unwrap_or_default();
        let Some((watched, arguments)) = arguments.split_at_checked(self.plan.revisions.len()) else {
            return Some(Err(CommandError::Syntax));
        };
        while let Some(revision) = self.plan.revisions.get(self.unchanged) {
            if store.revision(watched[self.unchanged]) != *revision {
                return Some(Ok(Reply::NilArray));
            }
            self.unchanged += 1;
            if piece.ends(store, self.left()) {
                return None;
            }
        }
        while self.left() > 0 {
            self.step(store, piece, arguments);
            if piece.ends(store, self.left()) {
                return None;
            }
        }
        Some(Ok(if piece.want_reply { Reply::Array(std::mem::take(&mut self.replies)) } else { Reply::Nil }))
    }

    /// How many things there are still to be done.
    fn left(&self) -> usize {
        let watched = self.plan.revisions.len() - self.unchanged;
        let begun = usize::from(self.current.is_some() || self.measured.is_some());
        watched + begun + self.plan.commands.len() - self.begun
    }

    /// Goes on with the command that has been begun, or begins the next one.
    fn step(&mut self, store: &mut Store, piece: Piece, arguments: &[&[u8]]) {
        if self.measured.is_some() {
            self.measure(store);
            return;
        }
        let answer = match &mut self.current {
            Some(current) => {
                let (_, count) = self.plan.commands[self.begun - 1];
                let own = &arguments[self.argument_count - count..self.argument_count];
                let Some(answer) = current.go_on(store, piece, own) else { return };
                self.current = None;
                answer
            }
            None => {
                let Some(&(code, count)) = self.plan.commands.get(self.begun) else { return };
                let own = &arguments[self.argument_count..self.argument_count + count];
                self.begun += 1;
                self.argument_count += count;
                store.count_command(own);
                let answer = match find(code) {
                    Ok(spec) => store.begin(piece, spec, own, &mut self.current),
                    Err(error) => Some(Err(error)),
                };
                let Some(answer) = answer else { return };
                answer
            }
        };
        if piece.want_reply {
            self.replies.push(answer.unwrap_or_else(Reply::from));
            self.measured = Some(0);
            self.measure(store);
        }
    }

    /// Adds the length of the last reply, or of some of its elements, to that of all. What was done is done, but what
    /// is told of it has to fit into one reply.
    fn measure(&mut self, store: &mut Store) {
        const MEASURED_AT_ONCE: usize = 1024;
        let (Some(measured), Some(last)) = (self.measured, self.replies.last_mut()) else { return };
        self.measured = None;
        if let Some((around, elements)) = elements_of(last) {
            let end = elements.len().min(measured + MEASURED_AT_ONCE);
            self.len += if measured == 0 { around } else { 0 };
            self.len = elements[measured..end].iter().map(reply_len).fold(self.len, usize::saturating_add);
            store.keys.work().count(1 + work_of(end - measured, ELEMENTS_PER_UNIT));
            self.measured = Some(end).filter(|end| *end < elements.len());
        } else {
            self.len = self.len.saturating_add(reply_len(last));
        }
        if self.len > limits::REPLY_LEN_MAX {
            self.measured = None;
            if let Reply::Array(elements) = std::mem::replace(last, CommandError::ReplyTooLong.into()) {
                store.discard_replies(elements);
            }
        }
    }
}

/// Of a reply that can have very many elements: these, and the length of all that is around them.
fn elements_of(reply: &Reply) -> Option<(usize, &[Reply])> {
    let head = reply_len(&Reply::Array(Vec::new()));
    match reply {
        Reply::Array(elements) => match &elements[..] {
            // What SCAN answers: a cursor and keys.
            [cursor, Reply::Array(keys)] => Some((2 * head + reply_len(cursor), keys)),
            elements => Some((head, elements)),
        },
        _ => None,
    }
}

/// The command with this code, if it may be part of a transaction.
fn find(code: u8) -> Result<&'static CommandSpec, CommandError> {
    let spec = by_code(code).ok_or(CommandError::UnknownCode { code })?;
    match () {
        () if spec.class == Class::Internal => Err(CommandError::NotReplicated { name: spec.name }),
        // Its token would not differ from that of another acquisition in the same transaction.
        () if spec.group == Group::Lock => Err(CommandError::NotInTransaction { name: spec.name }),
        () => Ok(spec),
    }
}
