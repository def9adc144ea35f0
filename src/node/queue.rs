//! The commands of one connection that are not answered yet, and the bytes of those that are.
//!
//! Commands finish in any order: a write when it is delivered, a read when its ticket is ready, most
//! others at once. Replies must come in the order of the commands. So every command gets a *slot*,
//! numbered from 0 for the whole life of the connection; slots are settled from the front, and a settled
//! one is turned into bytes as soon as there is room in the output.
//!
//! A read is executed when every command before it is settled and the store has caught up with what the
//! read has to see. That it can also be executed *early* makes pipelining quick: a write of the same
//! connection that follows it must not be visible to it, so whoever is about to apply that write executes
//! the reads before it first ([`Queue::settle_before`]). Such a read sees enough. Whatever was
//! acknowledged anywhere before the read began was acknowledged before the later write was multicast, so
//! it is ordered before that write, and is in the store by now.
//!
//! A long read that can be executed waits for its place in line (`long`), and begins when it is first, or
//! is frozen early in the same way.
//!
//! Replies wait here as values and not as bytes while the output is long, so a client that does not read
//! costs references and not copies.

use std::collections::VecDeque;
use std::vec;

use crate::dialect::{ReplyStyle, encode};
use crate::store::{Found, Fund, LongRead, LongReply, WATCHED_COUNT_MAX, WATCHED_LEN_MAX};
use crate::types::{Index, Item, Reply};
use crate::wire::Reader;
use crate::wire::batch::SessionSeq;

use super::backend::Backend;
use super::commands::Question;
use super::pouring::{PourFund, Pouring, is_long};

/// With so many unsent bytes a connection's replies are no longer turned into bytes, and it is not read.
pub(super) const OUTPUT_LEN_SOFT: usize = 256 << 10;
/// With so many unanswered commands a connection is not read.
pub(super) const UNANSWERED_MAX: usize = 1024;
/// So many replies that are put into that of a transaction take as long as a look at a key.
const PARTS_PER_UNIT: usize = 32;
/// A buffer that is empty and larger than this is given back.
pub(super) const BUFFER_KEPT_MAX: usize = 64 << 10;

/// What a read needs, apart from the commands before it being settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// The store as it is.
    Nothing,
    /// This read ticket, or a later one.
    Ticket(u64),
    /// That the write before it on the same connection is applied. That write was not sent to anybody
    /// when the read began, so it is ordered after everything acknowledged until then; no ticket is
    /// needed.
    Write,
}

/// Where a command stands.
#[derive(Debug)]
pub(super) enum State {
    /// It travels in a batch and is answered when that is delivered.
    Multicast {
        /// Its place in its client's session.
        session: Option<SessionSeq>,
        /// What the reply is made of, if it is a transaction.
        parts: Option<Box<[Part]>>,
    },
    /// WATCH: it waits to see revisions.
    Watch {
        /// Packed by [`pack`].
        keys: Box<[u8]>,
        /// Of no use after an EXEC or UNWATCH that came in between.
        generation: u64,
        /// What it waits for.
        needs: Needs,
    },
    /// It waits to be executed.
    Read {
        /// Which command.
        code: u8,
        /// Packed by [`pack`].
        arguments: Box<[u8]>,
        /// What it waits for.
        needs: Needs,
    },
    /// It waits for the keeper of snapshots.
    Later,
    /// A read that takes long can begin, as soon as it is its turn.
    InLine {
        /// Which command.
        code: u8,
        /// Packed by [`pack`].
        arguments: Box<[u8]>,
    },
    /// A read that takes long has begun: what it sees is frozen.
    Reading(Box<LongRead>),
    /// A question to the node, answered when all before it is settled.
    Ask(Question),
    /// The same for a transaction without commands of the store.
    AskAll(Box<[Part]>),
    /// Answered.
    Settled(Reply),
    /// Answered with the keys of these.
    Found(Found),
    /// A message to a subscriber, which counts for so many bytes while it waits.
    Message { reply: Reply, len: usize },
}

