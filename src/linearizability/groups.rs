//! Splits a history into parts that have no key in common.
//!
//! Operations that name a key in common belong together, and so on along chains of them: connected components, found
//! with a union-find forest over the operations. An operation without keys is a group of its own.

use std::collections::BTreeMap;

use super::operation::Operation;

/// The operations of one group in the order in which the search numbers them: the answered ones by their begin, then
/// the unanswered ones by theirs.
#[derive(Debug)]
pub(crate) struct Group<'h> {
    /// All operations that matter.
    pub(crate) operations: Vec<&'h Operation>,
    /// How many of them were answered; they come first.
    pub(crate) answered: usize,
}

/// The groups in the order of their first operations in the history.
pub(crate) fn split(history: &[Operation]) -> Vec<Group<'_>> {
    let mut parents: Vec<usize> = (0..history.len()).collect();
    let mut first_with: BTreeMap<&[u8], usize> = BTreeMap::new();
    for (index, operation) in history.iter().enumerate() {
        for key in operation.command.keys() {
            let other = *first_with.entry(key).or_insert(index);
            let (one, other) = (root(&mut parents, index), root(&mut parents, other));
            // The lower number becomes the root, so that a root is the first operation of its group.
            parents[one.max(other)] = one.min(other);
        }
    }
    let mut members: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for (index, operation) in history.iter().enumerate() {
        // A reader without an answer neither says anything nor does anything.
        if operation.outcome.is_some() || !operation.command.is_reader() {
            members.entry(root(&mut parents, index)).or_default().push(operation);
        }
    }
    members
        .into_values()
        .map(|mut operations| {
            operations.sort_by_key(|operation| (operation.outcome.is_none(), operation.begin));
            let answered = operations.partition_point(|operation| operation.outcome.is_some());
            Group { operations, answered }
        })
        // Without any answer there is nothing to be wrong.
        .filter(|group| group.answered > 0)
        .collect()
}

/// The root of an operation's tree; halves the way to it.
fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}
