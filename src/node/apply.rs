//! Applying what the core delivers: in its order, and in each turn as much as the turn allows.
//!
//! The core delivers entries when it can. Here they stand in line with the other words of the core that must be heard
//! in the same order: that reads may see what has been delivered so far, and that an offer was applied in a snapshot.
//! Usually all of them are carried out at once. A turn has a fund of work, counted in keys, and an end to the time for
//! it; what they do not suffice for goes on in the next turn, be it a thousand commands or the rest of one that writes
//! to fifty thousand keys. So messages, votes and timers never wait for the store.
//!
//! **Nobody sees half a command.** While one has begun and is not done, the store is *torn*: no read is executed, and
//! no snapshot begun ([`Backend::holds_reads`]). Whoever's read could be executed otherwise is noted and has its turn
//! when the command is done, before the next one begins. Reads have a fund of their own, so that neither a crowd of
//! costly ones holds up a turn nor a crowd of writes the reads.
//!
//! **Subscribers** are told what a command has brought about before the next one begins. That costs what they are many,
//! which the same fund pays for; so a command that is done can wait with its reply until all is told of it.
//!
//! **What waits here is bounded.** Above [`WAITING_LEN_MAX`] bytes a turn does what there is to do, however long that
//! takes: the loop does not read its sockets meanwhile, and the flow of entries slows down to what the store can take.
//! The same holds for a snapshot that is due and has found the line occupied for [`PATIENCE_TURNS`] turns, as one can
//! only be taken when the store is as far as the core.

use std::collections::VecDeque;
use std::mem::size_of;

use crate::protocol::{Delivery, OfferTicket, ReadTicket, Verdict};
use crate::store::{Applied, Fund, UnderWay, Watch};
use crate::types::{Entry, Index, Nanos, Now, Reply};
use crate::wire::batch::{BatchPlace, BatchReader};

use super::flight::Route;
use super::pouring::is_long;
use super::subscribers::Telling;
use super::{Node, Observed, settle, subscribers};

/// Bytes of entries that wait to be applied.
const WAITING_LEN_MAX: usize = 64 << 20;
/// What an entry takes beside the bytes of its batch, which can be a few: itself, its heads, and its place in line.
const ENTRY_LEN: usize = size_of::<Word>() + size_of::<Entry>() + 64;
/// So many turns in a row may end before everything is applied while a snapshot is due.
const PATIENCE_TURNS: u32 = 256;
/// How long a turn applies what was delivered, where its fund would last longer.
const APPLYING_TIME: Nanos = Nanos::of_micros(2_000);

/// A word of the core that is to be heard in its order.
#[derive(Debug)]
pub(super) enum Word {
    /// An entry is the next of the total order.
    Deliver(Delivery),
    /// An offer was applied in a snapshot that is installed now.
    Overtaken(OfferTicket),
    /// The reads of this ticket may be executed.
    ReadReady(ReadTicket),
}

/// A delivery that is being applied.
#[derive(Debug)]
struct Applying {
    delivery: Delivery,
    /// In front of the command that is being applied.
    place: BatchPlace,
    /// Its index.
    index: Index,
    /// How many commands in front of it are done.
    done: usize,
    /// Where the replies go, if this node has offered them.
    routes: Vec<Route>,
    /// The command has begun.
    begun: Option<Begun>,
}

/// A command that has begun and is not done.
#[derive(Debug, Default)]
struct Begun {
    under_way: Option<UnderWay>,
    /// Whether somebody waits for its reply.
    is_awaited: bool,
    /// A piece of it was done without the rest, and reads were held back.
    was_torn: bool,
    /// Its reply, once it is done and perhaps not all is told of it.
    reply: Option<Reply>,
    telling: Telling,
}

/// What the core has said and the store has not caught up with.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    applying: Option<Box<Applying>>,
    waiting: VecDeque<Word>,
    /// Bytes of the entries in both.
    len: usize,
    /// So many turns in a row have ended before it was empty.
    turns: u32,
}

/// About how many bytes of memory a delivery takes.
fn len_of(delivery: &Delivery) -> usize {
    delivery.entry.batch.bytes().len() + ENTRY_LEN
}

