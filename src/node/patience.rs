//! How long what waits may wait, and what it is told then.
//!
//! | waits | for | then |
//! |---|---|---|
//! | a command that was not offered, a read; the core takes none | 2 × suspicion time-out | `NOQUORUM`, `LOADING` |
//! | `SAVE`, `SNAPSHOT BEGIN`, not begun; none can be, for now | 2 × suspicion time-out | `LOADING`, `NOQUORUM` |
//! | a command that was not offered, a read; the core is full, and nothing leaves it | the client time-out | `BUSY` |
//! | a command that was offered, a read | the client time-out | `TIMEOUT` |
//! | output that the client does not take | 30 s | closed |
//! | the rest of a command | 30 s and a second for each 64 KiB | closed |
//!
//! After the first three of these, all that follow are refused at once until the core takes commands again. Whoever is
//! refused may repeat the command anywhere: no other node has heard of it.

use crate::protocol::{Input, Intake};
use crate::types::{Millis, Now, Reply};

use super::flight::{ReadGroup, Route};
use super::{Node, settle};

/// How often slow clients are looked for.
pub(super) const SWEEP_EVERY: Millis = Millis(5_000);
/// A client that takes no output for so long is cut off.
pub(super) const OUTPUT_PATIENCE: Millis = Millis(30_000);
/// A command that has begun must be complete after so long, and a second for each [`COMMAND_RATE`] received.
const COMMAND_PATIENCE: Millis = Millis(30_000);
/// Bytes a second that the sender of a long command must manage.
const COMMAND_RATE: usize = 64 << 10;

/// What has not been done, for those who are refused.
pub(super) const NOT_MULTICAST: &str = "the command was not multicast";
pub(super) const NOTHING_READ: &str = "nothing was read";
const NO_SNAPSHOT: &str = "no snapshot was taken";

pub(super) const TIMEOUT: &str =
    "TIMEOUT the command was multicast but not delivered in time; it may still be applied";
pub(super) const READ_TIMEOUT: &str = "TIMEOUT the read was not answered in time; nothing was changed by it";

impl Node {
    /// Answers `TIMEOUT` to whoever still waits in these slots.
    pub(super) fn give_up(&mut self, now: Now, routes: &[Route]) {
        if routes.is_empty() {
            return;
        }
        let (reply, read_reply) = (Reply::error(TIMEOUT), Reply::error(READ_TIMEOUT));
        let Node { backend, clients, backlog, effects, .. } = self;
        for route in routes {
            if let Some(client) = clients.get_mut(route.client) {
                if client.queue.awaits(route.slot) {
                    backend.stats.timed_out += 1;
                    client.queue.give_up(route.slot, &reply, &read_reply);
                }
                settle(client, backend, backlog, effects, now);
            }
        }
    }

    pub(super) fn give_up_reads(&mut self, now: Now, group: ReadGroup, reply: &Reply) {
        if group.begun {
            self.run_core(now, Input::CancelRead(group.ticket));
        }
        let Node { backend, clients, backlog, effects, .. } = self;
        for &key in &group.clients {
            if let Some(client) = clients.get_mut(key) {
                client.queue.give_up_reads(group.ticket.0, reply, backend);
                settle(client, backend, backlog, effects, now);
            }
        }
        self.reads.recycle(group);
    }

    pub(super) fn look_at_intake(&mut self, now: Now) {
        let intake = self.backend.intake();
        self.full = intake == Intake::Full;
        match intake {
            Intake::Open => {
                self.closed_since = None;
                self.full_since = None;
                self.refusing = None;
            }
            Intake::Full => {
                self.closed_since = None;
                let since = *self.full_since.get_or_insert(now.mono);
                let is_stuck = now.mono.since(since) >= self.backend.settings.client_timeout;
                self.refusing = is_stuck.then_some(intake);
            }
            Intake::NoQuorum | Intake::Loading => {
                self.full_since = None;
                let since = *self.closed_since.get_or_insert(now.mono);
                self.refusing = (now.mono.since(since) >= self.hold()).then_some(intake);
            }
        }
        if let Some(intake) = self.refusing {
            self.refuse_held(now, intake);
        }
    }

    /// Refuses the commands that nobody has heard of yet, the reads, and the snapshots that cannot be begun.
    fn refuse_held(&mut self, now: Now, intake: Intake) {
        if !self.batch.is_empty() {
            let (reply, read_reply) =
                (self.backend.refusal(intake, NOT_MULTICAST), self.backend.refusal(intake, NOTHING_READ));
            self.refuse_batch(now, &reply, &read_reply);
        }
        if !self.reads.is_empty() {
            let reply = self.backend.refusal(intake, NOTHING_READ);
            while let Some(group) = self.reads.expire(Millis(u64::MAX)) {
                self.give_up_reads(now, group, &reply);
            }
        }
        if self.holds_saves() {
            let reply = self.backend.refusal(intake, NO_SNAPSHOT);
            self.refuse_saves(now, &reply);
        }
    }

    /// Refuses the commands of the batch that has not been offered.
    fn refuse_batch(&mut self, now: Now, reply: &Reply, read_reply: &Reply) {
        self.batch.clear();
        // No later read may rely on a write of this batch.
        self.next_offer += 1;
        self.unsent_offer = self.next_offer;
        let Node { backend, clients, backlog, effects, routes, .. } = self;
        for route in routes.drain(..) {
            let Some(client) = clients.get_mut(route.client) else { continue };
            backend.stats.refused += 1;
            if let Some(place) = client.queue.give_up(route.slot, reply, read_reply)
                && client.refused.is_none_or(|(session, _)| session != place.session)
            {
                client.refused = Some((place.session, place.seq));
            }
            settle(client, backend, backlog, effects, now);
        }
    }

    pub(super) fn hold(&self) -> Millis {
        self.backend.settings.protocol.suspicion.times(2)
    }

    /// Answers what has waited for too long.
    pub(super) fn expire(&mut self, now: Now) {
        let timeout = self.backend.settings.client_timeout;
        let Some(limit) = now.mono.0.checked_sub(timeout.0).map(Millis) else {
            return;
        };
        while let Some(routes) = self.offers.expire(limit) {
            self.give_up(now, &routes);
            self.offers.recycle(routes);
        }
        while let Some(group) = self.reads.expire(limit) {
            self.backend.stats.timed_out += 1;
            self.give_up_reads(now, group, &Reply::error(READ_TIMEOUT));
        }
    }

    /// Closes connections whose client takes no output, or does not finish a command.
    pub(super) fn cut_slow_clients(&mut self, now: Now) {
        self.next_sweep = now.mono.plus(SWEEP_EVERY);
        let Node { backend, clients, effects, .. } = self;
        for client in clients.iter_mut() {
            let stuck =
                !client.queue.output().is_empty() && now.mono.since(client.output_since) >= OUTPUT_PATIENCE;
            let allowed = COMMAND_PATIENCE.plus(Millis((client.input.len() / COMMAND_RATE) as u64 * 1_000));
            let halting = client.command_since.is_some_and(|since| now.mono.since(since) >= allowed);
            if (stuck || halting) && !client.closing {
                client.closing = true;
                client.end_input();
                backend.stats.cut += 1;
                effects.closing.push(client.key);
            }
        }
    }
}
