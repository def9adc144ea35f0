//! Passing the time on while keys have a time to live, and freeing those that have expired.
//!
//! What decides about a key's deadline is the time that comes with delivered entries, so that all nodes agree, reads
//! included. When nobody writes, no entry comes and that time stands still. So while there are keys with a time to
//! live, the sender with the lowest number multicasts a command that does nothing whenever nothing else was delivered
//! for [`TICK_EVERY`]. If it falls silent, the next view has another lowest sender.

use crate::protocol::Intake;
use crate::store::{TICK_CODE, Watch};
use crate::types::{Millis, Nanos, Now};

use super::Node;

/// How far behind the replicated time may be while it matters, apart from the way of a batch.
const TICK_EVERY: Millis = Millis(50);
/// How many expired keys are freed in a turn: about a millisecond's work.
const FREED_PER_TURN: usize = 512;
/// How long a turn frees any that it need not free to keep up.
const FREEING_TIME: Nanos = Nanos::of_micros(750);

impl Node {
    /// When the time is to be passed on, if that is this node's business.
    pub(super) fn tick_due(&self) -> Option<Millis> {
        if self.backend.store.mortal_key_count() == 0 || self.leaving || self.closed_since.is_some() {
            return None;
        }
        let report = self.backend.report();
        let is_mine =
            report.serving && report.senders.iter().next() == Some(self.backend.settings.protocol.me);
        is_mine.then(|| self.time_passed_on.plus(TICK_EVERY))
    }

    /// Puts the time into the batch of this turn, if it is due and nothing else does.
    pub(super) fn pass_time_on(&mut self, now: Now) {
        let is_due = self.batch.is_empty() && self.tick_due().is_some_and(|due| now.mono >= due);
        if is_due && self.backend.intake() == Intake::Open {
            self.batch_since = now.mono;
            self.batch.push::<&[u8]>(None, TICK_CODE, &[]);
        }
        if !self.batch.is_empty() {
            self.time_passed_on = now.mono;
        }
    }

    /// Frees some of the memory of keys that have expired. Asked in every turn, for what was freed by writes has to be
    /// put together as well.
    pub(super) fn free_expired(&mut self) {
        let watch = self.backend.watch(FREEING_TIME);
        let store = &mut self.backend.store;
        store.set_watch(watch);
        store.free_expired(FREED_PER_TURN);
        store.set_watch(Watch::default());
    }
}
