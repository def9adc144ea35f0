//! Values as rows of bits: `SETBIT`, `BITCOUNT` and their relatives. Bit 0 is the highest of the first byte.

use crate::store::command::{Answer, CommandSpec, Group, KeyPositions, Run};
use crate::store::error::CommandError;
use crate::store::under_way::{Piece, Progress};
use crate::store::{Applied, EventClass, Store};
use crate::types::{Reply, limits};

use super::{READ, WRITE, count_reply, exactly, is, parse_integer};

pub(crate) static COMMANDS: [CommandSpec; 5] = [
    CommandSpec {
        name: "SETBIT",
        code: 29,
        arity: 4,
        group: Group::Bitmap,
        usage: "key offset value",
        summary: "sets or clears a bit, with zeros before it if need be, and answers what it was",
        check: check_setbit,
        run: Run::Write(setbit),
        ..WRITE
    },
    CommandSpec {
        name: "GETBIT",
        code: 30,
        arity: 3,
        group: Group::Bitmap,
        usage: "key offset",
        summary: "answers a bit, 0 behind the end",
        check: check_getbit,
        run: Run::Read(getbit),
        ..READ
    },
    CommandSpec {
        name: "BITCOUNT",
        code: 31,
        arity: -2,
        group: Group::Bitmap,
        usage: "key [start end [BYTE | BIT]]",
        summary: "answers how many bits are set",
        run: Run::Read(bitcount),
        ..READ
    },
    CommandSpec {
        name: "BITPOS",
        code: 32,
        arity: -3,
        group: Group::Bitmap,
        usage: "key bit [start [end [BYTE | BIT]]]",
        summary: "answers where the first bit is set, or clear",
        run: Run::Read(bitpos),
        ..READ
    },
    CommandSpec {
        name: "BITOP",
        code: 33,
        arity: -4,
        keys: KeyPositions { first: 2, last: -1, step: 1 },
        group: Group::Bitmap,
        usage: "AND | OR | XOR | NOT destkey key [key ...]",
        summary: "puts values together bit by bit, keeps the result at a key and answers its length",
        check: check_bitop,
        run: Run::Pieces(begin_bitop),
        ..WRITE
    },
];

/// A bit's number, such that its byte is one that a value can have.
fn parse_offset(text: &[u8]) -> Result<usize, CommandError> {
    let offset = parse_integer(text).map_err(|_| CommandError::BitOffset)?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::BitOffset)?;
    if offset / 8 >= limits::VALUE_LEN_CEILING { Err(CommandError::BitOffset) } else { Ok(offset) }
}

fn parse_bit(text: &[u8]) -> Result<bool, CommandError> {
    match text {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(CommandError::BitValue),
    }
}

fn bit(value: &[u8], offset: usize) -> bool {
    value.get(offset / 8).is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1)
}

fn check_setbit(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, offset, value] = exactly(arguments)?;
    parse_offset(offset)?;
    parse_bit(value).map(|_| ())
}

fn setbit(store: &mut Store, at: Applied, arguments: &[&[u8]]) -> Answer {
    let [key, offset, wanted] = exactly(arguments)?;
    let (offset, wanted) = (parse_offset(offset)?, parse_bit(wanted)?);
    let old = store.keys.value(key).unwrap_or_default();
    let was = bit(old, offset);
    let mut value = old.to_vec();
    value.resize(value.len().max(offset / 8 + 1), 0);
    let mask = 0x80 >> (offset % 8);
    if wanted {
        value[offset / 8] |= mask;
    } else {
        value[offset / 8] &= !mask;
    }
    store.keys.update(key, &value, at.index);
    store.note(EventClass::String, "setbit", key);
    Ok(Reply::Integer(i64::from(was)))
}

fn check_getbit(arguments: &[&[u8]]) -> Result<(), CommandError> {
    let [_, offset] = exactly(arguments)?;
    parse_offset(offset).map(|_| ())
}

fn getbit(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key, offset] = exactly(arguments)?;
    let offset = parse_offset(offset)?;
    Ok(Reply::Integer(i64::from(store.keys.value(key).is_some_and(|value| bit(value, offset)))))
}

