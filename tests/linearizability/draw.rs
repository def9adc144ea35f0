//! Histories drawn at random that are linearizable by construction: each operation gets a point between its begin and
//! its end, and the store itself answers all operations in the order of their points.

use lanekv::linearizability::{Command, Operation, Outcome};
use lanekv::store::{Applied, Limits, Store, lookup};
use lanekv::types::{Index, Millis, Reply};
use lanekv::wire::batch::BatchCommand;

/// Numbers that look random and are the same in every run (splitmix64).
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    fn next(&mut self) -> u64 {
        lanekv::types::splitmix64(&mut self.0)
    }

    /// One below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 1) % bound
    }

    /// A place in a list of this length.
    pub(crate) fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below another")
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.place(choices.len())]
    }
}

/// Which commands are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mix {
    /// All that the store has.
    All,
    /// GET, SET and CAS.
    Register,
    /// INCRBY and GET.
    Counter,
    /// APPEND of a token that nobody else appends, and GET.
    List,
}

/// What a history is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) mix: Mix,
    pub(crate) operations: usize,
    pub(crate) clients: usize,
    pub(crate) keys: u64,
    /// How many different values are written.
    pub(crate) values: u64,
    /// How many operations have no answer; every other of those is never applied, the rest late or not.
    pub(crate) unanswered: usize,
    /// How long operations take and clients wait, at most.
    pub(crate) span: u64,
    /// How long a client waits at least from an answer to the next command; 0: these may touch.
    pub(crate) gap: u64,
}

/// An operation before it is answered.
struct Planned {
    operation: Operation,
    point: Option<u64>,
}

/// A linearizable history, in the order of the begins.
pub(crate) fn history(draw: &mut Draw, shape: Shape) -> Vec<Operation> {
    let mut ready = vec![0; shape.clients];
    let mut plans = Vec::new();
    for number in 0..shape.operations {
        // The client that has waited longest goes next, so that all work at the same time.
        let (client, now) = ready.iter().copied().enumerate().min_by_key(|(_, now)| *now).expect("a client");
        let begin = now + draw.below(shape.span);
        let point = begin + draw.below(shape.span);
        let end = point + draw.below(shape.span);
        ready[client] = end + shape.gap + draw.below(2);
        let command = command(draw, shape, number);
        let operation = Operation { client: client as u64, command, begin, end, outcome: None };
        plans.push(Planned { operation, point: Some(point) });
    }
    let mut answered = vec![true; plans.len()];
    for _ in 0..shape.unanswered {
        let place = draw.place(plans.len());
        answered[place] = false;
        let late = draw.below(20 * shape.span);
        plans[place].point = match draw.below(4) {
            0 => plans[place].point.map(|point| point + late),
            1 => plans[place].point,
            _ => None,
        };
    }
    let mut order: Vec<usize> = (0..plans.len()).filter(|place| plans[*place].point.is_some()).collect();
    order.sort_by_cached_key(|place| (plans[*place].point, draw.next()));
    let mut store = Store::new(Limits::default(), 1);
    for (index, place) in order.into_iter().enumerate() {
        let outcome = ask(&mut store, index as u64 + 1, &plans[place].operation.command);
        if answered[place] {
            plans[place].operation.outcome = Some(outcome);
        }
    }
    plans.into_iter().map(|plan| plan.operation).collect()
}

fn command(draw: &mut Draw, shape: Shape, number: usize) -> Command {
    let key = format!("k{}", draw.below(shape.keys)).into_bytes();
    let keys: Vec<Vec<u8>> =
        (0..1 + draw.below(2)).map(|_| format!("k{}", draw.below(shape.keys)).into_bytes()).collect();
    // Numbers, so that counters can work on them, and sometimes not.
    let mut value = || match draw.below(8) {
        0 if shape.mix == Mix::All => b"x".to_vec(),
        _ => draw.below(shape.values).to_string().into_bytes(),
    };
    let (value, other) = (value(), value());
    let expected = Some(other).filter(|_| shape.mix == Mix::Register || draw.below(4) > 0);
    let kind = match shape.mix {
        Mix::All => draw.below(14),
        Mix::Register => draw.of(&[0, 0, 3, 3, 8]),
        Mix::Counter => draw.of(&[0, 9]),
        Mix::List => draw.of(&[0, 10, 10]),
    };
    match kind {
        0 | 1 => Command::Get(vec![key]),
        2 => Command::Get(keys),
        3 => Command::Set(vec![(key, value)]),
        4 => Command::Set(keys.into_iter().map(|key| (key, value.clone())).collect()),
        5 => Command::SetIfAbsent(vec![(key, value)]),
        6 => Command::SetIfPresent { key, value },
        7 => Command::GetSet { key, value },
        8 => Command::CompareAndSet { key, expected, new: value },
        9 => Command::Add { key, by: draw.of(&[1, 1, 2, 3]) },
        10 if shape.mix == Mix::List => Command::Append { key, bytes: format!("{number:04} ").into_bytes() },
        10 => Command::Append { key, bytes: value },
        11 => Command::Delete(keys),
        12 => Command::Exists(keys),
        _ => Command::Length { key },
    }
}

