//! Commands in pieces: what would hold up everything else stops where a turn's fund is used up and goes on with the
//! next one.
//!
//! Applying is atomic: nobody may see a half of `MSET`, and nothing may come between. That is a matter of what others
//! see, not of doing it in one go. [`Store::apply_some`] does a piece and leaves in an [`UnderWay`] how far it has
//! come; until it is called again **with the same command**, whoever owns the store applies nothing else and lets
//! nobody read. Freeing what has died is allowed in between, for nothing shows it.
//!
//! How far a command has come is plain data, a [`Progress`]: so many keys are done, such replies have been made. Each
//! is defined beside its command in `commands/`, with a function that goes on for a [`Piece`]. A command that is done
//! at once is the same command with a fund that does not end: there is no second way to do it. Most commands
//! cannot take long; they are a function that returns the answer ([`Run`]), and cost nothing of all this.
//!
//! **Work** is counted in looks at keys, about a microsecond each. What counts how much is said at [`Work`]. Where it
//! takes much longer than that, a piece ends when its time is up ([`Watch`]). Neither is part of the state: where a
//! piece ends makes no difference to what is done.
//!
//! What is asked once is asked when a command begins: which keys and sessions have expired, what its session says, and
//! whether its arguments are right. What a session keeps of it is kept when it has ended.

use std::cell::Cell;
use std::{fmt, vec};

use crate::types::{Item, Reply, limits};
use crate::wire::batch::{BatchCommand, SessionSeq};

use super::command::{Answer, Class, CommandSpec, Run, by_code};
use super::commands::bits::Combination;
use super::commands::strings::Assignment;
use super::commands::transaction::Transaction;
use super::commands::versions::Deletion;
use super::error::CommandError;
use super::event::EventClass;
use super::long_read::{Found, LongRead, LongReply};
use super::sessions::Admission;
use super::watch::Watch;
use super::{Applied, Store};

/// Work that may still be done in a turn, in looks at keys: about a microsecond each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fund(pub u64);

impl Fund {
    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// So much was done.
    pub fn spend(&mut self, work: u64) {
        self.0 = self.0.saturating_sub(work);
    }
}

/// Counts work:
///
/// | what | counts |
/// |---|---|
/// | a command, be it within `EXEC` | 1, and 1 for 256 arguments |
/// | a key looked at | 1 |
/// | a key written or taken out | 2 |
/// | its deadline noted or taken back | 4 |
/// | 4096 bytes of a value that are read or written | 1 |
/// | 3 pointers copied, because a snapshot holds them | 1 |
/// | 64 steps of a pattern | 1 |
/// | 16 keys listed as replies, elements of a reply measured, or slots passed over by `SCAN` or `RANDOMKEY` | 1 |
/// | 8 slots passed over by `KEYS` | 1 |
/// | 1024 cells of the table of `LCS` | 1 |
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    done: Cell<u64>,
    watch: Watch,
}

impl Work {
    pub(crate) fn count(&self, work: u64) {
        self.done.set(self.done.get().wrapping_add(work));
        self.watch.note(work);
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.get()
    }

    /// Tells whether the time for it is up.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// From now on another watch tells that.
    pub(crate) fn set_watch(&mut self, watch: Watch) {
        self.watch = watch;
    }
}

/// A command can draw so many numbers, two to this power, before the count is that of the next one.
const DRAW_BITS: u32 = 24;
/// So many arguments that are checked count as one look at a key.
const ARGUMENTS_PER_UNIT: usize = 256;
/// So many elements of a reply that are made or measured do.
pub(crate) const ELEMENTS_PER_UNIT: usize = 16;

/// So many small things, each of which is not worth counting, count as this.
pub(crate) fn work_of(count: usize, per_unit: usize) -> u64 {
    (count / per_unit) as u64
}

/// A command that has begun and is not done.
pub struct UnderWay {
    stage: Stage,
    want_reply: bool,
}

/// How far it has come.
enum Stage {
    /// The keys that have expired before it are being told of.
    Telling,
    /// So far, and the place in a session under which its reply is to be kept.
    Doing(Progress, Option<SessionSeq>),
}