impl Deliveries {
    /// Whether the store is as far as the core.
    pub(super) fn is_empty(&self) -> bool {
        self.applying.is_none() && self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, word: Word) {
        if let Word::Deliver(delivery) = &word {
            self.len += len_of(delivery);
        }
        self.waiting.push_back(word);
    }

    /// How many entries there are, and how many bytes they are taken for.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let deliveries = self.waiting.iter().filter(|word| matches!(word, Word::Deliver(_)));
        (deliveries.count() + usize::from(self.applying.is_some()), self.len)
    }

    /// At the end of a turn.
    pub(super) fn end_turn(&mut self) {
        self.turns = if self.is_empty() { 0 } else { self.turns.saturating_add(1) };
    }

    /// Whether it has been occupied for so long that a snapshot cannot wait any longer.
    pub(super) fn is_lasting(&self) -> bool {
        self.turns >= PATIENCE_TURNS
    }
}

impl Node {
    /// Applies what has been delivered, as far as this turn's fund goes.
    pub(super) fn apply_delivered(&mut self, now: Now) {
        if self.deliveries.is_empty() {
            return;
        }
        let watch = self.backend.watch(APPLYING_TIME);
        self.backend.store.set_watch(watch);
        let mut fund = self.backend.write_fund;
        loop {
            let is_crowded = self.deliveries.len > WAITING_LEN_MAX;
            let is_any = if is_crowded {
                // Without a watch, or what is late already would be done key by key, and be decoded for each.
                self.backend.store.set_watch(Watch::default());
                fund = Fund(0);
                self.apply_next(now, &mut Fund(u64::MAX))
            } else {
                !fund.is_spent() && self.apply_next(now, &mut fund)
            };
            if !is_any {
                break;
            }
        }
        self.backend.write_fund = fund;
        self.backend.store.set_watch(Watch::default());
    }

    /// Applies all that has been delivered, however long it takes.
    pub(super) fn apply_all(&mut self, now: Now) {
        while !self.deliveries.is_empty() {
            self.apply_next(now, &mut Fund(u64::MAX));
        }
    }

    /// Carries out the next word of the core, or goes on with the delivery that is being applied. `false`: there is
    /// nothing to do.
    fn apply_next(&mut self, now: Now, fund: &mut Fund) -> bool {
        if let Some(mut applying) = self.deliveries.applying.take() {
            if self.go_on_applying(now, &mut applying, fund) {
                self.end_applying(now, *applying);
            } else {
                self.deliveries.applying = Some(applying);
            }
            return true;
        }
        match self.deliveries.waiting.pop_front() {
            None => return false,
            Some(Word::Deliver(delivery)) => self.begin_applying(now, delivery, fund),
            Some(Word::Overtaken(ticket)) => {
                let mut routes = Vec::new();
                let last = self.offers.delivered(ticket, &mut routes);
                routes.extend_from_slice(&last);
                self.give_up(now, &routes);
                self.offers.recycle(last);
            }
            Some(Word::ReadReady(ticket)) => {
                self.backend.ready_up_to = self.backend.ready_up_to.max(ticket.0);
                while let Some(group) = self.reads.pop_up_to(ticket) {
                    self.settle_all(now, &group.clients);
                    self.reads.recycle(group);
                }
            }
        }
        true
    }

    fn begin_applying(&mut self, now: Now, delivery: Delivery, fund: &mut Fund) {
        let mut skipped = Vec::new();
        let routes = match delivery.ticket {
            Some(ticket) if delivery.verdict == Verdict::Applied => {
                self.offers.delivered(ticket, &mut skipped)
            }
            _ => Vec::new(),
        };
        self.give_up(now, &skipped);
        let place = BatchReader::new(&delivery.entry.batch).place();
        let index = delivery.first;
        let mut applying = Applying { delivery, place, index, done: 0, routes, begun: None };
        if applying.delivery.verdict != Verdict::Applied || self.go_on_applying(now, &mut applying, fund) {
            self.end_applying(now, applying);
        } else {
            self.deliveries.applying = Some(Box::new(applying));
        }
    }