/// What one command of a transaction answers.
#[derive(Debug)]
pub(super) enum Part {
    /// What the store answers.
    Command {
        /// Which command.
        code: u8,
    },
    /// This; it was not the store's business.
    Ready(Reply),
    /// What is true of the node when the transaction is done.
    Ask(Question),
}

impl Part {
    /// The reply of a transaction. `published`: how many got each message, which the store does not know.
    fn merge(parts: Box<[Part]>, replies: Vec<Reply>, published: &[usize], backend: &Backend) -> Reply {
        backend.store.count_work((parts.len() / PARTS_PER_UNIT) as u64);
        let (mut replies, mut published) = (replies.into_iter(), published.iter());
        let publish = crate::store::lookup(b"PUBLISH").map(|spec| spec.code);
        let merged = parts.into_iter().map(|part| match part {
            Part::Ready(reply) => reply,
            Part::Ask(question) => backend.answer(&question),
            Part::Command { code } => match replies.next() {
                Some(Reply::Integer(_)) if Some(code) == publish => count(published.next()),
                reply => reply.unwrap_or(Reply::Nil),
            },
        });
        Reply::Array(merged.collect())
    }
}

fn count(count: Option<&usize>) -> Reply {
    Reply::Integer(count.map_or(0, |count| i64::try_from(*count).unwrap_or(i64::MAX)))
}

/// What a connection watches.
#[derive(Debug, Default)]
struct Watched {
    /// Counts the times that it was forgotten.
    generation: u64,
    /// So many commands have not been executed yet.
    waiting: usize,
    /// Keys and their revisions.
    keys: Vec<(Box<[u8]>, Index)>,
    /// How many keys there are with those that were not looked at yet, and their bytes.
    count: usize,
    len: usize,
    /// A command could not be executed.
    failed: bool,
}

impl Watched {
    fn note(&mut self, backend: &Backend, keys: &[u8], generation: u64) -> Reply {
        if generation == self.generation {
            self.waiting -= 1;
            let mut reader = Reader::new(keys);
            while !reader.rest().is_empty() {
                let key = reader.blob("key", keys.len()).expect("packed here");
                self.keys.push((Box::from(key), backend.store.revision(key)));
            }
        }
        Reply::OK
    }

    fn fail(&mut self, generation: u64) {
        if generation == self.generation {
            self.waiting -= 1;
            self.failed = true;
        }
    }
}

#[derive(Debug)]
struct Slot {
    style: ReplyStyle,
    state: State,
}

impl Slot {
    /// Answers what waited for nothing but its turn. `false`: it is a long read, which is in line now, or has begun.
    fn carry_out(&mut self, watched: &mut Watched, backend: &Backend, long: LongReads) -> bool {
        let reply = match &mut self.state {
            State::Watch { keys, generation, .. } => watched.note(backend, keys, *generation),
            State::Read { code, arguments, .. } => {
                match unpacked(arguments, |all| backend.store.read_briefly(*code, all)) {
                    Some(reply) => reply,
                    None => {
                        self.state = State::InLine { code: *code, arguments: std::mem::take(arguments) };
                        if long == LongReads::Begin {
                            self.begin(backend);
                        }
                        return false;
                    }
                }
            }
            State::InLine { .. } => {
                self.begin(backend);
                return false;
            }
            State::Ask(question) => backend.answer(question),
            State::AskAll(parts) => Part::merge(std::mem::take(parts), Vec::new(), &[], backend),
            State::Settled(_)
            | State::Found(_)
            | State::Message { .. }
            | State::Multicast { .. }
            | State::Later
            | State::Reading(_) => return true,
        };
        self.state = State::Settled(reply);
        true
    }

    /// Begins a long read.
    fn begin(&mut self, backend: &Backend) {
        let State::InLine { code, arguments } = &self.state else { return };
        self.state = match unpacked(arguments, |all| backend.store.begin_long_read(*code, all)) {
            Some(read) => State::Reading(Box::new(read)),
            None => State::Settled(Reply::error("ERR internal error: this read cannot be done in pieces")),
        };
    }
}

