//! Why a history is not linearizable, for somebody who has to find out how that came about.

use std::fmt;

use super::bits::Bits;
use super::groups::Group;
use super::model::Model;
use super::operation::{Operation, Quoted, Shown};
use super::tails::Tail;

/// Of a long list, so many are shown.
const SHOWN_COUNT: usize = 16;

/// The longest order that was found, and what stands behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The keys and their values after `prefix`: all keys of the group that is not linearizable.
    pub state: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// An order that fits the answers, as long as one was found; some of its operations may have had no answer.
    pub prefix: Vec<Operation>,
    /// Answered operations one of which would have to be next. None can be, not even after some of `unanswered`.
    pub stuck: Vec<Operation>,
    /// Operations without an answer that had begun by then and have no place in `prefix`.
    pub unanswered: Vec<Operation>,
    /// Operations that come later and read the longest value of a key that is only appended to: whatever is appended
    /// before must be a beginning of that, and an operation may be stuck for no other reason.
    pub ahead: Vec<Operation>,
    /// How many answered operations come later, those in `ahead` included.
    pub later: usize,
}

impl Explanation {
    /// `best` are the numbers of the operations that could be put into an order.
    pub(crate) fn new(group: &Group<'_>, best: &[usize]) -> Explanation {
        // Behind the last answered operation, unanswered ones were tried in vain.
        let len = best.iter().rposition(|number| *number < group.answered).map_or(0, |last| last + 1);
        let best = &best[..len];
        let mut model = Model::new(group);
        let mut state = model.initial();
        let mut taken = Bits::new(group.operations.len());
        for number in best {
            let mut changes = Vec::new();
            let fits = model.step(*number, &state, &taken, &mut changes);
            assert!(fits, "the search took an operation that does not fit: {}", group.operations[*number]);
            for (key, value) in changes {
                state[key] = value;
            }
            taken.insert(*number);
        }
        let copies = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<Operation> {
            numbers.map(|number| group.operations[number].clone()).collect()
        };
        let left = || (0..group.operations.len()).filter(|number| !taken.contains(*number));
        let ends =
            left().filter(|number| *number < group.answered).map(|number| group.operations[number].end);
        let first_end = ends.min().unwrap_or(u64::MAX);
        let begun = |number: &usize| group.operations[*number].begin <= first_end;
        let answered = |number: &usize| *number < group.answered;
        let goal_of = |key: &&[u8]| Tail::of_key(key, &group.operations)?.reader();
        let mut goals: Vec<usize> = model.keys().iter().filter_map(goal_of).collect();
        goals.sort_unstable();
        goals.dedup();
        Explanation {
            state: model
                .keys()
                .iter()
                .zip(&state)
                .map(|(key, value)| (key.to_vec(), model.bytes(*value).map(<[u8]>::to_vec)))
                .collect(),
            prefix: copies(&mut best.iter().copied()),
            stuck: copies(&mut left().filter(answered).filter(begun)),
            unanswered: copies(&mut left().filter(|number| !answered(number)).filter(begun)),
            ahead: copies(&mut goals.into_iter().filter(|number| !taken.contains(*number) && !begun(number))),
            later: left().filter(answered).filter(|number| !begun(number)).count(),
        }
    }
}

/// What is shown of `all`, its end or its beginning, and how many are not.
fn shown<T>(all: &[T], the_end: bool) -> (&[T], usize) {
    let hidden = all.len().saturating_sub(SHOWN_COUNT);
    let part = if the_end { &all[hidden..] } else { &all[..all.len() - hidden] };
    (part, hidden)
}

/// Some operations under a title; nothing if there are none.
fn list(f: &mut fmt::Formatter<'_>, title: &str, operations: &[Operation], the_end: bool) -> fmt::Result {
    if operations.is_empty() {
        return Ok(());
    }
    let (part, hidden) = shown(operations, the_end);
    writeln!(f, "{title}:")?;
    part.iter().try_for_each(|operation| writeln!(f, "       {operation}"))?;
    if hidden > 0 { writeln!(f, "       … and {hidden} more") } else { Ok(()) }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no order of the operations on")?;
        let (keys, hidden) = shown(&self.state, false);
        keys.iter().try_for_each(|(key, _)| write!(f, " {}", Quoted(key)))?;
        if hidden > 0 {
            write!(f, " and {hidden} more keys")?;
        }
        f.write_str(" fits their answers\n")?;

        if self.prefix.is_empty() {
            f.write_str("not even one can be first\n")?;
        } else {
            writeln!(f, "operations in the longest order that fits: {}", self.prefix.len())?;
        }
        let (steps, before) = shown(&self.prefix, true);
        if before > 0 {
            writeln!(f, "  … {before} before these")?;
        }
        for (place, operation) in steps.iter().enumerate() {
            writeln!(f, "  {:>3}. {operation}", before + place + 1)?;
        }

        f.write_str("the state then:")?;
        for (key, value) in keys {
            write!(f, " {} = {}", Quoted(key), Shown(value.as_deref()))?;
        }
        f.write_str(if hidden > 0 { " …\n" } else { "\n" })?;

        list(f, "one of these would have to be next, and none can be", &self.stuck, false)?;
        let help = "nor does it help if some of these, which had no answer, come first";
        list(f, help, &self.unanswered, true)?;
        let ahead = "nothing may be appended that is not in the values that these read later";
        list(f, ahead, &self.ahead, false)?;
        write!(f, "answered operations that come later: {}", self.later)
    }
}
