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
//! What either leaves behind is freed like expired keys. The pieces are counted in keys and elements, and end when
//! their time is up.

use crate::store::LongRead;
use crate::types::{Nanos, Now};

use super::pouring::POURED_PER_TURN;
use super::queue::Queue;
use super::{Node, settle};

/// So many elements at least are turned into bytes of a connection that has its turn with its long replies.
const POURED_MIN: usize = 32;
/// So many connections have their turn at most: each is somewhere else in memory.
const POURING_MAX: usize = POURED_PER_TURN / POURED_MIN;
/// How long a turn goes on with a long read.
const READING_TIME: Nanos = Nanos::of_micros(1_000);
/// After so much work of it the clock is looked at.
const READ_PER_LOOK: usize = 64;

impl Node {
    /// Goes on with the long read that is first in line, with what other reads have left of the turn's fund, and a
    /// quarter of it at least.
    pub(super) fn run_line(&mut self, now: Now) {
        let left = self.backend.read_fund.get().0.max(self.backend.settings.read_per_turn / 4);
        let mut left = usize::try_from(left).unwrap_or(usize::MAX);
        while let Some(&key) = self.line.front() {
            let Node { backend, clients, backlog, effects, .. } = self;
            let Some(client) = clients.get_mut(key) else {
                self.line.pop_front();
                continue;
            };
            let watch = backend.watch(READING_TIME);
            let ended = loop {
                let piece = left.min(READ_PER_LOOK);
                let ended = client.queue.read_on(piece, backend);
                left -= piece;
                watch.note(piece as u64);
                if ended.is_some() || left == 0 || watch.is_late() {
                    break ended;
                }
            };
            if !client.queue.is_in_line() {
                self.line.pop_front();
                client.in_line = false;
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

    /// Goes on with the replies that a turn has not sufficed for: in a row, some elements of each, until the turn's
    /// fund is spent. Whoever has had some and is not done joins the end of the row.
    pub(super) fn run_busy(&mut self, now: Now) {
        let count = self.busy.len().min(POURING_MAX);
        self.backend.watch_pouring();
        let share = self.backend.pour_fund.left() / count.max(1);
        for _ in 0..count {
            if self.backend.pour_fund.left() == 0 {
                break;
            }
            let Some(key) = self.busy.pop_front() else { break };
            let Node { backend, clients, backlog, effects, .. } = self;
            let Some(client) = clients.get_mut(key) else { continue };
            client.is_busy = false;
            backend.pour_fund.allow(share.max(POURED_MIN));
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