/// When a long read begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LongReads {
    /// When it is first in line.
    Wait,
    /// At once.
    Begin,
}

/// What nobody waits for any more and would take long to free.
#[derive(Debug, Default)]
pub(super) struct Remains {
    pub(super) reads: Vec<LongRead>,
    pub(super) replies: Vec<vec::IntoIter<Reply>>,
    pub(super) items: Vec<vec::IntoIter<Item>>,
}

/// Slots in the order of the commands, and the output.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The number of the slot at the front.
    first: u64,
    slots: VecDeque<Slot>,
    /// So many slots at the front are settled.
    settled: usize,
    watched: Watched,
    /// Bytes of the messages among the slots.
    messages_len: usize,
    /// What is left of a long reply at the front.
    pouring: Option<Pouring>,
    output: Vec<u8>,
    /// So many bytes of `output` are sent.
    sent: usize,
}

impl Queue {
    /// Takes a command in and returns its slot's number.
    pub(super) fn push(&mut self, style: ReplyStyle, state: State) -> u64 {
        self.slots.push_back(Slot { style, state });
        self.first + self.slots.len() as u64 - 1
    }

    /// Takes in a read that takes long and can begin.
    pub(super) fn push_in_line(&mut self, style: ReplyStyle, code: u8, arguments: &[&[u8]]) {
        self.push(style, State::InLine { code, arguments: pack(arguments) });
    }

    /// Takes in a command that is answered already.
    pub(super) fn push_settled(&mut self, style: ReplyStyle, reply: Reply) {
        if self.can_encode_next() && !is_long(&reply) {
            encode(&mut self.output, style, &reply);
        } else {
            self.push(style, State::Settled(reply));
        }
    }

    /// Takes in a message to a subscriber, which counts for so many bytes if it has to wait.
    pub(super) fn push_message(&mut self, style: ReplyStyle, reply: Reply, len: usize) {
        if self.can_encode_next() {
            encode(&mut self.output, style, &reply);
        } else {
            self.messages_len += len;
            self.push(style, State::Message { reply, len });
        }
    }

    /// Whether nothing is in the way of what comes next: it can be turned into bytes at once.
    fn can_encode_next(&self) -> bool {
        self.slots.is_empty() && self.pouring.is_none() && !self.is_output_long()
    }

    /// Whether these keys may be watched as well.
    pub(super) fn can_watch(&self, keys: &[&[u8]]) -> bool {
        let len: usize = keys.iter().map(|key| key.len()).sum();
        self.watched.count + keys.len() <= WATCHED_COUNT_MAX && self.watched.len + len <= WATCHED_LEN_MAX
    }

    /// Takes a WATCH in.
    pub(super) fn push_watch(&mut self, style: ReplyStyle, keys: &[&[u8]], needs: Needs) {
        self.watched.waiting += 1;
        self.watched.count += keys.len();
        self.watched.len += keys.iter().map(|key| key.len()).sum::<usize>();
        let keys = pack(keys);
        let generation = self.watched.generation;
        self.push(style, State::Watch { keys, generation, needs });
    }

    /// Whether a WATCH that counts has not been executed yet.
    pub(super) fn awaits_watch(&self) -> bool {
        self.watched.waiting > 0
    }

    /// Forgets what is watched and hands it out; `None` if it could not be seen.
    pub(super) fn unwatch(&mut self) -> Option<Vec<(Box<[u8]>, Index)>> {
        let generation = self.watched.generation + 1;
        let watched = std::mem::replace(&mut self.watched, Watched { generation, ..Watched::default() });
        (!watched.failed && watched.waiting == 0).then_some(watched.keys)
    }

    /// How many keys are watched.
    pub(super) fn watched_len(&self) -> usize {
        self.watched.keys.len()
    }