/// Whether places count bits; bytes without a word.
fn counts_bits(unit: &[&[u8]]) -> Result<bool, CommandError> {
    match unit {
        [] => Ok(false),
        [unit] if is(unit, "BIT") => Ok(true),
        [unit] if is(unit, "BYTE") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

/// The bits from `start` to `end`, both included, in bytes or bits, as numbers of bits; `None` if there are none.
fn bit_range(start: i64, end: i64, len: usize, in_bits: bool) -> Option<(usize, usize)> {
    if in_bits {
        return super::ranges::inside(start, end, len * 8);
    }
    super::ranges::inside(start, end, len).map(|(first, last)| (first * 8, last * 8 + 7))
}

fn bitcount(store: &Store, arguments: &[&[u8]]) -> Answer {
    let (key, range) = match arguments {
        [key] => (key, None),
        [key, start, end, unit @ ..] if unit.len() <= 1 => (key, Some((start, end, unit))),
        // Redis looks at the key before it looks at the number of arguments.
        [key, ..] if store.keys.get(key).is_none() => return Ok(Reply::Integer(0)),
        _ => return Err(CommandError::Syntax),
    };
    let Some(value) = store.keys.value(key) else { return Ok(Reply::Integer(0)) };
    let (first, last) = match range {
        None if value.is_empty() => return Ok(Reply::Integer(0)),
        None => (0, value.len() * 8 - 1),
        Some((start, end, unit)) => {
            let (start, end) = (parse_integer(start)?, parse_integer(end)?);
            // Redis answers this one before it looks at the unit.
            if start < 0 && end < 0 && start > end {
                return Ok(Reply::Integer(0));
            }
            match bit_range(start, end, value.len(), counts_bits(unit)?) {
                Some(range) => range,
                None => return Ok(Reply::Integer(0)),
            }
        }
    };
    let bytes = &value[first / 8..=last / 8];
    let mut count: u64 = bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
    let outside = (first / 8 * 8..first).chain(last + 1..(last / 8 + 1) * 8);
    count -= outside.filter(|place| bit(value, *place)).count() as u64;
    Ok(Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn bitpos(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [key, wanted, places @ ..] = arguments else { return Err(CommandError::Syntax) };
    let wanted = match parse_integer(wanted)? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::BitArgument),
    };
    let Some(value) = store.keys.value(key) else {
        return Ok(Reply::Integer(if wanted { -1 } else { 0 }));
    };
    let (range, ends) = match places {
        [_, _, _, _, ..] => return Err(CommandError::Syntax),
        [] => (bit_range(0, -1, value.len(), false), false),
        [start] => (bit_range(parse_integer(start)?, -1, value.len(), false), false),
        [start, end, unit @ ..] => {
            let start = parse_integer(start)?;
            let in_bits = counts_bits(unit)?;
            (bit_range(start, parse_integer(end)?, value.len(), in_bits), true)
        }
    };
    let Some((first, last)) = range else { return Ok(Reply::Integer(-1)) };
    let boring = if wanted { 0 } else { 0xff };
    let mut place = first;
    while place <= last {
        if place.is_multiple_of(8) && value[place / 8] == boring {
            place += 8;
            continue;
        }
        if bit(value, place) == wanted {
            return Ok(count_reply(place));
        }
        place += 1;
    }
    // A value is taken for followed by zeros, unless the client said where it ends.
    Ok(if wanted || ends { Reply::Integer(-1) } else { count_reply(value.len() * 8) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

fn operation(arguments: &[&[u8]]) -> Result<Operation, CommandError> {
    let [name, _, sources @ ..] = arguments else { return Err(CommandError::Syntax) };
    match () {
        () if is(name, "AND") => Ok(Operation::And),
        () if is(name, "OR") => Ok(Operation::Or),
        () if is(name, "XOR") => Ok(Operation::Xor),
        () if is(name, "NOT") && sources.len() == 1 => Ok(Operation::Not),
        () if is(name, "NOT") => Err(CommandError::SeveralToInvert),
        () => Err(CommandError::Syntax),
    }
}

fn check_bitop(arguments: &[&[u8]]) -> Result<(), CommandError> {
    operation(arguments).map(|_| ())
}

/// `BITOP`, a source at a time. A source that is shorter than another is taken for followed by zeros.
pub(crate) struct Combination {
    operation: Operation,
    /// How many sources are in the result.
    done: usize,
    /// Behind it the result has zeros, up to its length.
    result: Vec<u8>,
    len: usize,
}

impl Combination {
    pub(crate) fn go_on(&mut self, store: &mut Store, piece: Piece, arguments: &[&[u8]]) -> Option<Answer> {
        let [_, destination, sources @ ..] = arguments else { return Some(Err(CommandError::Syntax)) };
        while let Some(source) = sources.get(self.done) {
            self.take_in(store.keys.value(source).unwrap_or_default());
            self.done += 1;
            // The end counts as well, for it writes the result.
            if piece.ends(store, 1) {
                return None;
            }
        }
        self.result.resize(self.len, 0);
        if self.len == 0 {
            if store.keys.remove(destination).is_some() {
                store.note(EventClass::Generic, "del", destination);
            }
        } else {
            store.keys.set(destination, &self.result, piece.at.index);
            store.note(EventClass::String, "set", destination);
        }
        Some(Ok(count_reply(self.len)))
    }

    fn take_in(&mut self, value: &[u8]) {
        let Combination { operation, done, result, len } = self;
        *len = value.len().max(*len);
        if *done == 0 {
            *result = value.to_vec();
            if *operation == Operation::Not {
                result.iter_mut().for_each(|byte| *byte = !*byte);
            }
            return;
        }
        let result_len = match operation {
            // Only where both have bytes can there be ones.
            Operation::And => result.len().min(value.len()),
            Operation::Or | Operation::Xor | Operation::Not => *len,
        };
        result.resize(result_len, 0);
        for (byte, other) in result.iter_mut().zip(value) {
            match operation {
                Operation::And => *byte &= other,
                Operation::Or => *byte |= other,
                Operation::Xor | Operation::Not => *byte ^= other,
            }
        }
    }
}

fn begin_bitop(arguments: &[&[u8]]) -> Result<Progress, CommandError> {
    let operation = operation(arguments)?;
    Ok(Progress::Combination(Combination { operation, done: 0, result: Vec::new(), len: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Limits;
    use crate::store::tests::SplitMix;
    use crate::types::Index;
    use crate::wire::batch::BatchCommand;

    #[test]
    fn values_of_different_lengths_are_put_together_as_if_zeros_followed() {
        let mut random = SplitMix(4);
        for index in 0..2_000 {
            let mut store = Store::new(Limits::default(), 1);
            let values: Vec<Vec<u8>> = (0..1 + random.below(5))
                .map(|_| (0..random.below(6)).map(|_| *random.pick(&[0, 255, 1, 170])).collect())
                .collect();
            let names: Vec<Vec<u8>> = (0..values.len()).map(|i| i.to_string().into_bytes()).collect();
            for (name, value) in names.iter().zip(&values).filter(|(_, value)| !value.is_empty()) {
                store.keys.set(name, value, Index(1));
            }
            let len = values.iter().map(Vec::len).max().unwrap_or(0);
            let padded: Vec<Vec<u8>> = values
                .iter()
                .map(|value| value.iter().copied().chain(std::iter::repeat(0)).take(len).collect())
                .collect();
            let word = [&b"AND"[..], b"OR", b"XOR"][index % 3];
            let combine = |a: u8, b: u8| match word {
                b"AND" => a & b,
                b"OR" => a | b,
                _ => a ^ b,
            };
            let columns = (0..len).map(|i| padded.iter().map(|value| value[i]).reduce(combine));
            let expected: Vec<u8> = columns.map(|byte| byte.expect("at least one")).collect();
            let mut arguments: Vec<&[u8]> = vec![word, b"0"];
            arguments.extend(names.iter().map(Vec::as_slice));
            let at = Applied { index: Index(2), now: crate::types::Millis(1) };
            let command = BatchCommand { session: None, code: 33, arguments };
            assert_eq!(store.apply(at, &command, true), count_reply(len));
            assert_eq!(store.keys.value(b"0").unwrap_or_default(), expected, "{word:?} {values:?}");
        }
    }
}
