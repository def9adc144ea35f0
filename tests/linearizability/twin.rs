//! The checker's dumb twin: tries all orders of at most a handful of operations, on a map of keys and values.

use std::collections::BTreeMap;

use lanekv::linearizability::{Command, Operation, Outcome};

/// Most operations that are worth trying.
pub(crate) const OPERATIONS_MAX: usize = 7;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Whether any order of the answered operations and some of the others fits.
pub(crate) fn is_linearizable(history: &[Operation]) -> bool {
    assert!(history.len() <= OPERATIONS_MAX, "too many orders");
    goes_on(history, &mut vec![false; history.len()], &State::new())
}

fn goes_on(history: &[Operation], taken: &mut [bool], state: &State) -> bool {
    let left = |taken: &[bool]| (0..history.len()).filter(|n| !taken[*n]).collect::<Vec<_>>();
    let left = left(taken);
    if left.iter().all(|n| history[*n].outcome.is_none()) {
        return true;
    }
    for n in left.iter().copied() {
        let precedes =
            |other: &usize| history[*other].outcome.is_some() && history[*other].end < history[n].begin;
        if left.iter().any(precedes) {
            continue;
        }
        let mut next = state.clone();
        let outcome = run(&history[n].command, &mut next);
        if history[n].outcome.as_ref().is_some_and(|seen| *seen != outcome) {
            continue;
        }
        taken[n] = true;
        let found = goes_on(history, taken, &next);
        taken[n] = false;
        if found {
            return true;
        }
    }
    false
}

fn integer(number: usize) -> Outcome {
    Outcome::Integer(i64::try_from(number).expect("small numbers"))
}

fn run(command: &Command, state: &mut State) -> Outcome {
    match command {
        Command::Get(keys) => Outcome::Values(keys.iter().map(|key| state.get(key).cloned()).collect()),
        Command::Set(pairs) => {
            state.extend(pairs.iter().cloned());
            Outcome::Done
        }
        Command::SetIfAbsent(pairs) => {
            let met = pairs.iter().all(|(key, _)| !state.contains_key(key));
            if met {
                state.extend(pairs.iter().cloned());
            }
            Outcome::Flag(met)
        }
        Command::SetIfPresent { key, value } => {
            Outcome::Flag(state.get_mut(key).map(|place| place.clone_from(value)).is_some())
        }
        Command::GetSet { key, value } => Outcome::Values(vec![state.insert(key.clone(), value.clone())]),
        Command::CompareAndSet { key, expected, new } => {
            let met = state.get(key) == expected.as_ref();
            if met {
                state.insert(key.clone(), new.clone());
            }
            Outcome::Flag(met)
        }
        Command::Add { key, by } => {
            let text = state.get(key).map_or("0".to_owned(), |bytes| String::from_utf8_lossy(bytes).into());
            let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            match number.and_then(|number| number.checked_add(*by)) {
                None => Outcome::Failed,
                Some(sum) => {
                    state.insert(key.clone(), sum.to_string().into_bytes());
                    Outcome::Integer(sum)
                }
            }
        }
        Command::Append { key, bytes } => {
            let value = state.entry(key.clone()).or_default();
            value.extend(bytes);
            integer(value.len())
        }
        Command::Delete(keys) => integer(keys.iter().filter(|key| state.remove(*key).is_some()).count()),
        Command::Exists(keys) => integer(keys.iter().filter(|key| state.contains_key(*key)).count()),
        Command::Length { key } => integer(state.get(key).map_or(0, Vec::len)),
    }
}