    /// How many commands wait for their reply, or for room in the output.
    pub(super) fn unanswered(&self) -> usize {
        self.slots.len()
    }

    /// For how many bytes the messages count that wait for the commands before them, or for room in the output.
    pub(super) fn messages_len(&self) -> usize {
        self.messages_len
    }

    /// Whether every reply has been handed over as bytes and sent.
    pub(super) fn is_drained(&self) -> bool {
        self.slots.is_empty() && self.pouring.is_none() && self.output().is_empty()
    }

    /// The bytes to send.
    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// Whether so much is unsent that the client should read first.
    pub(super) fn is_output_long(&self) -> bool {
        self.output.len() - self.sent >= OUTPUT_LEN_SOFT
    }

    /// The first `len` bytes of the output are sent.
    pub(super) fn mark_sent(&mut self, len: usize) {
        self.sent += len;
        debug_assert!(self.sent <= self.output.len());
        if self.sent == self.output.len() {
            self.sent = 0;
            if self.output.capacity() > BUFFER_KEPT_MAX {
                self.output = Vec::new();
            } else {
                self.output.clear();
            }
        } else if self.sent >= self.output.len() / 2 {
            // At least as much has been sent as is moved.
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    fn slot_mut(&mut self, number: u64) -> Option<&mut Slot> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }

    /// Whether the multicast command in this slot still waits for its reply.
    pub(super) fn awaits(&mut self, number: u64) -> bool {
        self.slot_mut(number).is_some_and(|slot| matches!(slot.state, State::Multicast { .. }))
    }

    /// Answers a multicast command, or one that waits for the keeper; later answers to the same one are handed back.
    /// `published`: how many got each message that the command published.
    pub(super) fn answer(
        &mut self,
        number: u64,
        reply: Reply,
        published: &[usize],
        backend: &Backend,
    ) -> Option<Reply> {
        let Some(slot) = self.slot_mut(number) else { return Some(reply) };
        let reply = match &mut slot.state {
            State::Later => reply,
            State::Multicast { parts, .. } => match (parts.take(), reply) {
                (Some(parts), Reply::Array(replies)) => Part::merge(parts, replies, published, backend),
                (None, Reply::Integer(_)) if !published.is_empty() => count(published.first()),
                (_, reply) => reply,
            },
            _ => return Some(reply),
        };
        slot.state = State::Settled(reply);
        None
    }

    /// Answers a multicast command without its having been applied as far as this node knows, and with it
    /// the reads that rely on it. Returns its place in its session.
    pub(super) fn give_up(&mut self, number: u64, reply: &Reply, read_reply: &Reply) -> Option<SessionSeq> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let State::Multicast { session, .. } = self.slots.get(index)?.state else {
            return None;
        };
        self.slots[index].state = State::Settled(reply.clone());
        for slot in self.slots.range_mut(index + 1..) {
            match slot.state {
                State::Multicast { .. } => break,
                State::Read { needs: Needs::Write, .. } => slot.state = State::Settled(read_reply.clone()),
                State::Watch { needs: Needs::Write, generation, .. } => {
                    self.watched.fail(generation);
                    slot.state = State::Settled(read_reply.clone());
                }
                _ => {}
            }
        }
        session
    }

    /// Answers the reads that wait for a ticket up to this one. Those that are ready and only held back are not given
    /// up.
    pub(super) fn give_up_reads(&mut self, ticket: u64, reply: &Reply, backend: &Backend) {
        let waits = |needed: u64| needed <= ticket && needed > backend.ready_up_to;
        for slot in self.slots.range_mut(self.settled..) {
            match slot.state {
                State::Read { needs: Needs::Ticket(needed), .. } if waits(needed) => {}
                State::Watch { needs: Needs::Ticket(needed), generation, .. } if waits(needed) => {
                    self.watched.fail(generation);
                }
                _ => continue,
            }
            slot.state = State::Settled(reply.clone());
        }
    }

