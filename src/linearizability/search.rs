//! The search for an order of one group; what it rests on is said at the top of the module.
//!
//! Answered operations are numbered by their begin, unanswered ones behind them by theirs. A **situation** is the set
//! of operations taken and the state; the search stands in one at a time, always with all readers that fit already
//! taken. `frames` says how it came there and where to go on when there is no way forward.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;

use super::bits::{Bits, is_subset};
use super::groups::Group;
use super::model::{KeyId, Model};
use super::operation::Command;
use super::values::ValueId;

/// What came out.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) findings: Findings,
    /// How many situations were looked at.
    pub(crate) states: u64,
}

/// Whether there is an order.
#[derive(Debug)]
pub(crate) enum Findings {
    /// Yes.
    Order,
    /// No; these operations, in this order, are as far as one gets.
    NoOrder { best: Vec<usize> },
    /// Not known: there are more situations than allowed.
    TooMany,
}

/// Looks for an order.
pub(crate) fn search(group: &Group<'_>, states_max: u64) -> Search {
    let mut searcher = Searcher::new(group);
    let findings = searcher.run(states_max);
    Search { findings, states: searcher.states }
}

/// Begins and ends of the answered operations that have not been taken, in the order of time. The event `2 * n` is
/// the begin of operation `n`, the one after it its end; behind the last number is the head of a ring.
#[derive(Debug)]
struct Events {
    next: Vec<usize>,
    previous: Vec<usize>,
    head: usize,
}

impl Events {
    fn new(group: &Group<'_>) -> Events {
        let answered = &group.operations[..group.answered];
        let mut order: Vec<usize> = (0..2 * answered.len()).collect();
        // At the same time, begins come first: operations that only touch are concurrent.
        order.sort_by_key(|event| match answered[event / 2] {
            operation if event % 2 == 0 => (operation.begin, 0),
            operation => (operation.end, 1),
        });
        let head = order.len();
        let mut events = Events { next: vec![head; head + 1], previous: vec![head; head + 1], head };
        let mut last = head;
        for event in order {
            events.next[last] = event;
            events.previous[event] = last;
            last = event;
        }
        events.previous[head] = last;
        events
    }

    fn first(&self) -> usize {
        self.next[self.head]
    }

    fn is_empty(&self) -> bool {
        self.first() == self.head
    }

