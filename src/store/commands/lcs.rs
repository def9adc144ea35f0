//! `LCS`: the longest common subsequence of two values, by the usual table.

use crate::store::Store;
use crate::store::command::{Answer, CommandSpec, KeyPositions, Run};
use crate::store::error::CommandError;
use crate::types::Reply;

use super::{READ, count_reply, is, parse_integer};

/// Cells of the table: what can be filled in some hundredths of a second.
const CELL_COUNT_MAX: usize = 1 << 24;

pub(crate) static COMMANDS: [CommandSpec; 1] = [CommandSpec {
    name: "LCS",
    code: 28,
    arity: -3,
    keys: KeyPositions { first: 1, last: 2, step: 1 },
    usage: "key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]",
    summary: "answers the longest sequence of bytes that two values have in common, not necessarily in one piece",
    check: check_lcs,
    run: Run::Read(lcs),
    ..READ
}];

#[derive(Default)]
struct Options {
    len_only: bool,
    places: bool,
    with_len: bool,
    len_min: usize,
}

fn options(mut rest: &[&[u8]]) -> Result<Options, CommandError> {
    let mut parsed = Options::default();
    while let [option, after @ ..] = rest {
        rest = after;
        match () {
            () if is(option, "IDX") => parsed.places = true,
            () if is(option, "LEN") => parsed.len_only = true,
            () if is(option, "WITHMATCHLEN") => parsed.with_len = true,
            () if is(option, "MINMATCHLEN") && !after.is_empty() => {
                parsed.len_min = usize::try_from(parse_integer(after[0])?).unwrap_or(0);
                rest = &after[1..];
            }
            () => return Err(CommandError::Syntax),
        }
    }
    if parsed.places && parsed.len_only { Err(CommandError::LengthAndPlaces) } else { Ok(parsed) }
}

fn check_lcs(arguments: &[&[u8]]) -> Result<(), CommandError> {
    options(arguments.get(2..).unwrap_or_default()).map(|_| ())
}

/// A run that is in both values: its first places and its length.
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

fn lcs(store: &Store, arguments: &[&[u8]]) -> Answer {
    let [first, second, rest @ ..] = arguments else { return Err(CommandError::Syntax) };
    let options = options(rest)?;
    let value = |key: &[u8]| store.keys.value(key).unwrap_or_default();
    let (a, b) = (value(first), value(second));
    let width = b.len() + 1;
    if (a.len() + 1).saturating_mul(width) > CELL_COUNT_MAX {
        return Err(CommandError::SequencesTooLong);
    }
    // Row by row: the length of what the first i bytes of one and the first j of the other have in common.
    let mut table = vec![0u32; (a.len() + 1) * width];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            table[i * width + j] = if a[i - 1] == b[j - 1] {
                table[(i - 1) * width + j - 1] + 1
            } else {
                table[(i - 1) * width + j].max(table[i * width + j - 1])
            };
        }
    }
    let len = table.last().map_or(0, |len| usize::try_from(*len).unwrap_or(0));
    if options.len_only {
        return Ok(count_reply(len));
    }
    let (mut i, mut j) = (a.len(), b.len());
    let (mut common, mut matches) = (Vec::new(), Vec::<Match>::new());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            common.push(a[i - 1]);
            match matches.last_mut() {
                Some(run) if run.a == i && run.b == j => {
                    *run = Match { a: i - 1, b: j - 1, len: run.len + 1 };
                }
                _ => matches.push(Match { a: i - 1, b: j - 1, len: 1 }),
            }
            i -= 1;
            j -= 1;
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    common.reverse();
    if !options.places {
        return Ok(Reply::bulk(&common));
    }
    let range =
        |start: usize, len: usize| Reply::Array(vec![count_reply(start), count_reply(start + len - 1)]);
    let listed = matches.iter().filter(|run| run.len >= options.len_min).map(|run| {
        let mut entry = vec![range(run.a, run.len), range(run.b, run.len)];
        if options.with_len {
            entry.push(count_reply(run.len));
        }
        Reply::Array(entry)
    });
    let matches = Reply::Array(listed.collect());
    Ok(Reply::Map(vec![Reply::bulk(b"matches"), matches, Reply::bulk(b"len"), count_reply(len)]))
}
