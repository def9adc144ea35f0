//! What is to happen, in the order of virtual time. Events of one moment come in an order drawn from the seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events by time.
#[derive(Debug)]
pub(super) struct EventQueue<E> {
    /// Time in microseconds, tie-breaker, slot.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
}

impl<E> EventQueue<E> {
    pub(super) fn new() -> EventQueue<E> {
        EventQueue { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn push(&mut self, when: u64, tie: u64, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer than 4 billion events wait")
        });
        self.slots[slot as usize] = Some(event);
        self.heap.push(Reverse((when, tie, slot)));
    }

    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((when, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.slots[slot as usize].take().expect("a slot on the heap holds an event");
        Some((when, event))
    }
}