    fn unlink(&mut self, event: usize) {
        let (next, previous) = (self.next[event], self.previous[event]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    /// Undoes the latest `unlink`: the event itself still knows its neighbours.
    fn link(&mut self, event: usize) {
        let (next, previous) = (self.next[event], self.previous[event]);
        self.next[previous] = event;
        self.previous[next] = event;
    }

    /// The end first: so the begin, which may stand right before it, still knows what comes next.
    fn take(&mut self, operation: usize) {
        self.unlink(2 * operation + 1);
        self.unlink(2 * operation);
    }

    /// Undoes the latest `take`.
    fn put_back(&mut self, operation: usize) {
        self.link(2 * operation);
        self.link(2 * operation + 1);
    }
}

/// Which operations have not been tried yet in a situation.
#[derive(Clone, Copy, Debug)]
enum Cursor {
    /// Answered ones from this event on, then the unanswered ones.
    Event(usize),
    /// So many of the unanswered ones, the latest first: what was begun long ago and has not shown yet was
    /// probably never applied.
    Unanswered(usize),
}

/// How to go back by one step.
#[derive(Debug)]
struct Frame {
    order_len: usize,
    undo_len: usize,
    highest: usize,
    resume: Cursor,
}

/// Where the search stands and has been.
struct Searcher<'h> {
    model: Model<'h>,
    events: Events,
    /// By answered operation: when it ended, and whether its answer says that it changed nothing.
    answered: Vec<(u64, bool)>,
    /// By unanswered operation: when it began, and the one before it with the same command.
    unanswered: Vec<(u64, Option<usize>)>,
    linearized: Bits,
    /// The highest answered operation in `linearized`.
    highest: usize,
    used: Bits,
    state: Vec<ValueId>,
    /// All operations taken.
    order: Vec<usize>,
    /// How many of them are answered ones.
    answered_count: usize,
    /// Values that were overwritten on the way here.
    undo: Vec<(KeyId, ValueId)>,
    frames: Vec<Frame>,
    /// By answered operations taken and state: the sets of unanswered operations used, none part of another, as
    /// words one after the other.
    visited: HashMap<Box<[u64]>, Vec<u64>, FixedState>,
    states: u64,
    best: Best,
}

/// The order with the most answered operations so far.
#[derive(Debug, Default)]
struct Best {
    order: Vec<usize>,
    answered: usize,
    /// So much of it is the beginning of the present order too, and need not be copied.
    common: usize,
}

impl<'h> Searcher<'h> {
    fn new(group: &Group<'h>) -> Searcher<'h> {
        let mut model = Model::new(group);
        model.cut_tails(&group.operations);
        let (answered, unanswered) = group.operations.split_at(group.answered);
        let mut latest: BTreeMap<&Command, usize> = BTreeMap::new();
        Searcher {
            events: Events::new(group),
            linearized: Bits::new(answered.len()),
            highest: 0,
            used: Bits::new(unanswered.len()),
            state: model.initial(),
            answered: answered.iter().map(|operation| (operation.end, operation.changed_nothing())).collect(),
            unanswered: unanswered
                .iter()
                .enumerate()
                .map(|(place, operation)| (operation.begin, latest.insert(&operation.command, place)))
                .collect(),
            model,
            order: Vec::new(),
            answered_count: 0,
            undo: Vec::new(),
            frames: Vec::new(),
            visited: HashMap::with_hasher(FixedState::with_seed(0)),
            states: 0,
            best: Best::default(),
        }
    }

    fn run(&mut self, states_max: u64) -> Findings {
        let mut changes = Vec::new();
        let mut cursor = self.arrive();
        loop {
            if self.events.is_empty() {
                return Findings::Order;
            }
            if self.states > states_max {
                return Findings::TooMany;
            }
            let Some(operation) = self.candidate(&mut cursor) else {
                self.remember();
                let Some(frame) = self.frames.pop() else {
                    return Findings::NoOrder { best: std::mem::take(&mut self.best.order) };
                };
                cursor = frame.resume;
                self.go_back(&frame);
                continue;
            };
            changes.clear();
            if !self.model.step(operation, &self.state, &self.linearized, &mut changes) {
                continue;
            }
            let frame = self.frame(cursor);
            self.take(operation);
            self.change(&changes);
            self.take_readers();
            if self.is_new() {
                self.frames.push(frame);
                self.states += 1;
                cursor = Cursor::Event(self.events.first());
            } else {
                self.go_back(&frame);
            }
        }
    }

    /// The first situation.
    fn arrive(&mut self) -> Cursor {
        self.take_readers();
        self.is_new();
        self.states = 1;
        Cursor::Event(self.events.first())
    }

    /// The next operation to try: it may be next as far as time goes, and nothing makes trying it superfluous.
    fn candidate(&self, cursor: &mut Cursor) -> Option<usize> {
        while let Cursor::Event(event) = *cursor {
            let (operation, is_end) = (event / 2, event % 2 == 1);
            let (end, changed_nothing) = self.answered[operation];
            if is_end {
                *cursor = Cursor::Unanswered(self.unanswered.partition_point(|(begin, _)| *begin <= end));
                break;
            }
            *cursor = Cursor::Event(self.events.next[event]);
            // Those that change nothing and fit have been taken.
            if !changed_nothing {
                return Some(operation);
            }
        }
        while let Cursor::Unanswered(left @ 1..) = cursor {
            *left -= 1;
            let (_, same_before) = self.unanswered[*left];
            if !self.used.contains(*left) && same_before.is_none_or(|same| self.used.contains(same)) {
                return Some(self.answered.len() + *left);
            }
        }
        None
    }

    fn frame(&self, resume: Cursor) -> Frame {
        Frame { order_len: self.order.len(), undo_len: self.undo.len(), highest: self.highest, resume }
    }

    fn take(&mut self, operation: usize) {
        self.order.push(operation);
        if operation < self.answered.len() {
            self.events.take(operation);
            self.linearized.insert(operation);
            self.highest = self.highest.max(operation);
            self.answered_count += 1;
        } else {
            self.used.insert(operation - self.answered.len());
        }
    }

    fn change(&mut self, changes: &[(KeyId, ValueId)]) {
        for (key, value) in changes {
            self.undo.push((*key, std::mem::replace(&mut self.state[*key], *value)));
        }
    }

    /// Takes what may be next, changed nothing and fits. One walk is enough: whoever is taken lets others follow only
    /// behind its own end, and the walk has not come by there yet.
    fn take_readers(&mut self) {
        let mut changes = Vec::new();
        let mut event = self.events.first();
        while event != self.events.head && event.is_multiple_of(2) {
            let operation = event / 2;
            let (_, changed_nothing) = self.answered[operation];
            if changed_nothing && self.model.step(operation, &self.state, &self.linearized, &mut changes) {
                assert!(
                    changes.is_empty(),
                    "an operation that changed nothing by its answer changes nothing"
                );
                self.take(operation);
            }
            changes.clear();
            event = self.events.next[event];
        }
    }

    fn go_back(&mut self, frame: &Frame) {
        while self.order.len() > frame.order_len {
            let operation = self.order.pop().expect("longer than another length");
            if operation < self.answered.len() {
                self.events.put_back(operation);
                self.linearized.remove(operation);
                self.answered_count -= 1;
            } else {
                self.used.remove(operation - self.answered.len());
            }
        }
        while self.undo.len() > frame.undo_len {
            let (key, value) = self.undo.pop().expect("longer than another length");
            self.state[key] = value;
        }
        self.highest = frame.highest;
        self.best.common = self.best.common.min(self.order.len());
    }

    /// Whether the search has not been here yet, nor anywhere from where it can do at least as much. If so, it has
    /// now.
    fn is_new(&mut self) -> bool {
        // All before the first operation left have been taken, and none behind the highest: the words between say
        // it all, and are few however long the history is.
        let first = if self.events.is_empty() { self.answered.len() } else { self.events.first() / 2 };
        let words = self.linearized.words();
        let between = if first <= self.highest { &words[first / 64..=self.highest / 64] } else { &[] };
        let mut key = Vec::with_capacity(1 + between.len() + self.state.len());
        key.push(first as u64);
        key.extend(between);
        key.extend(self.state.iter().map(|value| u64::from(value.number())));

        let used = self.used.words();
        let Some(sets) = self.visited.get_mut(key.as_slice()) else {
            self.visited.insert(key.into(), used.to_vec());
            return true;
        };
        if used.is_empty() || sets.chunks(used.len()).any(|set| is_subset(set, used)) {
            return false;
        }
        let mut kept: Vec<u64> = Vec::with_capacity(sets.len() + used.len());
        sets.chunks(used.len()).filter(|set| !is_subset(used, set)).for_each(|set| kept.extend(set));
        kept.extend(used);
        *sets = kept;
        true
    }

    /// Keeps the present order if it is the longest so far.
    fn remember(&mut self) {
        if self.answered_count > self.best.answered {
            self.best.order.truncate(self.best.common);
            self.best.order.extend(&self.order[self.best.common..]);
            self.best.common = self.order.len();
            self.best.answered = self.answered_count;
        }
    }
}
