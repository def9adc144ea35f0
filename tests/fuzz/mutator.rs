//! Inputs made from other inputs.
//!
//! There is no feedback from the code under test, as libFuzzer has it. What replaces it is knowledge of the formats:
//! seeds from the real encoders, the parts of an input and how to make one whole again, and words that mean
//! something.

use super::bodies::{Parts, Target};

/// Longest input that is made, in bytes.
const LEN_MAX: usize = 1536;

/// Numbers at which decoders go wrong.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    4095,
    4096,
    65_535,
    65_536,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 48,
    (1 << 48) + 1,
    0x7fff_ffff_ffff_ffff,
    u64::MAX - 1,
    u64::MAX,
];

/// A seeded generator (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        lanekv::types::splitmix64(&mut self.0)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 1).expect("63 bits fit") % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn choose<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// A place and a length, most often short, within so many bytes.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let most = match self.below(4) {
            0 => len,
            1 => 32,
            _ => 8,
        };
        start..len.min(start + 1 + self.below(most))
    }
}

/// Makes inputs for one target.
pub(crate) struct Mutator<'a> {
    random: Random,
    target: &'a Target,
    corpus: &'a [Vec<u8>],
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, target: &'a Target, corpus: &'a [Vec<u8>]) -> Mutator<'a> {
        assert!(!corpus.is_empty(), "there is a seed to begin with");
        Mutator { random: Random::new(seed), target, corpus }
    }

    /// The next input.
    pub(crate) fn next_input(&mut self, input: &mut Vec<u8>) {
        input.clear();
        input.extend_from_slice(self.random.choose(self.corpus).expect("there are seeds"));
        // Few changes find what is nearly right, many what is nearly noise.
        let rounds = 1 + (self.random.next() >> 60).trailing_zeros().min(4);
        for _ in 0..rounds {
            match self.target.parts {
                Some(parts) if self.random.below(4) > 0 => self.change_parts(parts, input),
                _ => self.change_bytes(input),
            }
        }
        input.truncate(LEN_MAX);
    }

    /// Drops, repeats, moves, mixes or changes whole parts. What steers a body, in the first byte, is no part: the
    /// targets with such a byte have parts that begin behind it.
    fn change_parts(&mut self, parts: Parts, input: &mut Vec<u8>) {
        let head_len = parts.head_len.min(input.len());
        let mut list: Vec<Vec<u8>> =
            (parts.split)(&input[head_len..]).into_iter().map(<[u8]>::to_vec).collect();
        let at = self.random.below(list.len());
        match self.random.below(12) {
            _ if list.is_empty() => {}
            0 => drop(list.remove(at)),
            1 => {
                let to = self.random.below(list.len());
                list.insert(to, list[at].clone());
            }
            2 => {
                let to = self.random.below(list.len());
                list.swap(at, to);
            }
            3 | 4 => {
                let other = self.random.choose(self.corpus).expect("there are seeds");
                let other = (parts.split)(other.get(head_len..).unwrap_or_default());
                if let Some(part) = self.random.choose(&other) {
                    list.insert(at, part.to_vec());
                }
            }
            _ => {
                self.change_bytes(&mut list[at]);
                (parts.seal)(&mut list[at]);
            }
        }
        input.truncate(head_len);
        list.iter().for_each(|part| input.extend_from_slice(part));
    }

    /// One change that knows nothing of any format.
    fn change_bytes(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        let len = bytes.len();
        match random.below(14) {
            _ if len == 0 => bytes.push(random.byte()),
            0 | 1 => bytes[random.below(len)] ^= 1 << random.below(8),
            2 => bytes[random.below(len)] = random.byte(),
            3 => {
                let byte = &mut bytes[random.below(len)];
                let by = 1 + random.byte() % 4;
                *byte = if random.below(2) == 0 { byte.wrapping_add(by) } else { byte.wrapping_sub(by) };
            }
            4 | 5 => {
                let edge = EDGES[random.below(EDGES.len())];
                let width = 1 << random.below(4);
                let at = random.below(len);
                let big_endian = random.below(8) == 0;
                let edge = if big_endian { edge.to_be_bytes() } else { edge.to_le_bytes() };
                let edge = if big_endian { &edge[8 - width..] } else { &edge[..width] };
                bytes.iter_mut().skip(at).zip(edge).for_each(|(byte, new)| *byte = *new);
            }
            6 => {
                let at = random.below(len + 1);
                let new: Vec<u8> = (0..=random.below(8)).map(|_| random.byte()).collect();
                bytes.splice(at..at, new);
            }
            7 => drop(bytes.drain(random.range(len))),
            8 => {
                let part = bytes[random.range(len)].to_vec();
                let at = random.below(len + 1);
                let times = if random.below(8) == 0 { 1 + random.below(20) } else { 1 };
                bytes.splice(at..at, part.repeat(times));
            }
            // A number that stands elsewhere, here or in another input: identities, timestamps, views.
            9 => {
                let other = random.choose(self.corpus).expect("there are seeds");
                let other = if random.below(2) == 0 { other.as_slice() } else { bytes.as_slice() };
                let from = random.below(other.len());
                let part: Vec<u8> = other[from..].iter().take(8).copied().collect();
                let at = random.below(len);
                bytes.iter_mut().skip(at).zip(part).for_each(|(byte, new)| *byte = new);
            }
            10 => {
                let other = random.choose(self.corpus).expect("there are seeds");
                bytes.truncate(random.below(len + 1));
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            11 => bytes.truncate(random.below(len)),
            _ => {
                let Some(word) = random.choose(self.target.words) else { return };
                let at = random.below(len + 1);
                let end = if random.below(2) == 0 { at } else { len.min(at + word.len()) };
                bytes.splice(at..end, word.iter().copied());
            }
        }
    }
}