    /// Applies the commands of a delivery and answers them if this node offered it. Says whether all are done.
    fn go_on_applying(&mut self, now: Now, applying: &mut Applying, fund: &mut Fund) -> bool {
        let Applying { delivery, place, index, done, routes, begun } = applying;
        let wants_key_events = subscribers::wants_key_events(&self.backend);
        self.backend.store.tell_of_keys(wants_key_events);
        self.backend.store.tell_of_expired(wants_key_events && subscribers::wants_expired(&self.backend));
        let mut commands = BatchReader::from_place(&delivery.entry.batch, *place);
        loop {
            *place = commands.place();
            // The rest of a malformed batch is skipped, on every node alike.
            let Some(Ok(command)) = commands.next() else { return true };
            let Node { backend, clients, backlog, effects, .. } = self;
            let route = routes.get(*done);
            if begun.is_none() {
                if fund.is_spent() {
                    return false;
                }
                let mut is_awaited = false;
                if let Some(route) = route
                    && let Some(client) = clients.get_mut(route.client)
                {
                    if !client.queue.settle_before(route.slot, backend, fund) {
                        return false;
                    }
                    is_awaited = client.queue.awaits(route.slot);
                }
                *begun = Some(Begun { is_awaited, ..Begun::default() });
            }
            let Some(Begun { is_awaited, under_way, was_torn, reply, telling }) = begun else { return false };
            if telling.events.is_empty() {
                let at = Applied { index: *index, now: delivery.now };
                *reply = backend.store.apply_some(at, &command, *is_awaited, under_way, fund);
                backend.torn = reply.is_none();
                *was_torn |= backend.torn;
                if reply.is_some() {
                    backend.applied_index = *index;
                }
                telling.events = backend.store.take_events().into();
            }
            subscribers::tell(backend, clients, backlog, effects, now, telling, fund);
            if !telling.events.is_empty() {
                return false;
            }
            let Some(reply) = reply.take() else { return false };
            let mut unwanted = Some(reply);
            if let Some(route) = route
                && let Some(client) = clients.get_mut(route.client)
                && let Some(reply) = unwanted.take()
            {
                unwanted = backend
                    .pay_from(fund, || client.queue.answer(route.slot, reply, &telling.published, backend));
                settle(client, backend, backlog, effects, now);
            }
            // Whoever asked has left meanwhile.
            if let Some(Reply::Array(replies)) = unwanted.filter(is_long) {
                backend.store.discard_replies(replies);
            }
            let was_torn = *was_torn;
            *begun = None;
            *index = Index(index.0 + 1);
            *done += 1;
            if was_torn {
                self.run_held(now);
                self.begin_line();
            }
        }
    }

    fn end_applying(&mut self, now: Now, applying: Applying) {
        let Applying { delivery, done, routes, .. } = applying;
        let batch = &delivery.entry.batch;
        self.deliveries.len -= len_of(&delivery);
        let unread = routes.get(done..).unwrap_or_default().to_vec();
        self.give_up(now, &unread);
        self.offers.recycle(routes);
        if delivery.verdict == Verdict::Applied {
            // Commands that could not be read have an index too.
            self.backend.applied_index = Index(delivery.first.0 + u64::from(batch.count()) - 1);
        }
        if self.observing {
            let (index, digest) = (self.backend.applied_index, self.backend.store.digest());
            self.effects.observed.push(Observed::Delivered { delivery, index, digest });
        }
    }

    /// Executes the reads that were held back, first come, first served, as far as the turn's fund for them goes.
    pub(super) fn run_held(&mut self, now: Now) {
        self.held.extend(self.effects.held.drain(..));
        self.backend.reads_wait = false;
        while !self.backend.holds_reads()
            && let Some(key) = self.held.pop_front()
        {
            let Node { backend, clients, backlog, effects, .. } = self;
            if let Some(client) = clients.get_mut(key) {
                client.is_held = false;
                settle(client, backend, backlog, effects, now);
            }
        }
    }
}
