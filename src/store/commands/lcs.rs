//! `LCS`: the longest common subsequence of two values, by the usual table, which is filled in pieces.

use crate::store::Store;
use crate::store::command::{Answer, CommandSpec, KeyPositions, Long, Run, When};
use crate::store::error::CommandError;
use crate::store::keyspace::Keyspace;
use crate::store::long_read::Task;
use crate::types::{Item, Reply};

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
    long: Some(Long {
        when: When::Arguments(2),
        begin: |store, arguments| Task::compare(&store.keys, arguments),
    }),
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

/// `LCS` on its way. The table says for each place of one value and of the other how long a sequence the bytes up to
/// there have in common. It is filled row by row, and only the last row is kept whole. Of all others one bit for each
/// cell tells which way back is the better one.
pub(crate) struct Comparison {
    options: Options,
    a: Option<Item>,
    b: Option<Item>,
    /// The next cell to be filled: that of this byte of `a` and this byte of `b`.
    i: usize,
    j: usize,
    /// The row of `i` up to `j`, and from there on the one above.
    row: Vec<u32>,
    /// The cell above the last one that was filled; 0 at the beginning of a row.
    diagonal: u32,
    /// For each cell, row by row, whether the one above it is more than the one to its left.
    goes_up: Vec<u64>,
    way_back: Option<WayBack>,
}

/// From the last cell to the first.
#[derive(Default)]
struct WayBack {
    i: usize,
    j: usize,
    /// What was found, from the end on.
    common: Vec<u8>,
    matches: Vec<Match>,
}

impl Comparison {
    pub(crate) fn begin(keys: &Keyspace, arguments: &[&[u8]]) -> Result<Comparison, CommandError> {
        let [first, second, rest @ ..] = arguments else { return Err(CommandError::Syntax) };
        let options = options(rest)?;
        let (a, b) = (keys.get(first).cloned(), keys.get(second).cloned());
        let (height, width) = (value_of(&a).len(), value_of(&b).len());
        if (height + 1).saturating_mul(width + 1) > CELL_COUNT_MAX {
            return Err(CommandError::SequencesTooLong);
        }
        let width = if height == 0 { 0 } else { width };
        let bits = if options.len_only { 0 } else { height * width };
        let (row, goes_up) = (vec![0; width], vec![0; bits.div_ceil(64)]);
        Ok(Comparison { options, a, b, i: 0, j: 0, row, diagonal: 0, goes_up, way_back: None })
    }

    /// Visits at most so many cells, at least one, and returns the answer once it is there. Takes those that were
    /// visited off `max`.
    pub(crate) fn step(&mut self, max: &mut usize) -> Option<Reply> {
        *max = (*max).max(1);
        let (a, b) = (self.a.take(), self.b.take());
        let answer = self.step_through(value_of(&a), value_of(&b), max);
        (self.a, self.b) = (a, b);
        answer
    }

    fn step_through(&mut self, a: &[u8], b: &[u8], max: &mut usize) -> Option<Reply> {
        while self.i < a.len() && !b.is_empty() {
            if *max == 0 {
                return None;
            }
            *max -= self.fill(a[self.i], b, *max);
        }
        let len = self.row.last().map_or(0, |len| usize::try_from(*len).unwrap_or(0));
        if self.options.len_only {
            return Some(count_reply(len));
        }
        let way_back =
            self.way_back.get_or_insert_with(|| WayBack { i: a.len(), j: b.len(), ..WayBack::default() });
        while way_back.i > 0 && way_back.j > 0 {
            if *max == 0 {
                return None;
            }
            way_back.step(a, b, &self.goes_up);
            *max -= 1;
        }
        Some(way_back.reply(&self.options, len))
    }

    /// Fills at most so many cells of the row of this byte, and returns how many.
    fn fill(&mut self, byte: u8, b: &[u8], max: usize) -> usize {
        let Comparison { i, j, row, diagonal, goes_up, .. } = self;
        let (from, to) = (*j, b.len().min(j.saturating_add(max)));
        let mut left = if from == 0 { 0 } else { row[from - 1] };
        let row_at = *i * b.len();
        for (place, (cell, other)) in row[from..to].iter_mut().zip(&b[from..to]).enumerate() {
            let above = *cell;
            if byte == *other {
                *cell = *diagonal + 1;
            } else {
                let bit = row_at + from + place;
                if let Some(bits) = goes_up.get_mut(bit / 64) {
                    *bits |= u64::from(above > left) << (bit % 64);
                }
                *cell = above.max(left);
            }
            (*diagonal, left) = (above, *cell);
        }
        *j = to;
        if to == b.len() {
            (*i, *j, *diagonal) = (*i + 1, 0, 0);
        }
        to - from
    }
}

