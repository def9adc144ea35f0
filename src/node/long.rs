//! What takes longer than a turn: a piece of it in each turn, so that nothing holds up the loop.
//!
//! **Long reads** stand in line, and the first one gets all that a turn has for them. Only it is frozen: a read that
//! waits is a few words of memory, and is answered from the state as it is when its turn has come ([`LongRead`]).
//! That it sees later writes than it would have seen at once does no harm, for it has not been answered yet. One
//! exception: a write of its own connection behind it must not be seen, so it is frozen just before that is
//! applied. The commands behind a long read on the same connection wait for it, all others go on. Some reads show only
//! when they are tried that they are long ([`Store::read_briefly`](crate::store::Store::read_briefly)).
//!
//! **Long replies** become bytes some elements at a time. A client that does not read holds up nobody: what it has
//! asked is read to its end, and waits as pointers. But a connection is in line only while it has no long output
//! waiting, so it can make the node hold one such reply, however much it asks for.
//!
//! What either leaves behind is freed like expired keys. The pieces are counted in keys and elements, not measured,
//! so that a turn does the same on every machine.

use crate::store::LongRead;
use crate::types::Now;

use super::queue::Queue;
use super::{Node, settle};

/// So many elements of a connection's long replies are turned into bytes in a turn, if there are few such connections;
/// those in elements count, and long values for several.
pub(super) const POURED_PER_TURN: usize = 8192;
/// Of very many connections not more than so many together, or at least so many of each.
const POURED_BY_ALL: usize = 4 * POURED_PER_TURN;
const POURED_MIN: usize = 32;

impl Node {
    /// Goes on with the long read that is first in line, with what other reads have left of the turn's fund, and a
    /// quarter of it at least.
    pub(super) fn run_line(&mut self, now: Now) {
        let left = self.backend.read_fund.get().0.max(self.backend.settings.read_per_turn / 4);
        let max = usize::try_from(left).unwrap_or(usize::MAX);
        while let Some(&key) = self.line.front() {
            let Node { backend, clients, backlog, effects, .. } = self;
            let Some(client) = clients.get_mut(key) else {
                self.line.pop_front();
                continue;
            };
            let ended = client.queue.read_on(max, backend);
            if !client.queue.is_in_line() {
                self.line.pop_front();
                client.in_line = false;
                if !client.is_busy {
                    client.queue.allow_pouring(POURED_PER_TURN);
                }
                // The next one of this connection joins the end of the line.
                settle(client, backend, backlog, effects, now);
            }
            if let Some(read) = ended {
                backend.store.discard(*read);
            }
            return;
        }
    }

    /// Begins the long read that is first in line. When a turn ends, the store may be torn every time.
    pub(super) fn begin_line(&mut self) {
        let Node { backend, clients, line, effects, .. } = self;
        line.extend(effects.line.drain(..));
        if let Some(client) = line.front().and_then(|key| clients.get_mut(*key)) {
            client.queue.begin_reading(backend);
        }
    }

    /// Goes on with the long replies.
    pub(super) fn run_busy(&mut self, now: Now) {
        let count = self.busy.len();
        let share = (POURED_BY_ALL / count.max(1)).clamp(POURED_MIN, POURED_PER_TURN);
        for _ in 0..count {
            let Some(key) = self.busy.pop_front() else { break };
            let Node { backend, clients, backlog, effects, .. } = self;
            let Some(client) = clients.get_mut(key) else { continue };
            client.is_busy = false;
            client.queue.allow_pouring(share);
            settle(client, backend, backlog, effects, now);
        }
    }

    /// Frees what a connection that is gone leaves behind.
    pub(super) fn discard(&mut self, queue: Queue) {
        let remains = queue.into_remains();
        let store = &mut self.backend.store;
        let discard = |read: LongRead| store.discard(read);
        remains.reads.into_iter().for_each(discard);
        for replies in remains.replies {
            store.discard_replies(replies);
        }
        for items in remains.items {
            store.discard_items(items);
        }
    }
}