impl fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = match &self.stage {
            Stage::Telling => return f.write_str("keys that have expired"),
            Stage::Doing(progress, _) => progress,
        };
        match progress {
            Progress::Assignment(assignment) => write!(f, "{assignment:?}"),
            Progress::Deletion(deletion) => write!(f, "{deletion:?}"),
            Progress::Combination(_) => f.write_str("values put together bit by bit"),
            Progress::Reading(_) => f.write_str("a long read"),
            Progress::Transaction(transaction) => write!(f, "{transaction:?}"),
        }
    }
}

/// Which part of a command is to be done.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    /// Where the command stands in the total order.
    pub(crate) at: Applied,
    /// Whether somebody waits for the reply; the same in all pieces of a command.
    pub(crate) want_reply: bool,
    /// At which count of work it ends.
    until: u64,
}

impl Piece {
    /// Whether to stop here, with so much left to be done. To be asked after each step, so that every piece does
    /// something.
    pub(crate) fn ends(self, store: &Store, left: usize) -> bool {
        left > 0 && (store.work() >= self.until || store.is_late())
    }

    /// How much work is left of it, at least 1.
    fn left(self, store: &Store) -> u64 {
        self.until.saturating_sub(store.work()).max(1)
    }
}

/// How far a command has come.
pub(crate) enum Progress {
    /// MSET, MSETNX.
    Assignment(Assignment),
    /// DEL.
    Deletion(Deletion),
    /// BITOP.
    Combination(Combination),
    /// A read that takes long.
    Reading(Reading),
    /// EXEC.
    Transaction(Box<Transaction>),
}

impl Progress {
    /// Does a piece, with the same arguments every time, and returns the answer once it is there.
    pub(crate) fn go_on(&mut self, store: &mut Store, piece: Piece, arguments: &[&[u8]]) -> Option<Answer> {
        match self {
            Progress::Assignment(assignment) => assignment.go_on(store, piece, arguments),
            Progress::Deletion(deletion) => deletion.go_on(store, piece, arguments),
            Progress::Combination(combination) => combination.go_on(store, piece, arguments),
            Progress::Reading(reading) => reading.go_on(store, piece),
            Progress::Transaction(transaction) => transaction.go_on(store, piece, arguments),
        }
    }
}

/// A long read as a part of the total order. Nothing is applied before it is done, so what it froze is never copied,
/// but what has died may be freed under it.
pub(crate) enum Reading {
    Looking(Box<LongRead>),
    /// The keys that were found become a reply.
    Listing {
        cursor: Option<usize>,
        found: vec::IntoIter<Item>,
        replies: Vec<Reply>,
    },
}

impl Reading {
    fn go_on(&mut self, store: &mut Store, piece: Piece) -> Option<Answer> {
        const LOOKS_PER_STEP: usize = 256;
        const LISTED_PER_STEP: usize = 1024;
        if let Reading::Looking(read) = self {
            let reply = loop {
                let max = usize::try_from(piece.left(store)).unwrap_or(usize::MAX).min(LOOKS_PER_STEP);
                let before = read.work();
                let reply = read.step(max);
                store.keys.work().count(read.work() - before);
                match reply {
                    Some(reply) => break reply,
                    None if piece.ends(store, 1) => return None,
                    None => {}
                }
            };
            let found = match reply {
                LongReply::Reply(reply) => {
                    self.end(store);
                    return Some(Ok(reply));
                }
                LongReply::Keys(found) => found,
            };
            self.end(store);
            let Found { cursor, items } = found;
            let replies = Vec::with_capacity(items.len());
            *self = Reading::Listing { cursor, replies, found: items.into_iter() };
        }
        let Reading::Listing { cursor, found, replies } = self else { return None };
        loop {
            let step = found.by_ref().take(LISTED_PER_STEP);
            let before = replies.len();
            replies.extend(step.map(|item| Reply::Bulk(item.into_key_bytes())));
            store.keys.work().count(1 + work_of(replies.len() - before, ELEMENTS_PER_UNIT));
            if found.len() == 0 {
                return Some(Ok(Found::reply_of(*cursor, std::mem::take(replies))));
            }
            if piece.ends(store, found.len()) {
                return None;
            }
        }
    }