    /// Executes whatever can be executed now, and turns settled replies into bytes while there is room. Says whether
    /// something is held back that could be executed otherwise ([`Backend::holds_reads`]).
    pub(super) fn settle(&mut self, backend: &Backend) -> bool {
        let mut is_held = false;
        while let Some(slot) = self.slots.get_mut(self.settled) {
            match &slot.state {
                State::Settled(_) | State::Found(_) | State::Message { .. } => {}
                State::Multicast { .. } | State::Later | State::InLine { .. } | State::Reading(_) => break,
                State::Read { needs: Needs::Ticket(ticket), .. }
                | State::Watch { needs: Needs::Ticket(ticket), .. }
                    if *ticket > backend.ready_up_to =>
                {
                    break;
                }
                State::Read { .. } | State::Watch { .. } | State::Ask(_) | State::AskAll(_) => {
                    is_held = backend.holds_reads();
                    let watched = &mut self.watched;
                    if is_held || !backend.pay(|| slot.carry_out(watched, backend, LongReads::Wait)) {
                        break;
                    }
                }
            }
            self.settled += 1;
        }
        self.encode_settled(&backend.pour_fund);
        is_held
    }

    /// Executes every read before this slot now, because the command in the slot is about to be applied, and says
    /// whether the fund sufficed for all of them.
    pub(super) fn settle_before(&mut self, number: u64, backend: &Backend, fund: &mut Fund) -> bool {
        let Some(end) = number.checked_sub(self.first).and_then(|end| usize::try_from(end).ok()) else {
            return true;
        };
        let begin = self.settled;
        for (number, slot) in self.slots.iter_mut().enumerate().take(end).skip(begin) {
            match &slot.state {
                State::Settled(_) | State::Found(_) | State::Message { .. } => {}
                // They change nothing, so the reads behind them need not wait.
                State::Later | State::Reading(_) => continue,
                // Batches are delivered in the order in which they were offered, so whatever was
                // multicast before has been answered.
                State::Multicast { .. } => break,
                State::Read { .. }
                | State::InLine { .. }
                | State::Watch { .. }
                | State::Ask(_)
                | State::AskAll(_) => {
                    if fund.is_spent() {
                        return false;
                    }
                    let watched = &mut self.watched;
                    // A long read sees the state as it is now, and nothing of the write.
                    if !backend.pay_from(fund, || slot.carry_out(watched, backend, LongReads::Begin)) {
                        continue;
                    }
                }
            }
            if self.settled == number {
                self.settled += 1;
            }
        }
        true
    }

    /// Whether replies are left that the turn's fund did not suffice for, so that they go on in another one by
    /// themselves.
    pub(super) fn wants_turn(&self) -> bool {
        (self.pouring.is_some() || self.settled > 0) && !self.is_output_long()
    }

    /// Whether nothing is in the way of a long read but others: all before it is answered and turned into bytes. While
    /// the client does not read them, nothing is prepared that it would not read either.
    pub(super) fn is_in_line(&self) -> bool {
        let front = self.slots.front().map(|slot| &slot.state);
        matches!(front, Some(State::InLine { .. } | State::Reading(_)))
            && self.pouring.is_none()
            && !self.is_output_long()
    }

    /// Begins the long read at the front, unless the store is torn.
    pub(super) fn begin_reading(&mut self, backend: &Backend) {
        if let Some(slot) = self.slots.front_mut()
            && let State::InLine { .. } = slot.state
            && !backend.torn
        {
            slot.carry_out(&mut self.watched, backend, LongReads::Begin);
        }
    }

    /// Begins the long read at the front or goes on with it, for about so many keys. Returns the read if that has
    /// ended, to be freed.
    pub(super) fn read_on(&mut self, max: usize, backend: &Backend) -> Option<Box<LongRead>> {
        self.begin_reading(backend);
        let slot = self.slots.front_mut()?;
        let State::Reading(read) = &mut slot.state else { return None };
        let state = match read.step(max)? {
            LongReply::Reply(reply) => State::Settled(reply),
            LongReply::Keys(found) => State::Found(found),
        };
        match std::mem::replace(&mut slot.state, state) {
            State::Reading(read) => Some(read),
            _ => None,
        }
    }

