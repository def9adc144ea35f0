//! What takes longer than a turn: a piece of it in each turn, so that nothing holds up the loop.
//!
//! A read of very many keys is answered from the state as it was when its turn came ([`LongRead`]); the commands
//! behind it on the same connection wait for it, and all others go on. Long replies become bytes some elements at a
//! time. What either leaves behind is freed like expired keys. The pieces are counted in keys and elements, not
//! measured, so that a turn does the same on every machine.

use crate::store::LongRead;
use crate::types::Now;

use super::queue::Queue;
use super::{Node, settle};

/// How many keys all long reads together may look at in a turn: about a millisecond's work.
const LOOKED_AT_PER_TURN: usize = 4096;

impl Node {
    /// Goes on with the connections that have something left, one long read and each long reply.
    pub(super) fn run_long(&mut self, now: Now) {
        let mut has_read = false;
        for _ in 0..self.busy.len() {
            let Some(key) = self.busy.pop_front() else { break };
            let Node { backend, clients, backlog, effects, .. } = self;
            let Some(client) = clients.get_mut(key) else { continue };
            if has_read && client.queue.is_reading() {
                // In the next turn it comes before those that have had theirs.
                self.busy.push_back(key);
                continue;
            }
            has_read |= client.queue.is_reading();
            client.is_busy = false;
            let ended = client.queue.begin_turn(LOOKED_AT_PER_TURN);
            settle(client, backend, backlog, effects, now);
            if let Some(read) = ended {
                backend.store.discard(*read);
            }
        }
    }

    /// Frees what a connection that is gone leaves behind.
    pub(super) fn discard(&mut self, queue: Queue) {
        let (reads, replies) = queue.into_remains();
        let discard = |read: LongRead| self.backend.store.discard(read);
        reads.into_iter().for_each(discard);
        for replies in replies {
            self.backend.store.discard_replies(replies);
        }
    }
}