    /// Lets go of what was frozen, before the next write has to copy any of it.
    fn end(&mut self, store: &mut Store) {
        let listing = Reading::Listing { cursor: None, found: Vec::new().into_iter(), replies: Vec::new() };
        if let Reading::Looking(read) = std::mem::replace(self, listing) {
            store.keys.discard(*read);
        }
    }
}

impl Store {
    /// Applies the next command of the total order and returns its reply. Reads are welcome: they are multicast
    /// when a client asks for ordered ones.
    ///
    /// With `want_reply` false the reply may be `Nil` instead, which spares building one that nobody waits for.
    pub fn apply(&mut self, at: Applied, command: &BatchCommand<'_>, want_reply: bool) -> Reply {
        let (mut under_way, mut fund) = (None, Fund(u64::MAX));
        loop {
            if let Some(reply) = self.apply_some(at, command, want_reply, &mut under_way, &mut fund) {
                return reply;
            }
        }
    }

    /// Like [`Store::apply`], but stops where the fund is spent and returns `None`; called again with the same command
    /// and the same `under_way`, it goes on. However little the fund is, something is done. Where the watch says that
    /// the time is up, the fund is spent. After a reply `under_way` is `None`.
    ///
    /// Until then the store is torn: it must not be read, nor frozen, and nothing else may be applied to it.
    pub fn apply_some(
        &mut self,
        at: Applied,
        command: &BatchCommand<'_>,
        want_reply: bool,
        under_way: &mut Option<UnderWay>,
        fund: &mut Fund,
    ) -> Option<Reply> {
        let before = self.work();
        let until = before.saturating_add(fund.0);
        let piece = Piece { at, want_reply, until };
        let reply = match under_way {
            None => {
                self.count_command(&command.arguments);
                self.draws.set(at.index.0.rotate_left(DRAW_BITS));
                self.keys.advance(at.now, self.tells_of_expired);
                self.begin_command(piece, command, under_way)
            }
            Some(UnderWay { stage: Stage::Telling, want_reply }) => {
                let piece = Piece { want_reply: *want_reply, ..piece };
                *under_way = None;
                self.begin_command(piece, command, under_way)
            }
            Some(UnderWay { stage: Stage::Doing(progress, kept_at), want_reply }) => {
                let piece = Piece { want_reply: *want_reply, ..piece };
                let answer = progress.go_on(self, piece, &command.arguments);
                let reply = answer.map(|answer| self.end_command(*kept_at, answer));
                if reply.is_some() {
                    *under_way = None;
                }
                reply
            }
        };
        self.charge(fund, before);
        reply
    }

    /// Work done so far in this process, in the units of a [`Fund`]. It is not part of the state; two counts show what
    /// was done between them, be it by reading or by applying.
    pub fn work(&self) -> u64 {
        self.keys.work().done()
    }

    /// From now on this watch tells when the time for work is up.
    pub fn set_watch(&mut self, watch: Watch) {
        self.keys.set_watch(watch);
    }

    /// Has a fund pay for what was done since this count of [`Store::work`], and with all that it has when the time is
    /// up.
    pub fn charge(&self, fund: &mut Fund, before: u64) {
        fund.spend(if self.is_late() { u64::MAX } else { self.work().wrapping_sub(before) });
    }

    fn is_late(&self) -> bool {
        self.keys.work().watch().is_late()
    }

    /// Something else was done that counts as work.
    pub fn count_work(&self, work: u64) {
        self.keys.work().count(work);
    }