    /// What nobody waits for any more and would take long to free.
    pub(super) fn into_remains(mut self) -> Remains {
        let mut remains = Remains::default();
        if let Some(pouring) = self.pouring.take() {
            pouring.leave_to(&mut remains);
        }
        for slot in self.slots {
            match slot.state {
                State::Reading(read) => remains.reads.push(*read),
                State::Settled(Reply::Array(elements)) => remains.replies.push(elements.into_iter()),
                State::Found(found) => remains.items.push(found.items.into_iter()),
                _ => {}
            }
        }
        remains
    }

    /// How many long reads have begun, and how many are answered with keys that wait for room in the output.
    #[cfg(test)]
    pub(super) fn long_counts(&self) -> (usize, usize) {
        let count =
            |is_counted: fn(&State) -> bool| self.slots.iter().filter(|slot| is_counted(&slot.state)).count();
        let pouring = usize::from(self.pouring.is_some());
        (
            count(|state| matches!(state, State::Reading(_))),
            pouring + count(|state| matches!(state, State::Found(_))),
        )
    }

    fn encode_settled(&mut self, fund: &PourFund) {
        while !self.is_output_long() {
            if let Some(pouring) = &mut self.pouring {
                if !pouring.go_on(&mut self.output, self.sent + OUTPUT_LEN_SOFT, fund) {
                    break;
                }
                self.pouring = None;
                continue;
            }
            if self.settled == 0 {
                break;
            }
            let front = self.slots.front().map(|slot| &slot.state);
            if fund.is_spent() && matches!(front, Some(State::Settled(Reply::Array(_)) | State::Found(_))) {
                break;
            }
            let Some(slot) = self.slots.pop_front() else { break };
            self.first += 1;
            self.settled -= 1;
            let style = slot.style;
            match slot.state {
                State::Settled(reply) => {
                    self.pouring = Pouring::begin(&mut self.output, style, LongReply::Reply(reply), fund);
                }
                State::Found(found) => {
                    self.pouring = Pouring::begin(&mut self.output, style, LongReply::Keys(found), fund);
                }
                State::Message { reply, len } => {
                    self.messages_len -= len;
                    encode(&mut self.output, style, &reply);
                }
                _ => debug_assert!(false, "only settled slots are counted as such"),
            }
        }
        if self.slots.is_empty() && self.slots.capacity() > UNANSWERED_MAX / 8 {
            self.slots = VecDeque::new();
        }
    }
}

/// Keeps a read's arguments in one piece: each as length and bytes.
pub(super) fn pack(arguments: &[&[u8]]) -> Box<[u8]> {
    let len = arguments.iter().map(|a| 4 + a.len()).sum();
    let mut bytes = Vec::with_capacity(len);
    let mut writer = crate::wire::Writer::new(&mut bytes);
    for argument in arguments {
        writer.blob(argument);
    }
    bytes.into_boxed_slice()
}

/// Does something with arguments that were packed by [`pack`].
fn unpacked<T>(packed: &[u8], act: impl FnOnce(&[&[u8]]) -> T) -> T {
    // Most reads have one argument: spare them the vector.
    let mut reader = Reader::new(packed);
    let next = |reader: &mut Reader<'_>| -> &[u8] {
        let len = reader.u32().expect("packed here") as usize;
        let start = packed.len() - reader.rest().len();
        reader.bytes(len).expect("packed here");
        &packed[start..start + len]
    };
    if packed.is_empty() {
        return act(&[]);
    }
    let first = next(&mut reader);
    if reader.rest().is_empty() {
        return act(&[first]);
    }
    let mut arguments = vec![first];
    while !reader.rest().is_empty() {
        arguments.push(next(&mut reader));
    }
    act(&arguments)
}