/// Asks the store itself.
fn ask(store: &mut Store, index: u64, command: &Command) -> Outcome {
    let decimal;
    let (name, arguments): (&str, Vec<&[u8]>) = match command {
        Command::Get(keys) => ("MGET", keys.iter().map(Vec::as_slice).collect()),
        Command::Set(pairs) => ("MSET", pairs.iter().flat_map(|(key, value)| [&key[..], value]).collect()),
        Command::SetIfAbsent(pairs) => match pairs.as_slice() {
            [(key, value)] => ("SETNX", vec![key, value]),
            _ => panic!("the store has no MSETNX"),
        },
        Command::SetIfPresent { key, value } => ("SET", vec![key, value, b"XX"]),
        Command::GetSet { key, value } => ("GETSET", vec![key, value]),
        Command::CompareAndSet { key, expected: Some(expected), new } => ("CAS", vec![key, expected, new]),
        Command::CompareAndSet { key, expected: None, new } => ("SET", vec![key, new, b"NX"]),
        Command::Add { key, by } => {
            decimal = by.to_string();
            ("INCRBY", vec![key, decimal.as_bytes()])
        }
        Command::Append { key, bytes } => ("APPEND", vec![key, bytes]),
        Command::Delete(keys) => ("DEL", keys.iter().map(Vec::as_slice).collect()),
        Command::Exists(keys) => ("EXISTS", keys.iter().map(Vec::as_slice).collect()),
        Command::Length { key } => ("STRLEN", vec![key]),
    };
    let at = Applied { index: Index(index), now: Millis(0) };
    let code = lookup(name.as_bytes()).expect("the store has it").code;
    let reply = store.apply(at, &BatchCommand { session: None, code, arguments }, true);
    let flag = matches!(
        command,
        Command::SetIfAbsent(_) | Command::SetIfPresent { .. } | Command::CompareAndSet { .. }
    );
    match reply {
        Reply::Error(_) => Outcome::Failed,
        Reply::Nil if flag => Outcome::Flag(false),
        Reply::Status("OK") if flag => Outcome::Flag(true),
        Reply::Integer(number) if flag => Outcome::Flag(number == 1),
        Reply::Status("OK") => Outcome::Done,
        Reply::Integer(number) => Outcome::Integer(number),
        Reply::Array(values) => Outcome::Values(values.into_iter().map(value_of).collect()),
        single => Outcome::Values(vec![value_of(single)]),
    }
}

fn value_of(reply: Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::Nil => None,
        Reply::Bulk(bytes) => Some(bytes.to_vec()),
        other => panic!("{other:?} is no value"),
    }
}

/// Makes one answer another one of the same kind. Says which; `None`: no answer can be changed.
pub(crate) fn corrupt(draw: &mut Draw, shape: Shape, history: &mut [Operation]) -> Option<usize> {
    let can_change =
        |operation: &Operation| !matches!(operation.outcome, None | Some(Outcome::Done | Outcome::Failed));
    let places: Vec<usize> = (0..history.len()).filter(|place| can_change(&history[*place])).collect();
    if places.is_empty() {
        return None;
    }
    let place = draw.of(&places);
    match history[place].outcome.as_mut()? {
        Outcome::Values(values) => {
            let chosen = draw.place(values.len());
            let value = &mut values[chosen];
            let old = value.clone();
            if let (Mix::List, Some(list)) = (shape.mix, &mut *value)
                && list.len() >= 5
            {
                // A list without one of its tokens, which are five bytes long.
                let token = 5 * draw.place(list.len() / 5);
                list.drain(token..token + 5);
            }
            while *value == old {
                *value = match draw.below(4) {
                    0 => None,
                    _ => Some(draw.below(shape.values + 1).to_string().into_bytes()),
                };
            }
        }
        Outcome::Integer(number) => *number += if draw.below(2) == 0 { 1 } else { -1 },
        Outcome::Flag(flag) => *flag = !*flag,
        Outcome::Done | Outcome::Failed => {}
    }
    Some(place)
}