impl WayBack {
    fn step(&mut self, a: &[u8], b: &[u8], goes_up: &[u64]) {
        let WayBack { i, j, common, matches } = self;
        let bit = (*i - 1) * b.len() + *j - 1;
        if a[*i - 1] == b[*j - 1] {
            common.push(a[*i - 1]);
            match matches.last_mut() {
                Some(run) if run.a == *i && run.b == *j => {
                    *run = Match { a: *i - 1, b: *j - 1, len: run.len + 1 };
                }
                _ => matches.push(Match { a: *i - 1, b: *j - 1, len: 1 }),
            }
            *i -= 1;
            *j -= 1;
        } else if goes_up[bit / 64] >> (bit % 64) & 1 == 1 {
            *i -= 1;
        } else {
            *j -= 1;
        }
    }

    fn reply(&mut self, options: &Options, len: usize) -> Reply {
        if !options.places {
            self.common.reverse();
            return Reply::bulk(&self.common);
        }
        let range =
            |start: usize, len: usize| Reply::Array(vec![count_reply(start), count_reply(start + len - 1)]);
        let listed = self.matches.iter().filter(|run| run.len >= options.len_min).map(|run| {
            let mut entry = vec![range(run.a, run.len), range(run.b, run.len)];
            if options.with_len {
                entry.push(count_reply(run.len));
            }
            Reply::Array(entry)
        });
        let matches = Reply::Array(listed.collect());
        Reply::Map(vec![Reply::bulk(b"matches"), matches, Reply::bulk(b"len"), count_reply(len)])
    }
}

fn value_of(item: &Option<Item>) -> &[u8] {
    item.as_ref().map_or(&[], Item::value)
}

fn lcs(store: &Store, arguments: &[&[u8]]) -> Answer {
    Ok(Task::compare(&store.keys, arguments).run(&store.keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Limits;
    use crate::store::tests::SplitMix;
    use crate::types::Index;

    /// The whole table, as in the books, and what is found on the way back through it: the bytes, and their places.
    fn naive(a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<(usize, usize)>) {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                table[i][j] = if a[i - 1] == b[j - 1] {
                    table[i - 1][j - 1] + 1
                } else {
                    table[i - 1][j].max(table[i][j - 1])
                };
            }
        }
        let (mut i, mut j, mut places) = (a.len(), b.len(), Vec::new());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                places.push((i, j));
            } else if table[i - 1][j] > table[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        (places.iter().rev().map(|(i, _)| a[*i]).collect(), places)
    }

    #[test]
    fn in_pieces_it_finds_what_the_whole_table_shows() {
        let mut random = SplitMix(3);
        for _ in 0..500 {
            let mut store = Store::new(Limits::default(), 1);
            let mut value = |max| (0..random.below(max)).map(|_| *random.pick(b"abc")).collect::<Vec<u8>>();
            let (a, b) = (value(40), value(90));
            store.keys.set(b"a", &a, Index(1));
            store.keys.set(b"b", &b, Index(1));
            let (common, places) = naive(&a, &b);
            let run = |options: &[&[u8]], max: usize| {
                let arguments = [&[&b"a"[..], b"b"], options].concat();
                let mut comparison = Comparison::begin(&store.keys, &arguments).expect("short");
                for _ in 0..=2 * (a.len() * b.len() + a.len() + b.len()) {
                    let mut left = max;
                    if let Some(reply) = comparison.step(&mut left) {
                        return reply;
                    }
                    assert_eq!(left, 0);
                }
                panic!("no end");
            };
            for max in [1, 7, usize::MAX] {
                assert_eq!(run(&[], max), Reply::bulk(&common));
                assert_eq!(run(&[b"LEN"], max), count_reply(common.len()));
                let Reply::Map(entries) = run(&[b"IDX"], max) else { panic!("a map") };
                let Reply::Array(runs) = &entries[1] else { panic!("an array") };
                // Each run from its end on, as the way back goes.
                let mut listed = Vec::new();
                for run in runs {
                    let Reply::Array(ranges) = run else { panic!("two ranges") };
                    let [Reply::Array(of_a), Reply::Array(of_b)] = &ranges[..] else { panic!("ranges") };
                    let number = |reply: &Reply| match reply {
                        Reply::Integer(value) => usize::try_from(*value).expect("small"),
                        other => panic!("{other:?}"),
                    };
                    let (from, to) = (number(&of_a[0]), number(&of_a[1]));
                    listed.extend((from..=to).rev().map(|i| (i, number(&of_b[0]) + i - from)));
                }
                assert_eq!(listed, places);
            }
        }
    }
}
