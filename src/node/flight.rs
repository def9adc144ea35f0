//! What is under way: batches offered to the core, and reads that wait for the core's word.

use std::collections::VecDeque;

use crate::protocol::{OfferTicket, ReadTicket};
use crate::types::Millis;

use super::clients::ClientKey;

/// Where the reply to a command of a batch goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Route {
    pub(super) client: ClientKey,
    pub(super) slot: u64,
}

#[derive(Debug)]
struct Offer {
    ticket: OfferTicket,
    /// When its first command came.
    since: Millis,
    /// One for each command; empty once the commands have been answered `TIMEOUT`.
    routes: Vec<Route>,
}

/// Offered batches in the order of their tickets, which is the order in which they are delivered.
#[derive(Debug, Default)]
pub(super) struct Offers {
    waiting: VecDeque<Offer>,
    /// So many at the front have been answered `TIMEOUT`; they stay so that their delivery finds nobody.
    expired: usize,
    spare: Vec<Vec<Route>>,
}

impl Offers {
    /// An empty vector for the routes of the next batch, used before if possible.
    pub(super) fn routes(&mut self) -> Vec<Route> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a vector back.
    pub(super) fn recycle(&mut self, mut routes: Vec<Route>) {
        const SPARE_MAX: usize = 16;
        if self.spare.len() < SPARE_MAX && routes.capacity() > 0 {
            routes.clear();
            self.spare.push(routes);
        }
    }

    /// Remembers a batch that is offered now.
    pub(super) fn push(&mut self, ticket: OfferTicket, since: Millis, routes: Vec<Route>) {
        self.waiting.push_back(Offer { ticket, since, routes });
    }

    /// The routes of a delivered batch. `skipped` gets those of batches before it, which never will be
    /// delivered one by one.
    pub(super) fn delivered(&mut self, ticket: OfferTicket, skipped: &mut Vec<Route>) -> Vec<Route> {
        while let Some(front) = self.waiting.front()
            && front.ticket <= ticket
        {
            let Some(offer) = self.waiting.pop_front() else { break };
            self.expired = self.expired.saturating_sub(1);
            if offer.ticket == ticket {
                return offer.routes;
            }
            skipped.extend_from_slice(&offer.routes);
            self.recycle(offer.routes);
        }
        Vec::new()
    }

    /// The routes of the next batch that has waited since `limit` or longer.
    pub(super) fn expire(&mut self, limit: Millis) -> Option<Vec<Route>> {
        let offer = self.waiting.get_mut(self.expired)?;
        if offer.since > limit {
            return None;
        }
        self.expired += 1;
        Some(std::mem::take(&mut offer.routes))
    }

    /// When the oldest batch that may still expire began to wait.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.waiting.get(self.expired).map(|offer| offer.since)
    }
}

/// The reads that began in one turn of the loop.
#[derive(Debug)]
pub(super) struct ReadGroup {
    pub(super) ticket: ReadTicket,
    since: Millis,
    /// Whether the core knows of it.
    pub(super) begun: bool,
    /// Every client with such reads, once.
    pub(super) clients: Vec<ClientKey>,
}

/// Groups of reads in the order of their tickets.
///
/// A later ticket that is ready makes all earlier ones ready: what the store must hold for the later one
/// contains whatever was acknowledged before the earlier ones began.
#[derive(Debug, Default)]
pub(super) struct ReadGroups {
    groups: VecDeque<ReadGroup>,
    last_ticket: u64,
    spare: Vec<Vec<ClientKey>>,
}

impl ReadGroups {
    /// Adds a client to the group of this turn, unless `member_of` says that it is in it, and returns the
    /// ticket.
    pub(super) fn join(&mut self, client: ClientKey, member_of: u64, now: Millis) -> u64 {
        if self.groups.back().is_none_or(|group| group.begun) {
            self.last_ticket += 1;
            let clients = self.spare.pop().unwrap_or_default();
            let ticket = ReadTicket(self.last_ticket);
            self.groups.push_back(ReadGroup { ticket, since: now, begun: false, clients });
        }
        if member_of != self.last_ticket
            && let Some(group) = self.groups.back_mut()
        {
            group.clients.push(client);
        }
        self.last_ticket
    }

    /// The group of this turn, if any read began; marks it as begun.
    pub(super) fn begin(&mut self) -> Option<ReadTicket> {
        let group = self.groups.back_mut().filter(|group| !group.begun)?;
        group.begun = true;
        Some(group.ticket)
    }

    /// The oldest group, if its ticket is at most this one.
    pub(super) fn pop_up_to(&mut self, ticket: ReadTicket) -> Option<ReadGroup> {
        if self.groups.front()?.ticket <= ticket { self.groups.pop_front() } else { None }
    }

    /// The oldest group, if it has waited since `limit` or longer.
    pub(super) fn expire(&mut self, limit: Millis) -> Option<ReadGroup> {
        if self.groups.front()?.since <= limit { self.groups.pop_front() } else { None }
    }

    /// Takes a group's memory back.
    pub(super) fn recycle(&mut self, group: ReadGroup) {
        const SPARE_MAX: usize = 16;
        if self.spare.len() < SPARE_MAX {
            let mut clients = group.clients;
            clients.clear();
            self.spare.push(clients);
        }
    }

    /// When the oldest group began.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.groups.front().map(|group| group.since)
    }

    /// Whether no read waits.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(slot: u64) -> Route {
        Route { client: ClientKey { index: 0, generation: 0 }, slot }
    }

    #[test]
    fn an_expired_offer_is_delivered_to_nobody() {
        let mut offers = Offers::default();
        for i in 1..=3 {
            offers.push(OfferTicket(i), Millis(i * 10), vec![route(i)]);
        }
        assert_eq!(offers.expire(Millis(10)), Some(vec![route(1)]));
        assert_eq!(offers.expire(Millis(10)), None);
        assert_eq!(offers.oldest(), Some(Millis(20)));
        let mut skipped = Vec::new();
        assert_eq!(offers.delivered(OfferTicket(1), &mut skipped), []);
        assert_eq!(offers.oldest(), Some(Millis(20)));
        assert_eq!(offers.delivered(OfferTicket(3), &mut skipped), [route(3)]);
        assert_eq!(skipped, [route(2)]);
        assert_eq!(offers.oldest(), None);
    }

    #[test]
    fn reads_of_one_turn_share_a_ticket() {
        let mut reads = ReadGroups::default();
        let key = |index| ClientKey { index, generation: 0 };
        assert_eq!(reads.begin(), None);
        assert_eq!(reads.join(key(1), 0, Millis(5)), 1);
        assert_eq!(reads.join(key(1), 1, Millis(5)), 1);
        assert_eq!(reads.join(key(2), 0, Millis(5)), 1);
        assert_eq!(reads.begin(), Some(ReadTicket(1)));
        assert_eq!(reads.begin(), None);
        assert_eq!(reads.join(key(1), 1, Millis(6)), 2);
        assert!(reads.pop_up_to(ReadTicket(0)).is_none());
        let group = reads.pop_up_to(ReadTicket(2)).expect("the first");
        assert_eq!((group.ticket, group.clients.len()), (ReadTicket(1), 2));
        assert_eq!(reads.oldest(), Some(Millis(6)));
        assert!(reads.expire(Millis(5)).is_none() && reads.expire(Millis(6)).is_some());
        assert!(reads.is_empty());
    }
}