    fn begin_command(
        &mut self,
        piece: Piece,
        command: &BatchCommand<'_>,
        under_way: &mut Option<UnderWay>,
    ) -> Option<Reply> {
        if !self.tell_of_dead(piece) {
            *under_way = Some(UnderWay { stage: Stage::Telling, want_reply: piece.want_reply });
            return None;
        }
        self.sessions.expire(piece.at.now, &self.limits);
        let kept_at = match command.session {
            None => None,
            Some(place) => match self.admit(piece.at, place, command.code) {
                Ok(kept_at) => kept_at,
                Err(answer) => return Some(answer.unwrap_or_else(Reply::from)),
            },
        };
        // A reply that is kept is state, so it is made on every node.
        let piece = Piece { want_reply: piece.want_reply || kept_at.is_some(), ..piece };
        let mut begun = None;
        let answer = match by_code(command.code) {
            None => Some(Err(CommandError::UnknownCode { code: command.code })),
            Some(spec) => self.begin(piece, spec, &command.arguments, &mut begun),
        };
        let doing =
            |progress| UnderWay { stage: Stage::Doing(progress, kept_at), want_reply: piece.want_reply };
        *under_way = begun.map(doing);
        answer.map(|answer| self.end_command(kept_at, answer))
    }

    /// Tells subscribers of the keys that have just died, as far as this piece goes. Says whether that were all.
    fn tell_of_dead(&mut self, piece: Piece) -> bool {
        while let Some(item) = self.keys.take_untold() {
            self.note(EventClass::Expired, "expired", item.key());
            if piece.ends(self, usize::from(self.keys.has_untold())) {
                return false;
            }
        }
        true
    }

    /// Asks the session of a command: where in it the reply is to be kept, or that this is the answer.
    fn admit(&mut self, at: Applied, place: SessionSeq, code: u8) -> Result<Option<SessionSeq>, Answer> {
        let is_read = by_code(code).is_some_and(|spec| spec.class == Class::Read);
        match self.sessions.admit(place, at.now, &self.limits) {
            Ok(Admission::Next) if is_read => {
                self.sessions.complete(place, None, &self.limits);
                Ok(None)
            }
            Ok(Admission::Next) => Ok(Some(place)),
            Ok(Admission::Applied(reply)) => Err(Ok(reply)),
            Ok(Admission::Forgotten(_)) if is_read => Ok(None),
            Ok(Admission::Forgotten(error)) | Err(error) => Err(Err(error)),
        }
    }

    /// An error is a reply too.
    fn end_command(&mut self, kept_at: Option<SessionSeq>, answer: Answer) -> Reply {
        let reply = answer.unwrap_or_else(Reply::from);
        if let Some(place) = kept_at {
            self.sessions.complete(place, Some(&reply), &self.limits);
        }
        reply
    }

    /// To be called for each command, and for each within a transaction.
    pub(crate) fn count_command(&self, arguments: &[&[u8]]) {
        self.keys.work().count(1 + work_of(arguments.len(), ARGUMENTS_PER_UNIT));
    }

    /// Begins a command and does a piece of it. If that is not all, it leaves in `begun` how far it has come.
    pub(crate) fn begin(
        &mut self,
        piece: Piece,
        spec: &CommandSpec,
        arguments: &[&[u8]],
        begun: &mut Option<Progress>,
    ) -> Option<Answer> {
        if matches!(spec.run, Run::Read(_)) && !piece.want_reply {
            return Some(Ok(Reply::Nil));
        }
        let checked = match spec.run {
            Run::Node => Err(CommandError::NotReplicated { name: spec.name }),
            Run::Read(_) | Run::Write(_) | Run::Pieces(_) => {
                spec.validate(arguments, limits::VALUE_LEN_CEILING)
            }
        };
        if let Err(error) = checked {
            return Some(Err(error));
        }
        let mut progress = match spec.run {
            Run::Write(write) => return Some(write(self, piece.at, arguments)),
            Run::Read(read) => match spec.long_with(arguments) {
                None => return Some(read(self, arguments)),
                Some(long) => {
                    let read = LongRead::new(&self.keys, (long.begin)(self, arguments));
                    Progress::Reading(Reading::Looking(Box::new(read)))
                }
            },
            Run::Pieces(begin) => match begin(arguments) {
                Ok(progress) => progress,
                Err(error) => return Some(Err(error)),
            },
            Run::Node => unreachable!("refused above"),
        };
        let answer = progress.go_on(self, piece, arguments);
        if answer.is_none() {
            *begun = Some(progress);
        }
        answer
    }
}
